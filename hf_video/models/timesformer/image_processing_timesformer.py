"""TimeSformer's processors: mean .45, std .225, short side 224 (448 for HR), centre crop.

After facebookresearch/TimeSformer. Its Something-Something v2 weights were trained on BGR (the frames were read with
OpenCV and never reversed): give those `do_flip_channel_order=True`.
"""

from __future__ import annotations

from hf_video.processing import VideoImageProcessor, VideoVideoProcessor

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


class TimesformerImageProcessor(VideoImageProcessor):
    image_mean = MEAN
    image_std = STD
    saved_type = "VideoMAEImageProcessor"  # transformers has no image processor of TimeSformer's name


class TimesformerVideoProcessor(VideoVideoProcessor):
    image_mean = MEAN
    image_std = STD
