"""The same video found again by what it shows: after another encoder, at another size or frame rate.

A print is eight frames, spread over the video, of 16x16 pixels. Two videos are taken for the same where their prints
agree in appearance (correlation of all pixels), in motion (of what changes from frame to frame) and in mean colour.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import av
import numpy as np
from PIL import Image

from hf_video.data.sources.inspection import Inspection, decode_strictly, stated_more
from hf_video.errors import HFVideoError, VideoError
from hf_video.video.decode.container import OpenVideo, media_from_path
from hf_video.video.decode.frame_table import build_table
from hf_video.video.decode.sources import is_encoded
from hf_video.video.frames.pixels import FrameConverter, Sizing, clockwise_degrees, display_matrix
from hf_video.video.reader import VideoReader

if TYPE_CHECKING:
    from hf_video.data.types import VideoSource

FRAMES, SIDE = 8, 16
# Copies at 112 pixels and of half the frames reach 0.988 and 0.952, two halves of one recording 0.859 and 0.005.
APPEARANCE, MOTION, COLOR_LEVELS = 0.97, 0.9, 10.0
STILL_APPEARANCE = 0.995  # where nothing moves there is only the picture to go by
STILL_LEVELS = 2.0  # root mean square of what changes, in levels of 255, below which it may be noise
FLAT_LEVELS = 3.0  # contrast below which there is no picture to compare
# Demuxers that stand before the first packet again after seeking to the first frame.
REWINDING = ("mov", "matroska")
_ROWS, _COLUMNS = 256, 512  # compared at once: what comes near by 4x4 pixels takes 25 kB a video


def fingerprint(source: VideoSource) -> np.ndarray | None:
    """uint8 (8, 16, 16, 3): frames from the middles of eight equal parts; None where the video can't be read. Damaged
    frames are replaced by their neighbours."""
    try:
        with VideoReader(source, size=(SIDE, SIDE), on_error="repeat") as reader:
            return reader.get_frames(middles(len(reader))).data
    except (HFVideoError, OSError):
        return None


def middles(frames: int) -> np.ndarray:
    """The frames in the middles of eight equal parts of a video, (8,) int64."""
    return (2 * np.arange(FRAMES) + 1) * frames // (2 * FRAMES)


class Prints:
    """Fingerprints of many videos in one array, 6 kB each: `data` uint8 (N, 8, 16, 16, 3), `known` bool (N,)."""

    def __init__(self, count: int):
        self.data = np.zeros((count, FRAMES, SIDE, SIDE, 3), np.uint8)
        self.known = np.zeros(count, bool)

    def put(self, number: int, found: np.ndarray | None) -> None:
        if found is not None:
            self.data[number], self.known[number] = found, True

    def same_content(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """Pairs of these `numbers` that show the same video, see `same_content`."""
        kept = np.array([i for i in numbers if self.known[i] and self.data[i].std() > FLAT_LEVELS], dtype=np.int64)
        if len(kept) < 2:
            return []
        whole = len(kept) == len(self.data) and bool((np.diff(kept) == 1).all())
        stack = self.data if whole else self.data[kept]  # no second copy of thousands
        return [(int(kept[i]), int(kept[j])) for pairs in _same_pairs(stack) for i, j in pairs]


def same_content(prints: Sequence[np.ndarray | None]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of prints that show the same video. Prints that are None, or nearly of one colour, match
    none.

    All pairs are compared by 4x4 pixels a frame, and what comes near by all pixels; both are products of matrices.
    """
    found = Prints(len(prints))
    for number, one in enumerate(prints):
        found.put(number, one)
    return found.same_content(range(len(prints)))


