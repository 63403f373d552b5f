"""The options of `Augmentation`, checked and in one form: pairs where one number was enough, tuples where YAML has
lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from math import inf
from typing import Any

from hf_video.errors import VideoOptionError, check_choice, check_count, check_number, is_number
from hf_video.video.augment.checks import checked_range
from hf_video.video.augment.erasing import ERASE_MODES
from hf_video.video.augment.labels import check_words
from hf_video.video.augment.rand_augment import RandAugment
from hf_video.video.frames.pixels import INTERPOLATIONS

CROPS = ("random_resized", "multi_scale", "random", "center")


def checked_values(options: Any) -> dict[str, Any]:
    """Name to value of all fields of an Augmentation. Raises VideoOptionError for the first that can't be."""
    values = {field.name: _CHECKS[field.name](field.name, getattr(options, field.name)) for field in fields(options)}
    fixed = values["crop"] in ("random", "center")
    for name in ("short_side", "stretch"):
        if values[name] is not None and not fixed:
            raise VideoOptionError(f'{name} is for crop="random" or "center", and crop={values["crop"]!r} came.')
    if values["short_side"] is not None:
        least = int(values["short_side"][0] * (values["stretch"] or (1.0,))[0])
        if least < min(values["size"]):
            raise VideoOptionError(
                f"short_side={options.short_side!r} with stretch={options.stretch!r} makes frames of {least} pixels, "
                f"too small for size={options.size!r}."
            )
    return values


def _choice(*allowed: str) -> Callable[[str, Any], Any]:
    return lambda name, value: check_choice(name, value, allowed)


def _share(name: str, value: float) -> float:
    return check_number(name, value, least=0, most=1)


def _range(low: float, high: float) -> Callable[[str, Any], Any]:
    return lambda name, value: checked_range(name, value, low, high)


def _optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


def _pixels(name: str, value: object) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise VideoOptionError(f"{name}={value!r} must be one number of pixels or two.")
    return check_count(name, pair[0], unit="pixels"), check_count(name, pair[1], unit="pixels")


def _short_side(name: str, value: object) -> tuple[int, int]:
    pair = _pixels(name, value)
    if pair[0] > pair[1]:
        raise VideoOptionError(f"{name}={value!r} must be one number of pixels or (low, high), low first.")
    return pair


def _scales(name: str, value: object) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else ()
    if not values or not all(is_number(v) and 0 < v <= 1 for v in values):
        raise VideoOptionError(f"{name}={value!r} must be a list of shares of the short side, above 0 and at most 1.")
    return values


def _jitter(name: str, value: object) -> tuple[float, float, float, float]:
    """(brightness, contrast, saturation, hue), 0 where nothing is to be done."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value or 0.0,) * 3
    if len(values) not in (3, 4):
        raise VideoOptionError(f"{name}={value!r} must be one number or (brightness, contrast, saturation[, hue]).")
    for number in values[:3]:
        check_number(name, number, least=0)
    check_number(f"hue of {name}", (*values, 0.0)[3], least=0, most=0.5)
    return (*values, 0.0)[:4]


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "size": _pixels,
    "crop": _choice(*CROPS),
    "scale": _range(0, 1),
    "ratio": _range(0, inf),
    "scales": _scales,
    "short_side": _optional(_short_side),
    "short_side_sampling": _choice("uniform", "inverse"),
    "stretch": _optional(_range(0, inf)),
    "flip": lambda name, value: (
        value if value == "swap" else check_number(name, value, least=0, most=1, hint=' Or "swap".')
    ),
    "mirror_words": lambda name, value: tuple(check_words(value).items()),
    "color_jitter": _jitter,
    "color_prob": _share,
    "gray_prob": _share,
    "rand_augment": _optional(lambda name, value: RandAugment(value).config),
    "erase_prob": _share,
    "erase_mode": _choice(*ERASE_MODES),
    "erase_count": check_count,
    "erase_area": _range(0, 1),
    "erase_ratio": _range(0, inf),
    "interpolation": _choice(*INTERPOLATIONS),
    "mirror": _optional(lambda name, value: tuple(value)),
}
