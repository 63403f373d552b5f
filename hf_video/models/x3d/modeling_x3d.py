"""X3D (Feichtenhofer, 2020, arXiv:2004.04730), table 1, after PyTorchVideo's `create_x3d`.

A mobile image network expanded along one axis at a time: inverted bottlenecks (1×1, depth-wise 3×3×3, 1×1) with gates
on every second block, few channels and no halving of time anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.base.modeling import VideoClassifier
from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
from hf_video.base.outputs import VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.causal import Stream, running_mean
from hf_video.layers.convolution import ConvBlock, ConvNormAct, convolve, tokens, window_means
from hf_video.layers.linear import is_plain, on_rows
from hf_video.models.x3d.configuration_x3d import X3DConfig, round_width


def call(conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """conv(x), by `convolve` where that is all a call does."""
    if not is_plain(conv, nn.Conv3d):
        return conv(x)
    return convolve(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


@dataclass
class X3DModelOutput(VideoModelOutput):
    """`last_hidden_state` (B, T·h·w, 432), and `pooled` (B, h', w', 2048): the layer before the classifier, at every
    place of the pooled map."""

    pooled: torch.Tensor | None = None


class X3DStem(nn.Module):
    """A convolution in space, one in time for each channel, norm, ReLU: (B, C, T, H, W) -> (B, D, T, H/2, W/2)."""

    def __init__(self, config: X3DConfig) -> None:
        super().__init__()
        width = config.widths[0]
        self.space = nn.Conv3d(config.num_channels, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.time = ConvNormAct(width, width, (5, 1, 1), groups=width, causal=config.causal)

    def forward(self, x: torch.Tensor, stream: Stream | None = None) -> torch.Tensor:
        return self.time(call(self.space, x), stream)


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation (Hu et al., 2018): channels weighed by what the whole map shows; or, with `frames`, each
    frame's by what the last so many showed."""

    frames = 0

    def __init__(self, channels: int, squeezed: int, frames: int = 0) -> None:
        super().__init__()
        self.frames = frames
        self.squeeze = nn.Conv3d(channels, squeezed, 1)
        self.excite = nn.Conv3d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor, stream: Stream | None = None) -> torch.Tensor:
        if self.frames:
            means = running_mean(x.mean((3, 4), keepdim=True), self.frames, self, stream)
        else:
            means = x.mean((2, 3, 4), keepdim=True)
        return x * self.excite(F.relu(self.squeeze(means))).sigmoid()


Gate = SqueezeExcitation  # as whole models that 0.1.0 pickled name it


class X3DBlock(ConvBlock):
    """(B, C, T, H, W) -> (B, D, T, H', W').

    With `frames` none sees a later one, and the gates average that many up to each.

    The last norm starts at one, where the authors' training starts it at zero: only the blocks tell the two ways of a
    motion apart (the stem's filters are space times time), and without them a model from scratch stays undecided."""

    def __init__(
        self, in_channels: int, inner: int, out_channels: int, *, stride: int, squeezed: int, frames: int = 0
    ) -> None:
        super().__init__()
        strides = (1, stride, stride)
        self.conv_a = ConvNormAct(in_channels, inner)
        self.conv_b = ConvNormAct(inner, inner, (3, 3, 3), strides, groups=inner, act=False, causal=frames > 0)
        self.gate = SqueezeExcitation(inner, squeezed, frames) if squeezed else None
        self.conv_c = ConvNormAct(inner, out_channels, act=False)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = ConvNormAct(in_channels, out_channels, stride=strides, act=False)
        elif stride > 1:  # the official block has no norm where only the size changes
            self.shortcut = nn.Conv3d(in_channels, out_channels, 1, strides, bias=False)

    def forward(self, x: torch.Tensor, stream: Stream | None = None) -> torch.Tensor:
        update = self.conv_b(self.conv_a(x), stream)
        update = F.silu(update if self.gate is None else self.gate(update, stream))
        if isinstance(self.shortcut, nn.Conv3d):
            x = call(self.shortcut, x)
        elif self.shortcut is not None:
            x = self.shortcut(x)
        return F.relu(self.conv_c(update) + x, inplace=True)


class X3DEncoder(nn.Module):
    def __init__(self, config: X3DConfig) -> None:
        super().__init__()
        layers, width = [], config.widths[0]
        for out, depth in zip(config.widths[1:], config.depths, strict=True):
            inner = config.inner(out)
            for i in range(depth):
                squeezed = round_width(config.se_ratio * inner) if config.se_ratio and i % 2 == 0 else 0
                frames = config.num_frames if config.causal else 0
                layers.append(X3DBlock(width, inner, out, stride=1 if i else 2, squeezed=squeezed, frames=frames))
                width = out
        self.layer = nn.ModuleList(layers)


