"""Windows of frames in which a detector that is trained end to end sees a video, as OpenTAD cuts them
(opentad/datasets/base/sliding_dataset.py, transforms/end_to_end.py): every `stride`-th frame of the video, in windows
of `num_frames` that overlap; the last one ends with the video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_video.clips.grid import FeatureGrid
from hf_video.clips.read import (
    FRAME_BUDGET,
    ClipInputs,
    ClipProcessor,
    Event,
    SeenWindows,
    WindowSample,
    frame_bytes,
    frames_of_clips,
    open_video,
)
from hf_video.errors import BackendError, VideoError, VideoOptionError, check_count, check_number
from hf_video.video.frames.times import TOLERANCE, frames_at
from hf_video.video.reader import VideoReader
from hf_video.video.sampling.frame_sample import FrameSample

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hf_video.clips.request import ClipRequest
    from hf_video.video.frames.types import FrameReader, VideoSource


@dataclass(frozen=True)
class FrameWindow:
    """One window of a video.

    Args:
        start: Steps of the detector before it.
        indices: (num_frames,), numbers of its frames in the video; behind the video's end the last one again.
        steps: Steps of the detector that lie in the video; the others are padding.
    """

    start: int
    indices: np.ndarray
    steps: int


@dataclass(frozen=True)
class FrameWindows:
    """How videos are cut into windows.

    Args:
        num_frames: Frames of a window.
        stride: Frames of the video from one of them to the next.
        fps: The rate that `stride` is counted at. None counts the video's own frames; with a number, frame n is the one
            that is shown at n / fps seconds.
        frames_per_step: Frames for one step of the detector.
        overlap: Share of a window that the next one shows again.
        whole: The whole video is one window, with its frames spread evenly over it (ActivityNet), and `stride` and
            `overlap` mean nothing.

    Raises:
        VideoOptionError: Numbers that cut no windows.
    """

    num_frames: int
    stride: float = 1
    fps: float | None = None
    frames_per_step: int = 1
    overlap: float = 0.5
    whole: bool = False

    def __post_init__(self) -> None:
        check_count("num_frames", self.num_frames)
        check_count("frames_per_step", self.frames_per_step)
        check_number("stride of frames", self.stride, above=0)
        check_number("overlap of windows", self.overlap, least=0, below=1)
        check_number("fps", self.fps, above=0, optional=True)
        if self.num_frames % self.frames_per_step:
            raise VideoOptionError(f"num_frames={self.num_frames} must be a multiple of {self.frames_per_step}.")
        if self.fps is None and self.stride != int(self.stride):
            raise VideoOptionError(
                f"Every {self.stride:g}-th frame of a video can't be taken: use a whole number, or give the rate that "
                "it is counted at."
            )

    @property
    def steps(self) -> int:
        """Steps of the detector in a window."""
        return self.num_frames // self.frames_per_step

    def frames(self, video: FrameReader) -> np.ndarray:
        """(N,), numbers of the frames of a video that windows are cut from."""
        total = len(video.timestamps)
        if self.whole:
            step = total / self.num_frames
            return ((np.arange(self.num_frames) + 0.5) * step - 0.5).clip(0, total - 1).round().astype(np.int64)
        if self.fps is None:
            return np.arange(0, total, int(self.stride))
        meta = video.metadata
        count = max(int(np.ceil(meta.duration * self.fps / self.stride - TOLERANCE)), 1)
        return frames_at(video.timestamps, meta.begin + np.arange(count) * self.stride / self.fps)

    def starts(self, steps: int) -> list[int]:
        """The first step of each window of a video that has so many steps."""
        if steps <= self.steps:
            return [0]
        hop = max(int(self.steps * (1 - self.overlap)), 1)
        return [*range(0, steps - self.steps, hop), steps - self.steps]

    def cut(self, frames: np.ndarray, start: int, steps: int | None = None) -> FrameWindow:
        """The window of `steps` (at most as many as a window has, and by default those) from step `start` on, of the
        `frames` of a video."""
        first = start * self.frames_per_step
        last = first + self.frames_per_step * (self.steps if steps is None else steps)
        indices = frames[first:last]
        rest = self.num_frames - len(indices)
        return FrameWindow(start, np.pad(indices, (0, rest), mode="edge"), -(-len(indices) // self.frames_per_step))

    def of(self, video: FrameReader) -> list[FrameWindow]:
        """The windows of a video in order."""
        frames = self.frames(video)
        return [self.cut(frames, start) for start in self.starts(-(-len(frames) // self.frames_per_step))]

    def timeline(self, video: FrameReader) -> np.ndarray:
        """(K, 2) float64: positions in steps, ascending, and the seconds at which they are shown, the last row the end
        of the video. Times between are on straight lines."""
        if self.whole:
            meta = video.metadata
            return np.array([[0.0, meta.begin], [float(self.steps), meta.begin + meta.duration]])
        # Of a grid of clips, whose timeline counts frames.
        line = FeatureGrid(self.stride, self.stride, self.fps).timeline(video)
        return line / np.array([self.stride * self.frames_per_step, 1.0])


class SeenFrameWindows(SeenWindows):
    """As `SeenWindows`, with the `starts` of the windows in steps; the `timeline` is in steps too."""

    def __init__(self, windows: list[WindowSample], timeline: np.ndarray, starts: list[int]) -> None:
        super().__init__(windows, timeline)
        self.starts = starts

    def to_seconds(self, positions: ArrayLike) -> np.ndarray:
        """Positions in steps, of any shape, as seconds within the video."""
        return np.interp(np.asarray(positions, dtype=np.float64), *self.timeline.T)


def to_steps(seconds: ArrayLike, timeline: np.ndarray) -> np.ndarray:
    """Seconds, of any shape, as positions in steps of the detector, within the video."""
    return np.interp(np.asarray(seconds, dtype=np.float64), timeline[:, 1], timeline[:, 0])


def read_frame_windows(
    source: VideoSource, windows: FrameWindows, request: ClipRequest, process: ClipProcessor
) -> Iterator[SeenFrameWindows | ClipInputs]:
    """Reads the windows of a video; frames that several share are decoded once.

    Args:
        source: The video, in any form.
        windows: How it is cut.
        request: How it is read: its `on_error`, `backend`, `fps` and `decode`.
        process: Of `clip_processor`.

    Yields:
        First the windows, then the inputs of each in order: those of `process`, and `mask` (1, steps), True where a
        step lies in the video.

    Raises:
        VideoError: What `VideoReader` raises.
    """
    options = {"on_error": request.on_error, "backend": request.backend, **request.decode}
    with open_video(source, fps=request.fps, **options) as video:
        found, times = windows.of(video), video.timestamps
        ends = np.append(times[1:], video.metadata.begin + video.metadata.duration)
        samples = []
        for one in found:
            span = float(times[one.indices[0]]), float(ends[one.indices[-1]])
            samples.append(
                WindowSample(span, FrameSample(one.indices[None], times[one.indices][None], np.array([span])))
            )
        yield SeenFrameWindows(samples, windows.timeline(video), [one.start for one in found])
        decode = request.decode if isinstance(video, VideoReader) and video is not source else {}
        limit = max(FRAME_BUDGET // frame_bytes(video, decode), windows.num_frames)
        read = frames_of_clips(video, [one.indices for one in found], limit)
        for number, (one, frames) in enumerate(zip(found, read, strict=True)):
            inputs = process(frames.data[np.searchsorted(frames.indices, one.indices)], 1)
            mask = torch.arange(windows.steps)[None] < one.steps
            yield ClipInputs(number, {**inputs, "mask": mask}, frames.repeated)


def read_frame_window_events(
    source: VideoSource, windows: FrameWindows, request: ClipRequest, process: ClipProcessor
) -> Iterator[Event]:
    """As `read_frame_windows`, with the fault of a video as the last event, as `read_events` has it."""
    try:
        yield from read_frame_windows(source, windows, request, process)
    except (VideoOptionError, BackendError):
        raise
    except VideoError as error:
        yield error
