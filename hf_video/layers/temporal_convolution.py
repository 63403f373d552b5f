"""Convolutions over time of sequences (batch, time, channels), as matrix products over their rows."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.layers.linear import is_ordinary

# F(4, 3) of Winograd's minimal filtering (Lavin and Gray, 2016, arXiv:1509.09308): four outputs of a kernel of three
# from six products instead of twelve.
TILE = 4
INPUT = torch.tensor(
    [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ],
    device="cpu",
)
KERNEL = torch.tensor(
    [[6.0, 0, 0], [-4.0, -4.0, -4.0], [-4.0, 4.0, -4.0], [1.0, 2.0, 4.0], [1.0, -2.0, 4.0], [0, 0, 24.0]], device="cpu"
)
OUTPUT = torch.tensor(
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ],
    device="cpu",
)


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
        return F.linear(rows, self.weight.transpose(1, 2).flatten(1), self.bias)

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
        taps = F.linear(x, self.weight.permute(2, 0, 1).flatten(0, 1))
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
        )


def minimal_filtering(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Convolution with a kernel of three and zeros around the sequence, without gradients.

    Args:
        x: (B, T, C).
        weight: (C', C, 3).

    Returns:
        (B, T, C'). Rounding is a few times that of a plain product.
    """
    batch, length, channels = x.shape
    tiles, size = -(-length // TILE), TILE + 2
    count = batch * tiles
    before, kernel, after = (table.to(x.dtype) for table in (INPUT, KERNEL, OUTPUT))
    x = F.pad(x, (0, 0, 1, TILE * tiles + 1 - length))
    # Tiles of six rows overlap by two: a view of the padded sequences.
    strides = (x.shape[1] * channels, TILE * channels, channels, 1)
    views = x.as_strided((batch, tiles, size, channels), strides).flatten(0, 1)
    given = torch.bmm(before.expand(count, -1, -1), views)  # (tiles, 6, C)
    kernels = (kernel / 24 @ weight.permute(2, 0, 1).flatten(1)).view(size, -1, channels)
    products = torch.bmm(given.transpose(0, 1), kernels.transpose(1, 2))  # (6, tiles, C')
    out = torch.bmm(after.expand(count, -1, -1), products.transpose(0, 1))  # (tiles, 4, C')
    return out.view(batch, tiles * TILE, -1)[:, :length]
