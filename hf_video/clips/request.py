"""Which frames, views and windows of a video a model sees, and how they are read: the one place that decides it.

views="5x3"     5 clips x 3 crops = 15 views, decoded in one go, each scored, scores averaged
windows="2s/1s" a stretch of 2 seconds from every second on, each seen on its own
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_video.base.processing import ClipProcessing
from hf_video.base.processing_config import frames_per_clip, pixel_processor, reader_resize, sampler_settings
from hf_video.clips.grid import FeatureGrid
from hf_video.errors import SamplingError, VideoOptionError, check_choice, is_number, is_whole
from hf_video.video.sampling.frame_sample import FrameSample, random_segments, uniform, uniform_views
from hf_video.video.sampling.samplers import SAMPLERS, adaptive, at_fps, center, dense, resolve, sample_video

if TYPE_CHECKING:
    from typing import TypeAlias

    from transformers import BaseImageProcessor, BaseVideoProcessor, PreTrainedConfig

    from hf_video.video.frames.types import FrameTimes
    from hf_video.video.reader import VideoReader

    WindowsLike: TypeAlias = "float | str | tuple[float, float] | Windows | FeatureGrid"

CROPS = (1, 3)
SNAPS = (None, "keyframe")
FUNCTIONS = ("softmax", "sigmoid", "none")
# What `frame_sampling_rate` is called by the samplers that have a stride.
STRIDE_NAMES = {dense: "stride", center: "stride", at_fps: "rate"}
SEVERAL_CLIPS = (dense, at_fps, uniform_views)


@dataclass(frozen=True)
class Views:
    """`clips` in time x `crops` in space."""

    clips: int = 1
    crops: int = 1

    @property
    def total(self) -> int:
        return self.clips * self.crops


def parse_views(views: str | tuple[int, int] | Views | None) -> Views:
    """`"5x3"`, `(5, 3)` or None (one view) -> `Views(clips=5, crops=3)`.

    Crops are 1 (centre) or 3 (left, centre, right; top, centre, bottom of a tall video). Raises VideoOptionError.
    """
    if views is None or isinstance(views, Views):
        return views or Views()
    if isinstance(views, str):
        found = re.fullmatch(r"\s*(\d+)\s*[xX×]\s*(\d+)\s*", views)
        numbers = [int(n) for n in found.groups()] if found else []
    else:
        numbers = list(views) if isinstance(views, (tuple, list)) else []
    if len(numbers) != 2 or not all(map(is_whole, numbers)) or numbers[0] < 1 or numbers[1] not in CROPS:
        raise VideoOptionError(
            f'views={views!r} must be clips x crops, such as "5x3" or (5, 3): at least 1 clip, and 1 or 3 crops.'
        )
    return Views(*numbers)


@dataclass(frozen=True)
class Sampling:
    """Which frames a clip gets.

    `num_frames` frames a clip; `sampler` a name of `hf_video.video.sampling.SAMPLERS`, a callable, or None; `stride`
    frames from one to the next (stock's `frame_sampling_rate`); `options` go to the sampler as they are.

    Without a sampler: evenly over the whole video (`uniform`; several clips: `uniform_views`), or with a stride
    clips of neighbouring frames (`dense`: one from the middle, several from start to end).
    """

    num_frames: int
    sampler: str | Callable[..., Any] | None = None
    stride: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def needs_motion(self) -> bool:
        """Whether the sampler needs the video's motion and wasn't given it."""
        return self.sampler is not None and resolve(self.sampler) is adaptive and "energy" not in self.options

    def with_options(self, **options: Any) -> Sampling:
        return replace(self, options={**self.options, **options})

    def choose(self, video: FrameTimes, views: Views, seed: int | None = None) -> FrameSample:
        """The frames of all clips of `video` (anything with `.metadata` and `.timestamps`); a sampler that draws is
        given `seed`.

        Raises SamplingError where sampler, stride and number of clips don't go together.
        """
        function = self._function(views)
        options = dict(self.options)
        if seed is not None and "seed" in inspect.signature(function).parameters:
            options.setdefault("seed", seed)
        if self.stride is not None:
            if function not in STRIDE_NAMES:
                raise SamplingError(
                    f"frame_sampling_rate={self.stride} has no meaning for the sampler {_name(function)}: it has no "
                    'stride. Use sampler="dense", "center" or "at_fps", or leave one of the two out.'
                )
            options.setdefault(STRIDE_NAMES[function], self.stride)
        if views.clips > 1:
            if function in SAMPLERS.values() and function not in SEVERAL_CLIPS:
                raise SamplingError(
                    f"The sampler {_name(function)} gives one clip and the views ask for {views.clips}. Use "
                    'sampler="uniform", "dense", "at_fps" or "uniform_views".'
                )
            options.setdefault("num_clips", views.clips)
        sample = sample_video(video, self.num_frames, sampler=function, **options)
        self._check(sample, function, views)
        return sample

    def _function(self, views: Views) -> Callable[..., Any]:
        sampler = self.sampler
        if sampler is None:
            sampler = "dense" if self.stride is not None else "uniform"
        function = resolve(sampler)
        if function is uniform and views.clips > 1:
            return uniform_views
        return function

    def _check(self, sample: FrameSample, function: Callable[..., Any], views: Views) -> None:
        if views.clips > 1 and sample.num_clips != views.clips:
            raise SamplingError(
                f"The views ask for {views.clips} clips and the sampler {_name(function)} returned {sample.num_clips}. "
                "It is called with num_clips and should return indices of shape (num_clips, frames)."
            )
        if sample.num_frames != self.num_frames:
            raise SamplingError(
                f"The sampler {_name(function)} returned clips of {sample.num_frames} frames; {self.num_frames} were "
                "asked for."
            )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def average_views(logits: torch.Tensor, function: str) -> torch.Tensor:
    """(views, classes) -> (classes,): `function` ("softmax", "sigmoid" or "none") of every view, then their mean, as
    VideoMAE, MViT and Video Swin test. In float32 whatever the model's dtype."""
    logits = logits.float()
    if function == "softmax":
        logits = logits.softmax(-1)
    elif function == "sigmoid":
        logits = logits.sigmoid()
    return logits.mean(0)


@dataclass(frozen=True)
class Windows:
    """`length` of a window and `step` from one start to the next, in seconds."""

    length: float
    step: float

    def __str__(self) -> str:
        return f"{self.length:g}s/{self.step:g}s"


def parse_windows(
    windows: float | str | tuple[float, float] | Windows | FeatureGrid | None,
) -> Windows | FeatureGrid | None:
    """`2.0`, `"2s"`: windows of 2 seconds side by side. `"2s/1s"`, `(2.0, 1.0)`: a new one every second, overlapping.
    A `FeatureGrid` is taken as it is.

    Raises VideoOptionError for anything else, and for a step longer than the window (it would skip parts unseen).
    """
    if windows is None or isinstance(windows, (Windows, FeatureGrid)):
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


# What a test sampler becomes for training: the same kind of clip, at a random place.
_RANDOM: dict[Callable[..., Any], Callable[..., FrameSample]] = {center: dense, dense: dense, at_fps: at_fps}
_KEPT_OPTIONS = ("stride", "rate", "target_fps", "short")


@dataclass(frozen=True)
class ClipRequest:
    """Everything that decides which pixels a video becomes.

    Args:
        sampling: Which frames a clip has.
        views: Clips in time x crops in space.
        windows: Stretches of the video that are seen each on its own, or the clips of a grid; None sees it as one.
        on_error, backend: Of `VideoReader`.
        snap: "keyframe": a clip shows, in the place of each of its frames, the keyframe nearest in time, for which one
            frame is decoded. Samples and windows carry the seconds of what is shown, and windows that would show the
            same keyframes are one.
        fps: Frames per second of videos without times.
        decode: Options of `VideoReader` that resize frames as they are decoded.
        num_threads: Of `VideoReader`; more than one where no model is at work meanwhile.
        frames_needed: What the processor needs beyond the chosen frames: a function of their indices (T,) and of the
            first and last frame (not included) that may be taken.
        keeps_frames: Whether the processor is given each frame once, where several clips, or places of one, show it.
        single_frames: In the place of the windows' clips, each frame that they show comes once, as a clip of itself
            alone, whose window is its place among these.
    """

    sampling: Sampling
    views: Views = field(default_factory=Views)
    windows: Windows | FeatureGrid | None = None
    on_error: str = "raise"
    backend: str = "auto"
    snap: str | None = None
    fps: float | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)
    num_threads: int = 1
    frames_needed: Callable[[np.ndarray, int, int], np.ndarray] | None = None
    keeps_frames: bool = False
    single_frames: bool = False

    @classmethod
    def resolve(
        cls,
        processor: ClipProcessing | BaseImageProcessor | BaseVideoProcessor | None,
        config: PreTrainedConfig | None,
        *,
        num_frames: int | None = None,
        frame_sampling_rate: int | None = None,
        sampler: str | Callable[..., Any] | type[Sampling] | None = None,
        sampler_options: Mapping[str, Any] | None = None,
        views: str | tuple[int, int] | Views | None = None,
        windows: float | str | tuple[float, float] | Windows | FeatureGrid | None = None,
        resize: int | tuple[int, int] | Mapping[str, Any] | None = None,
        **reading: Any,
    ) -> ClipRequest:
        """Decides every setting: **what is asked, else what the processor's file says, else the model's
        configuration**. `check_pair` warns where the last two differ.

        Options of the file's sampler hold until another sampler or a frame rate is asked; asked options are put over
        them. The file's `num_clips` and `num_crops` hold until views are asked.

        Args:
            processor: The model's image or video processor, or one that holds it.
            config: The model's; None where only a processor is at hand.
            num_frames: Frames of a clip.
            frame_sampling_rate: Frames from one taken frame to the next.
            sampler, sampler_options: See `Sampling`; a subclass of it chooses the frames by itself.
            views: See `parse_views`.
            windows: See `parse_windows`. The frames of a grid's clips are evenly spread, whatever the processor's
                sampler, unless a sampler or a frame rate is asked.
            resize: Short side or (height, width) in pixels at which frames are decoded, or options of `VideoReader`;
                None for the processor's, where the pixels are the same.
            reading: `on_error`, `backend`, `snap` and `fps`.

        Raises:
            VideoOptionError: An option means nothing, or nothing says how many frames a clip has.
        """
        processor = pixel_processor(processor)
        count = frames_per_clip(processor, config, num_frames)
        if count is None:
            owner = type(processor if config is None else config).__name__
            raise VideoOptionError(
                f"{owner} doesn't say how many frames a clip has: pass num_frames=, or set it in the processor."
            )
        options = dict(sampler_options or {})
        windows = parse_windows(windows)
        if check_choice("snap", reading.get("snap"), SNAPS) is not None:
            if isinstance(windows, FeatureGrid):
                raise VideoOptionError('snap="keyframe" has no regular grid of frames: leave one of the two out.')
            if hasattr(processor, "frames_needed"):
                raise VideoOptionError(
                    f'snap="keyframe" leaves out the neighbouring frames from which {type(processor).__name__} makes '
                    "optical flow: leave it out."
                )
        if isinstance(windows, FeatureGrid) and sampler is None and frame_sampling_rate is None:
            sampler = "uniform"
        if frame_sampling_rate is None:
            sampler, options = sampler_settings(processor, sampler, options)
            if views is not None and "num_clips" not in (sampler_options or {}):
                options.pop("num_clips", None)
        make: type[Sampling] = Sampling
        if isinstance(sampler, type) and issubclass(sampler, Sampling):
            make, sampler = sampler, None
        if isinstance(resize, int):
            resize = {"shortest_edge": resize}
        elif isinstance(resize, (tuple, list)):
            resize = {"size": tuple(resize)}
        elif resize is None:
            resize = reader_resize(processor) if isinstance(processor, ClipProcessing) else {}
        return cls(
            sampling=make(count, sampler, frame_sampling_rate, options),
            views=Views(1, getattr(processor, "num_crops", 1) or 1) if views is None else parse_views(views),
            windows=windows,
            decode=resize,
            frames_needed=getattr(processor, "frames_needed", None),
            keeps_frames=reading.get("snap") is not None and getattr(processor, "sees_frames_apart", False),
            **reading,
        )

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self.sampling.num_frames

    @property
    def frame_distance(self) -> int:
        """Frames from one taken frame to the next, 1 where the sampler has no stride."""
        options = self.sampling.options
        return int(self.sampling.stride or options.get("stride") or options.get("rate") or 1)

    def choose(self, video: VideoReader, seed: int | None = None) -> FrameSample:
        """The frames of the clips of an open video, as one; a sampler that draws is given `seed`."""
        return self.sampling.choose(video, self.views, seed)

    def for_training(self, *, sampler_asked: bool) -> ClipRequest:
        """The same clips at random places. A sampler of the processor becomes its random kind (evenly spread frames:
        one from each segment; clips at a stride: from a random start); one that was asked for starts anywhere unless
        its `start` says otherwise."""
        function = resolve(self.sampling.sampler or "uniform")
        options = dict(self.sampling.options)
        if not sampler_asked and function in SAMPLERS.values():
            options = {name: value for name, value in options.items() if name in _KEPT_OPTIONS}
            function = _RANDOM.get(function, random_segments)
        if function in (dense, at_fps):
            options.setdefault("start", "random")
        return replace(self, sampling=replace(self.sampling, sampler=function, options=options))
