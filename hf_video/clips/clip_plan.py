"""Which frames of a video a sample sees, and at which size they are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_video.base.processing_config import RESAMPLE
from hf_video.errors import DataError, VideoOptionError, is_whole
from hf_video.video.sampling.frame_sample import FrameSample
from hf_video.video.sampling.samplers import (
    SAMPLERS,
    at_fps,
    center,
    dense,
    random_segments,
    resolve,
    sample_video,
    uniform,
    uniform_views,
)

# What a test sampler becomes for training: the same kind of clip, at a random place.
_RANDOM = {center: dense, dense: dense, at_fps: at_fps}
_KEPT_OPTIONS = ("stride", "rate", "target_fps", "short")


@dataclass(frozen=True)
class ClipPlan:
    """`num_frames` frames by `sampler` with `options`, a callable of `hf_video.video.sampling`'s form; `clips` of them
    for each video. `seeded` says that the sampler draws, and takes a `seed`."""

    num_frames: int
    sampler: Callable[..., FrameSample]
    options: Mapping[str, Any] = field(default_factory=dict)
    clips: int = 1
    seeded: bool = False

    def choose(self, reader: Any, seed: int) -> FrameSample:
        """The clips of an open video."""
        options = dict(self.options)
        if self.seeded:
            options.setdefault("seed", seed)
        if self.clips > 1:
            options["num_clips"] = self.clips
        return sample_video(reader, self.num_frames, sampler=self.sampler, **options)


def clip_plan(
    processor: Any,
    *,
    num_frames: int | None,
    sampler: Any,
    options: Mapping[str, Any] | None,
    clips: int,
    training: bool,
) -> ClipPlan:
    """The plan of what was passed, else of the processor.

    For training, a sampler of the processor becomes its random kind (evenly spread frames: one from each segment;
    clips at a stride: from a random start), and a clip sampler that is named starts anywhere unless `start` says
    otherwise. Raises DataError where nothing says how many frames.
    """
    count = num_frames or getattr(processor, "num_frames", None)
    if not count:
        raise DataError("How many frames is a clip? Pass num_frames= (a model's is model.config.num_frames).")
    given = sampler is not None
    function = resolve(sampler if given else processor.sampler)
    if options is not None:
        chosen = dict(options)
    else:
        chosen = {} if given else dict(getattr(processor, "sampler_options", None) or {})
    if training and not given:
        function, chosen = _randomised(function, chosen)
    if training and function in (dense, at_fps):
        chosen.setdefault("start", "random")
    if clips > 1 and function is uniform:
        function = uniform_views
    return ClipPlan(int(count), function, chosen, clips, "seed" in inspect.signature(function).parameters)


def _randomised(function: Callable[..., Any], options: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    if function not in SAMPLERS.values():
        return function, options
    kept = {name: value for name, value in options.items() if name in _KEPT_OPTIONS}
    return _RANDOM.get(function, random_segments), kept


def reader_size(resize: int | tuple[int, int] | None, processor: Any, augmentation: Any) -> dict[str, Any]:
    """`VideoReader`'s `size` or `shortest_edge`: the size at which frames are read.

    What was passed; else, for training, the augmentation's own first step where it is a fixed short side; else the
    processor's resize where it is the reader's filter. In these cases the pixels are the same as when resizing later,
    and large frames are never held. {} reads frames as they are.
    """
    if resize is not None:
        return {"shortest_edge": resize} if isinstance(resize, int) else {"size": tuple(resize)}
    if augmentation is not None:
        return _first_step(augmentation)
    if not processor.do_resize or RESAMPLE[processor.resample] != "bilinear":
        return {}
    if not getattr(processor, "resizes_first", True):  # it pads before
        return {}
    size = processor.size
    return {"shortest_edge": size["shortest_edge"]} if "shortest_edge" in size else {
        "size": (size["height"], size["width"])}  # fmt: skip


def _first_step(augmentation: Any) -> dict[str, Any]:
    """The resize that an augmentation always begins with, if it does."""
    low, high = getattr(augmentation, "short_side", None) or (0, 1)
    always = augmentation.crop in ("random", "center") and not augmentation.rand_augment if low == high else False
    return {"shortest_edge": low} if always and augmentation.interpolation == "bilinear" else {}


def parse_views(views: int | tuple[int, int]) -> tuple[int, int]:
    """(clips, crops) for a number of clips or such a pair. Raises VideoOptionError."""
    pair = tuple(views) if isinstance(views, (tuple, list)) else (views, 1)
    if len(pair) != 2 or not all(map(is_whole, pair)) or pair[0] < 1 or pair[1] not in (1, 3):
        raise VideoOptionError(f"views={views!r} must be a number of clips, or (clips, crops) with 1 or 3 crops.")
    return pair
