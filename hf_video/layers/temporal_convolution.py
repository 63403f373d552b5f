"""Convolutions over time of sequences (batch, time, channels), as matrix products over their rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hf_video.layers.linear import is_ordinary, product, takes_onednn


def filtering_tables(outputs: int, points: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Winograd's minimal filtering with a kernel of three (Lavin and Gray, 2016, arXiv:1509.09308): input
    and kernel are taken for polynomials, evaluated at `outputs` + 1 points and at infinity, multiplied there, and
    the product is read off again. Returns the tables of input, kernel and output, float64."""
    size = outputs + 2
    others = [np.delete(points, i) for i in range(size - 1)]
    given = [np.append(np.poly(rest)[::-1], 0.0) for rest in others] + [np.poly(points)[::-1]]
    scale = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    kernel = np.vander(points, 3, increasing=True) / np.array(scale)[:, None]
    output = np.vander(points, outputs, increasing=True).T
    return (
        torch.from_numpy(np.array(given)),
        torch.from_numpy(np.vstack([kernel, [0.0, 0.0, 1.0]])),
        torch.from_numpy(np.hstack([output, np.eye(outputs)[:, -1:]])),
    )


TILE = 6  # six outputs from eight products instead of eighteen
TABLES = filtering_tables(TILE, (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5))


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
        if self.groups > 1:
            return self.by_channel(x)
        if self.filtering_pays(x):
            out = minimal_filtering(x, self.weight)
            return out if self.bias is None else out.add_(self.bias)
        if self.stride[0] == 1 and self.out_channels * self.kernel_size[0] <= self.in_channels:
            return self.by_taps(x)
        size = self.kernel_size[0]
        rows = F.pad(x, (0, 0, size // 2, size // 2)).unfold(1, size, self.stride[0]).transpose(2, 3).flatten(2)
        return product(rows, self.weight.transpose(1, 2).flatten(1), self.bias)

    def by_channel(self, x: torch.Tensor) -> torch.Tensor:
        """Each channel by itself: a sum of shifted sequences, each within the bounds of the other."""
        size, stride, length = self.kernel_size[0], self.stride[0], x.shape[1]
        outputs = (length - 1) // stride + 1
        out = x[:, ::stride] * self.weight[:, 0, size // 2]
        for tap in range(size):
            shift = tap - size // 2
            first, last = max(0, -(shift // stride)), min(outputs, (length - 1 - shift) // stride + 1)
            if shift and first < last:
                values = x[:, first * stride + shift : (last - 1) * stride + shift + 1 : stride]
                out[:, first:last].addcmul_(values, self.weight[:, 0, tap])
        return out if self.bias is None else out + self.bias

    def by_taps(self, x: torch.Tensor) -> torch.Tensor:
        """Few outputs: the products of all taps first, which are then shifted, instead of the wide input."""
        size, length = self.kernel_size[0], x.shape[1]
        taps = product(x, self.weight.permute(2, 0, 1).flatten(0, 1))
        taps = F.pad(taps, (0, 0, size // 2, size // 2)).unflatten(2, (size, -1))
        out = sum(taps[:, tap : tap + length, tap] for tap in range(size))
        return out if self.bias is None else out + self.bias

    def filtering_pays(self, x: torch.Tensor) -> bool:
        """Whether to answer with half of the products: without gradients, on a CPU, in single precision and more, and
        where products are wide enough to outweigh what leads to them."""
        return (
            self.kernel_size[0] == 3
            and self.stride[0] == 1
            and x.dtype in (torch.float32, torch.float64)
            and x.dtype == self.weight.dtype
            and x.device.type == "cpu"
            and min(self.in_channels, self.out_channels) >= 128
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and x.shape[1] >= 64
            and x.stride(2) == 1
        )


def minimal_filtering(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Convolution with a kernel of three and zeros around the sequence, without gradients.

    Args:
        x: (B, T, C), T at least one tile.
        weight: (C', C, 3).

    Returns:
        (B, T, C'). Rounding is about ten times that of a plain product.
    """
    batch, length, channels = x.shape
    tiles, size = -(-length // TILE), TILE + 2
    into, of_kernel, back = (table.to(x.dtype) for table in TABLES)
    # Tiles of eight rows overlap by two and begin with the row before: a view of the sequence but for its two ends,
    # which see zeros.
    inner = max((length - 1) // TILE - 1, 0)
    first = F.pad(x[:, : TILE + 1], (0, 0, 1, max(TILE - length, 0)))
    last = F.pad(x[:, TILE * (inner + 1) - 1 :], (0, 0, 0, TILE * tiles + 1 - length))
    given = x.new_empty(batch, tiles, size, channels)
    for part, sample in enumerate(given):
        torch.mm(into, first[part], out=sample[0])
        if inner:
            torch.bmm(into.expand(inner, -1, -1), overlapping(x[part, TILE - 1 :], inner), out=sample[1 : inner + 1])
        rest = tiles - 1 - inner
        torch.bmm(into.expand(rest, -1, -1), overlapping(last[part], rest), out=sample[inner + 1 :])
    kernels = (of_kernel @ weight.reshape(-1, 3).T).view(size, -1, channels)
    points = given.flatten(0, 1).transpose(0, 1)
    if takes_onednn(points, kernels):
        products = torch.stack([product(rows, kernel) for rows, kernel in zip(points, kernels, strict=True)])
    else:
        products = torch.bmm(points, kernels.transpose(1, 2))  # (8, tiles, C')
    out = torch.bmm(back.expand(batch * tiles, -1, -1), products.transpose(0, 1))  # (tiles, 6, C')
    return out.view(batch, tiles * TILE, -1)[:, :length]


def overlapping(rows: torch.Tensor, tiles: int) -> torch.Tensor:
    """(tiles, TILE + 2, C): a tile at every `TILE`th row of (T, C), without copying."""
    return rows.as_strided((tiles, TILE + 2, rows.shape[1]), (TILE * rows.stride(0), rows.stride(0), 1))
