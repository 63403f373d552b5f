"""Ten crops of a clip: the four corners and the centre, and the same mirrored (Simonyan and Zisserman 2014)."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_video.base.processing import ClipProcessing
from hf_video.clips.read import ClipProcessor, Rows, clip_processor
from hf_video.errors import VideoArrayError, VideoOptionError

if TYPE_CHECKING:
    from hf_video.data.types import FrameProcessor


def ten_crop_processor(processor: FrameProcessor) -> ClipProcessor:
    """Returns a function (frames (T, H, W, 3) uint8, crops=10) -> tensors (10, T, C, height, width).

    The crops are upper left, upper right, centre, lower left, lower right, then these mirrored, x of optical flow
    negated. Frames are resized and normalised by the processor, once, and cut afterwards. Raises VideoOptionError for a
    processor that is not ours or doesn't crop, VideoArrayError where a crop is larger than the frame.
    """
    if not isinstance(processor, ClipProcessing) or not processor.do_center_crop:
        raise VideoOptionError(
            f"Ten crops are cut by processors of hf_video with a crop_size; {type(processor).__name__} came."
        )
    whole = copy.deepcopy(processor)
    whole.do_center_crop, whole.num_crops = False, 1
    size = processor.crop_size["height"], processor.crop_size["width"]
    # x is 1 - x of the image in 0..1, and (1 - x - mean) / std = (1 - 2·mean) / std - (x - mean) / std.
    shift = (1 - 2 * getattr(processor, "flow_mean", 0.5)) / getattr(processor, "flow_std", 1.0)
    return functools.partial(_cut, clip_processor(whole), size, shift)


def _cut(
    process: ClipProcessor,
    size: tuple[int, int],
    shift: float,
    frames: np.ndarray,
    crops: int,
    needed: np.ndarray | None = None,
) -> Rows:
    rows = process(frames, 1) if needed is None else process(frames, 1, needed)
    found = {}
    for name, values in rows.items():
        five = _five(values[0], size)
        mirrored = five.flip(-1)
        if name == "flow_values":
            mirrored[:, :, 0::2] = shift - mirrored[:, :, 0::2]
        found[name] = torch.cat([five, mirrored])
    return found


def _five(clip: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(T, C, H, W) -> (5, T, C, height, width)."""
    (height, width), (down, across) = size, (clip.shape[-2] - size[0], clip.shape[-1] - size[1])
    if down < 0 or across < 0:
        raise VideoArrayError(
            f"Crops of {height}x{width} don't fit into frames of {tuple(clip.shape[-2:])}: set a larger size."
        )
    corners = ((0, 0), (0, across), (down // 2, across // 2), (down, 0), (down, across))
    return torch.stack([clip[..., top : top + height, left : left + width] for top, left in corners])
