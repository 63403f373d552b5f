"""VideoMAE's processors: ImageNet statistics, short side 224, centre 224 (MCG-NJU/VideoMAE, datasets.py)."""

from __future__ import annotations

from hf_video.processing import VideoImageProcessor, VideoVideoProcessor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VideoMAEImageProcessor(VideoImageProcessor):
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD


class VideoMAEVideoProcessor(VideoVideoProcessor):
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD
