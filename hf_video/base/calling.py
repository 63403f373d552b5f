"""How any video model is called, ours or transformers': the name of its clips (batch, frames, channels, height, width),
for which transformers has two, and the shape of its logits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from hf_video.errors import CheckpointError

CLIP_NAMES = ("pixel_values", "pixel_values_videos")


def clip_name(model: Any) -> str:
    """The input of a model that takes clips: its `main_input_name`, or of a model whose main input is text the one of
    `CLIP_NAMES` that its `forward` takes."""
    name = model.main_input_name
    takes = () if name in CLIP_NAMES else inspect.signature(model.forward).parameters
    return next((clips for clips in CLIP_NAMES if clips in takes), name)


def named_for(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Model inputs with the clips under the model's own name, whatever their processor calls them."""
    wanted = clip_name(model)
    given = [name for name in CLIP_NAMES if name in inputs] or list(inputs)
    # Where something comes beside them, only clips can be meant.
    if wanted in inputs or len(given) != 1 or not (wanted in CLIP_NAMES or len(inputs) == 1):
        return dict(inputs)
    return {wanted if name == given[0] else name: value for name, value in inputs.items()}


def clip_logits(model: Any, output: Any) -> torch.Tensor:
    """The logits (B, classes) in what a classifier gave, some of which have (B, 1, classes). Raises CheckpointError
    where there are none."""
    logits = getattr(output, "logits", None)
    if logits is None:
        raise CheckpointError(
            f"{type(model).__name__} gives no logits. Load the model with AutoModelForVideoClassification."
        )
    return logits.flatten(1) if logits.ndim == 3 and logits.shape[1] == 1 else logits
