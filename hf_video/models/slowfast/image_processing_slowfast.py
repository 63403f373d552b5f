"""SlowFast's processors: mean .45, deviation .225, short side and crop 256; 32 frames, every second of 30 a second (the
8×8 and 4×16 models of PyTorchVideo). Their test takes ten clips, which start at tenths of the video (`start="begin"`).
Models of Something-Something v2 see the whole video."""

from __future__ import annotations

from typing import Any, ClassVar

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.models.published_inputs import FAIR_MEAN, FAIR_STD, SSV2_CLASSES, SSV2_FRAMES


class SlowFastProcessing:
    size: Any = {"shortest_edge": 256}  # noqa: RUF012 - copied for every instance
    crop_size: Any = {"height": 256, "width": 256}  # noqa: RUF012
    image_mean = FAIR_MEAN
    image_std = FAIR_STD
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = {"rate": 2, "start": "center"}

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        return SSV2_FRAMES if config.num_labels == SSV2_CLASSES else {}


class SlowFastImageProcessor(SlowFastProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""


class SlowFastVideoProcessor(SlowFastProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""
