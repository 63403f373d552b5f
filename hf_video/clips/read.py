"""One video to the clips that a model sees: open it once, choose frames, decode them once, process clip by clip.

A video comes in any form. A list is ambiguous by nature; the rule is `hf_video.video.inputs.split_videos`: images (PIL,
or arrays of one frame) are the frames of one video, everything else (paths, URLs, bytes, clips, lists of images) are
videos of a batch.

Frames are decoded and chosen by our own reader and samplers, whatever is installed; so a processor never sees a file,
and the same file gives the same `pixel_values` with and without torchvision or torchcodec.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from hf_video.base.processing import ClipProcessing
from hf_video.clips.grid import FeatureGrid
from hf_video.clips.kept_frames import KeptFrames
from hf_video.clips.request import ClipRequest, Windows, parse_windows  # noqa: F401 - all of 0.1.0's windows
from hf_video.errors import BackendError, VideoError, VideoOptionError, VideoSourceError
from hf_video.video.decode.clip_frames import clips_in_groups, groups_of
from hf_video.video.decode.sources import plain_source
from hf_video.video.frames.pixels import shortest_edge_size
from hf_video.video.frames.times import TOLERANCE, frames_during
from hf_video.video.frames.types import FrameReader, VideoFrames, VideoList, VideoMetadata, Videos, VideoSource
from hf_video.video.inputs import MemoryVideo, is_source, split_videos
from hf_video.video.reader import VideoReader
from hf_video.video.sampling.frame_sample import FrameSample, clock_of

if TYPE_CHECKING:
    from hf_video.base.loading import Processor

Rows = dict[str, torch.Tensor]
ClipProcessor = Callable[..., Rows]


def clip_processor(processor: Processor) -> ClipProcessor:
    """One way to call any processor.

    Args:
        processor: Ours or a stock one. One with `frames_needed` is called with all frames that a clip needs, and third
            with these numbered in them.

    Returns:
        A function (frames (T, H, W, 3) uint8, crops) -> tensors whose first dimension is the crops, such as
        `{"pixel_values": (crops, T, C, H, W)}`. It raises VideoOptionError for three crops of a stock processor.
    """
    if isinstance(processor, ClipProcessing):
        return partial(_with_ours, processor)
    takes_video = any("VideoProcessor" in kind.__name__ for kind in type(processor).__mro__)
    return partial(_with_stock_video if takes_video else _with_stock_image, processor)


def _with_ours(processor: ClipProcessing, frames: np.ndarray, crops: int, needed: np.ndarray | None = None) -> Rows:
    if needed is not None:
        with_needed = processor.process_needed  # type: ignore[attr-defined]
        return _tensors(with_needed(frames, needed, num_crops=crops, return_tensors="pt"))
    # Frames that could be read either way round are not: they come from a reader, channels last.
    return _tensors(
        processor(
            frames,
            num_crops=crops,
            do_sample_frames=False,
            return_tensors="pt",
            input_data_format="channels_last",
        )
    )


def _with_stock_image(processor: Processor, frames: np.ndarray, crops: int) -> Rows:
    _one_crop(processor, crops)
    return _tensors(processor(list(frames), return_tensors="pt"))


def _with_stock_video(processor: Processor, frames: np.ndarray, crops: int) -> Rows:
    _one_crop(processor, crops)
    planes = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
    return _tensors(processor(planes, do_sample_frames=False, return_tensors="pt"))


def _one_crop(processor: Processor, crops: int) -> None:
    if crops > 1:
        raise VideoOptionError(
            f"{type(processor).__name__} has no {crops} crops; use 1 crop, or a processor of hf_video "
            "(hf_video.base.processing.VideoImageProcessor)."
        )


def _tensors(features: Mapping[str, object]) -> Rows:
    return {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}


# An end of the video that is shorter than this part of a window belongs to the window before it.
SLIVER = 0.1
# Raw frames held at once. Beyond it a video is decoded in several stretches: memory stays bounded for any length.
FRAME_BUDGET = 64 * 2**20


@dataclass(frozen=True)
class WindowSample:
    """A window: its (start, end) in seconds and the frames that its clips see, numbered in the whole video."""

    seconds: tuple[float, float]
    sample: FrameSample


class SeenWindows(list[WindowSample]):
    """The windows of a video in order, and its `timeline`: (K, 2) float64, frames (of the grid, where that is what cuts
    it) and the seconds at which they are shown, the last row the end of the video."""

    def __init__(self, windows: Iterable[WindowSample], timeline: np.ndarray):
        super().__init__(windows)
        self.timeline = timeline

    @property
    def frames(self) -> np.ndarray:
        """The numbers of all frames that the windows show, ascending."""
        return np.unique(np.concatenate([one.sample.indices.ravel() for one in self]))


@dataclass(frozen=True)
class ClipInputs:
    """One clip of window number `window`, as model inputs with one row per crop; `repeated` frames are damaged."""

    window: int
    inputs: dict[str, torch.Tensor]
    repeated: tuple[int, ...] = ()


Event = SeenWindows | ClipInputs | VideoError


def read_clips(source: VideoSource, request: ClipRequest, process: ClipProcessor) -> Iterator[SeenWindows | ClipInputs]:
    """Reads the clips of a video; frames that several clips share are decoded once.

    Args:
        source: The video, in any form.
        request: Which frames, views and windows.
        process: Of `clip_processor`.

    Yields:
        First the windows (without `windows` one, the whole video), then the clips of each in order.

    Raises:
        VideoError: What `VideoReader` and the samplers raise.
    """
    options = {"on_error": request.on_error, "backend": request.backend, **request.decode}
    with open_video(source, fps=request.fps, num_threads=request.num_threads, **options) as video:
        seen, clips = plan_clips(video, source, request)
        yield seen
        decode = request.decode if isinstance(video, VideoReader) and video is not source else {}
        limit = max(FRAME_BUDGET // frame_bytes(video, decode), 1)
        read = frames_of_clips(video, [needed for _, needed in clips], limit)
        kept = KeptFrames(partial(process, crops=request.views.crops)) if request.keeps_frames else None
        for (number, needed), frames in zip(clips, read, strict=True):
            if kept is None:
                inputs = clip_inputs(frames.data, frames.indices, needed, request, process)
            else:
                inputs = kept.inputs(frames.data, frames.indices, needed)
            yield ClipInputs(number, inputs, frames.repeated)


def plan_clips(
    video: FrameReader, source: VideoSource, request: ClipRequest
) -> tuple[SeenWindows, list[tuple[int, np.ndarray]]]:
    """The windows of an open video, and of each clip in order the number of its window and the frames that it needs,
    numbered in the whole video. Raises VideoError where the sampler can't choose."""
    windows = cut(video, request.windows)
    energy = _motion(source, request)
    samples = [WindowSample(window.seconds, _sample(window, request, energy)) for window in windows]
    if request.snap is not None and isinstance(video, VideoReader):  # other frames stand each alone
        samples, windows = _snapped(video, samples, windows)
    meta = video.metadata
    timeline = np.array([[0.0, meta.begin], [meta.num_frames, meta.begin + meta.duration]])
    if isinstance(request.windows, FeatureGrid):
        timeline = request.windows.timeline(video)
    clips = [
        (number, _needed(indices, window, request))
        for number, (window, one) in enumerate(zip(windows, samples, strict=True))
        for indices in one.sample.indices
    ]
    seen = SeenWindows(samples, timeline)
    return seen, list(enumerate(seen.frames[:, None])) if request.single_frames else clips


