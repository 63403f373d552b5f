"""A stretch of a longer video, read as a video of its own: what annotations with a start and an end name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hf_video.errors import VideoOptionError, VideoSourceError
from hf_video.video.frames.times import frames_during
from hf_video.video.frames.types import VideoMetadata, VideoSource

UNITS = ("seconds", "frames")
AT_ONCE = 32  # frames that are decoded in one go when a part is read from end to end


@dataclass(frozen=True)
class VideoPart:
    """A stretch of a video, which `VideoReader` reads as a video of its own: frame 0 is the one on screen at the start,
    and times stay those of the whole video.

    Args:
        source: The whole video: a path, URL or anything else that `VideoReader` opens.
        start: Where the stretch begins, in `unit`.
        end: Where it ends (not included), in `unit`; None: with the video.
        unit: "seconds" of the video's time line, or "frames".

    Raises:
        VideoOptionError: The start is below 0, the end not after it, or the unit unknown.
    """

    source: VideoSource
    start: float = 0.0
    end: float | None = None
    unit: str = "seconds"

    def __post_init__(self) -> None:
        good = self.unit in UNITS and self.start >= 0 and (self.end is None or self.end > self.start)
        if not good:
            raise VideoOptionError(
                f"A part of a video from {self.start} to {self.end} {self.unit} is none: give a start of 0 or more, an "
                f"end after it, and {' or '.join(UNITS)}."
            )

    @property
    def path(self) -> Any:
        """Where the whole video lies."""
        return self.source

    def __str__(self) -> str:
        """In the form of the W3C's Media Fragments, `clip.mp4#t=10,20`; frames as `#frames=10,20`."""
        end = "" if self.end is None else f",{self.end:.10g}"
        source = repr(self.source) if isinstance(self.source, bytes) else f"{self.source}"
        return f"{source}#{'t' if self.unit == 'seconds' else 'frames'}={self.start:.10g}{end}"


class PartSource:
    """The interface of a `Source`, for the frames of another one that are on screen in a part."""

    def __init__(self, whole: Any, part: VideoPart):
        self._whole = whole
        self._part = part
        self.backend = whole.backend
        self.label = str(part) if isinstance(part.source, str) else whole.label

    @cached_property
    def _range(self) -> tuple[int, int]:
        times, part = self._whole.seconds, self._part
        if part.unit == "frames":
            first, last = int(part.start), len(times) if part.end is None else min(int(part.end), len(times))
        else:
            end = self._whole.end if part.end is None else part.end
            begins_in_it = part.start < self._whole.end
            first, last = frames_during(times, part.start, end) if begins_in_it else (len(times), len(times))
        if first >= len(times):
            raise VideoSourceError(
                f"{self.label}: the part begins at {part.start:g} {part.unit}, and the video has {len(times)} frames "
                f"in {self._whole.end:g} s. Is the file cut to the part already? Then leave start and end out."
            )
        return first, last

    @property
    def seconds(self) -> np.ndarray:
        first, last = self._range
        return self._whole.seconds[first:last]

    @property
    def end(self) -> float:
        last = self._range[1]
        times = self._whole.seconds
        return float(times[last]) if last < len(times) else self._whole.end

    def target(self, height: int, width: int) -> tuple[int, int]:
        return self._whole.target(height, width)

    def describe(self) -> VideoMetadata:
        seconds = self.seconds
        begin, duration = float(seconds[0]), self.end - float(seconds[0])
        return dataclasses.replace(
            self._whole.describe(),
            num_frames=len(seconds),
            fps=len(seconds) / duration if duration > 0 else 0.0,
            duration=duration,
            begin=begin,
            source=self.label,
        )

    def nearest_keyframes(self, indices: np.ndarray) -> np.ndarray:
        first, last = self._range
        return np.clip(self._whole.nearest_keyframes(indices + first), first, last - 1) - first

    def fetch(self, indices: list[int], deliver: Callable[[int, np.ndarray], None], *, keyframes: bool = False) -> None:
        first, _ = self._range
        # Only keyframes can be fetched as such; the border of a part seldom is one.
        whole_keyframes = keyframes and all(
            self._whole.nearest_keyframes(np.array([index + first]))[0] == index + first for index in indices
        )
        self._whole.fetch(
            [index + first for index in indices],
            lambda index, pixels: deliver(index - first, pixels),
            keyframes=whole_keyframes,
        )

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        for begin in range(0, len(self.seconds), AT_ONCE):
            found: dict[int, np.ndarray] = {}
            self.fetch(
                list(range(begin, min(begin + AT_ONCE, len(self.seconds)))),
                lambda index, pixels, found=found: found.update({index: pixels.copy()}),  # type: ignore[misc]
            )
            yield from sorted(found.items())

    def decoded_for(self, indices: list[int]) -> int:
        first, _ = self._range
        return self._whole.decoded_for([index + first for index in indices])

    def in_order(self, indices: list[int]) -> Iterator[tuple[int, np.ndarray | None]]:
        first, _ = self._range
        return ((index - first, pixels) for index, pixels in self._whole.in_order([i + first for i in indices]))

    def again(self) -> Any:
        return dataclasses.replace(self._part, source=self._whole.again())

    def close(self) -> None:
        self._whole.close()
