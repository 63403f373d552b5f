"""I3D's processors: RGB in [-1, 1], short side 256, centre 224, 25 frames a second (DeepMind's kinetics-i3d).

I3D-R50 (SlowFast, `configs/Kinetics/pytorchvideo/I3D_8x8_R50.yaml`) has other statistics: mean .45, deviation .225,
short side and crop 256, 8 frames, every 8th of 30 a second.
"""

from __future__ import annotations

from typing import Any, ClassVar

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.models.published_inputs import FAIR_MEAN, FAIR_STD, HALF, short_side


class I3DProcessing:
    size: Any = {"shortest_edge": 256}  # noqa: RUF012 - copied for every instance
    image_mean = HALF
    image_std = HALF
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = {"rate": 1, "target_fps": 25, "start": "center"}

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        if config.architecture == "inception":
            return {}
        return {
            "image_mean": FAIR_MEAN,
            "image_std": FAIR_STD,
            "size": {"shortest_edge": short_side(config)},
            "sampler_options": {"rate": 8, "start": "center"},
        }


class I3DImageProcessor(I3DProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""


class I3DVideoProcessor(I3DProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""