def _snapped(
    video: VideoReader, samples: list[WindowSample], windows: list[VideoWindow]
) -> tuple[list[WindowSample], list[VideoWindow]]:
    """In the place of each frame the keyframe nearest to it, and of each window the seconds from its first keyframe to
    the end of its last one; of windows that show the same keyframes the first."""
    wanted = np.unique(np.concatenate([one.sample.indices.ravel() for one in samples]))
    keys = video.nearest_keyframes(wanted)
    starts = video.timestamps
    clock = clock_of(starts, len(starts), video.metadata.fps)
    found: dict[tuple[int, ...], tuple[WindowSample, VideoWindow]] = {}
    for one, window in zip(samples, windows, strict=True):
        indices = keys[np.searchsorted(wanted, one.sample.indices)]
        spans = np.stack([clock.start(indices.min(1)), clock.end(indices.max(1))], axis=1)
        sample = dataclasses.replace(one.sample, indices=indices, seconds=clock.start(indices), spans=spans)
        seen = WindowSample((float(spans[:, 0].min()), float(spans[:, 1].max())), sample)
        found.setdefault(tuple(np.unique(indices).tolist()), (seen, window))
    return [seen for seen, _ in found.values()], [window for _, window in found.values()]


def clip_inputs(
    frames: np.ndarray, indices: np.ndarray, needed: np.ndarray, request: ClipRequest, process: ClipProcessor
) -> Rows:
    """What a processor makes of the frames that a clip needs: `frames` (K, H, W, 3) are its distinct ones, `indices`
    (K,) their ascending numbers."""
    places = np.searchsorted(indices, needed)
    if request.frames_needed is not None:
        return process(frames, request.views.crops, places)
    return process(frames if np.array_equal(indices, needed) else frames[places], request.views.crops)


