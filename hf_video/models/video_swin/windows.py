"""Shifted 3-D windows (Video Swin, section 3.2): cutting a (time, rows, columns) grid of tokens into windows, and the
two tables that attention inside them needs.

Both tables depend on the window alone, never on the size of the grid. A shift rolls the grid by half a window; what
wraps around may not be seen by its new neighbours. Only the last window along an axis holds such tokens, so there are
no more than 2³ = 8 different masks for any number of windows: one per set of axes along which a window is the last.
Without masks the same is attention inside boxes of the grid as it lies, smaller ones at its edges (`boxes_by_size`).
"""

from __future__ import annotations

import functools
import itertools
from math import prod

import torch
from torch.nn import functional as F

from hf_video.layers.embeddings import Tables

Size = tuple[int, int, int]

AXES = (1, 2, 3)  # time, rows, columns of (B, T, H, W, C), and of windows (B, a, b, c, N, C)


def fit_window(grid: Size, window: Size, shift: Size) -> tuple[Size, Size]:
    """Window and shift for a grid: along an axis with no more tokens than the window, the window is the whole axis and
    there is nothing to shift."""
    fits = [tokens <= size for tokens, size in zip(grid, window, strict=True)]
    window = tuple(tokens if fit else size for tokens, size, fit in zip(grid, window, fits, strict=True))
    return window, tuple(0 if fit else size for size, fit in zip(shift, fits, strict=True))


def to_windows(x: torch.Tensor, window: Size, shift: Size) -> torch.Tensor:
    """(B, T, H, W, C) -> (B, a, b, c, N, C): a·b·c windows of N tokens, in order time, row, column. Zeros are appended
    where a window would not be full (the official code attends to them), then the grid is rolled back by `shift`."""
    pad = [-tokens % size for tokens, size in zip(x.shape[1:4], window, strict=True)]
    if any(pad):
        x = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
    if any(shift):
        x = x.roll([-n for n in shift], AXES)
    for axis in reversed(AXES):
        x = x.unflatten(axis, (x.shape[axis] // window[axis - 1], window[axis - 1]))
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6)


def from_windows(windows: torch.Tensor, window: Size, shift: Size, grid: Size) -> torch.Tensor:
    """The way back: (B, a, b, c, N, C) -> (B, T, H, W, C) for a grid (T, H, W)."""
    x = windows.unflatten(4, window).permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    if any(shift):
        x = x.roll(shift, AXES)
    t, h, w = grid
    return x[:, :t, :h, :w]


@functools.lru_cache(maxsize=32)
def boxes_by_size(
    batch: int, grid: Size, window: Size, shift: Size
) -> tuple[torch.Tensor, torch.Tensor, dict[Size, int]]:
    """What shifted windows come to, without rolling a grid of whole windows or masking what wraps around: windows that
    begin at `shift`, and along each axis smaller boxes before the first and after the last, each of which sees itself.

    Returns the flat numbers of (batch, T, H, W) tokens in the order of their boxes, boxes of one size together; where
    each token went; and the number of tokens that are in boxes of each size."""
    groups: dict[Size, list[torch.Tensor]] = {}
    with torch.inference_mode(False):  # what is kept must serve everywhere
        numbers = torch.arange(batch * prod(grid), device="cpu").view(batch, *grid, 1)
        for pieces in itertools.product(*(_pieces(*axis) for axis in zip(grid, window, shift, strict=True))):
            part = numbers
            for axis, (start, length, _) in zip(AXES, pieces, strict=True):
                part = part.narrow(axis, start, length)
            box = tuple(size for _, _, size in pieces)
            groups.setdefault(box, []).append(to_windows(part, box, (0, 0, 0)).flatten())
        order = torch.cat([part for parts in groups.values() for part in parts])
        places = order.argsort()
    return order, places, {box: sum(map(len, parts)) for box, parts in groups.items()}


def _pieces(tokens: int, window: int, shift: int) -> list[tuple[int, int, int]]:
    """(start, length, size of a box) of what an axis is cut into."""
    if not shift:
        return [(0, tokens, window)]
    rest = window - shift
    return [(0, shift, shift), (shift, tokens - window, window), (tokens - rest, rest, rest)]


def _coordinates(window: Size) -> torch.Tensor:
    """(N, 3): time, row and column of each token of a window."""
    axes = [torch.arange(size, device="cpu") for size in window]
    return torch.cartesian_prod(*axes).view(-1, 3)


def position_index(window: Size) -> torch.Tensor:
    """(N, N), int64: for each pair of a window's tokens, the row of the bias table that stands for the way from one to
    the other."""
    coordinates = _coordinates(window)
    ways = coordinates[:, None] - coordinates[None] + torch.tensor(window, device="cpu") - 1
    _, rows, columns = (2 * size - 1 for size in window)
    return (ways * torch.tensor([rows * columns, columns, 1], device="cpu")).sum(-1)


def cut_masks(window: Size) -> torch.Tensor:
    """(8, N, N), bool: True between tokens that a shift by half a window brought together. Mask 4·t + 2·h + w is for
    windows that are the last along time (t = 1), rows (h = 1) and columns (w = 1)."""
    coordinates = _coordinates(window)
    wrapped = coordinates >= torch.tensor([size - size // 2 for size in window], device="cpu")
    differ = wrapped[:, None] != wrapped[None]
    last = torch.tensor([[code & bit for bit in (4, 2, 1)] for code in range(8)], device="cpu").bool()
    return (differ & last[:, None, None]).any(-1)


class WindowTables(Tables):
    """The two tables, once for a whole model."""

    def __init__(self, window: Size) -> None:
        super().__init__(index=position_index(window), cuts=cut_masks(window))
        self.window = tuple(window)

    def cut(self, code: int, window: Size, device: torch.device) -> torch.Tensor:
        """(n, n), bool: mask `code` for a window that may have shrunk to `window`."""
        cuts = self.table("cuts", device)[code]
        if window == self.window:
            return cuts
        t, h, w = window
        cuts = cuts.view(*self.window, *self.window)
        return cuts[:t, :h, :w, :t, :h, :w].reshape(t * h * w, t * h * w)
