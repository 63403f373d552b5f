"""MViT's processors: mean .45, deviation .225, short side 256, centre 224; clips of every fourth frame at 30 frames per
second (facebookresearch/SlowFast, `configs/Kinetics/MVIT*`): a single one from the middle of the video, several from
its start to its end. Clips of 32 and 40 frames take every third. MViTv2-L was trained with ImageNet's statistics and is
tested with frames as high as its crops, 312. Models of Something-Something v2 see the whole video.
"""

from __future__ import annotations

from typing import Any, ClassVar

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.models.published_inputs import (
    FAIR_MEAN,
    FAIR_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SSV2_CLASSES,
    SSV2_FRAMES,
    short_side,
)


class MViTProcessing:
    size: Any = {"shortest_edge": 256}  # noqa: RUF012 - copied for every instance
    image_mean = FAIR_MEAN
    image_std = FAIR_STD
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = {"rate": 4, "start": "spread"}

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        values: dict[str, Any] = {"sampler_options": {"rate": 4 if config.num_frames <= 16 else 3, "start": "spread"}}
        if config.embed_dim == 144:  # MViTv2-L alone
            values |= {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
            values |= {"size": {"shortest_edge": short_side(config)}}
        return values | (SSV2_FRAMES if config.num_labels == SSV2_CLASSES else {})


class MViTImageProcessor(MViTProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""


class MViTVideoProcessor(MViTProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""
