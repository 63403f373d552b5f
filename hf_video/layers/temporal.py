"""Blocks of one-dimensional detectors (ActionFormer, Zhang et al., ECCV 2022, arXiv:2202.07925; TriDet, Shi et al.,
CVPR 2023, arXiv:2303.07347). Sequences are (batch, time, channels); a mask (batch, time, 1) is 1 where the video is
and 0 in the padding."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.layers.drop_path import DropPath
from hf_video.layers.plain import is_ordinary


class TemporalConv(nn.Conv1d):
    """A convolution over time with an odd kernel and zeros around the sequence, (B, T, C) -> (B, T / stride, C'); with
    several groups each channel by itself. The caller masks its output: biases and norms make padding differ from
    zero."""

    def __init__(
        self, channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__(channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not is_ordinary(self.weight):
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        # As products over neighbouring rows: a convolution over the second axis would copy the sequence twice.
        (size,), (stride,), (margin,) = self.kernel_size, self.stride, self.padding
        x = F.pad(x, (0, 0, margin, margin))
        if self.groups == 1:
            rows = x.unfold(1, size, stride).transpose(2, 3).flatten(2)
            return F.linear(rows, self.weight.transpose(1, 2).flatten(1), self.bias)
        length = (x.shape[1] - size) // stride + 1
        taps = [x[:, tap : tap + (length - 1) * stride + 1 : stride] for tap in range(size)]
        out = taps[0] * self.weight[:, 0, 0]
        for tap, values in enumerate(taps[1:], start=1):
            out = torch.addcmul(out, values, self.weight[:, 0, tap])
        return out if self.bias is None else out + self.bias


def downsample_mask(mask: torch.Tensor, stride: int) -> torch.Tensor:
    """The mask of every `stride`th position, the first one included."""
    return mask[:, ::stride]


class AffineDropPath(DropPath):
    """A learnt scale for each channel of a residual branch (CaiT's LayerScale, begun at `init`), then stochastic depth
    per sample."""

    def __init__(self, channels: int, p: float = 0.0, init: float = 1e-4) -> None:
        super().__init__(p)
        self.scale = nn.Parameter(torch.full((channels,), init))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * self.scale)


class LevelScale(nn.Module):
    """One learnt number that multiplies the offsets of a pyramid level."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class SharedHead(nn.Module):
    """Convolutions, each with LayerNorm and ReLU, and a last one to `outputs` columns; the same for every level."""

    def __init__(
        self, channels: int, hidden: int, outputs: int, layers: int, kernel_size: int, norm: bool, eps: float = 1e-5
    ) -> None:
        super().__init__()
        widths = [channels] + [hidden] * (layers - 1)
        self.layers = nn.ModuleList(
            TemporalConv(width, hidden, kernel_size, bias=not norm) for width in widths[: layers - 1]
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden, eps) if norm else nn.Identity() for _ in range(layers - 1))
        self.output = TemporalConv(widths[-1], outputs, kernel_size)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, C) and its mask (B, T, 1) -> (B, T, outputs)."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x) * mask))
        return self.output(x) * mask
