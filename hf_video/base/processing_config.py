"""The settings of processors: what their files may say (the Hub's old ones, transformers' own, ours), brought to one
form, and what they do to the pixels of a clip."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from hf_video.errors import (
    VideoArrayError,
    VideoOptionError,
    check_choice,
    check_count,
    check_number,
    check_switch,
    is_whole,
    unknown_name,
)
from hf_video.video import transforms
from hf_video.video.frames.pixels import shortest_edge_size

# PIL's numbers, as preprocessor files hold them, and our names.
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# What says of which class a file is, or is an internal of old versions: not settings.
_NOT_SETTINGS = (
    "image_processor_type",
    "video_processor_type",
    "feature_extractor_type",
    "processor_class",
    "_valid_processor_keys",
    "_valid_kwargs_names",
)
_SWITCHES = (
    "do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_flip_channel_order", "do_sample_frames", "offset",
)  # fmt: skip


def drop_type_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a file's dictionary; unknown ones are kept."""
    return {name: value for name, value in config.items() if name not in _NOT_SETTINGS}


def normalize_setting(name: str, value: object) -> Any:
    """A setting's value in the form that is kept, used and saved. Raises VideoOptionError for one without meaning."""
    if value is None:
        return None
    if name == "size":
        return _size(value)
    if name == "crop_size":
        size = _size(value)
        edge = size.get("shortest_edge")
        return {"height": edge, "width": edge} if edge else size
    if name == "resample":
        return _resample(value)
    if name in ("image_mean", "image_std"):
        return _statistics(name, value)
    if name in _SWITCHES:
        return check_switch(name, value)
    if name == "num_frames":
        return check_count(name, value)
    if name == "num_crops":
        hint = " 1 is the middle, 3 are along the longer side."
        return check_choice(name, check_count(name, value), (1, 3), hint=hint)
    if name in ("fps", "rescale_factor"):
        return check_number(name, value, above=0)
    return value


def raise_unknown_option(name: str, known: Iterable[str], owner: str) -> None:
    raise VideoOptionError(unknown_name(f"{owner} has no option", name, sorted(known)))


def hub_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `from_pretrained`'s options that say where files are."""
    names = ("cache_dir", "force_download", "proxies", "token", "local_files_only", "revision", "subfolder")
    return {name: options[name] for name in names if name in options}


def frames_of_model(pretrained: str | os.PathLike[str], hub: Mapping[str, Any]) -> int | None:
    """Frames of a clip by the model that lies beside a processor's file, or None."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(pretrained, **hub_options(hub))
    except (OSError, ValueError):
        return None  # a processor on its own
    return frames_of_config(config)


def frames_of_config(config: object) -> int | None:
    """Frames of a clip by a model's configuration (or the dictionary of its file) or that of its video tower, or None
    where it doesn't say."""

    def field(name: str) -> Any:
        return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)

    counts = [field(name) for name in ("num_frames", "frames_per_clip")]
    counts += [frames_of_config(tower) for tower in map(field, ("video_config", "vision_config")) if tower]
    return next((count for count in counts if is_whole(count)), None)


def frames_of_file(processor: object) -> int | None:
    """Frames of a clip by a processor itself, or None where it has no number, or only that of a `config.json`."""
    count = getattr(processor, "num_frames", None)
    return count if is_whole(count) and count != getattr(processor, "_num_frames_of_model", None) else None


def frames_per_clip(processor: object, config: object, asked: int | None = None) -> int | None:
    """Frames of a clip: what is asked, else what the processor's file says, else the model's configuration. None where
    nothing says it."""
    taken = getattr(processor, "num_frames", None)
    known = (asked, frames_of_file(processor), frames_of_config(config), taken if is_whole(taken) else None)
    return next((int(count) for count in known if count is not None), None)


def sampler_settings(processor: object, sampler: Any = None, options: Mapping[str, Any] | None = None) -> Any:
    """(sampler, options): what is asked, else the processor's. Options of the processor's file belong to its sampler:
    those asked are put over them, and they don't hold for another sampler that is asked."""
    if sampler is not None:
        return sampler, dict(options or {})
    kept = getattr(processor, "sampler_options", None) or {}
    return getattr(processor, "sampler", None), {**kept, **(options or {})}


