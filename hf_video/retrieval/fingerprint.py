"""Fingerprints of moments, without a model: they find a part of a video after cropping, re-encoding and resampling.

The print of a window is `STEPS` grey pictures of `SIDE` x `SIDE` pixels, evenly spread in time. They are block means,
which encoders, sizes and frame rates hardly change, without their mean and at length 1, so that brightness and contrast
don't count either; this is the vector that is searched. A crop moves everything by a pixel or two. So a query is
searched as it is and as if it had been cut out at nine places of a picture, and the candidates are compared anew: the
stored pictures are cut as the query may have been (scales and places, first on their mean over time, then finer around
the best), shifted in time, and scored by two correlations, of the pictures and of their changes, which tell apart the
moments of one video that show the same place. Another recording of the same action is not found.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from hf_video.clips.grid import FeatureGrid
from hf_video.clips.read import window_spans
from hf_video.clips.request import Windows
from hf_video.video.frames.times import frames_at
from hf_video.video.reader import VideoReader

if TYPE_CHECKING:
    from hf_video.video.frames.types import VideoSource

STEPS, SIDE = 8, 16
DIM = STEPS * SIDE * SIDE
SCALES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)  # of the longer crops' sides; 0.75 x 0.75 is 56 % of the picture
PLACES = 5  # on each axis, from one edge to the other
NOISE = 1.0  # levels of 255 that encoders change in a block mean: changes of that size say little
FRAMES_HELD = 4096  # small pictures, at once
FAR = 0.02  # taken off the score for each step in time between query and moment
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def window_prints(source: VideoSource, windows: Windows | FeatureGrid) -> tuple[np.ndarray, np.ndarray]:
    """Prints (windows, STEPS, SIDE, SIDE) float32, grey levels from 0 to 255, and the windows' (start, end) in seconds,
    float64 (windows, 2). Damaged frames are replaced by their neighbours. Raises what `VideoReader` raises."""
    with VideoReader(source, size=(SIDE, SIDE), on_error="repeat") as reader:
        spans = _spans(reader, windows)
        starts, lengths = spans[:, :1], np.diff(spans)
        if isinstance(windows, Windows):
            # All have one rhythm: a shorter one, at the end, begins earlier; a video too short for it stands still.
            starts = np.where(lengths < windows.length, spans[:, 1:] - windows.length, starts)
            starts, lengths = np.maximum(starts, reader.timestamps[0]), np.full_like(lengths, windows.length)
        return _grey(reader, starts + (np.arange(STEPS) + 0.5) * lengths / STEPS), spans


def query_prints(source: VideoSource, windows: Windows | FeatureGrid) -> list[np.ndarray]:
    """Prints of an example, (2 * steps - 1, SIDE, SIDE) for each of its windows, at twice the rhythm of an index of
    `windows`, so that they can be laid over moments with shifts of half a step. An example shorter than a window has
    fewer steps than `STEPS`."""
    with VideoReader(source, size=(SIDE, SIDE), on_error="repeat") as reader:
        prints, spans = [], _spans(reader, windows)
        length = windows.length if isinstance(windows, Windows) else np.diff(spans).max()
        for start, end in spans:
            halves = 2 * min(max(round((end - start) / length * STEPS), 1), STEPS)
            prints.append(_grey(reader, (start + np.arange(1, halves) * (end - start) / halves)[None])[0])
        return prints


def _spans(reader: VideoReader, windows: Windows | FeatureGrid) -> np.ndarray:
    """(start, end) in seconds of all windows, float64 (windows, 2)."""
    if isinstance(windows, FeatureGrid):
        return np.array(windows.clips(reader))[:, 2:]
    begin = float(reader.timestamps[0])
    return np.array(window_spans(begin, reader.end - begin, windows))


def _grey(reader: VideoReader, seconds: np.ndarray) -> np.ndarray:
    """Grey pictures (clips, times, SIDE, SIDE) of what is on screen at `seconds` (clips, times)."""
    asked = frames_at(reader.timestamps, seconds)
    grey = np.empty((*asked.shape, SIDE, SIDE), np.float32)
    for number, frames in enumerate(reader.frames_of_clips(asked, limit=FRAMES_HELD)):
        grey[number] = (frames.data.astype(np.float32) @ GREY)[np.searchsorted(frames.indices, asked[number])]
    return grey


def unit(prints: np.ndarray) -> np.ndarray:
    """Prints (N, STEPS, SIDE, SIDE) as vectors (N, DIM) without mean, of length 1 (0 where all is one colour)."""
    vectors = np.empty((len(prints), DIM), np.float32)
    for first in range(0, len(prints), FRAMES_HELD):  # a long video's are large: nothing is there twice
        part = prints[first : first + FRAMES_HELD]
        vectors[first : first + FRAMES_HELD] = _unit(part.reshape(len(part), -1))
    return vectors


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(-1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)


def search_vectors(query: np.ndarray) -> np.ndarray:
    """The vectors (10, DIM) that a query of `query_prints` is searched by: as it is, and as the part that is left of a
    picture after a crop to 0.85 of both sides at nine places, with nothing known of the rest."""
    steps = query[::2]
    whole = steps[np.linspace(0, len(steps) - 1, STEPS).round().astype(int)]
    whole = whole - whole.mean()
    side = round(0.85 * SIDE)
    shrink = _cutter(SIDE, 0.0, 1.0, side)
    small = shrink @ whole @ shrink.T
    placed = np.zeros((9, STEPS, SIDE, SIDE), np.float32)
    for number in range(9):
        top, left = (round(place * (SIDE - side) / 2) for place in divmod(number, 3))
        placed[number, :, top : top + side, left : left + side] = small
    return np.concatenate([unit(whole[None]), unit(placed)])


def compare(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Scores (N,) at most 1, of a query of `query_prints` against stored vectors (N, DIM)."""
    prints = vectors.reshape(-1, STEPS, SIDE, SIDE)
    rows, columns = _register(query[::2].mean(0), prints.mean(1))
    prints = np.einsum("nyh,nthw,nxw->ntyx", rows, prints, columns, optimize=True)
    return _best_shift(query, prints)


