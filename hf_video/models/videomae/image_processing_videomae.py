"""VideoMAE's processors: ImageNet statistics, short side 224, centre 224 (MCG-NJU/VideoMAE, datasets.py).

The authors' weights see every fourth frame (kinetics.py), those of Something-Something v2 the whole video (ssv2.py).
The Hub's files say nothing of it, and plain transformers samples the whole video: so do the classes' defaults.
"""

from __future__ import annotations

from typing import Any

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.models.published_inputs import IMAGENET_MEAN, IMAGENET_STD, SSV2_CLASSES


class VideoMAEProcessing:
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        return {} if config.num_labels == SSV2_CLASSES else {"sampler": "dense", "sampler_options": {"stride": 4}}


class VideoMAEImageProcessor(VideoMAEProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""


class VideoMAEVideoProcessor(VideoMAEProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""
