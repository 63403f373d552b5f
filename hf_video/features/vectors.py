"""One vector per clip from any video model, ours or stock."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from hf_video.base.modeling import VideoPreTrainedModel
from hf_video.errors import CheckpointError


def clip_vectors(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Computes the vectors (B, D) of B clips from model inputs.

    Our models give `get_video_features(...).embedding`, and of transformers' own those of video and text their
    `get_video_features`. Of others with a classifier it is what the classifier reads, of an encoder its
    `pooler_output`, or the mean of its tokens. Raises CheckpointError for other models.
    """
    if isinstance(model, VideoPreTrainedModel):
        embedding = model.get_video_features(**inputs, return_dict=True).embedding
        if embedding is None:
            raise CheckpointError(
                f"{type(model).__name__} has no vector for a video alone: it looks at video and text together."
            )
        return embedding
    if hasattr(model, "get_video_features"):
        return pooled_vectors(model.get_video_features(**inputs))
    classifier = getattr(model, "classifier", None)
    if isinstance(classifier, nn.Linear):
        taken: list[torch.Tensor] = []
        hook = classifier.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
        try:
            model(**inputs)
        finally:
            hook.remove()
        return taken[-1].flatten(1)
    encoder = model.base_model
    # V-JEPA 2 would predict hidden tokens besides, of which nothing is used.
    more = {"skip_predictor": True} if "skip_predictor" in inspect.signature(encoder.forward).parameters else {}
    output = encoder(**inputs, **more)
    pooled = getattr(output, "pooler_output", None)
    if pooled is None and getattr(output, "last_hidden_state", None) is None:
        raise CheckpointError(f"{type(model).__name__} gives no features: no pooler_output, no last_hidden_state.")
    return output.last_hidden_state.mean(1) if pooled is None else pooled_vectors(output)


def pooled_vectors(features: Any) -> torch.Tensor:
    """Vectors (B, D) from what a class of transformers gives for a video or a text, some with (B, 1, D)."""
    vectors = features if isinstance(features, torch.Tensor) else features.pooler_output
    return vectors.flatten(1)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Scales vectors (N, D) to length 1; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
