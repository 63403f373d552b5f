"""How any video model is called, ours or transformers': the name of its clips (batch, frames, channels, height, width),
for which transformers has two, and the shape of its logits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers.utils import logging

from hf_video.base.configuration import pair
from hf_video.errors import CheckpointError, ModelInputError

logger = logging.get_logger(__name__)

CLIP_NAMES = ("pixel_values", "pixel_values_videos")
# Model types whose classes in transformers say too little of the clips that they take.
_SILENT = ("vjepa2", "videoprism", "xclip")


def clip_name(model: Any) -> str:
    """The input of a model that takes clips: its `main_input_name`, or of a model whose main input is text the one of
    `CLIP_NAMES` that its `forward` takes."""
    name = model.main_input_name
    takes = () if name in CLIP_NAMES else inspect.signature(model.forward).parameters
    return next((clips for clips in CLIP_NAMES if clips in takes), name)


def inputs_for(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into a model's `forward` of what a processor made: clips under the model's own name.

    Raises ModelInputError for clips of which a model of transformers' would drop or repeat frames or pixels without a
    word, or for which it has no positions (`check_clips`).
    """
    wanted = clip_name(model)
    takes = inspect.signature(model.forward).parameters
    given = [name for name in CLIP_NAMES if name in inputs] or [name for name in inputs if name not in takes]
    named = dict(inputs)
    # Where something comes beside them, only clips can be meant.
    if wanted not in inputs and len(given) == 1 and (wanted in CLIP_NAMES or len(inputs) == 1):
        named = {wanted if name == given[0] else name: value for name, value in inputs.items()}
    clips = named.get(wanted)
    if wanted in CLIP_NAMES and isinstance(clips, torch.Tensor) and clips.ndim == 5:
        named |= check_clips(model, clips)
    return named


def check_clips(model: Any, clips: torch.Tensor) -> dict[str, bool]:
    """Compares clips (B, T, C, H, W) with what a class of transformers takes, whose own forward is silent or unclear;
    and with what our VideoPrism takes unless it is told to interpolate.

    Returns:
        What has to be said to the model besides: that VideoPrism's positions are to be interpolated.

    Raises:
        ModelInputError: frames or pixels that V-JEPA 2 and VideoPrism would leave over, or frames that X-CLIP has no
            positions for.
    """
    stock, kind = type(model).__module__.startswith("transformers."), model.config.model_type
    if not (stock and kind.startswith(_SILENT)) and not kind.startswith("videoprism"):
        return {}
    config = getattr(model.config, "vision_config", model.config)
    frames, _, *size = clips.shape[1:]
    name = f"{type(model).__name__} (config.json)"
    if config.model_type.startswith("xclip"):
        if frames != config.num_frames:
            raise ModelInputError(
                f"{name} takes clips of {config.num_frames} frames, for which it learnt positions, and {frames} came: "
                f"pass num_frames={config.num_frames}, or leave it out."
            )
        return {}
    depth, *patch = config.tubelet_size if config.model_type.startswith("videoprism") else (
        config.tubelet_size, *pair(config.patch_size))  # fmt: skip
    if frames % depth:
        raise ModelInputError(f"{name} joins {depth} frames to one: {frames} leave a rest. Pass an even num_frames=.")
    if any(side % part for side, part in zip(size, patch, strict=True)):
        raise ModelInputError(
            f"{name} cuts frames into patches of {'x'.join(map(str, patch))} pixels: {size[0]}x{size[1]} leave a rest. "
            "Give the processor a size and crop_size that are multiples of them."
        )
    if config.model_type.startswith("vjepa2") or (frames, *size) == (config.num_frames, *pair(config.image_size)):
        return {}
    logger.warning_once(
        f"{name} was made for {config.num_frames} frames of {config.image_size} pixels, and {frames} of "
        f"{size[0]}x{size[1]} came: its positions are interpolated."
    )
    return {"interpolate_pos_encoding": True}


def clip_logits(model: Any, output: Any) -> torch.Tensor:
    """The logits (B, classes) in what a classifier gave, some of which have (B, 1, classes). Raises CheckpointError
    where there are none."""
    logits = getattr(output, "logits", None)
    if logits is None:
        raise CheckpointError(
            f"{type(model).__name__} gives no logits. Load the model with AutoModelForVideoClassification."
        )
    return logits.flatten(1) if logits.ndim == 3 and logits.shape[1] == 1 else logits
