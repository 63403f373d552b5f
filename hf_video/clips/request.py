"""Which frames, views and windows of a video a model sees, and how they are read: the one place that decides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.base.pairing import pixel_processor
from hf_video.base.processing import ClipProcessing
from hf_video.base.processing_config import frames_per_clip, reader_resize, sampler_settings
from hf_video.clips.views import Sampling, Views, parse_views
from hf_video.clips.windows import Windows, parse_windows
from hf_video.errors import VideoOptionError
from hf_video.video.sampling.samplers import SAMPLERS, at_fps, center, dense, random_segments, resolve

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, BaseVideoProcessor, PreTrainedConfig

    from hf_video.video.reader import VideoReader
    from hf_video.video.sampling.frame_sample import FrameSample

# What a test sampler becomes for training: the same kind of clip, at a random place.
_RANDOM = {center: dense, dense: dense, at_fps: at_fps}
_KEPT_OPTIONS = ("stride", "rate", "target_fps", "short")


@dataclass(frozen=True)
class ClipRequest:
    """Everything that decides which pixels a video becomes.

    Args:
        sampling: Which frames a clip has.
        views: Clips in time x crops in space.
        windows: Stretches of the video that are seen each on its own; None sees it as one.
        on_error, backend: Of `VideoReader`.
        fps: Frames per second of videos without times.
        decode: Options of `VideoReader` that resize frames as they are decoded.
        frames_needed: What the processor needs beyond the chosen frames: a function of their indices (T,) and of the
            first and last frame (not included) that may be taken.
    """

    sampling: Sampling
    views: Views = field(default_factory=Views)
    windows: Windows | None = None
    on_error: str = "raise"
    backend: str = "auto"
    fps: float | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)
    frames_needed: Callable[[np.ndarray, int, int], np.ndarray] | None = None

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
        windows: float | str | tuple[float, float] | Windows | None = None,
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
            windows: See `parse_windows`.
            resize: Short side or (height, width) in pixels at which frames are decoded, or options of `VideoReader`;
                None for the processor's, where the pixels are the same.
            reading: `on_error`, `backend` and `fps`.

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
            windows=parse_windows(windows),
            decode=resize,
            frames_needed=getattr(processor, "frames_needed", None),
            **reading,
        )

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self.sampling.num_frames

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
