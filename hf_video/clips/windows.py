"""Windows over a long video: stretches of equal length in seconds, and the frames that are on screen in each."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_video.errors import VideoOptionError, is_number
from hf_video.video.frames.times import TOLERANCE, frames_during
from hf_video.video.frames.types import VideoMetadata
from hf_video.video.sampling.frame_sample import FrameSample

# An end of the video that is shorter than this part of a window belongs to the window before it.
SLIVER = 0.1


@dataclass(frozen=True)
class Windows:
    """`length` of a window and `step` from one start to the next, in seconds."""

    length: float
    step: float


def parse_windows(windows: float | str | tuple[float, float] | Windows | None) -> Windows | None:
    """`2.0`, `"2s"`: windows of 2 seconds side by side. `"2s/1s"`, `(2.0, 1.0)`: a new one every second, overlapping.

    Raises VideoOptionError for anything else, and for a step longer than the window (it would skip parts unseen).
    """
    if windows is None or isinstance(windows, Windows):
        return windows
    numbers: list[Any] = []
    if isinstance(windows, str):
        number = r"\s*(\d+\.?\d*|\.\d+)\s*s?\s*"
        found = re.fullmatch(f"{number}(?:/{number})?", windows)
        numbers = [float(n) for n in found.groups() if n is not None] if found else []
    elif isinstance(windows, (tuple, list)):
        numbers = list(windows)
    else:
        numbers = [windows]
    if len(numbers) not in (1, 2) or not all(is_number(n) and n > 0 for n in numbers):
        raise VideoOptionError(
            f'windows={windows!r} must be seconds, such as 2.0 or "2s", or length and step, such as "2s/1s" or '
            "(2.0, 1.0)."
        )
    length, step = float(numbers[0]), float(numbers[-1])
    if step > length:
        raise VideoOptionError(f"windows={windows!r}: the step must not exceed the length, or parts go unseen.")
    return Windows(length, step)


class Segment:
    """Frames `first` to `last` (not included) of a video, seen as a video of its own.

    `meta` and `timestamps` are those of the whole video, of whose table this keeps a view: a copy for each of many
    windows would grow with the square of the length. `start` and `end` are the seconds that the segment stands for.
    Samplers take it for a short video: their indices count from `first`.
    """

    def __init__(self, meta: VideoMetadata, timestamps: np.ndarray, first: int, last: int, *, start: float, end: float):
        self.first = first
        self.seconds = (start, end)
        self.timestamps = timestamps[first:last]
        self.metadata = dataclasses.replace(
            meta, num_frames=last - first, begin=float(self.timestamps[0]), duration=end - start
        )

    def __len__(self) -> int:
        return self.metadata.num_frames

    def in_video(self, sample: FrameSample) -> FrameSample:
        """A sample of the segment, its frames numbered in the whole video."""
        return dataclasses.replace(sample, indices=sample.indices + self.first)


def cut(video: Any, windows: Windows | None) -> list[Segment]:
    """The segments of a video, in order; the whole video as one without `windows`.

    Windows start at the video's first frame and every `step` seconds after it. The last one ends with the video: where
    whole windows leave an end uncovered it is shorter, or, for an end of less than a tenth of a window, that much
    longer. A video shorter than one window is one segment. A segment holds the frames that are on screen during it, so
    the first one may have been shown a little earlier.
    """
    meta, starts = video.metadata, video.timestamps
    begin, end = meta.begin, meta.begin + meta.duration
    if windows is None:
        return [Segment(meta, starts, 0, meta.num_frames, start=begin, end=end)]
    segments = []
    for start, stop in window_spans(begin, meta.duration, windows):
        first, last = frames_during(starts, start, stop)
        segments.append(Segment(meta, starts, first, last, start=start, end=stop))
    return segments


def window_spans(begin: float, duration: float, windows: Windows) -> list[tuple[float, float]]:
    """(start, end) in seconds of the windows of `cut` over `duration` seconds from `begin` on."""
    count = count_windows(duration, windows)
    starts = [begin + k * windows.step for k in range(count)]
    return [*((start, start + windows.length) for start in starts[:-1]), (starts[-1], begin + duration)]


def count_windows(duration: float, windows: Windows) -> int:
    """Windows that cover `duration` seconds: the whole ones, and one more where more than a sliver is left over."""
    beyond = duration - windows.length - windows.length * SLIVER - TOLERANCE
    return 1 if beyond <= 0 else 1 + math.ceil(beyond / windows.step)
