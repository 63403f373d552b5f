"""V-JEPA 2's processors: the shorter side of crop_size · 256 / 224 pixels, the centre, ImageNet statistics (stock's
`VJEPA2VideoProcessor`, after the authors' `evals/video_classification_frozen/utils.py`)."""

from __future__ import annotations

from typing import Any

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor
from hf_video.models.published_inputs import IMAGENET_MEAN, IMAGENET_STD


def side_of(crop_size: Any) -> dict[str, int]:
    """The shorter side that frames are resized to before a crop of that size is cut out."""
    crop = crop_size if isinstance(crop_size, int) else crop_size["height"]
    return {"shortest_edge": int(crop * 256 / 224)}


class VJEPA2Processing:
    size: Any = side_of(256)
    crop_size: Any = {"height": 256, "width": 256}  # noqa: RUF012
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD
    model_input_names = ["pixel_values_videos"]  # noqa: RUF012

    def __init__(self, **settings: Any) -> None:
        """As `ClipProcessing`; a crop_size without a size has the size that goes with it."""
        if settings.get("size") is None and settings.get("crop_size") is not None:
            settings["size"] = side_of(settings["crop_size"])
        super().__init__(**settings)

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        return {"size": side_of(config.crop_size)}


class VJEPA2ImageProcessor(VJEPA2Processing, VideoImageProcessor):
    """See `ClipProcessing`."""


class VJEPA2VideoProcessor(VJEPA2Processing, VideoVideoProcessor):
    """See `ClipProcessing`."""
