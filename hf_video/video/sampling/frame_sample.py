"""What every sampler is made of: its result, the clock of a video, and what becomes of a short one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_video.errors import NoFramesError, SamplingError, ShortVideoError, check_number, is_whole
from hf_video.video.frames.types import VideoMetadata

SHORT_STRIDED = ("repeat_last", "loop", "error")
SHORT_SPREAD = ("stretch", *SHORT_STRIDED)


@dataclass(frozen=True)
class FrameSample:
    """What a sampler chose.

    `indices` (int64) has shape (clips, frames); one clip is (1, frames). `seconds` (float64, same shape) says when each
    of these frames is first shown and `spans` (float64, (clips, 2)) from when to when each clip looked, the last
    frame's own duration included; both are None where no rate and no timestamps were given. `short` is True where the
    video had fewer frames than the sampler needed and some are there twice.
    """

    indices: np.ndarray
    seconds: np.ndarray | None = None
    spans: np.ndarray | None = None
    short: bool = False

    @property
    def num_clips(self) -> int:
        return self.indices.shape[0]

    @property
    def num_frames(self) -> int:
        """Frames in each clip."""
        return self.indices.shape[1]

    def __len__(self) -> int:
        return self.indices.size


@dataclass(frozen=True)
class Clock:
    """When frames are shown, in seconds: from a rate, or from the timestamps of all of them."""

    fps: float
    begin: float = 0.0
    starts: np.ndarray | None = None

    def start(self, indices: np.ndarray) -> np.ndarray:
        return self.begin + indices / self.fps if self.starts is None else self.starts[indices]

    def end(self, indices: np.ndarray) -> np.ndarray:
        if self.starts is None:
            return self.begin + (indices + 1) / self.fps
        ends = np.append(self.starts[1:], self.starts[-1] + 1 / self.fps)
        return ends[indices]


def read_total(total: Any, fps: float | None, timestamps: Sequence[float] | None) -> tuple[int, Clock | None]:
    begin = 0.0
    if isinstance(total, VideoMetadata):
        fps, begin, total = fps or total.fps or None, total.begin, total.num_frames
    if not is_whole(total):
        raise SamplingError(f"total={total!r} must be a frame count (an int) or a VideoMetadata.")
    if total < 1:
        raise NoFramesError(f"The video has {total} frames, so there is nothing to sample.")
    if timestamps is not None:
        return int(total), clock_of(np.asarray(timestamps, dtype=np.float64), int(total), fps)
    if fps is None:
        return int(total), None
    check_number("fps", fps, SamplingError, above=0, hint=" It is in frames per second.")
    return int(total), Clock(float(fps), begin)


def clock_of(starts: np.ndarray, total: int, fps: float | None) -> Clock:
    if starts.shape != (total,) or (np.diff(starts) < 0).any():
        raise SamplingError(
            f"timestamps must hold the seconds of all {total} frames in display order; shape {starts.shape} came."
        )
    if not fps:
        fps = (total - 1) / (starts[-1] - starts[0]) if total > 1 and starts[-1] > starts[0] else 1.0
    return Clock(float(fps), float(starts[0]), starts)


def fold_short(steps: np.ndarray, length: int, short: str, needed: int) -> np.ndarray:
    """Bring positions beyond a video of `length` steps back into it, as `short` says."""
    if short == "error":
        raise ShortVideoError(
            f"The video gives {length} frames at this stride where {needed} are needed. Take fewer frames or a smaller "
            'stride, or allow short="repeat_last" or short="loop".'
        )
    return np.minimum(steps, length - 1) if short == "repeat_last" else steps % length


def make_sample(indices: np.ndarray, clock: Clock | None, *, short: bool) -> FrameSample:
    indices = np.atleast_2d(np.asarray(indices, dtype=np.int64))
    if clock is None:
        return FrameSample(indices, short=bool(short))
    spans = np.stack([clock.start(indices.min(1)), clock.end(indices.max(1))], axis=1)
    return FrameSample(indices, clock.start(indices), spans, bool(short))
