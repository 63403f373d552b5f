"""Whether a processor makes what a model takes: one check for pipelines, vectors, search, evaluation and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import torch
from transformers.utils import logging

from hf_video.base.configuration import pair
from hf_video.base.modeling import VideoPreTrainedModel
from hf_video.base.processing_config import frames_of_config, frames_of_file, frames_per_clip, pixel_processor
from hf_video.errors import CheckpointError, ModelInputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.video_processing_utils import BaseVideoProcessor

    from hf_video.base.processing import ClipProcessing

    Processor: TypeAlias = "ClipProcessing | BaseImageProcessor | BaseVideoProcessor | ProcessorMixin"

logger = logging.get_logger(__name__)


def check_pair(model: PreTrainedModel, processor: Processor | None, *, num_frames: int | None = None) -> None:
    """Compares a model with the processor that prepares its clips.

    Args:
        model: any video model, ours or stock.
        processor: its image or video processor, or a processor that holds one; None is passed over.
        num_frames: frames of a clip that somebody asked for; the two files' numbers then don't matter.

    Raises CheckpointError where the model can't take what the processor makes (channels, size). Warns where it can, but
    was made for other sizes, numbers of frames or statistics: both files are named, and what is used.
    """
    processor = pixel_processor(processor)
    if processor is None:
        return
    names = (
        f"{getattr(model, 'name_or_path', '') or type(model).__name__} (config.json)",
        f"{type(processor).__name__} (preprocessor_config.json)",
    )
    config, size, frames = model.config, processor_size(processor), frames_per_clip(processor, model.config, num_frames)
    _check_channels(config, names)
    if isinstance(model, VideoPreTrainedModel) and size is not None:
        _check_grid(model, size, frames, names)
    made_for = model_size(config)
    if size and made_for and size != made_for:
        logger.warning_once(
            f"{names[0]} was made for frames of {made_for[0]}x{made_for[1]} pixels and {names[1]} makes "
            f"{size[0]}x{size[1]}: the processor's are used. Give it the model's: size=, crop_size=."
        )
    counts = frames_of_config(config), frames_of_file(processor)
    if num_frames is None and None not in counts and counts[0] != counts[1]:
        logger.warning_once(
            f"{names[0]} says num_frames={counts[0]} and {names[1]} num_frames={counts[1]}: clips have {frames} frames "
            "here, as the processor's file decides. Pass num_frames=, or make the files agree."
        )
    for name in ("image_mean", "image_std") if getattr(model, "knows_statistics", False) else ():
        _check_statistics(name, config, processor, names)


def processor_size(processor: Processor) -> tuple[int, int] | None:
    """(height, width) of what a processor makes, or None where it depends on the video."""
    crops = getattr(processor, "do_center_crop", False)
    if not (crops or getattr(processor, "do_resize", False)):
        return None
    size = dict(getattr(processor, "crop_size" if crops else "size", None) or {})
    return (size["height"], size["width"]) if size.get("height") and size.get("width") else None


def model_size(config: PreTrainedConfig) -> tuple[int, int] | None:
    """(height, width) that a model's configuration, or that of its video tower, was made for; or None."""
    for part in (config, getattr(config, "video_config", None), getattr(config, "vision_config", None)):
        size = getattr(part, "image_size", None)
        if isinstance(size, (int, list, tuple)):
            return pair(size)
    return None


def _check_channels(config: PreTrainedConfig, names: tuple[str, str]) -> None:
    channels = getattr(config, "num_channels", 3)
    if isinstance(channels, int) and channels != 3:
        raise CheckpointError(
            f"{names[0]} takes {channels} channels and {names[1]} makes 3 (RGB) of a video. A model of optical flow is "
            "called with flow of your own, or is a stream of a two_stream model, whose processor computes it."
        )


def _check_grid(model: PreTrainedModel, size: tuple[int, int], frames: int | None, names: tuple[str, str]) -> None:
    """Asks the model itself, without a pixel."""
    base = model.base_model
    tower = getattr(base, "vision_model", base)
    grid = getattr(tower, "token_grid", None)
    frames = getattr(model.config, "segment_frames", None) or frames
    if grid is None or not frames:
        return
    try:
        grid(torch.empty(1, frames, 3, *size, device="meta"))
    except ModelInputError as error:
        raise CheckpointError(f"{names[1]} makes what {names[0]} can't take: {error}") from error


def _check_statistics(name: str, config: PreTrainedConfig, processor: Processor, names: tuple[str, str]) -> None:
    said, used = getattr(config, name, None), getattr(processor, name, None)
    if not said or not used or not getattr(processor, "do_normalize", False) or isinstance(said, Mapping):
        return
    if max(abs(a - b) for a, b in zip(said, used, strict=False)) > 1e-4:
        logger.warning_once(
            f"{names[0]} says {name}={list(said)} and {names[1]} {name}={list(used)}: the processor's is used. Give it "
            "the model's unless you trained on others."
        )
