"""C3D (Tran et al., 2015, arXiv:1412.0767), section 3.

Eight 3×3×3 convolutions with biases, five max-poolings (the first over space only), two fully connected layers that
read the whole last map, a classifier. After the PyTorch ports of the authors' Caffe net (jfzhang95, mmaction2). The
paper's video descriptor is the output of fc6.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.modeling import VideoClassifier
from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
from hf_video.base.outputs import VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.convolution import ConvBlock, tokens
from hf_video.layers.linear import is_plain
from hf_video.models.c3d.configuration_c3d import C3DConfig

# Name, channels in multiples of the stem's, and the pooling after the convolution.
LAYERS = (
    ("conv2a", 2, 2),
    ("conv3a", 4, 1),
    ("conv3b", 4, 2),
    ("conv4a", 8, 1),
    ("conv4b", 8, 2),
    ("conv5a", 8, 1),
    ("conv5b", 8, 2),
)


@dataclass
class C3DModelOutput(VideoModelOutput):
    """`last_hidden_state` (B, t·h·w, 512): pool5; `fc6`, `fc7` (B, 4096): after ReLU, before dropout."""

    fc6: torch.Tensor | None = None
    fc7: torch.Tensor | None = None


class C3DBlock(ConvBlock):
    """Convolution, ReLU, pooling: (B, C, T, H, W) -> (B, D, T', H', W'). `pad` is pool5's ceil or symmetric padding."""

    def __init__(self, in_channels: int, out_channels: int, pool: tuple[int, int, int], pad: str | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.pool, self.pad = pool, pad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # In place only where no hook has seen the map: it may have kept it, and full backward hooks forbid it.
        x = F.relu(self.conv(x), inplace=is_plain(self.conv, nn.Conv3d))
        if max(self.pool) == 1:
            return x
        if self.pad == "ceil":
            # One row or column of zeros behind an odd map; a zero never wins over what a ReLU made.
            x = F.pad(x, (0, x.shape[4] % 2, 0, x.shape[3] % 2))
        return F.max_pool3d(x, self.pool, padding=(0, 1, 1) if self.pad == "symmetric" else 0)


class C3DEncoder(nn.Module):
    def __init__(self, config: C3DConfig) -> None:
        super().__init__()
        stem = config.stem_channels
        widths = [stem, *(multiple * stem for _, multiple, _ in LAYERS)]
        pads = {"conv5b": config.pool5_padding}
        self.layer = nn.ModuleList(
            C3DBlock(before, after, (pool, pool, pool), pads.get(name))
            for before, after, (name, _, pool) in zip(widths, widths[1:], LAYERS, strict=False)
        )


class C3DPreTrainedModel(ConvVideoPreTrainedModel):
    config_class = C3DConfig
    base_model_prefix = "c3d"
    lies_channels_last = False  # plain 3×3×3 convolutions gain nothing by it
    _no_split_modules: ClassVar[list[str]] = ["C3DBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Without norms the size of what passes must be kept by the weights: He's fan-in, in fc6 and fc7 as well.
        if isinstance(module, nn.Conv3d) or getattr(module, "before_relu", False):
            init.kaiming_normal_(module.weight, nonlinearity="relu")


class C3DModel(C3DPreTrainedModel):
    """The network without its classifier: (B, T, C, H, W) -> `C3DModelOutput`. `hidden_states` are the maps after the
    first convolution with its pooling and after every other, each (B, tokens, channels) of its own size."""

    def __init__(self, config: C3DConfig) -> None:
        super().__init__(config)
        self.embeddings = C3DBlock(config.num_channels, config.stem_channels, (1, 2, 2))
        self.encoder = C3DEncoder(config)
        self.fc6 = nn.Linear(prod(config.grid) * config.hidden_size, config.fc_size)
        self.fc7 = nn.Linear(config.fc_size, config.fc_size)
        self.fc6.before_relu = self.fc7.before_relu = True
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.post_init()

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """Counts the places of the last map, or the tokens, of a clip.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            (time, rows, columns) of the last map.

        Raises:
            ModelInputError: fc6 does not read just that.
        """
        self.check_input(pixel_values)
        config = self.config
        frames, _, height, width = pixel_values.shape[1:]
        grid = config.grid_of(frames, height, width)
        fits = prod(grid) == prod(config.grid) if config.any_grid else grid == config.grid
        if not fits:
            raise ModelInputError(
                f"A clip of {frames} frames of {height}x{width} pixels gives a last map of {grid} (time, rows, "
                f"columns), and fc6 reads {config.grid}: that of {config.num_frames} frames of {config.image_size} "
                "pixels. Resize the frames; cut longer videos into clips, one view each."
            )
        return grid

    def encoder_output(self, maps: torch.Tensor, hidden_states: tuple[torch.Tensor, ...] | None) -> C3DModelOutput:
        fc6 = F.relu(self.fc6(maps.flatten(1)))  # in order channel, frame, row, column
        fc7 = F.relu(self.fc7(self.dropout(fc6)))
        return C3DModelOutput(last_hidden_state=tokens(maps), hidden_states=hidden_states, fc6=fc6, fc7=fc7)

    def clip_embedding(self, outputs: C3DModelOutput, feature_map: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a clip.

        Args:
            outputs: Of the encoder.
            feature_map: (B, t, h, w, D).

        Returns:
            fc7 (B, 4096), what the classifier sees; fc6 is in the output of `forward`.
        """
        return outputs.fc7


class C3DForVideoClassification(VideoClassifier, C3DPreTrainedModel):
    """A linear classifier (fc8) on fc7."""

    def __init__(self, config: C3DConfig) -> None:
        super().__init__(config)
        self.c3d = C3DModel(config)
        self.add_classifier(config.fc_size)

    def clip_vector(self, outputs: C3DModelOutput, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.dropout(outputs.fc7)
