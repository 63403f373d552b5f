"""Augmentation of clips for training: everything is drawn once for a clip and done to all of its frames.

    augmentation = Augmentation(224).for_labels(class_names)          # VideoMAE's fine-tuning recipe
    clip, label = augmentation.with_label(clip, label, generator=g)   # uint8 (T, H, W, 3) -> uint8 (T, 224, 224, 3)
    pixel_values = ...                                                # the processor normalises: (T, 3, 224, 224) float
    pixel_values = augmentation.erase(pixel_values, generator=g)

In this order: RandAugment on the whole frame, crop and resize, flip, colour jitter, grey; random erasing after
normalising (VideoMAE, SlowFast). The same generator state gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from math import inf
from typing import Any

import numpy as np
import torch

from hf_video.errors import VideoOptionError, check_choice, check_count, check_number, is_number
from hf_video.video.augment.checks import check_clip, check_normalized, checked_range, numpy_generator
from hf_video.video.augment.crops import Box, center_box, crop_box, multi_scale_box, random_box, random_resized_box
from hf_video.video.augment.erasing import ERASE_MODES, erase_boxes, fill_boxes
from hf_video.video.augment.labels import MIRROR_WORDS, Words, check_unmirrored, check_words, mirror_indices
from hf_video.video.augment.rand_augment import Operation, RandAugment, apply_operations
from hf_video.video.frames.pixels import INTERPOLATIONS, shortest_edge_size
from hf_video.video.transforms import horizontal_flip, resize

CROPS = ("random_resized", "multi_scale", "random", "center")
Label = int | tuple[int, ...] | None


@dataclass(frozen=True)
class SampledParams:
    """What was drawn for one clip. First `operations` (RandAugment), then a resize of the whole frame to `resized`
    (height, width) where it is not None, `box` cut out of that and resized, the flip, and `colors`."""

    operations: tuple[Operation, ...]
    resized: tuple[int, int] | None
    box: Box
    flipped: bool
    colors: tuple[Operation, ...]


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training clip; by default VideoMAE's and MViT's recipe for Kinetics. Lists pass for tuples.

    Args:
        size: Pixels that come out, one number or (height, width).
        crop: "random_resized" (`scale`, `ratio`), "multi_scale" (`scales`), "random" or "center" (`short_side`).
        scale: Share of the frame's area, from and to.
        ratio: Width / height, from and to.
        scales: Of the short side, TSN's multi-scale crop.
        short_side: For "random" and "center": the frame's short side first becomes this many pixels, or a number drawn
            from (low, high). None leaves the frame as it is.
        short_side_sampling: "uniform", or "inverse": 1 / uniform(1/high, 1/low), as TimeSformer on Something-Something.
        stretch: For "random" and "center": height and width are then multiplied by factors of their own, drawn from
            (low, high). ViViT: (0.9, 1.33).
        flip: Probability of a mirror; "swap": half of the clips, and classes that tell left from right exchange their
            labels (`with_label`).
        mirror_words: Pairs of words that tell left from right in class names; () if none do.
        color_jitter: x or (brightness, contrast, saturation[, hue]): factors from 1 - x to 1 + x, the hue turned by up
            to ± that part of the colour circle (0.5 at most), in random order.
        color_prob: How often it is done.
        gray_prob: How often the clip loses its colours.
        rand_augment: See `RandAugment`; None for none.
        erase_prob: How often `erase` does something.
        erase_mode: "pixel": noise, the same in all frames; "pixel_per_frame": new noise in each (VideoMAE's and
            SlowFast's code); "rand": one colour; "const": 0.
        erase_count: At most this many boxes.
        erase_area: Share of the frame that is erased, from and to.
        erase_ratio: Height / width of a box, from and to.
        interpolation: Of the resize, "bilinear" or "bicubic".
        mirror: Set by `for_labels` with flip="swap": for each class number that of its mirrored class.

    Raises:
        VideoOptionError: A value lies outside of what is written here.
    """

    size: int | tuple[int, int]
    _: KW_ONLY
    crop: str = "random_resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 1.3333)
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    short_side: int | tuple[int, int] | None = None
    short_side_sampling: str = "uniform"
    stretch: tuple[float, float] | None = None
    flip: float | str = 0.5
    mirror_words: Words = MIRROR_WORDS
    color_jitter: float | tuple[float, ...] | None = None
    color_prob: float = 1.0
    gray_prob: float = 0.0
    rand_augment: str | None = "m7-n4-mstd0.5-inc1"
    erase_prob: float = 0.25
    erase_mode: str = "pixel"
    erase_count: int = 1
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    erase_ratio: tuple[float, float] = (0.3, 1 / 0.3)
    interpolation: str = "bilinear"
    mirror: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, value in checked_values(self).items():
            object.__setattr__(self, name, value)  # as dataclasses write what is frozen

    def for_labels(self, labels: Sequence[str]) -> Augmentation:
        """Checks that flips are safe for these classes; call it once, before training.

        Args:
            labels: Class names in the order of their numbers.

        Returns:
            The augmentation; with flip="swap" one that knows which classes exchange labels.

        Raises:
            VideoOptionError: `flip` is a probability above 0 and a class tells left from right, or flip="swap" and the
                mirrored class of one is missing.
        """
        if self.flip == "swap":
            return replace(self, mirror=mirror_indices(labels, self.mirror_words))
        if self.flip:
            check_unmirrored(labels, self.mirror_words)
        return self

    def with_label(
        self, clip: torch.Tensor, label: Label, *, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, Label]:
        """Augments a clip, and its label where flip="swap" exchanges classes.

        Args:
            clip: uint8 (T, H, W, 3).
            label: Its class number, a tuple of several, or None.
            generator: Source of chance; None takes torch's global generator.

        Returns:
            uint8 (T, height, width, 3), and the label of what it shows now: the mirrored class where it was flipped.

        Raises:
            VideoArrayError: The clip has another shape or dtype, or its frames are too small for the crop.
            VideoOptionError: flip="swap" and `for_labels` was not called.
        """
        params = self.sample_params(clip, generator)
        if label is not None and self.flip == "swap":
            if self.mirror is None:
                raise VideoOptionError('flip="swap" exchanges labels: call for_labels(class names) first.')
            if params.flipped:
                label = tuple(self.mirror[one] for one in label) if isinstance(label, tuple) else self.mirror[label]
        return self.apply(clip, params), label

    def __call__(self, clip: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
        """Augments a clip as `with_label` does, for flips that leave labels as they are.

        Raises:
            VideoArrayError: As in `with_label`.
            VideoOptionError: flip="swap" exchanges labels of these classes.
        """
        if self.flip == "swap" and self.mirror != tuple(range(len(self.mirror or ()))):
            raise VideoOptionError(
                'flip="swap" exchanges labels: call for_labels(names), then with_label(clip, label).'
            )
        return self.apply(clip, self.sample_params(clip, generator))

    def apply(self, clip: torch.Tensor, params: SampledParams) -> torch.Tensor:
        """Does to a clip what was drawn for it.

        Args:
            clip: uint8 (T, H, W, 3).
            params: What `draw` gave for its size.

        Returns:
            uint8 (T, height, width, 3).
        """
        if params.resized is None:
            clip = apply_operations(clip, params.operations, params.box)
        else:
            whole = resize(apply_operations(clip, params.operations), params.resized, interpolation=self.interpolation)
            clip = crop_box(whole, params.box)
        clip = resize(clip, self.size, interpolation=self.interpolation)
        if params.flipped:
            clip = horizontal_flip(clip)
        return apply_operations(clip, params.colors).contiguous()

    def erase(
        self, pixel_values: torch.Tensor, *, generator: torch.Generator | None = None, in_place: bool = False
    ) -> torch.Tensor:
        """Fills one or more boxes in all frames alike, with probability `erase_prob`.

        Args:
            pixel_values: Normalised floats (T, C, H, W).
            generator: Source of chance; None takes torch's global generator.
            in_place: Whether the tensor itself may be changed, which saves a copy.

        Returns:
            A copy with the boxes filled, or the tensor itself.

        Raises:
            VideoArrayError: The values have another shape or are whole numbers.
        """
        check_normalized(pixel_values, 4)
        boxes = self.draw_erasing(*pixel_values.shape[2:], generator=generator)
        if not boxes:
            return pixel_values
        erased = pixel_values if in_place else pixel_values.clone()
        fill_boxes(erased, boxes, self.erase_mode, generator)
        return erased

    def draw_erasing(self, height: int, width: int, *, generator: torch.Generator | None = None) -> list[Box]:
        """Draws the boxes to erase.

        Args:
            height: Of the frames, in pixels.
            width: Of the frames, in pixels.
            generator: Of the random numbers; None takes torch's own.

        Returns:
            Boxes; with probability 1 - `erase_prob` none.
        """
        rng = numpy_generator(generator)
        if rng.random() >= self.erase_prob:
            return []
        return erase_boxes(height, width, self.erase_count, self.erase_area, self.erase_ratio, rng)

    def draw(self, height: int, width: int, *, generator: torch.Generator | None = None) -> SampledParams:
        """Draws what happens to a clip.

        Args:
            height: Of the clip, in pixels.
            width: Of the clip, in pixels.
            generator: Of the random numbers; None takes torch's own.

        Returns:
            What `apply` does.

        Raises:
            VideoArrayError: The clip is too small.
        """
        rng = numpy_generator(generator)
        operations = RandAugment(self.rand_augment).draw(rng) if self.rand_augment else ()
        resized, box = self._draw_box(height, width, rng)
        flipped = rng.random() < (0.5 if self.flip == "swap" else self.flip)
        return SampledParams(operations, resized, box, flipped, self._draw_colors(rng))

    def _draw_box(self, height: int, width: int, rng: np.random.Generator) -> tuple[tuple[int, int] | None, Box]:
        if self.crop == "random_resized":
            return None, random_resized_box(height, width, self.scale, self.ratio, rng)
        if self.crop == "multi_scale":
            return None, multi_scale_box(height, width, self.size, self.scales, rng)
        resized = self._draw_resize(height, width, rng)
        place = center_box(*resized, self.size) if self.crop == "center" else random_box(*resized, self.size, rng)
        return None if resized == (height, width) else resized, place

    def _draw_resize(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        if self.short_side is not None:
            low, high = self.short_side
            inverse = self.short_side_sampling == "inverse"
            edge = 1 / rng.uniform(1 / high, 1 / low) if inverse else rng.uniform(low, high)
            height, width = shortest_edge_size(height, width, round(edge))
        if self.stretch is not None:
            down, across = rng.uniform(*self.stretch, size=2)
            height, width = max(int(height * down), 1), max(int(width * across), 1)
        return height, width

    def _draw_colors(self, rng: np.random.Generator) -> tuple[Operation, ...]:
        jitter = [
            Operation(name, 1 + rng.uniform(-min(share, 1), share))
            for name, share in zip(("brightness", "contrast", "color"), self.color_jitter[:3], strict=True)
            if share
        ]
        if self.color_jitter[3]:
            jitter.append(Operation("hue", rng.uniform(-1, 1) * self.color_jitter[3]))
        jitter = [jitter[i] for i in rng.permutation(len(jitter))] if rng.random() < self.color_prob else []
        return tuple(jitter) + ((Operation("gray"),) if rng.random() < self.gray_prob else ())

    def sample_params(self, clip: torch.Tensor, generator: torch.Generator | None) -> SampledParams:
        check_clip(clip)
        return self.draw(*clip.shape[1:3], generator=generator)


# -- options: pairs where one number was enough, tuples where YAML has lists -----------------------------------------


def checked_values(options: Augmentation) -> dict[str, Any]:
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
