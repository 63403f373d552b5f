"""Official TimeSformer checkpoints (facebookresearch/TimeSformer: `{"model_state": {"model.…": …}}`) to ours."""

from __future__ import annotations

import math
from typing import Any

from hf_video.base.convert import (
    VIT_BLOCK,
    Converted,
    StateDict,
    count_layers,
    missing_overrides,
    number_of_heads,
    rename,
    rename_overrides,
    substitute,
)
from hf_video.errors import CheckpointError

OFFICIAL_NAMES = {
    "img_size": "image_size",
    "num_classes": "num_labels",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_ratio": None,
}

RENAMES = (
    (r"^cls_token", "timesformer.embeddings.cls_token"),
    (r"^pos_embed", "timesformer.embeddings.position_embeddings"),
    (r"^time_embed", "timesformer.embeddings.time_embeddings"),
    (r"^patch_embed\.proj", "timesformer.embeddings.patch_embeddings.projection"),
    (r"^blocks\.", "timesformer.encoder.layer."),
    (r"\.temporal_norm1\.", ".temporal_layernorm."),
    *VIT_BLOCK,
    (r"\.temporal_fc\.", ".temporal_dense."),
    (r"\.(temporal_)?attn\.qkv\.", r".\1attention.attention.qkv."),
    (r"\.(temporal_)?attn\.proj\.", r".\1attention.output.dense."),
    (r"^norm\.", "timesformer.layernorm."),
    (r"^head\.", "classifier."),
)


def infer_timesformer_config(state: StateDict, overrides: dict[str, Any]) -> dict[str, Any]:
    """Configuration values that an official state dict tells, and the official constants."""
    if "cls_token" not in state or "patch_embed.proj.weight" not in state:
        raise CheckpointError(f"No TimeSformer checkpoint: keys begin {sorted(state)[:5]}, cls_token is missing.")
    width, channels, p, q = state["patch_embed.proj.weight"].shape
    places = state["pos_embed"].shape[1] - 1
    side = math.isqrt(places)
    config: dict[str, Any] = {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": p if p == q else [p, q],
        "num_hidden_layers": count_layers(state, "blocks."),
        "intermediate_size": state["blocks.0.mlp.fc1.weight"].shape[0],
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "layer_norm_eps": 1e-6,
    }
    if side * side == places:
        config["image_size"] = p * side if p == q else [p * side, q * side]
    elif "image_size" not in overrides:
        raise CheckpointError(f"{places} patch positions are no square; pass image_size=(height, width).")
    if any(".temporal_attn." in key for key in state):
        config["attention_type"] = "divided_space_time"
    else:
        config["attention_type"] = "joint_space_time" if "time_embed" in state else "space_only"
    if "time_embed" in state:
        config["num_frames"] = state["time_embed"].shape[1]
    if "head.weight" in state:
        config["num_labels"] = state["head.weight"].shape[0]
    return config


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. Official heads have 64 channels; other models need `num_attention_heads`."""
    overrides = rename_overrides(overrides, OFFICIAL_NAMES)
    config = infer_timesformer_config(state, overrides) | overrides
    if "num_attention_heads" not in config:
        config["num_attention_heads"] = number_of_heads(config["hidden_size"], {}, "num_attention_heads")
    frames = [] if "time_embed" in state else ["num_frames"]
    unspecified = missing_overrides(overrides, "num_attention_heads", "image_size", *frames)
    state = rename(state, lambda key: substitute(key, RENAMES))
    if "classifier.weight" in state:
        return Converted("TimesformerForVideoClassification", config, state, unspecified=unspecified)
    state = rename(state, lambda key: key.removeprefix("timesformer."))
    return Converted("TimesformerModel", config, state, unspecified=unspecified)
