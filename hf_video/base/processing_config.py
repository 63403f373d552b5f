"""What a processor's file may say, brought to one form: the Hub's old files, transformers' own, and ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from hf_video.errors import (
    VideoOptionError,
    check_choice,
    check_count,
    check_number,
    check_switch,
    is_whole,
    unknown_name,
)

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


def frames_of_model(pretrained: str | os.PathLike[str], hub: Mapping[str, Any]) -> int | None:
    """`num_frames` of the model that lies beside a processor's file, or None."""
    names = ("cache_dir", "force_download", "proxies", "token", "local_files_only", "revision", "subfolder")
    try:
        config, _ = PreTrainedConfig.get_config_dict(pretrained, **{k: hub[k] for k in names if k in hub})
    except (OSError, ValueError):
        return None  # a processor on its own
    count = config.get("num_frames")
    return count if isinstance(count, int) else None


def frames_of_config(config: object) -> int | None:
    """Frames of a clip by a model's configuration or that of its video tower, or None where it doesn't say."""
    parts = (config, getattr(config, "video_config", None), getattr(config, "vision_config", None))
    counts = (getattr(part, name, None) for part in parts for name in ("num_frames", "frames_per_clip"))
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