def reader_resize(processor: Any) -> dict[str, Any]:
    """`VideoReader`'s `size` or `shortest_edge` for a processor of ours or its settings: frames are resized as they are
    decoded, where the processor begins with a resize by the same filter. The pixels are the same, and large frames are
    never held. {} reads frames as they are."""
    if not processor.do_resize or RESAMPLE[processor.resample] != "bilinear":
        return {}
    if not getattr(processor, "resizes_first", True):  # it pads before
        return {}
    size = processor.size
    return {"shortest_edge": size["shortest_edge"]} if "shortest_edge" in size else {
        "size": (size["height"], size["width"])}  # fmt: skip


def _size(value: int | Sequence[int] | Mapping[str, int | None]) -> dict[str, int]:
    if is_whole(value):
        size = {"shortest_edge": int(value)}  # an old file's bare number is the short side
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        size = {"height": value[0], "width": value[1]}
    elif isinstance(value, Mapping) or hasattr(value, "shortest_edge"):  # a dict or transformers' SizeDict
        size = {key: edge for key, edge in dict(value).items() if edge is not None}
    else:
        size = {}
    whole = all(is_whole(edge) and edge >= 1 for edge in size.values())
    if set(size) not in ({"shortest_edge"}, {"height", "width"}) or not whole:
        raise VideoOptionError(
            'A size is {"shortest_edge": pixels}, {"height": pixels, "width": pixels} or one number, all 1 or more; '
            f"{value!r} came."
        )
    return {key: int(edge) for key, edge in size.items()}


def _resample(value: object) -> int:
    name = getattr(value, "value", value)  # torchvision's InterpolationMode holds the name
    if isinstance(name, str):
        name = {v: k for k, v in RESAMPLE.items()}.get(name.lower(), -1)
    if not is_whole(name) or name not in RESAMPLE:
        raise VideoOptionError(f"resample={value!r} is none of PIL's filters: {RESAMPLE}.")
    return int(name)


def _statistics(name: str, value: object) -> list[float]:
    numbers = [float(v) for v in (value if isinstance(value, Iterable) else [value] * 3)]
    if len(numbers) == 1:
        numbers *= 3
    good = numbers and all(np.isfinite(v) for v in numbers)
    if not good or (name == "image_std" and min(numbers) <= 0):
        raise VideoOptionError(f"{name}={value!r} must hold one number for each channel, usually 3 (a std above 0).")
    return numbers


def pixel_processor(processor: Any) -> Any:
    """The half of a processor that makes pixel values, or the processor itself."""
    return getattr(processor, "image_processor", None) or getattr(processor, "video_processor", None) or processor


def resize_clip(frames: torch.Tensor, settings: SimpleNamespace) -> torch.Tensor:
    """(T, H, W, 3) at the settings' size, or as it is without `do_resize`."""
    if not settings.do_resize:
        return frames
    interpolation = RESAMPLE[settings.resample]
    if (edge := settings.size.get("shortest_edge")) is not None:
        return transforms.resize_short_side(frames, edge, interpolation=interpolation)
    size = settings.size["height"], settings.size["width"]
    return transforms.resize(frames, size, interpolation=interpolation)


def views(frames: torch.Tensor, settings: SimpleNamespace) -> list[torch.Tensor]:
    """The crops of a clip: (T, H, W, 3) to a list of (T, height, width, 3), still uint8 where they were."""
    if settings.do_rescale and frames.is_floating_point():
        _check_unit_range(frames)
    frames = resize_clip(frames, settings)
    if not settings.do_center_crop:
        return [frames]
    size = settings.crop_size["height"], settings.crop_size["width"]
    if settings.num_crops == 3:
        return list(transforms.three_crops(frames, size))
    return [transforms.center_crop(frames, size, pad=True)]


