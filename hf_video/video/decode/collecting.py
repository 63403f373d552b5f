"""Putting frames that arrive in any order where they were asked for, and saying what did not arrive."""

from __future__ import annotations

import numpy as np

from hf_video.errors import DamagedVideoError, VideoError
from hf_video.video.decode.sources import Source
from hf_video.video.frames.types import VideoFrames

NAMED_IN_MESSAGE = 5


class Collector:
    """Rows of one result. `deliver(index, pixels)` copies a frame to every row that asked for it, so that only the
    result itself and one frame are in memory."""

    def __init__(self, asked: np.ndarray):
        self.asked = asked
        self.rows: dict[int, list[int]] = {}
        for row, index in enumerate(asked.tolist()):
            self.rows.setdefault(index, []).append(row)
        self.data: np.ndarray | None = None
        self._done: set[int] = set()

    def deliver(self, index: int, pixels: np.ndarray) -> None:
        if self.data is None:
            self.data = np.empty((len(self.asked), *pixels.shape), np.uint8)
        for row in self.rows[index]:
            self.data[row] = pixels
        self._done.add(index)

    @property
    def missing(self) -> list[int]:
        return sorted(set(self.rows) - self._done)

    def whole(self, source: Source) -> VideoFrames:
        return VideoFrames(data=self.data, indices=self.asked, seconds=source.seconds[self.asked])

    def without_missing(self, source: Source) -> VideoFrames:
        kept = ~np.isin(self.asked, self.missing)
        indices = self.asked[kept]
        data = self.data[kept] if self.data is not None else empty_frames(source)
        return VideoFrames(data=data, indices=indices, seconds=source.seconds[indices])

    def repeating(self, source: Source) -> VideoFrames:
        """Every missing frame replaced by the good one that is nearest in the video."""
        missing = self.missing
        for index in missing:
            self.deliver(index, nearest_good(source, index, set(missing)))
        return VideoFrames(
            data=self.data, indices=self.asked, seconds=source.seconds[self.asked], repeated=tuple(missing)
        )


def empty_frames(source: Source) -> np.ndarray:
    """No frames, of the size that frames would have: (0, height, width, 3)."""
    meta = source.describe()
    return np.empty((0, *source.target(meta.height, meta.width), 3), np.uint8)


def nearest_good(source: Source, index: int, missing: set[int]) -> np.ndarray:
    """Pixels of the good frame nearest to a lost one; the earlier of two equally near."""
    best: tuple[int, int, np.ndarray] | None = None

    def keep(candidate: int, pixels: np.ndarray) -> None:
        nonlocal best
        key = abs(candidate - index), candidate
        if best is None or key <= best[:2]:
            best = (*key, pixels.copy())

    count, reach = len(source.seconds), 1
    while best is None:
        near = range(max(0, index - reach), min(count, index + reach + 1))
        source.fetch([i for i in near if i not in missing], keep)
        if best is None and len(near) == count:
            raise damage(source, list(near))
        reach *= 8
    return best[2]


def damage(source: Source, missing: list[int]) -> VideoError:
    """The exception that names lost frames by number and by second."""
    seconds = source.seconds[missing]
    pairs = list(zip(missing, seconds, strict=True))
    named = ", ".join(f"{i} ({t:.3f} s)" for i, t in pairs[:NAMED_IN_MESSAGE])
    rest = len(pairs) - NAMED_IN_MESSAGE
    more = f" and {rest} more, up to {seconds[-1]:.3f} s," if rest > 0 else ""
    return DamagedVideoError(
        f"{source.label} is damaged: frame {named}{more} can't be decoded; "
        'read it with on_error="skip" or on_error="repeat", or repair the file',
        seconds=tuple(seconds.tolist()),
        indices=tuple(missing),
    )
