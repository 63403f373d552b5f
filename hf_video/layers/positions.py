"""Position tables and their resizing to other grids."""

from __future__ import annotations

from math import prod

import torch
from torch.nn import functional as F

from hf_video.layers.tables import Tables


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