@dataclass(frozen=True)
class ClipGeometry:
    """Where the pixels of a frame come to lie in a clip: x · scale[0] - left, y · scale[1] - top, of `size` (rows,
    columns)."""

    scale: tuple[float, float]
    left: float
    top: float
    size: tuple[int, int]

    def place(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4), x1, y1, x2, y2 in pixels of the frame, in pixels of the clip, cut at its sides; float32."""
        scale, shift = np.array([*self.scale] * 2), np.array([self.left, self.top] * 2)
        rows, columns = self.size
        return (boxes * scale - shift).clip(0, [columns, rows, columns, rows]).astype(np.float32)


def clip_geometry(processor: Any, height: int, width: int) -> ClipGeometry:
    """What a processor's resize and centre crop do to frames of that size, in pixels."""
    rows, columns = height, width
    if processor.do_resize:
        size = dict(processor.size)
        edge = size.get("shortest_edge")
        rows, columns = shortest_edge_size(height, width, edge) if edge else (size["height"], size["width"])
    scale = columns / width, rows / height
    if not getattr(processor, "do_center_crop", False):
        return ClipGeometry(scale, 0, 0, (rows, columns))
    crop = processor.crop_size["height"], processor.crop_size["width"]
    # A frame that is smaller lies on black, an odd pixel more before it; see `transforms.center_crop`.
    top, left = (
        (has - wanted) // 2 if has >= wanted else -math.ceil((wanted - has) / 2)
        for has, wanted in zip((rows, columns), crop, strict=True)
    )
    return ClipGeometry(scale, left, top, crop)


def _check_unit_range(frames: torch.Tensor) -> None:
    low, high = (float(v) for v in frames.aminmax())
    if low < 0 or high > 1:
        raise VideoArrayError(
            f"Float frames must lie in 0..1 and these run from {low:g} to {high:g}. (Floats are not divided by 255 a "
            "second time.) For values up to 255 pass frames.round().astype('uint8'); for pixels that are normalised "
            "already, do_rescale=False and do_normalize=False."
        )


def pixel_values(views: list[torch.Tensor], settings: SimpleNamespace) -> Any:
    """One tensor (rows, T, 3, height, width), or a list of arrays without `return_tensors`."""
    last = layout_name("data_format", settings.data_format or "channels_first") == "channels_last"
    if settings.return_tensors is None:
        return [_to_model_layout(view, settings, last).numpy() for view in views]
    shapes = {tuple(view.shape) for view in views}
    if len(shapes) > 1:
        raise VideoArrayError(
            f"Clips of the shapes (frames, height, width, channels) {sorted(shapes)} don't stack into one tensor. Give "
            "them one number of frames (num_frames=) and one size (do_center_crop=True), or use return_tensors=None."
        )
    if len(views) == 1:
        rows = _to_model_layout(views[0], settings, last)[None]
    else:
        first = _to_model_layout(views[0], settings, last)
        rows = first.new_empty(len(views), *first.shape)
        rows[0] = first
        for row, view in zip(rows[1:], views[1:], strict=True):
            _to_model_layout(view, settings, last, out=row)
    if settings.return_tensors == "np":
        return rows.cpu().numpy()
    return rows if settings.device is None else rows.to(settings.device)


def _to_model_layout(
    view: torch.Tensor, settings: SimpleNamespace, last: bool, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Channel order, scale and statistics, and the model's layout."""
    if settings.do_flip_channel_order:
        view = transforms.flip_channels(view)
    plain = not (settings.do_rescale or settings.do_normalize)
    if out is not None and last:
        out = out.movedim(-1, -3)
    if plain:
        planar = view.movedim(-1, -3)
        result = planar.contiguous() if out is None else out.copy_(planar)
    else:
        scale = settings.rescale_factor if settings.do_rescale else 1.0
        if settings.do_rescale and view.is_floating_point():
            scale *= 255  # floats are at 0..1 already; a factor other than 1/255 still means something
        mean, std = ([0.0], [1.0])
        if settings.do_normalize:
            mean, std = (_channel_statistics(name, settings, view.shape[-1]) for name in ("image_mean", "image_std"))
        if settings.do_rescale and getattr(settings, "offset", False):  # ViViT's x · factor - 1
            mean = [m + 1 for m in mean]
        result = transforms.normalize(view, mean, std, scale=scale, out=out)
    return result.movedim(-3, -1).contiguous() if last else result


def _channel_statistics(name: str, settings: SimpleNamespace, channels: int) -> list[float]:
    """One number for all channels, or one for each. Raises VideoOptionError."""
    values = getattr(settings, name)
    if len(set(values)) == 1:
        return values[:1]
    if len(values) != channels:
        raise VideoOptionError(
            f"{name}={values} has {len(values)} numbers and the frames have {channels} channels: pass one number for "
            "each channel, or one for all."
        )
    return values


def layout_name(name: str, value: object) -> str:
    value = getattr(value, "value", value)  # transformers' ChannelDimension
    return check_choice(name, value, ("channels_first", "channels_last"))
