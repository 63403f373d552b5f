"""MViT's processors: mean .45, deviation .225, short side 256, centre 224; clips of every fourth frame at 30 frames per
second, from the middle of the video (facebookresearch/SlowFast, `configs/Kinetics/MVIT*`, one view).

32×3 and 40×3 models: `sampler_options={"rate": 3, "start": "center"}`. MViTv2-L was trained with ImageNet statistics
at 312 pixels: `image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD, size={"shortest_edge": 312}, crop_size=312`.
"""

from __future__ import annotations

from hf_video.processing import VideoImageProcessor, VideoVideoProcessor

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIZE = {"shortest_edge": 256}
SAMPLING = {"rate": 4, "start": "center"}


class MViTImageProcessor(VideoImageProcessor):
    image_mean = MEAN
    image_std = STD
    size = SIZE
    sampler = "at_fps"
    sampler_options = SAMPLING


class MViTVideoProcessor(VideoVideoProcessor):
    image_mean = MEAN
    image_std = STD
    size = SIZE
    sampler = "at_fps"
    sampler_options = SAMPLING