class X3DPreTrainedModel(ConvVideoPreTrainedModel):
    config_class = X3DConfig
    base_model_prefix = "x3d"
    _no_split_modules: ClassVar[list[str]] = ["X3DBlock", "X3DStem"]


class X3DModel(X3DPreTrainedModel):
    """The network without its classifier: (B, T, C, H, W) -> `X3DModelOutput`, with h = ceil(H/32), w = ceil(W/32).
    `hidden_states` are the maps of the stem and of every block, each (B, tokens, channels) of its own size."""

    def __init__(self, config: X3DConfig) -> None:
        super().__init__(config)
        self.embeddings = X3DStem(config)
        self.encoder = X3DEncoder(config)
        self.conv_5 = ConvNormAct(config.widths[-1], config.hidden_size)
        self.fc_1 = nn.Linear(config.hidden_size, config.head_size, bias=False)
        self.set_norms()
        self.post_init()

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """Counts the places of the last map of a clip.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            (time, rows, columns) of the last map.

        Raises:
            ModelInputError: The clip is empty.
        """
        self.check_input(pixel_values)
        frames, _, height, width = pixel_values.shape[1:]
        if 0 in (frames, height, width):
            raise ModelInputError(f"A clip of {frames} frames of {height}x{width} pixels is empty.")
        return frames, -(-height // 32), -(-width // 32)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Averages all time (of a causal network the last `num_frames`) and windows of `head_pool`, then ReLU(fc_1).

        Args:
            x: (B, D, T, h, w).

        Returns:
            (B, h', w', head_size).
        """
        x = x[:, :, -self.config.num_frames :] if self.config.causal else x
        return F.relu(on_rows(self.fc_1, window_means(x.movedim(1, 4), (0, *self.config.head_pool))[:, 0]))

    def encoder_output(self, maps: torch.Tensor, hidden_states: tuple[torch.Tensor, ...] | None) -> X3DModelOutput:
        x = self.conv_5(maps)
        return X3DModelOutput(last_hidden_state=tokens(x), hidden_states=hidden_states, pooled=self.pool(x))

    def clip_embedding(self, outputs: X3DModelOutput, feature_map: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a clip.

        Args:
            outputs: Of the encoder.
            feature_map: (B, t, h, w, D).

        Returns:
            (B, 2048), the mean that the classifier sees.
        """
        return outputs.pooled.mean((1, 2))


class X3DForVideoClassification(VideoClassifier, X3DPreTrainedModel):
    """A linear classifier at every place of the pooled map, averaged."""

    def __init__(self, config: X3DConfig) -> None:
        super().__init__(config)
        self.x3d = X3DModel(config)
        self.add_classifier(config.head_size)

    def clip_vector(self, outputs: X3DModelOutput, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.dropout(outputs.pooled).mean((1, 2))

    @property
    def frames_per_state(self) -> int | None:  # type: ignore[override]
        return 1 if self.config.causal else None

    @property
    def keeps_past(self) -> bool:  # type: ignore[override]
        return self.config.causal

    def encode_states(self, pixel_values: torch.Tensor, stream: Stream | None = None) -> torch.Tensor:
        """What a causal network's head averages of each frame.

        Args:
            pixel_values: Frames (B, T, C, H, W), normalised.
            stream: A dict that begins empty and is filled with what the next frames need; these go on from there. None
                begins a clip.

        Returns:
            (B, T, h'·w'·D), for `classify_states`.

        Raises:
            ModelInputError: The network is not causal; frames have another shape than those before.
        """
        model = self.x3d
        if not self.config.causal:
            raise ModelInputError(
                "Only a causal X3D has states of frames: this one's see frames behind them. Train one with causal=True."
            )
        model.token_grid(pixel_values)
        maps = model.embeddings(pixel_values.transpose(1, 2), stream)
        for block in model.encoder.layer:
            maps = block(maps, stream)
        return window_means(model.conv_5(maps).movedim(1, 4), (1, *self.config.head_pool)).flatten(2)

    def classify_states(self, states: torch.Tensor) -> torch.Tensor:
        """Classifies a window.

        Args:
            states: (B, T, h'·w'·D), what `encode_states` gave of its frames; a clip's last `num_frames`.

        Returns:
            Logits (B, classes).
        """
        pooled = F.relu(on_rows(self.x3d.fc_1, states.mean(1).unflatten(-1, (-1, self.config.hidden_size))))
        return self.classifier(self.dropout(pooled).mean(1))
