"""Video Swin's processors: ImageNet statistics, short side 224, centre 224, 32 frames 2 apart (configs/recognition/swin
of SwinTransformer/Video-Swin-Transformer). The published test takes 4 clips × 3 crops: `sampler_options={"stride": 2,
"num_clips": 4}, num_crops=3`. The model of Something-Something v2 sees the whole video."""

from __future__ import annotations

from typing import Any, ClassVar

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.models.published_inputs import IMAGENET_MEAN, IMAGENET_STD, SSV2_CLASSES, SSV2_FRAMES


class VideoSwinProcessing:
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD
    sampler = "dense"
    sampler_options: ClassVar[dict] = {"stride": 2}

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        return SSV2_FRAMES if config.num_labels == SSV2_CLASSES else {}


class VideoSwinImageProcessor(VideoSwinProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""


class VideoSwinVideoProcessor(VideoSwinProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""