def _register(query: np.ndarray, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each picture (N, SIDE, SIDE) the cut that looks most like the query (SIDE, SIDE): matrices (N, SIDE, SIDE)
    that cut rows and columns."""
    target = _unit(query.reshape(-1))
    best, chosen = np.full(len(pictures), -np.inf), np.zeros((len(pictures), 3))
    for scale, y, x in _grid():
        better = _likeness(pictures, target, scale, y, x)
        hit = better > best
        best[hit], chosen[hit] = better[hit], (scale, y, x)
    for step in (0.02, 0.01):  # scales and places between those of the grid, for each picture around its own
        moves = np.concatenate([np.zeros((1, 3)), step * np.eye(3), -step * np.eye(3)])
        for number, picture in enumerate(pictures):
            around = []
            for size, top, left in chosen[number] + moves:
                size = min(size, 1.0)
                around.append((size, min(max(top, 0.0), 1 - size), min(max(left, 0.0), 1 - size)))
            likeness = [_likeness(picture[None], target, *one)[0] for one in around]
            chosen[number] = around[int(np.argmax(likeness))]
    rows = np.stack([_cutter(SIDE, y, scale, SIDE) for scale, y, _ in chosen])
    columns = np.stack([_cutter(SIDE, x, scale, SIDE) for scale, _, x in chosen])
    return rows, columns


def _likeness(pictures: np.ndarray, target: np.ndarray, scale: float, y: float, x: float) -> np.ndarray:
    cuts = _cutter(SIDE, y, scale, SIDE) @ pictures @ _cutter(SIDE, x, scale, SIDE).T
    return _unit(cuts.reshape(len(pictures), -1)) @ target


@functools.cache
def _grid() -> list[tuple[float, float, float]]:
    """(scale, y, x) of the crops that are tried, as parts of the picture's sides."""
    cuts = [(1.0, 0.0, 0.0)]
    for scale in SCALES[1:]:
        places = np.linspace(0, 1 - scale, PLACES)
        cuts += [(scale, float(y), float(x)) for y in places for x in places]
    return cuts


@functools.lru_cache(4096)
def _cutter(side: int, start: float, scale: float, out: int) -> np.ndarray:
    """(out, side): linear interpolation of `out` places spread over the part of a line from `start` on, `scale` long,
    both as parts of the whole."""
    centres = (start + scale * (np.arange(out) + 0.5) / out) * side - 0.5
    centres = centres.clip(0, side - 1)
    return np.maximum(1 - np.abs(centres[:, None] - np.arange(side)), 0).astype(np.float32)


def _best_shift(query: np.ndarray, prints: np.ndarray) -> np.ndarray:
    """The best score (N,) over all shifts in time, in half steps, that leave at least half of the query within the
    moment. Half step j of the query, counted from 1, lies on step (shift + j - 1) / 2 of the moment."""
    halves = len(query) + 1
    best = np.full(len(prints), -1.0)
    for shift in range(-halves // 2, 2 * STEPS - halves // 2 + 1):
        outside = max(-shift, 0) + max(shift + halves - 2 * STEPS, 0)
        steps = np.arange(STEPS)
        places = 2 * steps - shift  # in `query`, whose first is half step 1
        steps = steps[(places >= 0) & (places < len(query))]
        if 4 * len(steps) >= halves - 1 and len(steps):
            agreement = _agreement(query[places[steps]], prints[:, steps])
            best = np.maximum(best, agreement - FAR * outside / 2)
    return best


def _agreement(query: np.ndarray, prints: np.ndarray) -> np.ndarray:
    """Correlations of all pixels and of what changes, weighed by how much does; query (t, ...), prints (N, t, ...)."""
    pictures = _unit(prints.reshape(len(prints), -1)) @ _unit(query.reshape(-1))
    if len(query) < 2:
        return pictures
    moves = query - query.mean(0)
    weight = 0.5 * (energy := float((moves**2).mean())) / (energy + NOISE**2)
    changes = (prints - prints.mean(1, keepdims=True)).reshape(len(prints), -1)
    changes /= np.maximum(np.linalg.norm(changes, axis=1, keepdims=True), 1e-9)
    motion = changes @ moves.reshape(-1) / max(np.linalg.norm(moves), 1e-9)
    return (1 - weight) * pictures + weight * motion
