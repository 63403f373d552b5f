"""What inputs several families' published weights were trained on: statistics, and the frames of one data set.

Each model's `image_processing_<model>.py` says which of them are its own.
"""

from __future__ import annotations

from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# facebookresearch/SlowFast, and what was built on it (PyTorchVideo, TimeSformer).
FAIR_MEAN, FAIR_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
HALF = (0.5, 0.5, 0.5)

SSV2_CLASSES = 174  # as many as no other data set here has
# SlowFast's, TimeSformer's and Video Swin's loaders for Something-Something v2: the whole video, one frame a segment.
SSV2_FRAMES = {"sampler": "uniform", "sampler_options": {"mode": "rounded_center"}}


def short_side(config: Any) -> int:
    """The shorter side of a model's frames, in pixels."""
    size = config.image_size
    return size if isinstance(size, int) else min(size)
