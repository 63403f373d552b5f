"""Shears, shifts and rotations of whole clips, as Pillow's `Image.transform(size, AFFINE, matrix, BICUBIC)` gives them:
the point (x, y) of the result, counted from the corner, shows (a·x + b·y + c, d·x + e·y + f) of the clip, whose border
pixels repeat; where that lies outside, FILL.

Neighbours and weights of every place are the same for all frames. A shift or a shear moves each line along itself by an
amount of its own, and is a sum of four weighted slices of lines that were first moved by whole pixels; any other map is
a weighted gather of rows that hold the values of all frames side by side. Only the places in a box are made, from the
part of the clip that they show.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

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
    if (a, d, e, f) == (1, 0, 1, 0):
        rows = clip[:, target.top - held.top :][:, : target.height]
        return _slide(
            rows, 2, _shifts(b, c, target.top, target.height), held.left, target.left, target.width, frame.width
        )
    if (a, b, c, e) == (1, 0, 0, 1):
        columns = clip[:, :, target.left - held.left :][:, :, : target.width]
        shifts = _shifts(d, f, target.left, target.width)
        return _slide(columns, 1, shifts, held.top, target.top, target.height, frame.height)
    return _gather(clip, affine, held, target, frame)


def _shifts(slope: float, shift: float, start: int, lines: int) -> np.ndarray:
    """How far each line from `start` on is moved, or (1,) where all are moved alike."""
    return (np.arange(start, start + (lines if slope else 1)) + 0.5) * slope + shift


def _slide(
    clip: torch.Tensor, axis: int, shifts: np.ndarray, first: int, start: int, size: int, length: int
) -> torch.Tensor:
    """`clip` uint8 (T, h, w, C) stands, along `axis`, at pixel `first` of lines of `length`: rows for axis 2, columns
    for 1. What stands at pixels `start` to `start + size` comes when each line shows the pixels that lie its own of
    `shifts` further on, uint8 (T, height, width, C)."""
    moved = clip.new_empty([*clip.shape[:axis], size, *clip.shape[axis + 1 :]])
    whole = np.floor(shifts)
    # Of these pixels of a line the middles show a point of it.
    low, high = (np.ceil(end - 0.5 - shifts).clip(start, start + size).astype(int) - start for end in (0, length))
    begin, end = int(low.min()), int(high.max())
    if begin < end:
        shown = moved.narrow(axis, begin, end - begin)
        taps = _with_neighbours(clip, axis, whole.astype(int) + start + begin - 1 - first, end - begin + 3)
        _interpolate(taps, axis, _cubic(torch.from_numpy((shifts - whole).astype(np.float32))), shown)
    holes = _lines(moved, axis)
    for lines in _runs(low, high):
        holes[:, lines, : low[lines.start or 0]] = FILL
        holes[:, lines, high[lines.start or 0] :] = FILL
    return moved


def _with_neighbours(clip: torch.Tensor, axis: int, begins: np.ndarray, size: int) -> torch.Tensor:
    """Of each line the `size` pixels from its own of `begins` on; the outermost pixels of `clip` repeat."""
    found = clip.new_empty([*clip.shape[:axis], size, *clip.shape[axis + 1 :]])
    target, source = _lines(found, axis), _lines(clip, axis)
    length = clip.shape[axis]
    for lines in _runs(begins):
        begin = begins[lines.start or 0]
        low, high = (min(max(pixel, 0), length) for pixel in (begin, begin + size))
        if low < high:  # else nothing of these lines is shown
            some, result = source[:, lines, low:high], target[:, lines]
            result[:, :, low - begin : high - begin] = some
            result[:, :, : low - begin], result[:, :, high - begin :] = some[:, :, :1], some[:, :, -1:]
    return found


def _lines(clip: torch.Tensor, axis: int) -> Any:
    """A view (T, lines, pixels, C) to which one may write; of NumPy on the CPU, where small copies cost less so."""
    view = clip if axis == 2 else clip.transpose(1, 2)
    return view.numpy() if clip.device.type == "cpu" else view


def _runs(*values: np.ndarray) -> Iterator[slice]:
    """The stretches of lines in which nothing changes; all lines where one value holds for all."""
    if len(values[0]) == 1:
        yield slice(None)
        return
    changes = np.flatnonzero(np.any([np.diff(one) for one in values], axis=0)) + 1
    yield from itertools.starmap(slice, itertools.pairwise([0, *changes.tolist(), len(values[0])]))


def _interpolate(taps: torch.Tensor, axis: int, weights: torch.Tensor, result: torch.Tensor) -> None:
    """Writes to `result` (T, height, width, C) for each pixel the weighted sum of four that follow each other along
    `axis` of `taps`, which has three more there. `weights` are (4, lines), or (4, 1) for all lines."""
    channels = taps.shape[3]
    step, reach = (channels, 0) if axis == 2 else (1, 3)
    weights = weights.to(taps.device)
    weights = (
        weights[..., None] if axis == 2 or weights.shape[1] == 1 else weights.repeat_interleave(channels, 1)[:, None]
    )
    for frames, rows in pieces(result):
        part = result[frames, rows]
        wide = taps[frames, rows.start : rows.stop + reach].flatten(2).float()
        size = part.shape[axis] * step
        lines = weights[:, rows] if axis == 2 and weights.shape[1] > 1 else weights
        found = wide.narrow(axis, 0, size) * lines[0]
        for tap in range(1, 4):
            found.addcmul_(wide.narrow(axis, tap * step, size), lines[tap])
        part.copy_(cut_off(found.add_(_ROUNDING)).view(part.shape))


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
    """Numbers, (places, 16) int32, of the neighbours in `held` of each place of `target`, and their weights, (places,
    16) float32. For a place that shows a point outside all are the number after the last, whose values are FILL."""
    y = torch.arange(target.top, target.top + target.height, dtype=torch.float64, device=device)[:, None] + 0.5
    x = torch.arange(target.left, target.left + target.width, dtype=torch.float64, device=device) + 0.5
    x, y = (line.flatten() for line in affine.place(x, y))
    column, across = _line(x - 0.5)
    row, down = _line(y - 0.5)
    four = torch.arange(-1, 3, dtype=torch.int32, device=device)
    # Most squares lie inside with all neighbours, as far as rounding lets one tell.
    if all(3 <= a < frame.width - 3 and 3 <= b < frame.height - 3 for a, b in affine.corners(target)):
        first = row.sub_(held.top).mul_(held.width).add_(column.sub_(held.left))
        index = first[:, None] + (four[:, None] * held.width + four).flatten()
    else:
        rows, columns = (
            (line + four[:, None]).clamp_(0, length - 1).sub_(start)
            for line, length, start in ((row, frame.height, held.top), (column, frame.width, held.left))
        )
        outside = (x < 0) | (x >= frame.width) | (y < 0) | (y >= frame.height)
        rows.masked_fill_(outside, held.height)
        columns.masked_fill_(outside, 0)
        index = _places_first((rows.mul_(held.width)[:, None] + columns).flatten(0, 1))
    # Made taps first: the innermost loop runs over places, not over four neighbours.
    return index, _places_first((down[:, None] * across).flatten(0, 1))


def _places_first(values: torch.Tensor) -> torch.Tensor:
    """(taps, places) to (places, taps), which NumPy does in half of torch's time."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.ascontiguousarray(values.numpy().T))
    return values.T.contiguous()


def _line(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixel before each place on a line, (places,) int32, and the weights of the four around it, (4, places)."""
    first = place.floor()
    return first.int(), _cubic((place - first).float())


def _cubic(t: torch.Tensor) -> torch.Tensor:
    """Pillow's cubic weights (a = -1), (4, ...), of the pixels around a place that lies `t` after the second."""
    square, cube = t * t, t * t * t
    return torch.stack([2 * square - t - cube, 1 - 2 * square + cube, t + square - cube, cube - square])