def frames_of_clips(video: FrameReader, clips: list[np.ndarray], limit: int) -> Iterator[VideoFrames]:
    """The distinct frames of each clip, in ascending order; those of several clips are decoded once, at most `limit`
    are held."""
    numbers = [np.unique(indices) for indices in clips]
    if isinstance(video, VideoReader):
        return video.frames_of_clips(numbers, limit=limit)
    return clips_in_groups(video.get_frames, groups_of(numbers, limit))


def read_events(source: VideoSource, request: ClipRequest, process: ClipProcessor) -> Iterator[Event]:
    """As `read_clips`, with the fault of a video as the last event and not as an exception, so that it can cross from a
    worker process and other videos go on. Options that fit no video still raise."""
    try:
        yield from read_clips(source, request, process)
    except (VideoOptionError, BackendError):
        raise
    except VideoError as error:
        yield error


def _needed(indices: np.ndarray, window: VideoWindow, request: ClipRequest) -> np.ndarray:
    """The frames of a clip, with those that the processor needs besides; none of them outside the window."""
    if request.frames_needed is None:
        return indices
    return request.frames_needed(indices, window.first, window.first + len(window))


def _sample(window: VideoWindow, request: ClipRequest, energy: np.ndarray | None) -> FrameSample:
    sampling = request.sampling
    if energy is not None:
        sampling = sampling.with_options(energy=energy[window.first : window.first + len(window)])
    return window.in_video(sampling.choose(window, request.views))


def _motion(source: VideoSource, request: ClipRequest) -> np.ndarray | None:
    """The motion of the whole video where the sampler follows it: one pass, however many windows there are."""
    if not request.sampling.needs_motion():
        return None
    from hf_video.video.sampling.motion import motion_energy

    return motion_energy(source)


def frame_bytes(video: FrameReader, decode: Mapping[str, Any]) -> int:
    """Bytes of a frame as it is decoded; `decode` is what the reader was opened with."""
    height, width = video.metadata.height, video.metadata.width
    if "size" in decode:
        height, width = decode["size"]
    elif "shortest_edge" in decode:
        height, width = shortest_edge_size(height, width, decode["shortest_edge"])
    return height * width * 3


