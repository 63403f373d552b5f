"""Cutting videos into patches and tubelets, and the linear maps that embed them.

A convolution whose stride is its kernel is a matrix product over non-overlapping patches. Written as such it can embed
just the patches that are visible, and needs no layout change to (batch, channels, frames, ...).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.layers.plain import is_plain


def patch_view(video: torch.Tensor, patch: tuple[int, int, int], time_stride: int | None = None) -> torch.Tensor:
    """(B, T, C, H, W) -> view (B, T/t, H/p, W/q, C, t, p, q) without a copy; `patch` is (t, p, q) and must divide.

    With a `time_stride` below t, patches overlap in time; there are (T - t)/time_stride + 1."""
    b, frames, channels, height, width = video.shape
    t, p, q = patch
    if time_stride not in (None, t):
        video = video.unfold(1, t, time_stride).unflatten(4, (width // q, q)).unflatten(3, (height // p, p))
        return video.permute(0, 1, 3, 5, 2, 7, 4, 6)
    video = video.view(b, frames // t, t, channels, height // p, p, width // q, q)
    return video.permute(0, 1, 4, 6, 3, 2, 5, 7)


def take_patches(view: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Patches of a `patch_view` by token number (order frame, row, column): index (B, n) -> (B, n, C, t, p, q)."""
    b, _, rows, columns = view.shape[:4]
    batch = torch.arange(b, device=index.device)[:, None]
    return view[batch, index // (rows * columns), index // columns % rows, index % columns]


class PatchEmbedding(nn.Module):
    """Linear embedding of patches (t, p, q), kept as the convolution `projection` that checkpoints hold.

    `dims=3`: Conv3d weight (D, C, t, p, q), tubelets; they overlap in time with a `time_stride` below t. `dims=2`:
    Conv2d weight (D, C, p, q), t = 1, frame by frame.
    """

    def __init__(
        self,
        channels: int,
        hidden_size: int,
        patch: tuple[int, int, int],
        dims: int = 3,
        time_stride: int | None = None,
    ) -> None:
        super().__init__()
        self.patch, self.time_stride, self.dims = patch, time_stride, dims
        self.conv, kernel = (nn.Conv3d, patch) if dims == 3 else (nn.Conv2d, patch[1:])
        stride = kernel if time_stride is None else (time_stride, *kernel[1:])
        self.projection = self.conv(channels, hidden_size, kernel_size=kernel, stride=stride)

    def forward(self, video: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, tokens, D) in order frame, row, column; only the tokens in `index` (B, n) if given.

        A projection that is more than its weights (see `layers.plain`) is called: with the whole clip, as a convolution
        would be, or with the chosen patches as so many clips of one patch each."""
        plain = is_plain(self.projection, self.conv)
        if index is None and not plain:
            return self.convolve(video).flatten(1, 3)
        view = patch_view(video, self.patch, self.time_stride)
        patches = view.flatten(1, 3) if index is None else take_patches(view, index)
        if plain:
            return F.linear(patches.flatten(2), self.projection.weight.flatten(1), self.projection.bias)
        return self.convolve(patches.flatten(0, 1).transpose(1, 2)).flatten(1).unflatten(0, index.shape)

    def convolve(self, video: torch.Tensor) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, t, h, w, D), by a call of the layer."""
        if self.dims == 3:
            return self.projection(video.transpose(1, 2)).movedim(1, -1)
        return self.projection(video.flatten(0, 1)).unflatten(0, video.shape[:2]).movedim(2, -1)
