"""Pillow's picture operations on whole clips: uint8 (T, H, W, 3) in and out.

Every operation gives what Pillow gives for each frame by itself: tables and blends exactly, index maps within one
level, where a sum lies within rounding of a whole number that Pillow cuts off at. Statistics (the grey level of
`contrast`, the histograms of `autocontrast` and `equalize`) are each frame's own, as in the papers' loaders; everything
else is the same for all frames. `hue` alone is not Pillow's.

    tables       invert, posterize, solarize, solarize_add, brightness, contrast, autocontrast, equalize
    blends       color, sharpness
    index maps   shear, translate and rotate: see `hf_video.video.augment.affine`

Those with a `box` look at the whole frame and return only that part of the result. On the CPU grey levels and
histograms are counted by Pillow itself, and `color` is its own blend, frame by frame, in less time than torch takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_video.video.augment.crops import Box, crop_box, pieces

_LEVELS = torch.arange(256)


def look_up(clip: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """`table` has 256 values for all, (256,), or for each channel of each frame, (T, 3, 256)."""
    table = table.to(clip.device, torch.uint8)
    if clip.device.type == "cpu" and table.ndim == 1:
        # For bytes Python has this loop.
        values = table.numpy().tobytes()
        frames = bytearray().join(frame.tobytes().translate(values) for frame in clip.numpy())
        return torch.frombuffer(frames, dtype=torch.uint8).view(clip.shape)
    start = _starts(clip).expand(-1, 1, clip.shape[2], 3).contiguous()
    table = table.expand(len(clip), 3, 256).flatten()

    def found(part: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        # index_select of int32 takes a quarter of the time that table[index] takes.
        return table.index_select(0, part.int().add_(first).flatten()).view(part.shape)

    return _by_pieces(clip, found, start)


def _starts(clip: torch.Tensor) -> torch.Tensor:
    """Where the 256 values of each frame and channel begin, laid one after the other: (T, 1, 1, 3) int32."""
    return torch.arange(0, len(clip) * 3 * 256, 256, dtype=torch.int32, device=clip.device).view(-1, 1, 1, 3)


def _of_images(clip: torch.Tensor, function: Callable[[Image.Image], Any]) -> torch.Tensor:
    """What a function of Pillow gives for each frame of a clip on the CPU."""
    return torch.from_numpy(np.stack([function(Image.fromarray(frame)) for frame in clip.numpy()]))


def _by_pieces(clip: torch.Tensor, function: Callable[..., torch.Tensor], *others: torch.Tensor) -> torch.Tensor:
    """`function` of each piece of `clip`, and of the same of `others`, which have its frames and rows, or one row."""
    done = torch.empty(clip.shape, dtype=torch.uint8, device=clip.device)
    for frames, rows in pieces(clip):
        parts = (other[frames, rows] if other.shape[1] > 1 else other[frames] for other in others)
        done[frames, rows] = function(clip[frames, rows], *parts)
    return done


def invert(clip: torch.Tensor) -> torch.Tensor:
    """`ImageOps.invert`."""
    return 255 - clip


def posterize(clip: torch.Tensor, bits: int) -> torch.Tensor:
    """`ImageOps.posterize`: keeps the upper `bits`, 0 to 8; 0 leaves black."""
    return clip & (256 - 2 ** (8 - bits))


def solarize(clip: torch.Tensor, threshold: int) -> torch.Tensor:
    """`ImageOps.solarize`: values of `threshold` and more become 255 minus themselves."""
    return look_up(clip, torch.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def solarize_add(clip: torch.Tensor, added: int) -> torch.Tensor:
    """timm's SolarizeAdd: values below 128 grow by `added`, up to 255."""
    return look_up(clip, torch.where(_LEVELS < 128, (_LEVELS + added).clamp(max=255), _LEVELS))


def brightness(clip: torch.Tensor, factor: float) -> torch.Tensor:
    """`ImageEnhance.Brightness`: 0 is black, 1 the clip."""
    return _by_pieces(clip, lambda part: cut_off(part.float().mul_(factor)))


def contrast(clip: torch.Tensor, factor: float, *, box: Box | None = None) -> torch.Tensor:
    """`ImageEnhance.Contrast`: 0 is each frame's mean grey, 1 the clip."""
    if clip.device.type == "cpu":
        total = _of_images(clip, lambda image: image.convert("L").histogram()) @ _LEVELS
    else:
        total = grey_levels(clip).sum((1, 2), dtype=torch.int64)
    middle = (total.double() / (clip.shape[1] * clip.shape[2]) + 0.5).floor().float().view(-1, 1, 1, 1)
    clip = clip if box is None else crop_box(clip, box)
    return _by_pieces(clip, lambda part, grey: _blend(grey, part.float(), factor), middle)