class VideoWindow:
    """Frames `first` to `last` (not included) of a video, seen as a video of its own.

    `meta` and `timestamps` are those of the whole video, of whose table this keeps a view: a copy for each of many
    windows would grow with the square of the length. `start` and `end` are the seconds that the window stands for.
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
        """A sample of the window, its frames numbered in the whole video."""
        return dataclasses.replace(sample, indices=sample.indices + self.first)


def cut(video: FrameReader, windows: Windows | FeatureGrid | None) -> list[VideoWindow]:
    """Cuts a video into windows.

    Args:
        video: Its `metadata` and `timestamps`.
        windows: Length and step in seconds; None for the whole video as one window; or the clips of a `FeatureGrid`.

    Returns:
        The windows in order.

    Windows start at the video's first frame and every `step` seconds after it. The last one ends with the video: where
    whole windows leave an end uncovered it is shorter, or, for an end of less than a tenth of a window, that much
    longer. A video shorter than one window is one window. A window holds the frames that are on screen during it, so
    the first one may have been shown a little earlier.
    """
    meta, starts = video.metadata, video.timestamps
    begin, end = meta.begin, meta.begin + meta.duration
    if windows is None:
        return [VideoWindow(meta, starts, 0, meta.num_frames, start=begin, end=end)]
    if isinstance(windows, FeatureGrid):
        return [VideoWindow(meta, starts, first, last, start=s, end=e) for first, last, s, e in windows.clips(video)]
    found = []
    for start, stop in window_spans(begin, meta.duration, windows):
        first, last = frames_during(starts, start, stop)
        found.append(VideoWindow(meta, starts, first, last, start=start, end=stop))
    return found


def window_spans(begin: float, duration: float, windows: Windows) -> list[tuple[float, float]]:
    """(start, end) in seconds of the windows of `cut` over `duration` seconds from `begin` on."""
    count = count_windows(duration, windows)
    starts = [begin + k * windows.step for k in range(count)]
    return [*((start, start + windows.length) for start in starts[:-1]), (starts[-1], begin + duration)]


def count_windows(duration: float, windows: Windows) -> int:
    """Windows that cover `duration` seconds: the whole ones, and one more where more than a sliver is left over."""
    beyond = duration - windows.length - windows.length * SLIVER - TOLERANCE
    return 1 if beyond <= 0 else 1 + math.ceil(beyond / windows.step)


@contextlib.contextmanager
def open_video(source: VideoSource, *, fps: float | None = None, **options: Any) -> Iterator[FrameReader]:
    """A reader for one video of any form; closed afterwards if it was opened here.

    Args:
        source: A file of any kind, an open reader, or frames that are in memory.
        fps: Frames per second of what has no times.
        options: Of `VideoReader`, such as `on_error` and `backend`.

    Raises:
        VideoError: What `VideoReader` and `MemoryVideo` raise.
    """
    source = plain_source(source)
    if isinstance(source, VideoReader) or (hasattr(source, "get_frames") and hasattr(source, "timestamps")):
        yield cast(FrameReader, source)
    elif isinstance(source, (VideoFrames, np.ndarray, torch.Tensor, list, tuple)):
        yield MemoryVideo(source, fps=fps)
    else:
        with VideoReader(source, fps=fps, **options) as reader:
            yield reader


def videos_of(inputs: VideoSource | Videos) -> tuple[str, Any]:
    """Tells one video from many.

    Args:
        inputs: A video, a list of them, or a generator, an iterator or a dataset, which are streams.

    Returns:
        ("one", video), ("list", videos) or ("stream", iterable of videos, maybe endless).

    Raises:
        VideoSourceError: It is none of them.
    """
    inputs = inputs if isinstance(inputs, Mapping) else plain_source(inputs)
    if isinstance(inputs, (str, os.PathLike, bytes, bytearray, memoryview, Mapping, VideoFrames)) or is_source(inputs):
        return "one", inputs
    if isinstance(inputs, (list, tuple)) and all(isinstance(one, Mapping) for one in inputs):
        return "list", list(inputs)  # rows; or none at all
    if isinstance(inputs, (list, tuple, np.ndarray, torch.Tensor)):
        videos = split_videos(inputs)
        one = inputs.ndim != 5 if hasattr(inputs, "ndim") else videos[0] is inputs
        return ("one", videos[0]) if one else ("list", videos)
    if isinstance(inputs, Iterable) or (hasattr(inputs, "__getitem__") and isinstance(inputs, Sized)):
        return "stream", inputs
    raise VideoSourceError(
        f"A {type(inputs).__name__} is no video. Give a path, URL, bytes, a file object, an array "
        "(frames, height, width, 3), a list of PIL images, a folder of images, a VideoReader, or a list, generator or "
        "dataset of these."
    )


def each(videos: Videos) -> Iterator[VideoSource]:
    """The videos of a list, iterator or dataset, one by one (torch datasets need not raise IndexError at their end)."""
    if isinstance(videos, VideoList):
        return (videos[i] for i in range(len(videos)))
    return iter(videos)
