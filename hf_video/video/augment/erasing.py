"""Random erasing (Zhong et al. 2017) through a whole clip: the same box in every frame, as SlowFast's `cube`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from hf_video.video.augment.crops import Box, random_box

ERASE_MODES = ("pixel", "pixel_per_frame", "rand", "const")


def erase_boxes(
    height: int, width: int, count: int, area: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> list[Box]:
    """1 to `count` boxes, each with `area` of the frame divided by their number (uniform) and height / width in `ratio`
    (uniform in the logarithm), wholly inside. A box for which 100 draws don't fit is left out."""
    number = int(rng.integers(1, count + 1))
    boxes = (_erase_box(height, width, (area[0] / number, area[1] / number), ratio, rng) for _ in range(number))
    return [box for box in boxes if box is not None]


def _erase_box(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Box | None:
    for _ in range(100):
        pixels = rng.uniform(*area) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        high, wide = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < high < height and 0 < wide < width:
            return random_box(height, width, (high, wide), rng)
    return None


def fill_boxes(pixel_values: torch.Tensor, boxes: Sequence[Box], mode: str, generator: torch.Generator | None) -> None:
    """Fills the boxes of (T, C, H, W) floats in place: standard normal numbers for every pixel and channel, held
    through the clip ("pixel") or new in each frame ("pixel_per_frame"), one such colour ("rand"), or 0 ("const")."""
    frames, channels = pixel_values.shape[:2]
    for top, left, height, width in boxes:
        shapes = {
            "pixel": (channels, height, width),
            "pixel_per_frame": (frames, channels, height, width),
            "rand": (channels, 1, 1),
        }
        target = pixel_values[..., top : top + height, left : left + width]
        if mode == "const":
            target.zero_()
            continue
        device = generator.device if generator is not None else "cpu"
        target.copy_(torch.randn(shapes[mode], generator=generator, device=device).to(pixel_values))