def autocontrast(clip: torch.Tensor, *, box: Box | None = None) -> torch.Tensor:
    """`ImageOps.autocontrast`: each frame's and channel's darkest value to 0, its lightest to 255."""
    rows = clip.flatten(2)  # extremes down columns first: a long innermost loop
    low, high = (of(of(rows, 1).view(len(clip), -1, 3), 1)[..., None].double() for of in (torch.amin, torch.amax))
    # Infinite in a plane of one value, which stays as it is. torch makes 255 / x into 1 / x · 255, rounded twice.
    scale = torch.full_like(low, 255) / (high - low)
    levels = _LEVELS.double().to(clip.device).expand(len(clip), 3, 256)
    stretched = (levels * scale - low * scale).trunc().clamp(0, 255)
    return look_up(clip if box is None else crop_box(clip, box), torch.where(high > low, stretched, levels))


def equalize(clip: torch.Tensor, *, box: Box | None = None) -> torch.Tensor:
    """`ImageOps.equalize`: each frame's and channel's histogram made flat."""
    planes = len(clip) * 3
    if clip.device.type == "cpu":
        histogram = _of_images(clip, Image.Image.histogram).view(planes, 256)
    else:
        slots = (clip.int() + _starts(clip)).flatten()
        histogram = torch.bincount(slots, minlength=planes * 256).view(planes, 256)
    total = clip.shape[1] * clip.shape[2]
    lightest = histogram.gather(1, 255 - (histogram.flip(1) > 0).int().argmax(1, keepdim=True))
    step = (total - lightest) // 255
    below = histogram.cumsum(1) - histogram
    flat = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, flat, _LEVELS.to(clip.device)).view(len(clip), 3, 256)
    return look_up(clip if box is None else crop_box(clip, box), table)


def color(clip: torch.Tensor, factor: float) -> torch.Tensor:
    """`ImageEnhance.Color`: 0 is grey, 1 the clip."""
    if clip.device.type == "cpu":
        return _of_images(clip, lambda image: Image.blend(image.convert("L").convert("RGB"), image, factor))
    return _by_pieces(clip, lambda part, grey: _blend(grey.float(), part.float(), factor), gray(clip))


def sharpness(clip: torch.Tensor, factor: float) -> torch.Tensor:
    """`ImageEnhance.Sharpness`: 0 is smoothed by the kernel (1 1 1, 1 5 1, 1 1 1)/13, 1 the clip."""
    if min(clip.shape[1:3]) < 3:
        return clip  # Pillow smooths no border, and here is nothing else
    sharp = clip.clone()
    inner = sharp[:, 1:-1, 1:-1]
    for frames, rows in pieces(inner):
        wide = clip[frames, rows.start : rows.stop + 2].short()
        down = (wide[:, :-2] + wide[:, 1:-1]).add_(wide[:, 2:])
        weighted = (down[:, :, :-2] + down[:, :, 1:-1]).add_(down[:, :, 2:]).add_(wide[:, 1:-1, 1:-1], alpha=4)
        smooth = weighted.float().add_(6.5).mul_(1 / 13).floor_()
        inner[frames, rows] = _blend(smooth, wide[:, 1:-1, 1:-1].float(), factor)
    return sharp


def gray(clip: torch.Tensor) -> torch.Tensor:
    """The grey clip, still of three channels."""
    if clip.device.type == "cpu":
        return _of_images(clip, lambda image: image.convert("L").convert("RGB"))
    return grey_levels(clip)[..., None].expand(clip.shape).contiguous()


def grey_levels(clip: torch.Tensor) -> torch.Tensor:
    """(T, H, W, 3) to (T, H, W) uint8, `Image.convert("L")`: ITU-R 601 weights in 16-bit fixed point, rounded."""
    weights = torch.tensor([19595.0, 38470.0, 7471.0], device=clip.device)
    # All sums stay below 2^24, so that float32 is exact here.
    return (clip.float() @ weights).add_(32768).mul_(2.0**-16).to(torch.uint8)


def hue(clip: torch.Tensor, turn: float) -> torch.Tensor:
    """All colours turned by `turn` of the colour circle, -0.5 to 0.5, in HSV; value and saturation stay.

    In float32, rounded once: Pillow's own HSV has 256 hues, which costs up to 4 levels.
    """
    values = clip.float()
    red, green, blue = values.unbind(-1)
    value, least = (extreme.float() for extreme in (clip.amax(-1), clip.amin(-1)))
    chroma = value - least
    safe = chroma.clamp(min=1)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sector = sector.add_(6 * turn)
    for channel, offset in enumerate((5, 3, 1)):
        k = (sector + offset).remainder_(6)
        k = torch.minimum(k, 4 - k).clamp_(0, 1)
        values[..., channel] = value.addcmul(chroma, k, value=-1)
    return values.round_().clamp_(0, 255).to(torch.uint8)


def _blend(none: torch.Tensor, full: torch.Tensor, factor: float) -> torch.Tensor:
    """`Image.blend` of float tensors with uint8 values: none + factor · (full - none), cut off, in 0 to 255; `full` is
    used up."""
    return cut_off(full.sub_(none).mul_(factor).add_(none))


def cut_off(values: torch.Tensor) -> torch.Tensor:
    """Floats, used up, cut off to uint8. By way of int16 it takes a quarter of the time."""
    return values.clamp_(0, 255).short().to(torch.uint8)
