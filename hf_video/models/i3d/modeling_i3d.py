"""I3D (Carreira, Zisserman, 2017, arXiv:1705.07750): image networks whose filters were inflated over time.

`architecture="inception"` is the paper's Inception-v1, after DeepMind's `i3d.py`: every convolution and pooling is
padded as TensorFlow's SAME does, so any length and size goes, and the logits of windows of two map frames are averaged
over time. RGB and flow differ in `num_channels` only. `architecture="resnet"` is I3D-R50 (SlowFast, PyTorchVideo): a
ResNet whose first convolution sees five frames and whose 1×1 convolutions see three in every second block.
"""

from __future__ import annotations

from functools import partial
from itertools import cycle, islice
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.modeling import VideoClassifier
from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
from hf_video.base.outputs import VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.convolution import (
    Bottleneck,
    ConvBlock,
    ConvNormAct,
    same_max_pool,
    window_means,
)
from hf_video.models.i3d.configuration_i3d import I3DConfig

# The Mixed modules: name, pooling before (kernel = stride, but 3 frames or rows wide where it halves), and channels of
# the six convolutions for a stem of 64.
MIXED = (
    ("3b", ((1, 3, 3), (1, 2, 2)), (64, 96, 128, 16, 32, 32)),
    ("3c", None, (128, 128, 192, 32, 96, 64)),
    ("4b", ((3, 3, 3), (2, 2, 2)), (192, 96, 208, 16, 48, 64)),
    ("4c", None, (160, 112, 224, 24, 64, 64)),
    ("4d", None, (128, 128, 256, 24, 64, 64)),
    ("4e", None, (112, 144, 288, 32, 64, 64)),
    ("4f", None, (256, 160, 320, 32, 128, 128)),
    ("5b", ((2, 2, 2), (2, 2, 2)), (256, 160, 320, 32, 128, 128)),
    ("5c", None, (384, 192, 384, 48, 128, 128)),
)


# TensorFlow's padding wherever Inception convolves.
unit = partial(ConvNormAct, padding="same")