def _same_pairs(stack: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs (n, 2), first below second, a block of the N x N matrix at a time."""
    step = SIDE // 4
    small = stack.reshape(len(stack), FRAMES, 4, step, 4, step, 3).mean(axis=(3, 5), dtype=np.float32)
    coarse = _unit(small.reshape(len(stack), -1))
    for top in range(0, len(stack), _ROWS):
        for left in range(top, len(stack), _COLUMNS):
            near = coarse[top : top + _ROWS] @ coarse[left : left + _COLUMNS].T > APPEARANCE - 0.03
            near &= np.arange(left, left + near.shape[1]) > np.arange(top, top + len(near))[:, None]
            rows, columns = near.any(1).nonzero()[0] + top, near.any(0).nonzero()[0] + left
            if len(rows):
                same = _same(stack[rows], stack[columns]) & (rows[:, None] < columns)
                first, second = same.nonzero()
                yield np.stack([rows[first], columns[second]], axis=1)


def _same(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, m) bool for prints (n, 8, 16, 16, 3) against prints (m, 8, 16, 16, 3)."""
    looks, moves, levels, colors = zip(*(_features(prints) for prints in (first, second)), strict=True)
    appearance, motion = looks[0] @ looks[1].T, moves[0] @ moves[1].T
    still = np.maximum(levels[0][:, None], levels[1]) < STILL_LEVELS
    color = np.abs(colors[0][:, None] - colors[1]).max(-1) < COLOR_LEVELS
    return color & np.where(still, appearance > STILL_APPEARANCE, (appearance > APPEARANCE) & (motion > MOTION))


def _features(prints: np.ndarray) -> tuple[np.ndarray, ...]:
    """Unit vectors (n, 6144) of all pixels and of what changes over time, how much changes in levels (n,), and the mean
    colour (n, 3)."""
    pixels = prints.reshape(len(prints), FRAMES, -1, 3).astype(np.float32)
    moving = (pixels - pixels.mean(1, keepdims=True)).reshape(len(prints), -1)
    levels = np.sqrt((moving**2).mean(1))
    return _unit(pixels.reshape(len(prints), -1)), _unit(moving), levels, pixels.mean((1, 2))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows without their mean, at length 1: their products are correlations."""
    vectors = vectors - vectors.mean(1, keepdims=True)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


# -- with an inspection, from one decode -------------------------------------------------------------------------------


def inspect_and_fingerprint(source: VideoSource) -> tuple[Inspection, np.ndarray] | None:
    """A sound file's `inspect_video(source, level="full")` and `fingerprint(source)`; None for one that is no path, or
    where anything is out of the ordinary."""
    if not isinstance(source, str) or not os.path.isfile(source):
        return None
    video = None
    try:
        media = media_from_path(source)
        if not is_encoded(media):
            return None
        video = OpenVideo(media)
        return _look(video, media.label, os.path.getsize(source))
    except (VideoError, av.FFmpegError, OSError, ValueError, IndexError):
        return None
    finally:
        if video is not None:
            video.close()


def _look(video: OpenVideo, label: str, size: int) -> tuple[Inspection, np.ndarray] | None:
    table = build_table(video, label)
    if table.pts is None or not len(table):
        return None
    if video.touched:
        if video.kind.startswith(REWINDING):
            video.seek(int(table.pts[0]))
        else:
            video.reopen(strict=True)
    gallery = _Gallery(len(table))
    if decode_strictly(video, gallery.add):
        return None
    # In this order and no other: then frame i is what every way of reading takes for it.
    if gallery.stamps != table.pts.tolist() or gallery.prints is None:
        return None
    begin = float(table.seconds[0])
    height, width = gallery.size
    facts = {
        "frames": len(table),
        "fps": len(table) / (table.end - begin) if table.end > begin else 0.0,
        "seconds": table.end - begin,
        "height": height,
        "width": width,
        "codec": video.decoder.codec.canonical_name,
    }
    if stated_more(video.container, video.stream, facts, size):
        return None
    return Inspection(**facts), gallery.prints


class _Gallery:
    """Sees all frames of a video in order: their times, the size of the first, and the small pictures of a print."""

    def __init__(self, count: int):
        self.stamps: list[int | None] = []
        self.size = (0, 0)
        self.prints: np.ndarray | None = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
        self._places: dict[int, list[int]] = {}
        for place, index in enumerate(middles(count).tolist()):
            self._places.setdefault(index, []).append(place)
        self._converter = FrameConverter(Sizing(), "exact")

    def add(self, frame: av.VideoFrame) -> None:
        index = len(self.stamps)
        self.stamps.append(frame.pts)
        if index == 0:
            height, width = frame.height, frame.width
            self._converter.coded_size = height, width
            self.size = (width, height) if clockwise_degrees(display_matrix(frame)) in (90, 270) else (height, width)
        if index != 0 and index not in self._places:
            return
        pixels = self._converter.to_rgb(frame)
        if pixels is None:
            self.prints = None
        elif index in self._places and self.prints is not None:
            # torch's kernel, by which readers resize, is at most one level away from PIL's.
            height, width = pixels.shape[:2]
            picture = Image.frombuffer("RGB", (width, height), np.ascontiguousarray(pixels), "raw", "RGB", 0, 1)
            self.prints[self._places[index]] = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
