"""SlowFast's processors: mean .45, deviation .225, short side 256, centre 256; 32 frames, every second of 30 a second
(the 8×8 models of PyTorchVideo)."""

from __future__ import annotations

from typing import Any, ClassVar

from hf_video.processing import VideoImageProcessor, VideoVideoProcessor

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)
SIZE = {"shortest_edge": 256}
CROP = {"height": 256, "width": 256}
SAMPLING = {"rate": 2, "start": "center"}


class SlowFastImageProcessor(VideoImageProcessor):
    size: Any = SIZE
    crop_size: Any = CROP
    image_mean = MEAN
    image_std = STD
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = SAMPLING


class SlowFastVideoProcessor(VideoVideoProcessor):
    size: Any = SIZE
    crop_size: Any = CROP
    image_mean = MEAN
    image_std = STD
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = SAMPLING
