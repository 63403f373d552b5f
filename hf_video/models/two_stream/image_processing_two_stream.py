"""The two inputs of two-stream networks from one file: frames, and stacks of optical flow that begin at them.

After bryanyzhu/two-stream-pytorch: frames of 256 x 340 pixels, of which 224 x 224 are cut; ImageNet's statistics for
RGB, mean .5 and deviation .226 for the images of flow. Flow is computed at that size (as TSN does; the official code
computes it on UCF-101's 240 x 320 and stretches its images, vectors unchanged).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypedDict

import numpy as np
import torch
from transformers.image_processing_base import BatchFeature

from hf_video.base.processing import ImageKwargs, VideoImageProcessor, VideoKwargs, VideoVideoProcessor
from hf_video.base.processing_config import layout_name, pixel_values, resize_clip, views
from hf_video.errors import VideoOptionError, check_choice, check_count, check_number, check_switch
from hf_video.video import transforms
from hf_video.video.decode.sources import plain_source
from hf_video.video.flow.cache import FlowCache, file_identity
from hf_video.video.flow.estimation import (
    METHODS,
    STILL,
    flip_flow,
    optical_flow,
    stack_frames,
    stack_pairs,
)
from hf_video.video.inputs import Clip, SamplingPlan, frames_to_tensor, is_source, load_clips
from hf_video.video.reader import VideoReader

STREAMS = ("both", "spatial", "temporal")
FLOW_SETTINGS = ("streams", "flow_method", "flow_options", "flow_length", "flow_bound", "flow_mean", "flow_std")
# Of this machine, not of the model: never written to a file.
LOCAL_SETTINGS = ("flow_cache", "flow_workers")


class FlowKwargs(TypedDict, total=False):
    streams: str | None
    flow_method: str | None
    flow_options: dict | None
    flow_length: int | None
    flow_bound: float | None
    flow_mean: float | None
    flow_std: float | None
    flow_cache: str | None
    flow_workers: int | None
    do_horizontal_flip: bool | None


class TwoStreamImageKwargs(ImageKwargs, FlowKwargs, total=False):
    pass


class TwoStreamVideoKwargs(VideoKwargs, FlowKwargs, total=False):
    pass


@dataclass(frozen=True)
class FlowClip(Clip):
    """A clip with the fields of each frame's stack: uint8 (T, L, H, W, 2), before any cropping."""

    fields: np.ndarray | None = None


