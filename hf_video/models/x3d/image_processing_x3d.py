"""X3D's processors: mean .45, deviation .225; M's short side 256, centre 224, 16 frames, every fifth of 30 a second. S:
182 and 160, every sixth; XS: 182 and 160, every twelfth; L: 356 and 312 (SlowFast's `configs/Kinetics/X3D_*.yaml`, one
crop; with three, crops are as high as the short side)."""

from __future__ import annotations

from typing import Any, ClassVar

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.models.published_inputs import FAIR_MEAN, FAIR_STD, short_side

RATES = {4: 12, 13: 6, 16: 5}  # frames of a clip: frames at 30 a second from one to the next


class X3DProcessing:
    size: Any = {"shortest_edge": 256}  # noqa: RUF012 - copied for every instance
    image_mean = FAIR_MEAN
    image_std = FAIR_STD
    sampler = "at_fps"
    sampler_options: ClassVar[dict] = {"rate": RATES[16], "start": "center"}

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        sampling = {"sampler_options": {"rate": RATES.get(config.num_frames, RATES[16]), "start": "center"}}
        return {"size": {"shortest_edge": short_side(config) * 8 // 7}, **sampling}


class X3DImageProcessor(X3DProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""


class X3DVideoProcessor(X3DProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""
