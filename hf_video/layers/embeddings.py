"""What the tokens of a video transformer are made of: patches, tubelets and positions.

A convolution whose stride is its kernel is a matrix product over non-overlapping patches. Written as such it can embed
just the patches that are visible, and needs no layout change to (batch, channels, frames, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.layers.linear import is_plain, product


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
    """Linear embedding of patches (t, p, q), kept as the convolution `projection` that checkpoints hold, or one of
    another `name`.

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
        name: str = "projection",
    ) -> None:
        super().__init__()
        self.patch, self.time_stride, self.dims, self.name = patch, time_stride, dims, name
        self.conv: type[nn.Conv3d | nn.Conv2d] = nn.Conv3d if dims == 3 else nn.Conv2d
        kernel: tuple[Any, ...] = patch if dims == 3 else patch[1:]
        stride = kernel if time_stride is None else (time_stride, *kernel[1:])
        self.add_module(name, self.conv(channels, hidden_size, kernel_size=kernel, stride=stride))

    def forward(self, video: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, tokens, D) in order frame, row, column; only the tokens in `index` (B, n) if given.

        A projection that is more than its weights (see `layers.linear`) is called: with the whole clip, as a
        convolution would be, or with the chosen patches as so many clips of one patch each."""
        layer = getattr(self, self.name)
        plain = is_plain(layer, self.conv)
        if index is None and not plain:
            return self.convolve(video).flatten(1, 3)
        view = patch_view(video, self.patch, self.time_stride)
        patches = view.flatten(1, 3) if index is None else take_patches(view, index)
        if plain or index is None:
            return product(patches.flatten(2), layer.weight.flatten(1), layer.bias)
        return self.convolve(patches.flatten(0, 1).transpose(1, 2)).flatten(1).unflatten(0, index.shape)

    def convolve(self, video: torch.Tensor) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, t, h, w, D), by a call of the layer."""
        layer = getattr(self, self.name)
        if self.dims == 3:
            return layer(video.transpose(1, 2)).movedim(1, -1)
        return layer(video.flatten(0, 1)).unflatten(0, video.shape[:2]).movedim(2, -1)


class Tables(nn.Module):
    """Holds tensors that are worked out once and need not be saved, as attributes of the given names.

    They are no buffers. A model that is built without memory (on the meta device, as `accelerate` and FSDP do it) and
    filled from a file gets its parameters and saved buffers from the file; a buffer that isn't saved would stay what
    the memory held before. Tables are made on the CPU whatever the default device, go where the model goes, and follow
    their users where the model was placed tensor by tensor. Their type stays: whoever uses one rounds it.
    """

    def __init__(self, **tables: torch.Tensor) -> None:
        super().__init__()
        self.names = tuple(tables)
        for name, table in tables.items():
            setattr(self, name, table)

    def table(self, name: str, device: torch.device) -> torch.Tensor:
        """The table of that name on a device. It stays there, but for the meta device, where values would be lost."""
        table = getattr(self, name)
        if table.device == device:
            return table
        if torch.compiler.is_compiling() or device.type == "meta":
            return table.to(device)
        with torch.inference_mode(False):  # what stays must serve in training too
            setattr(self, name, table.to(device))
        return getattr(self, name)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Tables:
        """`to`, `cuda` and the like: `fn` tells where the model goes; what else it does is for weights."""
        super()._apply(fn, recurse)
        for name in self.names:
            table = getattr(self, name)
            device = fn(torch.empty(0, device=table.device)).device
            if device.type != "meta":
                setattr(self, name, table.to(device))
        return self


def sinusoid_table(positions: int, width: int) -> torch.Tensor:
    """Sine-cosine table (positions, width), float32, after Vaswani et al. (2017): even columns sine, odd ones cosine of
    position / 10000^(2·(column//2)/width), in double precision before it is rounded, as VideoMAE's official code."""
    column = torch.arange(width, device="cpu")
    rate = torch.pow(10000.0, (2 * (column // 2)).double() / width)
    angle = torch.arange(positions, device="cpu").double()[:, None] / rate
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def resize_grid(table: torch.Tensor, old: tuple[int, ...], new: tuple[int, ...], mode: str = "linear") -> torch.Tensor:
    """Interpolates (1, prod(old), D) to (1, prod(new), D) over a (time, rows, columns) or (rows, columns) grid.

    Time and space are axes of their own here, never one flattened row. `mode`: "linear" (bi-, trilinear), "nearest", or
    "bicubic" in space (and linear in time).
    """
    if tuple(old) == tuple(new):
        return table
    if mode == "bicubic":
        *_, rows, columns = old
        table = resize_grid(table, old, (*new[:-2], rows, columns))
        steps = table.unflatten(1, (-1, rows, columns)).flatten(0, 1).permute(0, 3, 1, 2)
        resized = F.interpolate(steps.float(), size=tuple(new[-2:]), mode="bicubic").to(table.dtype)
        return resized.flatten(2).transpose(1, 2).reshape(table.shape[0], -1, table.shape[2])
    grid = table.unflatten(1, tuple(old)).movedim(-1, 1)
    name = mode if mode == "nearest" else {1: "linear", 2: "bilinear", 3: "trilinear"}[len(old)]
    return F.interpolate(grid.float(), size=tuple(new), mode=name).to(table.dtype).flatten(2).transpose(1, 2)


class SinusoidPositions(Tables):
    """Fixed sine-cosine positions of a (time, rows, columns) grid, numbered along the flattened grid, in float32.
    Another grid than `grid` is interpolated from it, as `mode` of `resize_grid` says."""

    mode = "linear"

    def __init__(self, grid: tuple[int, int, int], width: int, mode: str = "linear") -> None:
        super().__init__(positions=sinusoid_table(prod(grid), width)[None])
        self.grid, self.mode = tuple(grid), mode

    def forward(self, grid: tuple[int, int, int], device: torch.device) -> torch.Tensor:
        """(1, t·h·w, width) for a grid (t, h, w)."""
        return resize_grid(self.table("positions", device), self.grid, grid, self.mode)
