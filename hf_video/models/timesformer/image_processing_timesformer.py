"""TimeSformer's processors: mean .45, deviation .225, short side 224 (448 for HR), centre crop.

After facebookresearch/TimeSformer, whose weights see 8.5 seconds from the start of a video: every 32nd of 30 frames a
second for 8 (and every model of HowTo100M), every 16th for 16, every 4th for 96. Those of Something-Something v2 see
the whole video, and were trained on BGR: the frames were read with OpenCV and never reversed. The classes' defaults are
those of the Hub's files, which say nothing of sampling.
"""

from __future__ import annotations

from typing import Any

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.models.published_inputs import FAIR_MEAN, FAIR_STD, SSV2_CLASSES, SSV2_FRAMES

RATES = {16: 16, 96: 4}  # frames of a clip: frames at 30 a second from one to the next, else 32
HOWTO100M_CLASSES = 1059


class TimesformerProcessing:
    image_mean = FAIR_MEAN
    image_std = FAIR_STD

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        if config.num_labels == SSV2_CLASSES:
            return SSV2_FRAMES | {"do_flip_channel_order": True}
        rate = 32 if config.num_labels == HOWTO100M_CLASSES else RATES.get(config.num_frames, 32)
        return {"sampler": "at_fps", "sampler_options": {"rate": rate}}


class TimesformerImageProcessor(TimesformerProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""

    saved_type = "VideoMAEImageProcessor"  # transformers has no image processor of TimeSformer's name


class TimesformerVideoProcessor(TimesformerProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""
