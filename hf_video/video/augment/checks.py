"""What the augmentations share: early checks of clips and options, and the source of chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch

from hf_video.errors import VideoArrayError, VideoOptionError, is_number, unknown_name

Options = TypeVar("Options")


def numpy_generator(generator: torch.Generator | None) -> np.random.Generator:
    """A NumPy generator seeded by one draw from `generator` (None: torch's global one).

    An augmentation draws a few dozen single numbers, which NumPy does several times as fast; and torch has no Beta
    distribution that takes a generator.
    """
    device = generator.device if generator is not None else "cpu"
    return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator, device=device)))


def from_options(kind: type[Options], options: Mapping[str, Any] | None, **fixed: Any) -> Options:
    """`kind(**options, **fixed)`, an Augmentation, TemporalAugmentation or Mixing from a recipe's section. An option
    that it does not have is a VideoOptionError with the nearest name."""
    names = [field.name for field in fields(kind) if field.init]  # type: ignore[arg-type]
    for name in options or {}:
        if name not in names or name in fixed:
            raise VideoOptionError(unknown_name(f"{kind.__name__} has no option", name, names, cutoff=0.5))
    return kind(**(options or {}), **fixed)


def check_clip(clip: object) -> None:
    """Raises VideoArrayError for anything but uint8 (T, H, W, 3)."""
    if not isinstance(clip, torch.Tensor) or clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[-1] != 3:
        raise VideoArrayError(
            "Augmentation takes a uint8 tensor (frames, height, width, 3), before normalising; "
            f"{_dtype_and_shape(clip)} came."
        )
    if 0 in clip.shape:
        raise VideoArrayError(f"A clip of shape {tuple(clip.shape)} has nothing to augment.")


def check_normalized(values: object, ndim: int) -> None:
    """Raises VideoArrayError for anything but floats ([batch,] frames, channels, height, width), `ndim` dimensions."""
    if not isinstance(values, torch.Tensor) or values.ndim != ndim or not values.is_floating_point():
        batch = "batch, " if ndim == 5 else ""
        raise VideoArrayError(
            f"This takes normalised floats ({batch}frames, channels, height, width), as the processor makes them; "
            f"{_dtype_and_shape(values)} came."
        )


def _dtype_and_shape(values: object) -> str:
    return f"{getattr(values, 'dtype', type(values).__name__)} {tuple(getattr(values, 'shape', ()))}"


def checked_range(name: str, value: object, low: float, high: float) -> tuple[float, float]:
    """Two numbers in order, above `low` and at most `high`."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(map(is_number, pair)) or not low < pair[0] <= pair[1] <= high:
        span = f"above {low:g}" if math.isinf(high) else f"above {low:g} and at most {high:g}"
        raise VideoOptionError(f"{name}={value!r} must be two numbers (low, high), low first, {span}.")
    return pair