class TwoStreamProcessing:
    """Both inputs of a clip of T frames: `pixel_values` (rows, T, 3, height, width) as every processor's, and
    `flow_values` (rows, T, 2·L, height, width), the L flow fields from each of these frames on, x1, y1, x2, y2, ….

    Settings beyond those of `ClipProcessing`:
        streams: "both", or "spatial" or "temporal" for models of one stream, which then have one input.
        flow_method, flow_options: see `hf_video.video.flow.flow_method`.
        flow_length: L. flow_bound: pixels to which flow is clipped before its 256 steps.
        flow_mean, flow_std: (image / 255 - mean) / std.
        flow_cache: A folder in which fields of *files* are kept (`hf_video.video.flow.cache`); None keeps none.
        flow_workers: Threads; None takes one for each processor.
        do_horizontal_flip: Mirrors both inputs, and negates the flow's x.

    Ready-made frames (arrays, image lists) are a whole video and are sampled like one; with `do_sample_frames=False`
    every frame has its stack. Near the end a stack begins earlier; a video of no more than L frames repeats its last
    field. Raises ShortVideoError for a video of one frame, BackendError without OpenCV.
    """

    size: Any = {"height": 256, "width": 340}  # noqa: RUF012 - copied for every instance
    do_sample_frames = True
    streams = "both"
    flow_method = "dis"
    flow_options: dict | None = None
    flow_length = 10
    flow_bound = 20.0
    flow_mean = 0.5
    flow_std = 0.226
    flow_cache: Any = None
    flow_workers: int | None = None
    do_horizontal_flip = False
    model_input_names = ["pixel_values", "flow_values"]  # noqa: RUF012

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        _check_settings(self)

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        present = [name for name in ("spatial", "temporal") if getattr(config, f"{name}_config") is not None]
        return {"streams": present[0] if len(present) == 1 else "both", "flow_length": config.flow_length}

    def frames_needed(self, indices: np.ndarray, first: int, last: int) -> np.ndarray:
        """Frames of a video from `first` to `last` (not included) that a clip of the frames `indices` (T,) needs:
        (T, L + 1), or (T,) for a processor of the spatial stream."""
        if self.streams == "spatial":
            return indices
        stacks = stack_frames(indices, first, last, self.flow_length)
        return np.concatenate([indices[:, None], stacks], axis=1)

    def process_needed(self, frames: np.ndarray, needed: np.ndarray, **kwargs: Any) -> BatchFeature:
        """One clip of frames that are decoded already: `frames` (N, H, W, 3), and `needed` of `frames_needed`, numbered
        in them."""
        settings = self._resolve(kwargs)
        images, fields = torch.from_numpy(frames), None
        if needed.ndim == 2:
            fields = _fields(stack_pairs(needed[:, 1:]), lambda numbers: _bytes(images[numbers]), settings, None)
            needed = needed[:, 0]
        return BatchFeature(data=self._inputs([FlowClip(images[needed], needed, fields=fields)], settings))

    def _resolve(self, given: dict[str, Any]) -> SimpleNamespace:
        settings = super()._resolve(given)
        _check_settings(settings)
        return settings

    def _clips(self, video: Any, plan: SamplingPlan, settings: SimpleNamespace) -> list[Clip]:
        if settings.streams == "spatial":
            return super()._clips(video, plan, settings)
        video = plain_source(video)
        if hasattr(video, "get_frames"):
            return _with_flow(load_clips(video, plan), len(video), _frames_of(video), settings, None)
        if isinstance(video, (str, os.PathLike, bytes, bytearray, memoryview)) or is_source(video):
            identity = file_identity(video)
            with VideoReader(video, **plan.resize) as reader:
                return _with_flow(load_clips(reader, plan), len(reader), _frames_of(reader), settings, identity)
        layout = settings.input_data_format
        frames = frames_to_tensor(video, layout=None if layout is None else layout_name("input_data_format", layout))
        clips = load_clips(frames, plan, layout="channels_last")
        return _with_flow(clips, len(frames), lambda numbers: _bytes(frames[numbers]), settings, None)

    def _inputs(self, clips: list[Clip], settings: SimpleNamespace) -> dict[str, Any]:
        data = {}
        if settings.streams != "temporal":
            rows = [view for clip in clips for view in views(clip.frames, settings)]
            if settings.do_horizontal_flip:
                rows = [transforms.horizontal_flip(row) for row in rows]
            data["pixel_values"] = pixel_values(rows, settings)
        if settings.streams != "spatial":
            data["flow_values"] = _flow_values([clip.fields for clip in clips], settings)
        return data

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_dict().items() if name not in LOCAL_SETTINGS}


class TwoStreamImageProcessor(TwoStreamProcessing, VideoImageProcessor):
    """See `TwoStreamProcessing` and `ClipProcessing`."""

    valid_kwargs = TwoStreamImageKwargs
    _settings_names = (*VideoImageProcessor._settings_names, *FLOW_SETTINGS, *LOCAL_SETTINGS, "do_horizontal_flip")


class TwoStreamVideoProcessor(TwoStreamProcessing, VideoVideoProcessor):
    """See `TwoStreamProcessing` and `ClipProcessing`."""

    valid_kwargs = TwoStreamVideoKwargs
    _settings_names = (*VideoVideoProcessor._settings_names, *FLOW_SETTINGS, *LOCAL_SETTINGS, "do_horizontal_flip")


def _check_settings(settings: SimpleNamespace) -> None:
    """Raises VideoOptionError for flow settings without meaning."""
    for name, allowed in (("streams", STREAMS), ("flow_method", METHODS)):
        check_choice(name, getattr(settings, name), allowed)
    for name in ("flow_bound", "flow_std"):
        check_number(name, getattr(settings, name), above=0)
    check_count("flow_length", settings.flow_length, unit="fields")
    options = settings.flow_options
    if options is not None and not isinstance(options, Mapping):
        raise VideoOptionError(f"flow_options={options!r} must be a dictionary of the method's options.")
    check_switch("do_horizontal_flip", settings.do_horizontal_flip)


# -- reading -----------------------------------------------------------------------------------------------------------


