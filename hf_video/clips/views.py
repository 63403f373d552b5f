"""Views of a video: how many clips in time, how many crops in space, which frames each clip sees, and how their
scores become one.

    views="5x3"   5 clips x 3 crops = 15 views, decoded in one go, each scored, scores averaged
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from hf_video.errors import SamplingError, VideoOptionError, is_whole
from hf_video.video.sampling.frame_sample import FrameSample
from hf_video.video.sampling.samplers import (
    SAMPLERS,
    adaptive,
    at_fps,
    center,
    dense,
    resolve,
    sample_video,
    uniform,
    uniform_views,
)

CROPS = (1, 3)
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

    def choose(self, video: Any, views: Views, seed: int | None = None) -> FrameSample:
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
