"""RandAugment (Cubuk et al. 2019) for clips, in the variant that VideoMAE and MViT were trained with (timm, SlowFast).

`n` operations are drawn from 15, with replacement; each is applied with probability 1/2, at a magnitude drawn from a
normal distribution about `m` (deviation `mstd`), within 0 to 10. Operation, magnitude and sign are drawn once for the
clip. With `inc1` a larger magnitude is a stronger change for all operations; without it `posterize` and `solarize` get
weaker, and `color`, `contrast`, `brightness` and `sharpness` go from factor 0.1 to 1.9.

    operation                       argument at magnitude M
    autocontrast equalize invert    none
    rotate                          ± 3·M degrees
    posterize                       bits kept: inc 4 - int(0.4·M), else int(0.4·M)
    solarize                        from value: inc 256 - int(25.6·M), else int(25.6·M)
    solarize_add                    int(11·M) added
    color contrast brightness       factor: inc 1 ± 0.09·M, else 0.1 + 0.18·M
      sharpness
    shear_x shear_y                 slope ± 0.03·M
    translate_x translate_y         ± 0.045·M of the width or height
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hf_video.errors import VideoOptionError
from hf_video.video.augment import ops as augment_ops
from hf_video.video.augment.affine import MAPS, Affine, move
from hf_video.video.augment.checks import check_clip, numpy_generator
from hf_video.video.augment.crops import Box, crop_box

NAMES = (
    "autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add", "color", "contrast",
    "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
_SIGNED = {"rotate": 3.0, "shear_x": 0.03, "shear_y": 0.03, "translate_x": 0.045, "translate_y": 0.045}
_OF_WHOLE_FRAMES = ("autocontrast", "equalize", "contrast")  # each frame's statistics decide
_ENHANCED = ("color", "contrast", "brightness", "sharpness")
_TOP = 10.0  # the magnitude that the levels are counted in


@dataclass(frozen=True)
class Operation:
    """One operation of `hf_video.video.augment.ops` or `augment_affine` and its argument, None where it takes none."""

    name: str
    argument: float | int | None = None

    def source(self, box: Box, frame: Box) -> Box:
        """The part of a clip that decides what stands at `box` of the result."""
        if self.name in _OF_WHOLE_FRAMES:
            return frame
        if self.name in MAPS:
            return self._map(frame).source(box, frame)
        return box.wider(1, frame) if self.name == "sharpness" else box

    def __call__(self, clip: torch.Tensor, held: Box, target: Box, frame: Box) -> torch.Tensor:
        """`clip` uint8 (T, h, w, 3) stands at `held` of the frame and holds `source(target, frame)`; what stands at
        `target` of the result comes, uint8 (T, height, width, 3)."""
        if self.name in MAPS:
            return move(clip, self._map(frame), held=held, target=target, frame=frame)
        function: Callable[..., torch.Tensor] = getattr(augment_ops, self.name)
        arguments = () if self.argument is None else (self.argument,)
        if self.name in _OF_WHOLE_FRAMES:
            return function(clip, *arguments, box=target)
        return crop_box(function(clip, *arguments), target, held)

    def _map(self, frame: Box) -> Affine:
        return MAPS[self.name](self.argument, frame.height, frame.width)

    def __str__(self) -> str:
        return self.name if self.argument is None else f"{self.name} {self.argument:.3g}"


def apply_operations(clip: torch.Tensor, operations: Sequence[Operation], box: Box | None = None) -> torch.Tensor:
    """One after the other. With a `box` only that part of the result, the same pixels for less work: each operation
    makes what the later ones look at, and no more. Raises VideoArrayError for anything but uint8 (T, H, W, 3)."""
    check_clip(clip)
    frame = Box(0, 0, *clip.shape[1:3])
    boxes = [box or frame]
    for operation in reversed(operations):
        boxes.append(operation.source(boxes[-1], frame))
    held = boxes.pop()
    clip = crop_box(clip, held)
    for operation in operations:
        target = boxes.pop()
        clip, held = operation(clip, held, target, frame), target
    return clip


class RandAugment:
    """`RandAugment("m7-n4-mstd0.5-inc1")(clip, generator=g)`.

    `config` is timm's: `m` magnitude (0 to 10), `n` operations, `mstd` deviation of the magnitude (default 0), `inc`
    1 or 0 (default), in any order, "rand-" in front or not. Without `inc1`, `m` may go to 30, as in TensorFlow's.

    Raises VideoOptionError for anything else.
    """

    def __init__(self, config: str = "m7-n4-mstd0.5-inc1"):
        values = _parsed(config)
        self.config = config
        self.magnitude, self.count = values["m"], int(values["n"])
        self.deviation, self.increasing = values["mstd"], bool(values["inc"])

    def __call__(self, clip: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
        """uint8 (T, H, W, 3) to the same shape. Raises VideoArrayError on anything else."""
        check_clip(clip)
        return apply_operations(clip, self.draw(numpy_generator(generator)))

    def draw(self, rng: np.random.Generator) -> tuple[Operation, ...]:
        """The operations for one clip: `n` less those that the coin leaves out."""
        drawn = [NAMES[i] for i in rng.integers(len(NAMES), size=self.count) if rng.random() < 0.5]
        operations = []
        for name in drawn:
            level = self.magnitude + self.deviation * rng.standard_normal()
            level = min(max(level, 0.0), max(_TOP, self.magnitude))
            sign = 1 if rng.random() < 0.5 else -1
            operations.append(Operation(name, level_argument(name, level, sign, increasing=self.increasing)))
        return tuple(operations)

    def __repr__(self) -> str:
        return f"RandAugment({self.config!r})"


def level_argument(name: str, level: float, sign: int, *, increasing: bool) -> float | int | None:
    """The argument of an operation at a magnitude (the table at the top). `sign`, 1 or -1, is for those of two ways."""
    if name in _SIGNED:
        return sign * level * _SIGNED[name]
    if name in _ENHANCED:
        return 1 + sign * level * 0.09 if increasing else 0.1 + level * 0.18
    if name == "posterize":
        bits = int(level / _TOP * 4)
        return 4 - bits if increasing else min(bits, 8)
    if name == "solarize":
        value = int(level / _TOP * 256)
        return 256 - value if increasing else value
    if name == "solarize_add":
        return int(level / _TOP * 110)
    return None


def _parsed(config: str) -> dict[str, float]:
    example = 'Write it as "m7-n4-mstd0.5-inc1": magnitude, operations, deviation, increasing.'
    values = {"m": _TOP, "n": 2.0, "mstd": 0.0, "inc": 0.0}
    parts = config.removeprefix("rand-").split("-") if isinstance(config, str) else [repr(config)]
    seen = set()
    for part in parts:
        found = re.fullmatch(r"(mstd|inc|m|n)(\d+(?:\.\d+)?)", part)
        if found is None or found[1] in seen:
            raise VideoOptionError(f"rand_augment={config!r}: {part!r} is not understood. {example}")
        seen.add(found[1])
        values[found[1]] = float(found[2])
    top = _TOP if values["inc"] else 30
    if values["inc"] not in (0, 1) or values["n"] != int(values["n"]) or values["n"] < 1 or values["m"] > top:
        raise VideoOptionError(
            f"rand_augment={config!r}: m goes to 10 with inc1 and to 30 without, n is a whole number of 1 or more, inc "
            f"is 0 or 1. {example}"
        )
    return values
