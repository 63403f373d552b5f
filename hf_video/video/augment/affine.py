"""Shears, shifts and rotations of whole clips, as Pillow's `Image.transform(size, AFFINE, matrix, BICUBIC)` gives them:
the point (x, y) of the result, counted from the corner, shows (a·x + b·y + c, d·x + e·y + f) of the clip, whose border
pixels repeat; where that lies outside, FILL.

Neighbours and weights of every place are the same for all frames: one weighted gather of rows that hold the values of
all frames side by side. Only the places in a box are made, from the part of the clip that they show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as functional

from hf_video.video.augment.crops import Box

FILL = 128  # what shows where a moved picture leaves a hole
# Cutting off a sum of float32 products that should be a whole number must not lose a level.
_ROUNDING = 2.0**-10

Coordinate = TypeVar("Coordinate", float, torch.Tensor)


class Affine(NamedTuple):
    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def source(self, box: Box, frame: Box) -> Box:
        """The part of the clip that the places of `box` show, with the neighbours of bicubic weights."""
        rows, columns = (box.top + 0.5, box.top + box.height - 0.5), (box.left + 0.5, box.left + box.width - 0.5)
        corners = [self.place(x, y) for x in columns for y in rows]
        (left, right), (top, bottom) = (
            (_clamp(math.floor(min(line) - 0.5) - 1, length), _clamp(math.floor(max(line) - 0.5) + 2, length))
            for line, length in zip(zip(*corners, strict=True), (frame.width, frame.height), strict=True)
        )
        return Box(top, left, bottom - top + 1, right - left + 1)

    def place(self, x: Coordinate, y: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Of a place of the result the place of the clip."""
        return self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f


def _clamp(pixel: int, length: int) -> int:
    return min(max(pixel, 0), length - 1)


def _rotated(degrees: float, height: int, width: int) -> Affine:
    cos, sin = (round(f(-math.radians(degrees)), 15) for f in (math.cos, math.sin))
    x, y = width / 2, height / 2
    return Affine(cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


# Argument, height and width to the map: rows move left by `slope` · y pixels, columns up by `slope` · x, the picture
# left or up by a share of itself, or it turns counter-clockwise about its middle (`Image.rotate`).
MAPS: dict[str, Callable[[float, int, int], Affine]] = {
    "shear_x": lambda slope, height, width: Affine(1, slope, 0, 0, 1, 0),
    "shear_y": lambda slope, height, width: Affine(1, 0, 0, slope, 1, 0),
    "translate_x": lambda share, height, width: Affine(1, 0, share * width, 0, 1, 0),
    "translate_y": lambda share, height, width: Affine(1, 0, 0, 0, 1, share * height),
    "rotate": _rotated,
}


def move(clip: torch.Tensor, affine: Affine, *, held: Box, target: Box, frame: Box) -> torch.Tensor:
    """`clip` uint8 (T, h, w, 3) stands at `held` of the frame and holds `affine.source(target, frame)`; what stands at
    `target` of the moved picture comes, uint8 (T, height, width, 3)."""
    frames, channels = clip.shape[0], clip.shape[3]
    index, weights = _neighbours(affine, held, target, frame, clip.device)
    # The frames of a value stand side by side: between (T, ·) and (·, T) lies a plain transposition, which is fast.
    places = held.height * held.width
    values = torch.empty((places + 1, channels * frames), dtype=torch.float32, device=clip.device)
    values[-1] = FILL
    values[:-1].view(-1, frames).copy_(clip.reshape(frames, -1).T)
    moved = functional.embedding_bag(index, values, per_sample_weights=weights, mode="sum")
    # Of bytes a transposition takes a third of the time.
    moved = moved.add_(_ROUNDING).clamp_(0, 255).to(torch.uint8).view(-1, frames).T.contiguous()
    return moved.view(frames, target.height, target.width, channels)


def _neighbours(
    affine: Affine, held: Box, target: Box, frame: Box, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers, (places, taps) int32, of the neighbours in `held` of each place of `target`, and their weights, (places,
    taps) float32. Taps are 16 of a rotation, 4 of a shear, which moves along one axis alone. A place that shows a point
    outside has the number after the last, whose values are FILL, with weight 1."""
    y = torch.arange(target.top, target.top + target.height, dtype=torch.float64, device=device)[:, None] + 0.5
    x = torch.arange(target.left, target.left + target.width, dtype=torch.float64, device=device) + 0.5
    x, y = (line.flatten() for line in affine.place(x, y))
    outside = (x < 0) | (x >= frame.width) | (y < 0) | (y >= frame.height)
    columns, across = _line(x - 0.5, frame.width, held.left)
    rows, down = _line(y - 0.5, frame.height, held.top)
    # Taps first: the innermost loop runs over places, not over four neighbours.
    index = (rows.mul_(held.width)[:, None] + columns).flatten(0, 1)
    weights = (down[:, None] * across).flatten(0, 1)
    if outside.any():
        index.masked_fill_(outside, held.height * held.width)
        weights.masked_fill_(outside, 0)[0].masked_fill_(outside, 1)
    return index.T.contiguous(), weights.T.contiguous()


def _line(place: torch.Tensor, length: int, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The four pixels around each place on a line, counted from `start`, and Pillow's cubic weights of them (a = -1):
    (4, places) each; where all places are whole the pixels themselves, (1, places)."""
    first = place.floor()
    t = (place - first).float()
    pixel = first.int()
    if not t.any():
        return pixel.clamp_(0, length - 1).sub_(start)[None], torch.ones_like(t)[None]
    square, cube = t * t, t * t * t
    weights = torch.stack([2 * square - t - cube, 1 - 2 * square + cube, t + square - cube, cube - square])
    pixels = pixel + torch.arange(-1, 3, dtype=torch.int32, device=place.device)[:, None]
    return pixels.clamp_(0, length - 1).sub_(start), weights
