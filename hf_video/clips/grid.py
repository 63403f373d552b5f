"""The grid of features that detectors work on: clips of a fixed number of frames, a fixed number of frames apart.

It differs from `Windows` where localisation needs it: clips are counted in frames, all are equally long, none is added
for what is left over at the end. Position g of the grid stands for frame g · stride + num_frames / 2, the middle of a
clip, as ActionFormer and TriDet count (libs/datasets of both).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.errors import VideoOptionError, check_number
from hf_video.video.frames.times import TOLERANCE, frames_during

if TYPE_CHECKING:
    from typing import TypeAlias

    from hf_video.video.frames.types import FrameReader

    GridLike: TypeAlias = "FeatureGrid" | str | Sequence[float] | Mapping[str, Any]

_NUMBER = r"\s*(\d+\.?\d*|\.\d+)\s*"


@dataclass(frozen=True)
class FeatureGrid:
    """One clip for every vector, all equally long.

    Args:
        stride: Frames from the start of one clip to the start of the next.
        num_frames: Frames that a clip spans; a model that takes fewer gets some of them, evenly spread.
        fps: The rate that these frames are counted at. None counts the video's own frames; with a number, frame n is
            shown at n / fps seconds, whatever the video's rate is (1 makes both lengths seconds).

    Raises:
        VideoOptionError: Lengths that are not positive, or not whole where they count the video's own frames.
    """

    stride: float
    num_frames: float
    fps: float | None = None

    def __post_init__(self) -> None:
        for name in ("stride", "num_frames"):
            check_number(f"{name} of a grid", getattr(self, name), above=0)
        check_number("fps of a grid", self.fps, above=0, optional=True)

    def __str__(self) -> str:
        if self.fps == 1:
            return f"{self.num_frames:g}s/{self.stride:g}s"
        return f"{self.num_frames:g}/{self.stride:g}" + ("" if self.fps is None else f"@{self.fps:g}")

    def clips(self, video: FrameReader) -> list[tuple[int, int, float, float]]:
        """(first frame, last frame + 1, start, end) of each clip of a video, frames in its own numbers and times in
        seconds. A video shorter than one clip gives one that is as long as it is.

        Raises VideoOptionError where the grid counts the video's own frames in fractions.
        """
        meta, times = video.metadata, video.timestamps
        begin, end = meta.begin, meta.begin + meta.duration
        count = max(int((self.frames_in(video) - self.num_frames) / self.stride + TOLERANCE), 0) + 1
        starts = np.arange(count) * self.stride
        if self.fps is None:
            if self.stride != int(self.stride) or self.num_frames != int(self.num_frames):
                raise VideoOptionError(
                    f"The grid {self} counts frames of the video, which can't be cut into parts: use whole numbers, "
                    'seconds such as "2s/0.5s", or a frame rate such as "16/4@25".'
                )
            first = starts.astype(np.int64)
            last = np.minimum(first + int(self.num_frames), len(times))
            shown = np.append(times, end)
            return list(zip(first.tolist(), last.tolist(), shown[first].tolist(), shown[last].tolist(), strict=True))
        spans = [(begin + s / self.fps, min(begin + (s + self.num_frames) / self.fps, end)) for s in starts.tolist()]
        return [(*frames_during(times, start, stop), start, stop) for start, stop in spans]

    def frames_in(self, video: FrameReader) -> float:
        """Length of a video in frames of the grid."""
        return len(video.timestamps) if self.fps is None else video.metadata.duration * self.fps

    def timeline(self, video: FrameReader) -> np.ndarray:
        """(K, 2) float64: frames of the grid, ascending, and the seconds at which they are first shown; the last row is
        the end of the video. Times between are on straight lines; two rows are enough for a constant rate."""
        meta, times = video.metadata, video.timestamps
        ends = np.array([[0.0, meta.begin], [self.frames_in(video), meta.begin + meta.duration]])
        if self.fps is not None:
            return ends
        steady = np.interp(np.arange(len(times)), *ends.T)
        if np.abs(times - steady).max() < TOLERANCE:
            return ends
        return np.vstack([np.stack([np.arange(len(times)), times], axis=1), ends[1:]])


def parse_grid(grid: GridLike) -> FeatureGrid:
    """Reads a grid, length first, as windows are written.

    Args:
        grid: "16/4", clips of 16 frames of the video, a new one every 4; "32/16@30", frames of a timeline of 30 a
            second; "2s/0.5s", seconds; (16, 4), (32, 16, 30); {"num_frames": 16, "stride": 4, "fps": None}; or a
            `FeatureGrid`. Without a step, clips lie side by side.

    Raises:
        VideoOptionError: It is none of them.
    """
    if isinstance(grid, FeatureGrid):
        return grid
    if isinstance(grid, Mapping) and {"stride", "num_frames"} <= set(grid) <= {"stride", "num_frames", "fps"}:
        return FeatureGrid(**grid)
    if isinstance(grid, str):
        frames = re.fullmatch(f"{_NUMBER}(?:/{_NUMBER})?(?:@{_NUMBER})?", grid)
        seconds = re.fullmatch(f"{_NUMBER}s\\s*(?:/{_NUMBER}s\\s*)?", grid)
        if found := frames or seconds:
            length, step, *fps = (None if text is None else float(text) for text in found.groups())
            return FeatureGrid(length if step is None else step, length, 1.0 if seconds else fps[0])
    elif isinstance(grid, (tuple, list)) and len(grid) in (2, 3):
        length, step, *fps = grid
        return FeatureGrid(step, length, *fps)
    raise VideoOptionError(
        f'{grid!r} is no grid: write the length and the step of clips, in frames ("16/4"), in frames of a timeline '
        '("32/16@30") or in seconds ("2s/0.5s").'
    )
