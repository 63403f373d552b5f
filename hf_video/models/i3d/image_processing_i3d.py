"""I3D's processors: RGB in [-1, 1], short side 256, centre 224, 25 frames a second (DeepMind's kinetics-i3d).

I3D-R50 (SlowFast) has other statistics: mean .45, deviation .225, 8 frames, every 8th of 30 a second:
`I3DImageProcessor(image_mean=[.45] * 3, image_std=[.225] * 3, sampler_options={"rate": 8})`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from hf_video.processing import VideoImageProcessor, VideoVideoProcessor

HALF = (0.5, 0.5, 0.5)
SIZE = {"shortest_edge": 256}
SAMPLING = {"rate": 1, "target_fps": 25, "start": "center"}


class I3DImageProcessor(VideoImageProcessor):
    size: Any = SIZE
    image_mean = HALF
    image_std = HALF
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = SAMPLING


class I3DVideoProcessor(VideoVideoProcessor):
    size: Any = SIZE
    image_mean = HALF
    image_std = HALF
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = SAMPLING
