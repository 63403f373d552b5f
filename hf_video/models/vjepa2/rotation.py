"""V-JEPA 2's rotary positions: of a head's channels a third turns with a token's time, a third with its row and a third
with its column; what three whole numbers of pairs leave over stays.

Channels turn in neighbouring pairs, but the angles are laid out in halves: channel k of a third of d channels has
frequency 10000^(-(k mod d/2) / (d/2)), so the two channels of a pair have different ones. The authors say in a comment
that this was not meant; their weights were trained with it, and it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from hf_video.layers.embeddings import Tables

# Cosines and signed sines, each (tokens, 1, 1, channels) or (B, tokens, 1, 1, channels).
Rotation = tuple[torch.Tensor, torch.Tensor]


class RotaryTables(Tables):
    """Cosines and sines for all tokens of a grid. They are worked out for the first clip and kept for those of the same
    grid, type and device that follow. Angles are float32 whatever the type: in bfloat16 those of the last of 64
    frames are up to 2° off."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.made: tuple[tuple[object, ...], Rotation] | None = None

    def forward(self, grid: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Rotation:
        """For a grid (time, rows, columns), tokens in that order: cosines (tokens, 1, 1, head_dim), and sines of as
        many channels as make pairs."""
        if torch.compiler.is_compiling():
            return self.make(grid, dtype, device)
        key = (*grid, dtype, device)
        if self.made is not None and self.made[0] == key:
            return self.made[1]
        with torch.inference_mode(False):  # what is kept must serve in training too
            rotation = self.make(grid, dtype, device)
        if type(rotation[0]) is torch.Tensor:  # and not the stand-in of a model that is only measured
            self.made = key, rotation
        return rotation

    def make(self, grid: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Rotation:
        """See `forward`. A sine has its partner's sign: (a, b) becomes (a cos - b sin, b cos + a sin)."""
        half = self.head_dim // 3 // 2
        frequency = torch.arange(half, dtype=torch.float32, device=device) / max(half, 1)
        rate = (10000.0**-frequency).repeat(2)
        t, h, w = grid
        axes = [torch.arange(n, dtype=torch.float32, device=device)[:, None] * rate for n in grid]
        axes = [axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]]
        angle = torch.cat([axis.expand(t, h, w, -1) for axis in axes], dim=-1)
        angle = F.pad(angle.flatten(0, 2)[:, None, None], (0, self.head_dim - 6 * half))
        sin = angle.sin()[..., : self.head_dim // 2 * 2].unflatten(-1, (-1, 2))
        sin = torch.stack([-sin[..., 0], sin[..., 1]], dim=-1).flatten(-2)
        return angle.cos().to(dtype), sin.to(dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> RotaryTables:
        self.made = None
        super()._apply(fn, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "made": None}


def rotate(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Turns channels of (B, tokens, 2, heads, head_dim)."""
    cos, sin = rotation
    pairs = sin.shape[-1]
    partner = x[..., :pairs].unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    turned = x * cos
    turned[..., :pairs].addcmul_(partner, sin)
    return turned


def at_tokens(rotation: Rotation, index: torch.Tensor) -> Rotation:
    """The tables' rows for token numbers (B, n): (B, n, 1, 1, channels) each."""
    cos, sin = rotation
    return cos[index], sin[index]
