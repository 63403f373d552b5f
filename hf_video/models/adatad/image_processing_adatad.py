"""AdaTAD's processors: ImageNet statistics, short side 160, centre 160, and 768 frames in a row (sming256/OpenTAD,
configs/adatad/thumos)."""

from __future__ import annotations

from typing import Any

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.models.published_inputs import IMAGENET_MEAN, IMAGENET_STD


class AdaTADProcessing:
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD
    num_frames = 768
    size: Any = {"shortest_edge": 160}  # noqa: RUF012 - copied for every instance
    crop_size: Any = {"height": 160, "width": 160}  # noqa: RUF012


class AdaTADImageProcessor(AdaTADProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""


class AdaTADVideoProcessor(AdaTADProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""
