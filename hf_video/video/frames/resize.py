"""Antialiased resize of uint8 clips: one definition, used by the reader while decoding and by the clip transforms.

torch's uint8 antialiased kernel is at most one level away from PIL's (measured over random images, bilinear and
bicubic), and several times faster than any float path **if** channels lie next to each other in memory. So a clip of
shape (frames, height, width, 3) is only *viewed* as (frames, 3, height, width), never copied into planar order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hf_video.errors import VideoArrayError, VideoOptionError, check_choice

if TYPE_CHECKING:
    import torch

INTERPOLATIONS = ("bilinear", "bicubic")


def shortest_edge_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """Size (height, width) in pixels of an image whose shorter side becomes exactly `edge`; the longer one is
    `int(long * edge / short)`, the rounding of torchvision's `Resize` that the official recipes were trained with.

    Raises `VideoOptionError` if a number is not positive.
    """
    if min(height, width, edge) < 1:
        raise VideoOptionError(f"height, width and edge must be at least 1 pixel, got {height}, {width} and {edge}")
    if height <= width:
        return edge, int(width * edge / height)
    return int(height * edge / width), edge


def resize_frames(
    frames: np.ndarray | torch.Tensor,
    size: tuple[int, int],
    *,
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> np.ndarray | torch.Tensor:
    """Resize a whole clip at once.

    `frames` is uint8 of shape (frames, height, width, channels), numpy or torch; `size` is (height, width) in pixels.
    Returns the same kind, uint8, of shape (frames, *size, channels); the input itself if it has that size already.
    With `antialias=True` every value is at most one level from PIL's `Image.resize` with the same filter.

    Raises `VideoArrayError` on another shape or dtype, `VideoOptionError` on an unknown interpolation or a size < 1.
    """
    import torch
    import torch.nn.functional as functional

    _check(frames, size, interpolation)
    if tuple(frames.shape[1:3]) == tuple(size):
        return frames
    if len(frames) == 0:
        shape = (0, *size, frames.shape[3])
        return np.empty(shape, np.uint8) if isinstance(frames, np.ndarray) else frames.new_empty(shape)
    given = frames
    if isinstance(frames, np.ndarray):  # torch warns of arrays that it may not write to, such as a PIL image's
        given = torch.from_numpy(np.require(frames, requirements=("C", "W")))
    planes = given.contiguous().permute(0, 3, 1, 2)
    resized = functional.interpolate(planes, size=tuple(size), mode=interpolation, antialias=antialias)
    resized = resized.permute(0, 2, 3, 1).contiguous()
    return resized if isinstance(frames, torch.Tensor) else resized.numpy()


def _check(frames: np.ndarray | torch.Tensor, size: tuple[int, int], interpolation: str) -> None:
    if getattr(frames, "ndim", None) != 4 or str(frames.dtype) not in ("uint8", "torch.uint8"):
        what = f"{getattr(frames, 'dtype', type(frames).__name__)} of shape {tuple(getattr(frames, 'shape', ()))}"
        raise VideoArrayError(f"a clip must be uint8 of shape (frames, height, width, channels), got {what}")
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if len(size) != 2 or min(size) < 1:
        raise VideoOptionError(f"size must be (height, width) in pixels, each at least 1, got {size!r}")
    if min(frames.shape[1:3]) < 1:
        raise VideoArrayError(f"frames of {frames.shape[1]}x{frames.shape[2]} pixels can't be resized")
