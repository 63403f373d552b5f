"""S3D-G: Inception modules whose 3-D convolutions are split into space and time, and whose maps are gated.

Paper: Xie et al. 2018, arXiv:1712.04851, section 4; form and weights: Miech et al. 2020, arXiv:1912.06430 (fairseq's
`examples/MMPT/mmpt/processors/models/s3dg.py`). VideoCLIP reads one embedding a second of it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
from hf_video.base.outputs import VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.convolution import ConvBlock, ConvNormAct
from hf_video.models.s3d.configuration_s3d import S3DConfig

# Pooling before a module (kernel, stride) and its channels for a stem of 64, in the order of I3D's table.
MIXED = (
    (((1, 3, 3), (1, 2, 2)), (64, 96, 128, 16, 32, 32)),
    (None, (128, 128, 192, 32, 96, 64)),
    (((3, 3, 3), (2, 2, 2)), (192, 96, 208, 16, 48, 64)),
    (None, (160, 112, 224, 24, 64, 64)),
    (None, (128, 128, 256, 24, 64, 64)),
    (None, (112, 144, 288, 32, 64, 64)),
    (None, (256, 160, 320, 32, 128, 128)),
    (((2, 2, 2), (2, 2, 2)), (256, 160, 320, 32, 128, 128)),
    (None, (384, 192, 384, 48, 128, 128)),
)


def pool_behind(x: torch.Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> torch.Tensor:
    """Max-pooling whose zeros all stand behind, whatever the length: (B, D, T, H, W) -> ceil(T / stride), ...; for even
    lengths what TensorFlow's SAME does."""
    behind = [size - step for size, step in zip(kernel, stride, strict=True)]
    padded = F.pad(x, (0, behind[2], 0, behind[1], 0, behind[0]))
    return F.max_pool3d(padded, kernel, stride, ceil_mode=True)


def separable(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 over space, then 3 over time, each with its norm and ReLU."""
    return nn.Sequential(
        ConvNormAct(in_channels, out_channels, (1, 3, 3)), ConvNormAct(out_channels, out_channels, (3, 1, 1))
    )


class FeatureGating(nn.Module):
    """A map times a weight per channel, which its own mean over time and space decides."""

    def __init__(self, channels: int, gating: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels) if gating else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.fc is None else x * self.fc(x.mean((2, 3, 4))).sigmoid()[:, :, None, None, None]


Gate = FeatureGating  # as whole models that 0.1.0 pickled name it


class S3DStem(nn.Module):
    """(B, C, T, H, W) -> (B, 3·stem, T/2, H/4, W/4)."""

    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        width, self.space_to_depth = config.stem_channels, config.space_to_depth
        if self.space_to_depth:
            self.conv_1 = ConvNormAct(8 * config.num_channels, width, (2, 4, 4))
        else:
            self.conv_1 = ConvNormAct(config.num_channels, width, (3, 7, 7), (2, 2, 2))
        self.conv_2b = ConvNormAct(width, width)
        self.conv_2c = separable(width, 3 * width)
        self.gate = FeatureGating(3 * width, config.gating)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.space_to_depth:
            cubes = x.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
            x = cubes.permute(0, 3, 5, 7, 1, 2, 4, 6).flatten(1, 4)
            # Padded on both sides, and without the first place of each dimension: TensorFlow's SAME of even kernels.
            x = self.conv_1(x)[:, :, 1:, 1:, 1:]
        else:
            x = self.conv_1(x)
        x = pool_behind(x, (1, 3, 3), (1, 2, 2))
        return self.gate(self.conv_2c(self.conv_2b(x)))


class S3DMixed(ConvBlock):
    """Four gated branches side by side on channels: 1x1; 1x1 and separable 3³, twice; pooling and 1x1."""

    def __init__(self, in_channels: int, channels: tuple[int, ...], pool, gating: bool) -> None:
        super().__init__()
        c0, c1a, c1b, c2a, c2b, c3 = channels
        self.pool = pool
        self.b0 = nn.Sequential(ConvNormAct(in_channels, c0), FeatureGating(c0, gating))
        self.b1 = nn.Sequential(ConvNormAct(in_channels, c1a), separable(c1a, c1b), FeatureGating(c1b, gating))
        self.b2 = nn.Sequential(ConvNormAct(in_channels, c2a), separable(c2a, c2b), FeatureGating(c2b, gating))
        self.b3 = nn.Sequential(ConvNormAct(in_channels, c3), FeatureGating(c3, gating))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool is not None:
            x = pool_behind(x, *self.pool)
        pooled = F.max_pool3d(x, 3, 1, 1)
        return torch.cat([self.b0(x), self.b1(x), self.b2(x), self.b3(pooled)], dim=1)


class S3DEncoder(nn.Module):
    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList()
        self.width = 3 * config.stem_channels
        for pool, official in MIXED:
            channels = tuple(c * config.stem_channels // 64 for c in official)
            self.layer.append(S3DMixed(self.width, channels, pool, config.gating))
            self.width = channels[0] + channels[2] + channels[4] + channels[5]


class S3DModel(ConvVideoPreTrainedModel):
    """`last_hidden_state` (B, t·h·w, 16·stem): the last map; `get_video_features().embedding` (B, projection_dim)."""

    config_class = S3DConfig
    base_model_prefix = "s3d"
    _no_split_modules: ClassVar[list[str]] = ["S3DMixed", "S3DStem"]

    def __init__(self, config: S3DConfig) -> None:
        super().__init__(config)
        self.embeddings = S3DStem(config)
        self.encoder = S3DEncoder(config)
        self.projection = nn.Linear(self.encoder.width, config.projection_dim)
        self.set_norms()
        self.post_init()

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """Counts the places of the last map, or the tokens, of a clip.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            (frames, rows, columns) of the last map.

        Raises:
            ModelInputError: Odd sizes.
        """
        self.check_input(pixel_values)
        frames, height, width = pixel_values.shape[1], *pixel_values.shape[-2:]
        if self.config.space_to_depth and (frames % 2 or height % 2 or width % 2):
            raise ModelInputError(
                f"A clip of {frames} frames of {height}x{width} came; S3D takes even numbers of frames, rows and "
                "columns, as it sees cubes of 2x2x2."
            )
        return tuple(-(-n // by) for n, by in ((frames, 8), (height, 32), (width, 32)))

    def clip_embedding(self, outputs: VideoModelOutput, feature_map: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a clip.

        Args:
            outputs: Of the encoder.
            feature_map: (B, t, h, w, D).

        Returns:
            (B, projection_dim), the projected mean of the map.
        """
        return self.projection(feature_map.mean((1, 2, 3)))
