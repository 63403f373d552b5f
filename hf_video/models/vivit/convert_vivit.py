"""ViViT checkpoints to ours: the authors' flax trees of all four models (google-research/scenic, keys joined by "/",
such as `Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel`), and the layouts of transformers' files and classes."""

from __future__ import annotations

import math
from typing import Any

import torch

from hf_video.base.convert import (
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
from hf_video.models.vivit.configuration_vivit import VivitConfig

OFFICIAL_NAMES = {
    "num_classes": "num_labels",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
    "stochastic_droplayer_rate": "drop_path_rate",
    "dropout_rate": "hidden_dropout_prob",
    "attention_dropout_rate": "attention_probs_dropout_prob",
}

FLAX_RENAMES = (
    (r"^embedding/", "vivit.embeddings.patch_embeddings.projection."),
    (r"^cls(_SpatialTransformer)?$", "vivit.embeddings.cls_token"),
    (r"^cls_TemporalTransformer$", "vivit.temporal_embeddings.cls_token"),
    (r"^output_projection/", "classifier."),
    (r"^(Spatial)?Transformer/", "vivit."),
    (r"^TemporalTransformer/", "vivit.temporal_"),
    (r"posembed_input/pos_embedding$", "embeddings.position_embeddings"),
    (r"encoder_norm/", "layernorm."),
    (r"encoderblock_(\d+)/", r"encoder.layer.\1."),
    (r"\.LayerNorm_(0|space)/", ".layernorm_before."),
    (r"\.LayerNorm_(1|mlp)/", ".layernorm_after."),
    (r"\.LayerNorm_time/", ".temporal_layernorm."),
    (r"\.MultiHeadDotProductAttention_time/", ".temporal_attention/"),
    (r"\.MultiHeadDotProductAttention_(0|space)/", ".attention/"),
    (r"attention/(query|key|value)/", r"attention.attention.\1."),
    (r"attention/out/", "attention.output.dense."),
    (r"\.MlpBlock(_0)?/Dense_0/", ".intermediate.dense."),
    (r"\.MlpBlock(_0)?/Dense_1/", ".output.dense."),
    (r"\.(kernel|scale)$", ".weight"),
)

# What transformers 5 calls the same in memory, and does not write to files.
MEMORY_RENAMES = (
    (r"(^|\.)layers\.(\d+)\.", r"\1encoder.layer.\2."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def vit_names(state: StateDict) -> StateDict:
    """Names as in transformers' files, also where a state dict came out of one of its classes."""
    return rename(state, lambda key: substitute(key, MEMORY_RENAMES))


def from_flax(key: str, value: torch.Tensor) -> torch.Tensor:
    """A flax array in PyTorch's order: kernels have the outputs last, attention's heads are an axis of their own."""
    if key == "embedding/kernel":
        return value.permute(4, 3, 0, 1, 2)  # (t, p, q, C, D) -> (D, C, t, p, q)
    if key.endswith("/kernel"):
        inputs_first = value.flatten(0, -2) if "/out/" in key else value.flatten(1)  # (heads, head_dim, D), (D, ...)
        return inputs_first.T
    return value.flatten() if "/bias" in key else value


def read_flax(state: StateDict) -> tuple[dict[str, Any], StateDict]:
    """What a flax tree's keys tell, and its tensors under our names."""
    stage = next((s for s in ("SpatialTransformer", "Transformer") if f"{s}/encoder_norm/scale" in state), None)
    if stage is None or "embedding/kernel" not in state:
        raise CheckpointError(f"No ViViT checkpoint: keys begin {sorted(state)[:5]}, no encoder_norm found.")
    block = f"{stage}/encoderblock_0"
    query = next((k for k in state if k.startswith(block) and k.endswith("/query/kernel")), None)
    if query is None:
        raise CheckpointError(f"No attention found under {block}: this ViViT layout is not known.")
    config: dict[str, Any] = {"num_attention_heads": state[query].shape[1]}
    if stage == "SpatialTransformer":
        config["attention_type"] = "factorized_encoder"
    elif f"{block}/LayerNorm_time/scale" in state:
        config["attention_type"] = "factorized_self_attention_block"
    elif "cls" in state:
        config["attention_type"] = "spacetime"
    arranged = {key: from_flax(key, value).contiguous() for key, value in state.items()}
    return config, rename(arranged, lambda key: substitute(key, FLAX_RENAMES))


def infer_vivit_config(state: StateDict) -> dict[str, Any]:
    """Configuration values that the shapes of a state dict under our names tell."""
    tubelets = state.get("vivit.embeddings.patch_embeddings.projection.weight")
    if tubelets is None or tubelets.ndim != 5 or "vivit.embeddings.position_embeddings" not in state:
        raise CheckpointError(f"No ViViT checkpoint: keys begin {sorted(state)[:5]}, no tubelet embedding found.")
    config: dict[str, Any] = {
        "hidden_size": tubelets.shape[0],
        "num_channels": tubelets.shape[1],
        "tubelet_size": list(tubelets.shape[2:]),
        "num_hidden_layers": count_layers(state, "vivit.encoder.layer."),
        "intermediate_size": state["vivit.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "qkv_bias": "vivit.encoder.layer.0.attention.attention.query.bias" in state,
    }
    if temporal := count_layers(state, "vivit.temporal_encoder.layer."):
        config |= {"num_temporal_layers": temporal, "attention_type": "factorized_encoder"}
    elif any(".temporal_attention." in key for key in state):
        config["attention_type"] = "factorized_self_attention_block"
    elif "vivit.embeddings.cls_token" in state:
        config["attention_type"] = "spacetime"
    if "classifier.weight" in state:
        config["num_labels"] = state["classifier.weight"].shape[0]
    if "vivit.pooler.dense.weight" in state:
        config["pooler_output_size"] = state["vivit.pooler.dense.weight"].shape[0]
    return config


def read_grid(state: StateDict, config: dict[str, Any]) -> dict[str, Any]:
    """`num_frames` and `image_size`, as far as the position tables tell what `config` doesn't say. One table over time
    and space leaves one of the two open: clips are then taken to have the paper's 32 frames."""
    config = dict(config)
    t, p, q = config["tubelet_size"]
    places = state["vivit.embeddings.position_embeddings"].shape[1] - ("vivit.embeddings.cls_token" in state)
    temporal = state.get("vivit.temporal_embeddings.position_embeddings")
    if temporal is not None:
        config.setdefault("num_frames", t * (temporal.shape[1] - 1))
    elif "image_size" in config:
        one = VivitConfig(image_size=config["image_size"], num_frames=t, tubelet_size=[t, p, q]).grid
        config.setdefault("num_frames", t * places // (one[1] * one[2]))
    else:
        times = config.setdefault("num_frames", VivitConfig.num_frames) // t
        places = places // times if times and places % times == 0 else -1
    if "image_size" not in config:
        side = math.isqrt(max(places, 0))
        if side < 1 or side * side != places:
            raise CheckpointError(
                f"The {state['vivit.embeddings.position_embeddings'].shape[1]} positions make no square grid of "
                f"{config['num_frames']} frames; pass num_frames and image_size=(height, width)."
            )
        config["image_size"] = p * side if p == q else [p * side, q * side]
    return config


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. The keys of a joint model without class token and of model 4 are the same: without
    a class token, `attention_type` must be passed."""
    config: dict[str, Any] = {}
    if any(key.endswith("/kernel") for key in state):
        config, state = read_flax(state)
    else:
        state = vit_names(state)
        if "embeddings.patch_embeddings.projection.weight" in state:
            state = rename(state, lambda key: f"vivit.{key}")
    given = rename_overrides(overrides, OFFICIAL_NAMES)
    config = infer_vivit_config(state) | config | given
    if "attention_type" not in config:
        raise CheckpointError(
            "There is no class token, and no key tells which attention the model has. If half of its heads attend over "
            'time and half over space, pass attention_type="factorized_dot_product_attention".'
        )
    unspecified = ["image_size"]  # taken for a square
    if "vivit.temporal_embeddings.position_embeddings" not in state and "image_size" not in given:
        unspecified.append("num_frames")
    if "num_attention_heads" not in config:
        unspecified.append("num_attention_heads")
        config["num_attention_heads"] = number_of_heads(config["hidden_size"], {}, "num_attention_heads")
    config, unspecified = read_grid(state, config), missing_overrides(given, *unspecified)
    if "classifier.weight" in state:
        return Converted("VivitForVideoClassification", config, state, unspecified=unspecified)
    state = rename(state, lambda key: key.removeprefix("vivit."))
    pooler = {"pooler.dense.weight", "pooler.dense.bias"}
    return Converted("VivitModel", config, state, optional=pooler, unspecified=unspecified)