class InceptionStem(nn.Module):
    """(B, C, T, H, W) -> (B, 3·stem, T/2, H/4, W/4)."""

    def __init__(self, config: I3DConfig) -> None:
        super().__init__()
        width = config.stem_channels
        self.conv_1a = unit(config.num_channels, width, (7, 7, 7), (2, 2, 2))
        self.conv_2b = unit(width, width)
        self.conv_2c = unit(width, 3 * width, (3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = same_max_pool(self.conv_1a(x), (1, 3, 3), (1, 2, 2))
        return self.conv_2c(self.conv_2b(x))


class Mixed(ConvBlock):
    """Inception's module, inflated: 1×1, 1×1 and 3³, again 1×1 and 3³, pooling and 1×1, side by side on channels."""

    def __init__(self, in_channels: int, channels: tuple[int, ...], pool) -> None:
        super().__init__()
        c0, c1a, c1b, c2a, c2b, c3b = channels
        self.pool = pool
        self.b0 = unit(in_channels, c0)
        self.b1a = unit(in_channels, c1a)
        self.b1b = unit(c1a, c1b, (3, 3, 3))
        self.b2a = unit(in_channels, c2a)
        self.b2b = unit(c2a, c2b, (3, 3, 3))
        self.b3b = unit(in_channels, c3b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool is not None:
            x = same_max_pool(x, *self.pool)
        pooled = same_max_pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class ResNetStem(nn.Module):
    """(B, C, T, H, W) -> (B, stem, T, H/4, W/4)."""

    def __init__(self, config: I3DConfig) -> None:
        super().__init__()
        kernel = (config.stem_temporal_kernel, 7, 7)
        self.conv = ConvNormAct(config.num_channels, config.stem_channels, kernel, (1, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool3d(self.conv(x), (1, 3, 3), (1, 2, 2), (0, 1, 1))


def inception_blocks(config: I3DConfig) -> list[Mixed]:
    blocks, width = [], 3 * config.stem_channels
    for _, pool, official in MIXED:
        channels = tuple(c * config.stem_channels // 64 for c in official)
        blocks.append(Mixed(width, channels, pool))
        width = channels[0] + channels[2] + channels[4] + channels[5]
    return blocks


def resnet_blocks(config: I3DConfig) -> list[Bottleneck]:
    blocks, width = [], config.stem_channels
    for stage, (depth, kernels) in enumerate(zip(config.depths, config.temporal_kernels, strict=True)):
        inner = config.stem_channels * 2**stage
        for i, time in enumerate(islice(cycle(kernels), depth)):
            pool = 2 if config.temporal_pool and stage == 1 and i == 0 else 1
            stride = 2 if stage and i == 0 else 1
            blocks.append(Bottleneck(width, inner, 4 * inner, time=time, stride=stride, pool=pool))
            width = 4 * inner
    return blocks


class I3DEncoder(nn.Module):
    def __init__(self, config: I3DConfig) -> None:
        super().__init__()
        blocks = inception_blocks if config.architecture == "inception" else resnet_blocks
        self.layer = nn.ModuleList(blocks(config))


class I3DPreTrainedModel(ConvVideoPreTrainedModel):
    config_class = I3DConfig
    base_model_prefix = "i3d"
    _no_split_modules: ClassVar[list[str]] = ["Mixed", "Bottleneck", "InceptionStem", "ResNetStem"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv3d) and self.config.architecture == "inception":
            init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)  # Sonnet's default


class I3DModel(I3DPreTrainedModel):
    """The network up to its last map: (B, T, C, H, W) -> (B, t·h·w, D), in order frame, row, column, with
    t = ceil(T/8) for Inception, T // 2 for I3D-R50, h = ceil(H/32), w = ceil(W/32).

    `hidden_states` are the maps of the stem and of every block, each (B, tokens, channels) of its own size."""

    def __init__(self, config: I3DConfig) -> None:
        super().__init__(config)
        self.embeddings = InceptionStem(config) if config.architecture == "inception" else ResNetStem(config)
        self.encoder = I3DEncoder(config)
        self.set_norms()
        self.post_init()

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """Counts the places of the last map, or the tokens, of a clip.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            (time, rows, columns) of the last map.

        Raises:
            ModelInputError: Nothing is left of the clip.
        """
        self.check_input(pixel_values)
        frames, _, height, width = pixel_values.shape[1:]
        if self.config.architecture == "inception":
            least, time, step = 1, -(-frames // 8), 32
        else:
            least = 1 + (self.config.temporal_pool and len(self.config.depths) > 1)
            time, step = frames // least, 2 ** (1 + len(self.config.depths))
        if frames < least or height < 1 or width < 1:
            raise ModelInputError(
                f"A clip of {frames} frames of {height}x{width} pixels is too small: at least {least} frames and one "
                "pixel are needed."
            )
        return time, -(-height // step), -(-width // step)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Averages over windows of `head_pool`.

        Args:
            feature_map: (B, t, h, w, D).

        Returns:
            (B, t', h', w', D).
        """
        return window_means(feature_map, self.config.head_pool)


class I3DForVideoClassification(VideoClassifier, I3DPreTrainedModel):
    """A linear classifier at every place of the pooled map, averaged."""

    def __init__(self, config: I3DConfig) -> None:
        super().__init__(config)
        self.i3d = I3DModel(config)
        self.add_classifier(config.hidden_size)

    def pooled(self, outputs: VideoModelOutput, pixel_values: torch.Tensor) -> torch.Tensor:
        """Averages the encoder's map over windows of `head_pool`, and drops out.

        Args:
            outputs: Of the encoder.
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            (B, t', h', w', D).
        """
        return self.dropout(self.i3d.pool(self.i3d.feature_map(outputs.last_hidden_state, pixel_values)))

    def clip_vector(self, outputs: VideoModelOutput, pixel_values: torch.Tensor) -> torch.Tensor:
        # The mean of logits is the logits of the mean: one row per clip goes through the classifier.
        return self.pooled(outputs, pixel_values).mean((1, 2, 3))

    def logits_per_step(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the classifier says along the clip: step i of Inception sees map frames i and i+1, which stand for 16
        frames of the clip and what lies around them.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            (B, t', classes), of which `logits` is the mean.
        """
        outputs = self.i3d(pixel_values, return_dict=True)
        return self.classifier(self.pooled(outputs, pixel_values).mean((2, 3)))
