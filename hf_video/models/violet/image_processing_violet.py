"""VIOLET's video processing (`dataset.py` of tsujuifu/pytorch_violet): frames are set on black to a square, then
resized to 224 × 224, nothing is cropped; ImageNet statistics, which the authors apply inside their model; 5 frames."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional as F

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.video.inputs import Clip, SamplingPlan


class VioletProcessing:
    size: Any = {"height": 224, "width": 224}  # noqa: RUF012 - copied for every instance
    do_center_crop = False
    resizes_first = False  # whoever reads the frames must not

    @staticmethod
    def _plan(settings: SimpleNamespace, given: dict[str, Any]) -> SamplingPlan:
        """Frames are resized after they are padded, so not while they are read."""
        return replace(VideoImageProcessor._plan(settings, given), resize={})

    def _clips(self, video: Any, plan: SamplingPlan, settings: SimpleNamespace) -> list[Clip]:
        clips = super()._clips(video, plan, settings)
        return [replace(clip, frames=on_square(clip.frames)) for clip in clips] if settings.do_resize else clips


def on_square(frames: torch.Tensor):
    """(T, H, W, 3) with ⌊difference / 2⌋ black rows above and below, or columns left and right: a square, or as the
    authors have it one short of it where the difference is odd."""
    height, width = frames.shape[1:3]
    rows, columns = max(width - height, 0) // 2, max(height - width, 0) // 2
    return F.pad(frames, (0, 0, columns, columns, rows, rows)) if rows or columns else frames


class VioletImageProcessor(VioletProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""


class VioletVideoProcessor(VioletProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""
