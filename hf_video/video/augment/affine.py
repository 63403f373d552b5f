"""Shears, shifts and rotations of whole clips, as Pillow's `Image.transform(size, AFFINE, matrix, BICUBIC)` gives them:
the point (x, y) of the result, counted from the corner, shows (a·x + b·y + c, d·x + e·y + f) of the clip, whose border
pixels repeat; where that lies outside, FILL.

Neighbours and weights of every place are the same for all frames. A picture that is only shifted is a sum of four
weighted slices; any other map is a weighted gather of rows that hold the values of all frames side by side. Only the
places in a box are made, from the part of the clip that they show.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as functional

from hf_video.video.augment.crops import Box, crop_box, pieces
from hf_video.video.augment.ops import cut_off

FILL = 128  # what shows where a moved picture leaves a hole
# On the CPU a square of so many pixels is made at once: all that belongs to it stays in a core's cache.
TILE = 96
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
        corners = self.corners(box)
        (left, right), (top, bottom) = (
            (_clamp(math.floor(min(line) - 0.5) - 1, length), _clamp(math.floor(max(line) - 0.5) + 2, length))
            for line, length in zip(zip(*corners, strict=True), (frame.width, frame.height), strict=True)
        )
        return Box(top, left, bottom - top + 1, right - left + 1)

    def corners(self, box: Box) -> list[tuple[float, float]]:
        """What the outermost places of `box` show."""
        rows, columns = (box.top + 0.5, box.top + box.height - 0.5), (box.left + 0.5, box.left + box.width - 0.5)
        return [self.place(x, y) for x in columns for y in rows]

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
    a, b, c, d, e, f = affine
    if (a, b, d, e, f) == (1, 0, 0, 1, 0):
        rows = clip[:, target.top - held.top :][:, : target.height]
        return _slide(rows, c, held.left, target.left, target.width, frame.width)
    if (a, b, c, d, e) == (1, 0, 0, 0, 1):  # one line, of which each pixel is a row of the picture
        line = clip[:, :, target.left - held.left :][:, :, : target.width].flatten(2)[:, None]
        return _slide(line, f, held.top, target.top, target.height, frame.height).view(len(clip), *target[2:], -1)
    return _gather(clip, affine, held, target, frame)


def _slide(lines: torch.Tensor, shift: float, first: int, start: int, width: int, length: int) -> torch.Tensor:
    """`lines` uint8 (T, lines, l, C) stand at pixel `first` of lines of `length`. What stands at pixels `start` to
    `start + width` comes when all show the pixels `shift` further on, uint8 (T, lines, width, C)."""
    moved = lines.new_full((*lines.shape[:2], width, lines.shape[3]), FILL)
    # Of these pixels the middles show a point of the line.
    low, high = max(start, math.ceil(-shift - 0.5)), min(start + width, math.ceil(length - 0.5 - shift))
    if low >= high:
        return moved
    left, right = low + math.floor(shift) - 1, high + math.floor(shift) + 2
    inside = slice(max(left, 0) - left, min(right, length) - left)
    lines = lines[:, :, left + inside.start - first : left + inside.stop - first]
    shown = moved[:, :, low - start : high - start]
    first_weight, *weights = _cubic(torch.tensor(shift % 1)).tolist()
    for piece in pieces(shown):
        some, result = lines[piece], shown[piece]
        part = torch.empty((*some.shape[:2], right - left, some.shape[3]), device=lines.device)
        part[:, :, : inside.start], part[:, :, inside.stop :] = some[:, :, :1], some[:, :, -1:]
        part[:, :, inside] = some
        first_tap, *taps = (part[:, :, tap : tap + high - low].flatten(2) for tap in range(4))
        found = first_tap * first_weight
        for values, weight in zip(taps, weights, strict=True):
            found.add_(values, alpha=weight)
        result.copy_(cut_off(found.add_(_ROUNDING)).view(result.shape))
    return moved


def _gather(clip: torch.Tensor, affine: Affine, held: Box, target: Box, frame: Box) -> torch.Tensor:
    """As `move`, for any map: a weighted gather of rows that hold the values of all frames side by side."""
    moved = clip.new_empty((len(clip), target.height, target.width, clip.shape[3]))
    side = TILE if clip.device.type == "cpu" else max(target.height, target.width)
    for top, left in itertools.product(range(0, target.height, side), range(0, target.width, side)):
        height, width = min(side, target.height - top), min(side, target.width - left)
        tile = Box(target.top + top, target.left + left, height, width)
        source = affine.source(tile, frame)
        values = _side_by_side(crop_box(clip, source, held))
        index, weights = _neighbours(affine, source, tile, frame, clip.device)
        found = functional.embedding_bag(index, values, per_sample_weights=weights, mode="sum")
        found = cut_off(found.add_(_ROUNDING)).view(height, width, -1, len(clip))
        crop_box(moved, tile, target).copy_(found.permute(3, 0, 1, 2))
    return moved


def _side_by_side(clip: torch.Tensor) -> torch.Tensor:
    """(h · w + 1, 3 · T) float32: of each place the frames of each value, and FILL in the last row."""
    frames, height, width, channels = clip.shape
    values = torch.empty((height * width + 1, channels * frames), dtype=torch.float32, device=clip.device)
    values[-1] = FILL
    flat = clip.reshape(frames, -1)
    # NumPy transposes bytes, and torch widens them after that, in half of the time of one strided copy.
    turned = torch.from_numpy(np.ascontiguousarray(flat.numpy().T)) if clip.device.type == "cpu" else flat.T
    values[:-1].view(-1, frames).copy_(turned)
    return values


def _neighbours(
    affine: Affine, held: Box, target: Box, frame: Box, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers, (places, taps) int32, of the neighbours in `held` of each place of `target`, and their weights, (places,
    taps) float32. Taps are 16 of a rotation, 4 of a shear, which moves along one axis alone. For a place that shows a
    point outside all are the number after the last, whose values are FILL."""
    y = torch.arange(target.top, target.top + target.height, dtype=torch.float64, device=device)[:, None] + 0.5
    x = torch.arange(target.left, target.left + target.width, dtype=torch.float64, device=device) + 0.5
    x, y = (line.flatten() for line in affine.place(x, y))
    columns, across = _line(x - 0.5, frame.width, held.left)
    rows, down = _line(y - 0.5, frame.height, held.top)
    # Most squares lie inside, as far as rounding lets one tell.
    if not all(1 <= a < frame.width - 1 and 1 <= b < frame.height - 1 for a, b in affine.corners(target)):
        outside = (x < 0) | (x >= frame.width) | (y < 0) | (y >= frame.height)
        rows.masked_fill_(outside, held.height)
        columns.masked_fill_(outside, 0)
    # Taps first: the innermost loop runs over places, not over four neighbours.
    index = (rows.mul_(held.width)[:, None] + columns).flatten(0, 1)
    weights = (down[:, None] * across).flatten(0, 1)
    return index.T.contiguous(), weights.T.contiguous()


def _line(place: torch.Tensor, length: int, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The four pixels around each place on a line, counted from `start`, and their weights: (4, places) each; where all
    places are whole the pixels themselves, (1, places)."""
    first = place.floor()
    t = (place - first).float()
    pixel = first.int()
    if not t.any():
        return pixel.clamp_(0, length - 1).sub_(start)[None], torch.ones_like(t)[None]
    pixels = pixel + torch.arange(-1, 3, dtype=torch.int32, device=place.device)[:, None]
    return pixels.clamp_(0, length - 1).sub_(start), _cubic(t)


def _cubic(t: torch.Tensor) -> torch.Tensor:
    """Pillow's cubic weights (a = -1), (4, ...), of the pixels around a place that lies `t` after the second."""
    square, cube = t * t, t * t * t
    return torch.stack([2 * square - t - cube, 1 - 2 * square + cube, t + square - cube, cube - square])
