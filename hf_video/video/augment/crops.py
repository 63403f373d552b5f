"""Where to cut: places drawn for one clip and used for all of its frames. Sizes and places are in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from hf_video.errors import VideoArrayError
from hf_video.video.transforms import PIECE


class Box(NamedTuple):
    """Rows `top` to `top + height`, columns `left` to `left + width`."""

    top: int
    left: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width} at ({self.top}, {self.left})"

    def wider(self, pixels: int, frame: Box) -> Box:
        """With this many pixels more on all sides, as far as `frame` goes, which begins at 0."""
        top, left = max(self.top - pixels, 0), max(self.left - pixels, 0)
        bottom, right = self.top + self.height + pixels, self.left + self.width + pixels
        return Box(top, left, min(bottom, frame.height) - top, min(right, frame.width) - left)


def crop_box(clip: torch.Tensor, target: Box, held: Box | None = None) -> torch.Tensor:
    """What stands at `target` of the frame: a view of `clip` (T, height, width, 3), which stands at `held` (None: it is
    the whole frame)."""
    top, left = (target.top - held.top, target.left - held.left) if held else target[:2]
    return clip[:, top : top + target.height, left : left + target.width]


def pieces(clip: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """(frames, rows) that make up `clip` (T, height, width, 3), of about PIECE values each: several small frames, or
    rows of a large one. On another device all at once."""
    count, height, width, channels = clip.shape
    size = PIECE if clip.device.type == "cpu" else clip.numel()
    rows = min(max(size // (width * channels), 1), height)
    frames = max(size // (width * channels * height), 1)
    for first in range(0, count, frames):
        for top in range(0, height, rows):
            yield slice(first, first + frames), slice(top, top + rows)


def random_resized_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Box:
    """A box with `scale` of the area (uniform) and width / height in `ratio` (uniform in the logarithm), anywhere.

    Ten draws; if none fits, the largest box in the middle that keeps to `ratio`: Inception's crop as VideoMAE and MViT
    use it.
    """
    for _ in range(10):
        area = rng.uniform(*scale) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            return random_box(height, width, (high, wide), rng)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    wide, high = min(width, max(round(height * aspect), 1)), min(height, max(round(width / aspect), 1))
    return Box((height - high) // 2, (width - wide) // 2, high, wide)


def multi_scale_box(
    height: int, width: int, size: tuple[int, int], scales: Sequence[float], rng: np.random.Generator
) -> Box:
    """Sides of int(scale · short side), height and width at most one scale apart, at one of 13 fixed places: four
    corners, four sides' middles, the middle, and half-way from it to the corners (TSN; VideoMAE's pre-training).

    A side within 2 pixels of `size` becomes `size`, which saves the resize.
    """
    sides = [max(int(min(height, width) * scale), 1) for scale in scales]
    high, wide = ([goal if abs(side - goal) < 3 else side for side in sides] for goal in size)
    pairs = [(h, w) for i, h in enumerate(high) for j, w in enumerate(wide) if abs(i - j) <= 1]
    # A side that became `size` may be two pixels more than the frame has.
    h, w = pairs[rng.integers(len(pairs))]
    h, w = min(h, height), min(w, width)
    down, across = fixed_places()[rng.integers(13)]
    return Box(down * ((height - h) // 4), across * ((width - w) // 4), h, w)


def fixed_places() -> list[tuple[int, int]]:
    """The 13 places of TSN's crop, in quarters of the free way down and across."""
    outer = [(down, across) for down in (0, 2, 4) for across in (0, 2, 4)]
    return outer + [(down, across) for down in (1, 3) for across in (1, 3)]


def random_box(height: int, width: int, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A box of `size` anywhere. Raises VideoArrayError where the frame is smaller."""
    _check_fits(height, width, size)
    return Box(int(rng.integers(height - size[0] + 1)), int(rng.integers(width - size[1] + 1)), *size)


def center_box(height: int, width: int, size: tuple[int, int]) -> Box:
    """The box of `size` in the middle. Raises VideoArrayError where the frame is smaller."""
    _check_fits(height, width, size)
    return Box((height - size[0]) // 2, (width - size[1]) // 2, *size)


def _check_fits(height: int, width: int, size: tuple[int, int]) -> None:
    if size[0] > height or size[1] > width:
        raise VideoArrayError(
            f"Frames of {height}x{width} are too small for a {size[0]}x{size[1]} crop. Give short_side, which resizes "
            'them first, or crop="random_resized".'
        )
