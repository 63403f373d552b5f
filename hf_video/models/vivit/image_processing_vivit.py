"""ViViT's processors: pixels to [-1, 1], short side 256, centre 224, every second frame (google-research/scenic,
`projects/vivit`, `zero_centering`); for Something-Something v2 every frame, short side 288, centre 256."""

from __future__ import annotations

from typing import Any

import torch
from transformers.utils import logging

from hf_video.base.processing import (
    ClipProcessing,
    ImageKwargs,
    VideoImageProcessor,
    VideoKwargs,
    VideoVideoProcessor,
)
from hf_video.base.processing_config import normalize_setting
from hf_video.models.published_inputs import HALF, SSV2_CLASSES, short_side

logger = logging.get_logger(__name__)


class VivitImageKwargs(ImageKwargs, total=False):
    offset: bool | None


class VivitVideoKwargs(VideoKwargs, total=False):
    offset: bool | None


class VivitProcessing:
    """x · rescale_factor - 1 = x / 127.5 - 1, and nothing after it; see `ClipProcessing` for all else.

    `offset` is the name that ViViT's files have for the 1 that is taken off, after scaling and before any mean. Files
    of plain transformers are read as they are, but for its class defaults, which scale to [-1, 1] and then normalise
    with mean and deviation .5 as if pixels were still in [0, 1]: no published weights want the [-3, 1] that makes, so
    such a file gives [-1, 1], with a warning. `from_pretrained(..., do_normalize=True)` insists on it; files that are
    saved here mean what they say.
    """

    size: Any = {"shortest_edge": 256}  # noqa: RUF012 - copied for every instance
    rescale_factor = 1 / 127.5
    offset = True
    do_normalize = False
    image_mean: Any = HALF
    image_std: Any = HALF
    sampler = "dense"
    sampler_options: dict | None = {"stride": 2}  # noqa: RUF012
    _settings_names = (*ClipProcessing._settings_names, "offset")

    @classmethod
    def values_for(cls, config: Any) -> dict[str, Any]:
        if config.num_labels != SSV2_CLASSES:
            return {}
        return {"sampler_options": {"stride": 1}, "size": {"shortest_edge": short_side(config) * 9 // 8}}

    @classmethod
    def from_dict(cls, settings: dict[str, Any], **kwargs: Any):
        stock_file = not {"image_processor_type", "video_processor_type"}.isdisjoint(settings)
        if stock_file and "sampler" not in settings and kwargs.get("do_normalize") is None:  # ours name a sampler
            settings = normalised_once(settings)
        return super().from_dict(settings, **kwargs)

    def rescale(self, image: Any, scale: float, offset: bool | None = None, **kwargs: Any) -> Any:
        """`image · scale`, less 1 with `offset`; the processor's own offset where None. As transformers'."""
        tensor = isinstance(image, torch.Tensor)
        rescaled = image * scale if tensor else super().rescale(image, scale, **kwargs)
        return rescaled - 1 if (self.offset if offset is None else offset) else rescaled


def normalised_once(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a file without the second of two normalisations to [-1, 1]."""
    halves = all(normalize_setting(name, settings.get(name, 0.5)) == list(HALF) for name in ("image_mean", "image_std"))
    scaled = settings.get("do_rescale", True) and settings.get("offset", True)
    if not (settings.get("do_normalize") and scaled and halves):
        return settings
    logger.warning(
        "This ViViT processor file scales pixels to [-1, 1] and then normalises them again, to [-3, 1]: the defaults "
        "of plain transformers. The published weights want [-1, 1], which it is read as. If a model was trained on the "
        "other, pass do_normalize=True."
    )
    return {**settings, "do_normalize": False, "rescale_factor": 1 / 127.5}


class VivitImageProcessor(VivitProcessing, VideoImageProcessor):
    """See `VivitProcessing`."""

    valid_kwargs = VivitImageKwargs


class VivitVideoProcessor(VivitProcessing, VideoVideoProcessor):
    """See `VivitProcessing`."""

    valid_kwargs = VivitVideoKwargs
