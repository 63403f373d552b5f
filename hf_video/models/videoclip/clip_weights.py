"""From an image-text model of transformers to `VideoCLIPModel`: configuration and weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_video.errors import ModelInputError
from hf_video.models.videoclip.configuration_videoclip import VideoCLIPConfig
from hf_video.models.videoclip.temporal_heads import ClipSequenceTransformer


def clip_config(stock: PreTrainedModel, **options: Any) -> VideoCLIPConfig:
    """The configuration whose "mean" model gives what `stock` gives, frame by frame. Raises ModelInputError."""
    towers = [getattr(stock, name, None) for name in ("vision_model", "text_model")]
    if not all(isinstance(tower, nn.Module) for tower in towers):
        raise ModelInputError(
            f"{type(stock).__name__} has no vision_model and text_model. from_clip takes CLIP, SigLIP and models like "
            "them; a name must be that of such a checkpoint."
        )
    video_config, text_config = (copy.deepcopy(tower.config) for tower in towers)
    projected = isinstance(getattr(stock, "visual_projection", None), nn.Linear)
    sigmoid = hasattr(stock, "logit_bias")
    defaults = {
        "projection_dim": stock.visual_projection.out_features if projected else None,
        "loss": "sigmoid" if sigmoid else "softmax",
        "logit_scale_init_value": float(stock.logit_scale.detach()),
        "logit_scale_max": max(4.6052, float(stock.logit_scale.detach())),
        "logit_bias_init_value": float(stock.logit_bias.detach()) if sigmoid else None,
        "max_position_embeddings": text_config.max_position_embeddings,
    }
    return VideoCLIPConfig(video_config=video_config, text_config=text_config, **{**defaults, **options})


@torch.no_grad()
def copy_clip(stock: PreTrainedModel, model: nn.Module) -> None:
    """Copies all that the two share; what is new in the head starts as CLIP4Clip's does."""
    shared = stock.state_dict()
    shared = {
        name: value.reshape(()) if name in ("logit_scale", "logit_bias") else value for name, value in shared.items()
    }
    patches = "vision_model.embeddings.patch_embedding.weight"
    if model.config.patch_frames > 1:  # the middle frame as in the image model, its neighbours zero
        none = torch.zeros_like(shared[patches])
        shared[patches] = torch.cat([none, shared[patches], none], dim=1)
    missing, unexpected = model.load_state_dict(shared, strict=False)
    if unexpected or any(not name.startswith("temporal_head.") for name in missing):
        raise ModelInputError(
            f"{type(stock).__name__} is laid out in a way that from_clip does not know: left over {unexpected[:5]}, "
            f"missing {[name for name in missing if not name.startswith('temporal_head.')][:5]}."
        )
    sequence = getattr(model.temporal_head, "sequence", None)
    if sequence is not None:
        start_from_text_tower(sequence, stock.text_model)


def start_from_text_tower(sequence: ClipSequenceTransformer, text_model: nn.Module) -> None:
    """Positions and the first layers of the text transformer, where it is as wide as the head (as it is in CLIP)."""
    pairs = [(sequence.position_embedding, text_model.embeddings.position_embedding)]
    pairs += zip(sequence.encoder.layers, text_model.encoder.layers, strict=False)
    for ours, theirs in pairs:
        start = theirs.state_dict()
        if all(value.shape == start[name].shape for name, value in ours.state_dict().items()):
            ours.load_state_dict(start)
