"""One video to the clips that a model sees: open it once, choose frames, decode them once, process clip by clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_video.clips.processors import ClipProcessor
from hf_video.clips.request import ClipRequest
from hf_video.clips.sources import open_video
from hf_video.clips.windows import Segment, cut
from hf_video.errors import BackendError, VideoError, VideoOptionError
from hf_video.video.decode.clip_frames import clips_in_groups, groups_of
from hf_video.video.frames.pixels import shortest_edge_size
from hf_video.video.frames.types import VideoFrames
from hf_video.video.reader import VideoReader
from hf_video.video.sampling.frame_sample import FrameSample

# Raw frames held at once. Beyond it a video is decoded in several stretches: memory stays bounded for any length.
FRAME_BUDGET = 64 * 2**20


@dataclass(frozen=True)
class WindowSample:
    """A window: its (start, end) in seconds and the frames that its clips see, numbered in the whole video."""

    seconds: tuple[float, float]
    sample: FrameSample


@dataclass(frozen=True)
class ClipInputs:
    """One clip of window number `window`, as model inputs with one row per crop; `repeated` frames are damaged."""

    window: int
    inputs: dict[str, torch.Tensor]
    repeated: tuple[int, ...] = ()


Event = list[WindowSample] | ClipInputs | VideoError


def read_clips(source: Any, request: ClipRequest, process: ClipProcessor) -> Iterator[list[WindowSample] | ClipInputs]:
    """First the windows (without `windows` one, the whole video), then the clips of each in order.

    Frames that several clips share are decoded once. Raises the exceptions of `VideoReader` and the samplers.
    """
    options = {"on_error": request.on_error, "backend": request.backend, **request.decode}
    with open_video(source, fps=request.fps, **options) as video:
        segments = cut(video, request.windows)
        energy = _motion(source, request)
        seen = [WindowSample(s.seconds, _sample(s, request, energy)) for s in segments]
        yield seen
        clips = [
            (number, _needed(indices, segments[number], request))
            for number, window in enumerate(seen)
            for indices in window.sample.indices
        ]
        decode = request.decode if isinstance(video, VideoReader) and video is not source else {}
        limit = max(FRAME_BUDGET // _frame_bytes(video, decode), 1)
        read = _frames(video, [needed for _, needed in clips], limit)
        for (window, needed), frames in zip(clips, read, strict=True):
            places = np.searchsorted(frames.indices, needed)
            if request.frames_needed is None:
                inputs = process(frames.data[places], request.views.crops)
            else:
                inputs = process(frames.data, request.views.crops, places)
            yield ClipInputs(window, inputs, frames.repeated)


def _frames(video: Any, clips: list[np.ndarray], limit: int) -> Iterator[VideoFrames]:
    """The distinct frames of each clip, in ascending order."""
    numbers = [np.unique(indices) for indices in clips]
    if isinstance(video, VideoReader):
        return video.frames_of_clips(numbers, limit=limit)
    return clips_in_groups(video.get_frames, groups_of(numbers, limit))


def read_events(source: Any, request: ClipRequest, process: ClipProcessor) -> Iterator[Event]:
    """As `read_clips`, with the fault of a video as the last event and not as an exception, so that it can cross from a
    worker process and other videos go on. Options that fit no video still raise."""
    try:
        yield from read_clips(source, request, process)
    except (VideoOptionError, BackendError):
        raise
    except VideoError as error:
        yield error


def _needed(indices: np.ndarray, segment: Segment, request: ClipRequest) -> np.ndarray:
    """The frames of a clip, with those that the processor needs besides; none of them outside the window."""
    if request.frames_needed is None:
        return indices
    return request.frames_needed(indices, segment.first, segment.first + len(segment))


def _sample(segment: Segment, request: ClipRequest, energy: np.ndarray | None) -> FrameSample:
    sampling = request.sampling
    if energy is not None:
        sampling = sampling.with_options(energy=energy[segment.first : segment.first + len(segment)])
    return segment.in_video(sampling.choose(segment, request.views))


def _motion(source: Any, request: ClipRequest) -> np.ndarray | None:
    """The motion of the whole video where the sampler follows it: one pass, however many windows there are."""
    if not request.sampling.needs_motion():
        return None
    from hf_video.video.sampling.motion import motion_energy

    return motion_energy(source)


def _frame_bytes(video: Any, decode: Mapping[str, Any]) -> int:
    """Bytes of a frame as it is decoded; `decode` is what the reader was opened with."""
    height, width = video.metadata.height, video.metadata.width
    if "size" in decode:
        height, width = decode["size"]
    elif "shortest_edge" in decode:
        height, width = shortest_edge_size(height, width, decode["shortest_edge"])
    return height * width * 3
