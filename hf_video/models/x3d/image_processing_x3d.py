"""X3D's processors: mean .45, deviation .225; X3D-M's short side 256, centre 224, 16 frames, every fifth of 30 a second
(PyTorchVideo). S: 182 and 160, every sixth; XS: 182 and 160, every twelfth."""

from __future__ import annotations

from typing import Any, ClassVar

from hf_video.processing import VideoImageProcessor, VideoVideoProcessor

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)
SIZE = {"shortest_edge": 256}
SAMPLING = {"rate": 5, "start": "center"}


class X3DImageProcessor(VideoImageProcessor):
    size: Any = SIZE
    image_mean = MEAN
    image_std = STD
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = SAMPLING


class X3DVideoProcessor(VideoVideoProcessor):
    size: Any = SIZE
    image_mean = MEAN
    image_std = STD
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = SAMPLING
