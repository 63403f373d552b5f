"""VideoPrism's processors: every video squashed to 288 × 288, pixels in [0, 1] without statistics, and frames at even
steps from the first one on (google-deepmind/videoprism, the demonstrations). Files of transformers say the same."""

from __future__ import annotations

from typing import Any

from hf_video.base.configuration import pair
from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor

BICUBIC = 3


class VideoPrismProcessing:
    size: Any = {"height": 288, "width": 288}  # noqa: RUF012 - copied for every instance
    resample = BICUBIC
    do_center_crop = False
    do_normalize = False
    sampler_options: dict[str, Any] | None = {"mode": "floor"}  # noqa: RUF012
    model_input_names = ["pixel_values_videos"]  # noqa: RUF012

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        height, width = pair(config.image_size)
        return {"size": {"height": height, "width": width}}


class VideoPrismImageProcessor(VideoPrismProcessing, VideoImageProcessor):
    """See `ClipProcessing`."""


class VideoPrismVideoProcessor(VideoPrismProcessing, VideoVideoProcessor):
    """See `ClipProcessing`."""

    saved_type = "LlavaOnevisionVideoProcessor"  # which transformers' files of VideoPrism name
