"""C3D's processors, after jfzhang95/pytorch-video-recognition: **BGR** in 0..255 less the mean of Sports-1M in each
channel, not divided by a deviation; frames of 128×171 whatever their proportions, of which rows 8 to 119 and columns 30
to 141 are cut; 16 frames in a row.

mmaction2's UCF101 weights were trained otherwise, on RGB with BGR's means and frames that keep their proportions (see
`convert_c3d`). Caffe's net takes off a mean clip of 16×128×171, not one value per channel.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.base.processing_config import resize_clip
from hf_video.video.inputs import Clip


class C3DProcessing:
    """With a fixed `size` (height and width) the official crop of a frame begins at 29.5 rounded up, where all others
    round down; see `ClipProcessing` for all else."""

    size: Any = {"height": 128, "width": 171}  # noqa: RUF012 - copied for every instance
    crop_size: Any = {"height": 112, "width": 112}  # noqa: RUF012
    do_flip_channel_order = True
    do_rescale = False
    image_mean = (90.0, 98.0, 102.0)
    image_std = (1.0, 1.0, 1.0)
    sampler = "dense"

    def _inputs(self, clips: list[Clip], settings: SimpleNamespace) -> dict[str, Any]:
        if settings.do_center_crop and settings.num_crops == 1 and "height" in settings.size:
            clips = [
                replace(clip, frames=_even_margins(resize_clip(clip.frames, settings), settings)) for clip in clips
            ]
            settings = SimpleNamespace(**{**vars(settings), "do_resize": False})
        return super()._inputs(clips, settings)


def _even_margins(frames: torch.Tensor, settings: SimpleNamespace) -> Any:
    """(T, H, W, 3) without the first row or column where the crop's margins would not be the same: what then lies in
    the middle begins one later."""
    down, across = frames.shape[1] - settings.crop_size["height"], frames.shape[2] - settings.crop_size["width"]
    return frames[:, max(down, 0) % 2 :, max(across, 0) % 2 :]


class C3DImageProcessor(C3DProcessing, VideoImageProcessor):
    """See `C3DProcessing`."""


class C3DVideoProcessor(C3DProcessing, VideoVideoProcessor):
    """See `C3DProcessing`."""