def _frames_of(reader: Any) -> Callable[[np.ndarray], torch.Tensor]:
    return lambda numbers: torch.from_numpy(reader.get_frames(numbers).data)


def _bytes(frames: torch.Tensor) -> torch.Tensor:
    return frames if frames.dtype == torch.uint8 else (frames.clamp(0, 1) * 255).round().to(torch.uint8)


def _with_flow(
    clips: list[Clip], total: int, frames_of: Callable, settings: SimpleNamespace, identity: str | None
) -> list[Clip]:
    """Clips of a video of `total` frames with their fields; those that several clips share are computed once."""
    stacks = np.stack([stack_frames(clip.indices, 0, total, settings.flow_length) for clip in clips])
    fields = _fields(stack_pairs(stacks), frames_of, settings, identity)
    return [FlowClip(**vars(clip), fields=mine) for clip, mine in zip(clips, fields, strict=True)]


def _fields(
    pairs: np.ndarray, frames_of: Callable[[np.ndarray], torch.Tensor], settings: SimpleNamespace, identity: str | None
) -> np.ndarray:
    """(..., L, 2) pairs of frame numbers to their fields (..., L, H, W, 2), uint8: from the cache, or computed from
    `frames_of` these numbers and kept there."""
    wanted, where = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    cache = _cache(settings, identity)
    found = {i: cache.read(tuple(pair)) for i, pair in enumerate(wanted.tolist())} if cache is not None else {}
    missing = [i for i in range(len(wanted)) if found.get(i) is None]
    if missing:
        numbers, places = np.unique(wanted[missing], return_inverse=True)
        frames = resize_clip(frames_of(numbers), settings).numpy()
        new = optical_flow(
            frames,
            pairs=places.reshape(-1, 2),
            method=settings.flow_method,
            bound=settings.flow_bound,
            workers=settings.flow_workers,
            **(settings.flow_options or {}),
        )
        for i, field in zip(missing, new, strict=True):
            found[i] = field
            if cache is not None:
                cache.write(tuple(wanted[i].tolist()), field)
    fields = np.stack([found[i] for i in range(len(wanted))])[where.reshape(-1)]
    return fields.reshape(*pairs.shape[:-1], *fields.shape[1:])


def _cache(settings: SimpleNamespace, identity: str | None) -> FlowCache | None:
    if settings.flow_cache is None or identity is None:
        return None
    known = {name: getattr(settings, name) for name in ("flow_method", "flow_options", "flow_bound")}
    known |= {name: getattr(settings, name) for name in ("do_resize", "size", "resample")}
    return FlowCache(settings.flow_cache, identity, known)


# -- flow values -------------------------------------------------------------------------------------------------------


def _flow_values(clips: list[np.ndarray], settings: SimpleNamespace) -> Any:
    """Fields (T, L, H, W, 2) of clips as (rows, T, 2·L, height, width)."""
    settings = copy.copy(settings)
    last = layout_name("data_format", settings.data_format or "channels_first") == "channels_last"
    settings.data_format, settings.do_flip_channel_order = None, False
    settings.image_mean, settings.image_std = [settings.flow_mean], [settings.flow_std]
    rows = [row for fields in clips for row in _flow_views(fields, settings)]
    values = pixel_values(rows, settings)

    def stacks(value: Any) -> Any:
        value = value.reshape(*value.shape[:-4], -1, 2 * settings.flow_length, *value.shape[-2:])
        return np.moveaxis(value, -3, -1) if last and isinstance(value, np.ndarray) else (
            value.movedim(-3, -1).contiguous() if last else value)  # fmt: skip

    return [stacks(value) for value in values] if isinstance(values, list) else stacks(values)


def _flow_views(fields: np.ndarray, settings: SimpleNamespace) -> list[torch.Tensor]:
    """The crops of a clip's fields, (T·L, height, width, 2) each."""
    flat = fields.reshape(-1, *fields.shape[-3:])
    # A crop that is larger than the frame is filled with zeros, which must mean "still": 128 is moved there and back.
    crops = views(torch.from_numpy(flat - np.uint8(STILL)), settings)
    crops = [crop + STILL for crop in crops]
    return [torch.from_numpy(flip_flow(crop.numpy())) for crop in crops] if settings.do_horizontal_flip else crops
