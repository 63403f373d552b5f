"""Video Swin's processors: ImageNet statistics, short side 224, centre 224, 32 frames 2 apart (configs/recognition/swin
of SwinTransformer/Video-Swin-Transformer). The published test takes 4 clips × 3 crops: `sampler_options={"stride": 2,
"num_clips": 4}, num_crops=3`."""

from __future__ import annotations

from typing import ClassVar

from hf_video.processing import VideoImageProcessor, VideoVideoProcessor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VideoSwinImageProcessor(VideoImageProcessor):
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD
    sampler = "dense"
    sampler_options: ClassVar = {"stride": 2}


class VideoSwinVideoProcessor(VideoVideoProcessor):
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD
    sampler = "dense"
    sampler_options: ClassVar = {"stride": 2}
