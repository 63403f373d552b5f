"""Geometry and statistics of clips, on torch tensors, the whole clip in each call.

One layout: **(..., height, width, 3)**, as a reader returns it, uint8 (0..255) or float; any dimensions may stand in
front (frames; clips and frames; batch, clips and frames) and all are treated alike. `normalize` is the last step: it
returns (..., 3, height, width) float, which is what models take. Crops and flips are views or one copy; nothing here
loops over small frames. Sizes are (height, width) in pixels.

Do geometry on uint8 and normalise last: a float clip is four times the memory, and resizing it is slower and no more
exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image

from hf_video.errors import VideoArrayError, VideoOptionError, check_choice, check_count
from hf_video.video.frames.pixels import resize_frames, shortest_edge_size

Size = int | tuple[int, int]
# Values that are worked on at once on the CPU: as float32, with a few tensors like it, they stay in a cache of a core.
# Whole clips go to main memory with every step, and fresh pages for them cost more than the arithmetic.
PIECE = 1 << 17
# Filters that only PIL has: slower, frame by frame, and exactly PIL's result.
_PIL_FILTERS = {name: getattr(Image.Resampling, name.upper()) for name in ("nearest", "lanczos", "box", "hamming")}


def resize(clip: torch.Tensor, size: Size, *, interpolation: str = "bilinear", antialias: bool = True) -> torch.Tensor:
    """Resizes all frames of a clip to one size.

    uint8 on the CPU is within one level of PIL's `Image.resize` (two for bicubic enlarging; see
    `hf_video.video.frames.pixels`). Float clips, and clips on another device, are resized in float32; uint8 there is
    rounded back.

    Args:
        clip: (..., H, W, C), uint8 or float.
        size: (height, width) in pixels, or one number for both.
        interpolation: "bilinear", "bicubic", or for uint8 one of PIL's "nearest", "lanczos", "box", "hamming".
        antialias: Whether shrinking averages over all pixels. PIL's own filters always do.

    Returns:
        (..., height, width, C) of the same dtype; `clip` itself if it has that size.

    Raises:
        VideoArrayError: The clip has another shape.
        VideoOptionError: The interpolation is unknown or the size below 1.
    """
    _check(clip)
    size = _pair(size)
    if tuple(clip.shape[-3:-1]) == size:
        return clip
    flat = clip.reshape(-1, *clip.shape[-3:])
    if interpolation in _PIL_FILTERS:
        resized = _resize_pil(flat, size, interpolation)
    elif clip.dtype == torch.uint8 and clip.device.type == "cpu":
        resized = resize_frames(flat, size, interpolation=interpolation, antialias=antialias)
    else:
        resized = _resize_float(flat, size, interpolation, antialias)
    return resized.reshape(*clip.shape[:-3], *size, clip.shape[-1])


def resize_short_side(
    clip: torch.Tensor, edge: int, *, interpolation: str = "bilinear", antialias: bool = True
) -> torch.Tensor:
    """Resizes the shorter side to `edge` pixels and the longer one to int(long · edge / short).

    Args:
        clip, interpolation, antialias: As in `resize`, and so the result and what is raised.
        edge: Length of the shorter side in pixels.
    """
    _check(clip)
    size = shortest_edge_size(clip.shape[-3], clip.shape[-2], check_count("edge", edge, unit="pixels"))
    return resize(clip, size, interpolation=interpolation, antialias=antialias)


def center_crop(clip: torch.Tensor, size: Size, *, pad: bool = False) -> torch.Tensor:
    """Cuts the middle out of every frame, from row floor((H - height) / 2).

    Args:
        clip: (..., H, W, C), uint8 or float.
        size: (height, width) in pixels, or one number for both.
        pad: Whether a smaller clip is put on black, ceil((height - H) / 2) from the top, as in transformers.

    Returns:
        (..., height, width, C), a view unless it was padded.

    Raises:
        VideoArrayError: The clip has another shape, or is too small and `pad` is False.
        VideoOptionError: The size is below 1.
    """
    _check(clip)
    height, width = _pair(size)
    missing = max(height - clip.shape[-3], 0), max(width - clip.shape[-2], 0)
    if pad and missing != (0, 0):
        top, left = (math.ceil(m / 2) for m in missing)
        # F.pad counts from the last dimension.
        clip = functional.pad(clip, (0, 0, left, missing[1] - left, top, missing[0] - top))
    _check_fits(clip, height, width)
    return crop(clip, (clip.shape[-3] - height) // 2, (clip.shape[-2] - width) // 2, (height, width))


def three_crops(clip: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cuts left, middle and right out of a wide clip, or top, middle and bottom out of a tall one.

    Along the longer side crop j starts at int(j · (long - crop) / 2), in the middle of the other one: the spatial views
    of VideoMAE and TimeSformer.

    Args:
        clip, size: As in `center_crop`, and so what is raised.

    Returns:
        Three views (..., height, width, C).
    """
    _check(clip)
    height, width = _pair(size)
    _check_fits(clip, height, width)
    down, across = clip.shape[-3] - height, clip.shape[-2] - width
    if clip.shape[-3] > clip.shape[-2]:
        places = [(int(j * down / 2), across // 2) for j in range(3)]
    else:
        places = [(down // 2, int(j * across / 2)) for j in range(3)]
    first, middle, last = (crop(clip, top, left, (height, width)) for top, left in places)
    return first, middle, last


def random_crop(clip: torch.Tensor, size: Size, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """Cuts out a random place, the same in all frames.

    Args:
        clip, size: As in `center_crop`, and so the result and what is raised.
        generator: Where the place is drawn from; None takes torch's global generator.
    """
    _check(clip)
    height, width = _pair(size)
    _check_fits(clip, height, width)
    top = int(torch.randint(clip.shape[-3] - height + 1, (), generator=generator))
    left = int(torch.randint(clip.shape[-2] - width + 1, (), generator=generator))
    return crop(clip, top, left, (height, width))


def crop(clip: torch.Tensor, top: int, left: int, size: Size) -> torch.Tensor:
    """Cuts out rows `top` to `top + height` and columns `left` to `left + width`, in pixels.

    Returns:
        (..., height, width, C), a view.

    Raises:
        VideoArrayError: The crop leaves the frames, or the clip has another shape.
    """
    _check(clip)
    height, width = _pair(size)
    if not (0 <= top <= clip.shape[-3] - height and 0 <= left <= clip.shape[-2] - width):
        raise VideoArrayError(
            f"A {height}x{width} crop at row {top}, column {left} leaves frames of {clip.shape[-3]}x{clip.shape[-2]}."
        )
    return clip[..., top : top + height, left : left + width, :]


def horizontal_flip(clip: torch.Tensor) -> torch.Tensor:
    """Mirrors frames left to right (one copy). Not for classes that tell left from right, as in Something-Something."""
    _check(clip)
    return clip.flip(-2)


def flip_channels(clip: torch.Tensor) -> torch.Tensor:
    """Turns RGB into BGR and back (one copy)."""
    _check(clip)
    return clip.flip(-1)


def normalize(
    clip: torch.Tensor,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    *,
    scale: float = 1 / 255,
    dtype: torch.dtype = torch.float32,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Computes (clip · scale - mean) / std, as one multiply-add, and puts channels first.

    Args:
        clip: (..., H, W, C) uint8, or float (then `scale=1` unless its values go to 255).
        mean, std: Per channel, or one number for all.
        scale: Factor that brings the values to 0..1.
        dtype: Of the result; ignored with `out`.
        out: Where to write, of the result's shape: a slice of a batch saves a copy.

    Returns:
        Floats (..., C, H, W).

    Raises:
        VideoArrayError: The clip or `out` has another shape.
        VideoOptionError: `std` is 0 or the number of statistics wrong.
    """
    _check(clip)
    channels = clip.shape[-1]
    # In float64, so that only the last rounding counts.
    means, stds = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (mean, std))
    for name, values in (("mean", means), ("std", stds)):
        if len(values) not in (1, channels):
            raise VideoOptionError(f"{name} has {len(values)} numbers and the clip has {channels} channels.")
    if not (np.isfinite(means).all() and np.isfinite(stds).all() and (stds > 0).all()):
        raise VideoOptionError(
            f"std must be above 0 and mean a number; mean={means.tolist()}, std={stds.tolist()} came."
        )
    factor, shift = (np.broadcast_to(v, channels).copy() for v in (scale / stds, -means / stds))
    planar = clip.movedim(-1, -3)
    if out is None:
        out = torch.empty(planar.shape, dtype=dtype, device=clip.device)
    elif out.shape != planar.shape:
        raise VideoArrayError(f"out has shape {tuple(out.shape)} and the result has {tuple(planar.shape)}.")
    factor, shift = (torch.tensor(v, dtype=out.dtype, device=out.device)[:, None, None] for v in (factor, shift))
    many = planar.ndim > 3 and clip.device.type == "cpu"
    count = max(len(planar) * PIECE // max(planar.numel(), 1), 1) if many else max(len(planar), 1)
    for part, target in zip(planar.split(count), out.split(count), strict=True):
        # Reordering bytes and then widening them is a third faster than doing both in one strided copy, and two
        # broadcast in-place operations are a fifth of one addcmul.
        target.copy_(part.contiguous() if clip.dtype == torch.uint8 else part)
        target.mul_(factor).add_(shift)
    return out


def _resize_pil(flat: torch.Tensor, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    if flat.dtype != torch.uint8:
        raise VideoOptionError(
            f"interpolation={interpolation!r} needs uint8 frames; float ones take bilinear or bicubic."
        )
    frames = [
        np.asarray(Image.fromarray(frame).resize(size[::-1], _PIL_FILTERS[interpolation]))
        for frame in flat.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(frames)).to(flat.device)


def _resize_float(flat: torch.Tensor, size: tuple[int, int], interpolation: str, antialias: bool) -> torch.Tensor:
    check_choice("interpolation", interpolation, ("bilinear", "bicubic"))
    planes = flat.permute(0, 3, 1, 2)
    wide = planes if planes.is_floating_point() else planes.float()
    resized = functional.interpolate(wide, size=size, mode=interpolation, antialias=antialias)
    if not flat.is_floating_point():
        resized = resized.round_().clamp_(0, 255).to(flat.dtype)
    return resized.permute(0, 2, 3, 1)


def _check(clip: torch.Tensor) -> None:
    if not isinstance(clip, torch.Tensor):
        raise VideoArrayError(f"A clip is a torch tensor here and a {type(clip).__name__} came: use torch.from_numpy.")
    if clip.ndim < 3 or clip.shape[-1] not in (1, 2, 3, 4) or 0 in clip.shape:
        hint = " Channels come last: use movedim(-3, -1)." if clip.ndim >= 3 and clip.shape[-3] in (1, 3) else ""
        raise VideoArrayError(f"A clip has shape (..., height, width, channels) and {tuple(clip.shape)} came.{hint}")


def _check_fits(clip: torch.Tensor, height: int, width: int) -> None:
    if clip.shape[-3] < height or clip.shape[-2] < width:
        raise VideoArrayError(
            f"Frames of {clip.shape[-3]}x{clip.shape[-2]} are too small for a {height}x{width} crop. Resize them first."
        )


def _pair(size: Size) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, Iterable) else (size, size)
    if len(pair) != 2:
        raise VideoOptionError(f"size={size!r} must be one number or (height, width), in pixels.")
    return check_count("size", pair[0], unit="pixels"), check_count("size", pair[1], unit="pixels")
