"""The authors' flax checkpoints (google-deepmind/videoprism, `.npz` files of names and arrays) to ours: encoder,
classifier (`FactorizedVideoClassifier`) and clip model (`FactorizedVideoCLIP`), with layers stacked by `scan` or one by
one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from hf_video.base.convert import Converted, StateDict, missing_overrides, rename, rename_overrides, substitute
from hf_video.errors import CheckpointError
from hf_video.models.videoprism.configuration_videoprism import VideoPrismTextConfig
from hf_video.models.videoprism.embeddings import sines_and_cosines

OFFICIAL_NAMES = {
    "atten_logit_cap": "attn_logit_softcapping",
    "num_classes": None,
    "model_dim": None,
    "num_heads": None,
    "mlp_dim": None,
    "patch_size": None,
    "pos_emb_shape": None,
    "num_spatial_layers": None,
    "num_temporal_layers": None,
    "num_auxiliary_layers": None,
    "num_unimodal_layers": None,
    "vocabulary_size": None,
    "scan": None,
}
RENAMES = (
    (r"^(vision_)?encoder/", "vision_model/"),
    (r"^(?=(patch_projection|(spatial|temporal)_(encoder|ln|pos_emb))/)", "vision_model/"),
    (r"patch_projection/linear/", "spatial_embeddings.patch_embeddings.projection."),
    (r"(spatial|temporal)_pos_emb/emb_var$", r"\1_embeddings.position_embeddings"),
    (r"spatial_ln/", "layernorm1."),
    (r"temporal_ln/", "layernorm2."),
    (r"(spatial|temporal)_encoder/transformers_stack/x_layers_", r"\1_layers."),
    (r"^auxiliary_encoder/transformers_stack/x_layers_", "auxiliary_layers."),
    (r"^(atten_pooler|contrastive_vision_pooler)/pooling_attention_layer_norm/", "head_layernorm."),
    (r"^(atten_pooler|contrastive_vision_pooler)/", "head."),
    (r"pooling_attention/(per_dim_scale/)?", ""),
    (r"^projection/linear/", "classifier."),
    (r"^text_encoder/", "text_model."),
    (r"unimodal_transformer/x_layers_", "layers."),
    (r"unimodal_ln/", "layernorm."),
    (r"text_model\.cls_emb$", "text_model.embeddings.cls_emb"),
    (r"token_emb/emb_var$", "embeddings.token_embedding.weight"),
    (r"/ff_layer/layer_norm/", ".layernorm_after."),
    (r"/layer_norm/", ".layernorm_before."),
    (r"/ff_layer/ffn_layer([12])/linear/", r".mlp.fc\1."),
    (r"/self_attention/", ".attention."),
    (r"(query|key|value)/", lambda match: f"{match[1][0]}_proj."),
    (r"post/", "o_proj."),
    (r"/", "."),
    (r"\.(kernel|scale|w)$", ".weight"),
    (r"\.b$", ".bias"),
)


def one_by_one(state: StateDict) -> Iterator[tuple[str, torch.Tensor]]:
    """Arrays of layers that `scan` stacked in a first dimension, taken apart and numbered."""
    for key, value in state.items():
        stem, stacked, end = key.partition("/x_layers/")
        if not stacked:
            yield key, value
        for i, layer in enumerate(value if stacked else ()):
            yield f"{stem}/x_layers_{i}/{end}", layer


def from_flax(key: str, value: torch.Tensor) -> torch.Tensor:
    """An array in PyTorch's order. Maps have their outputs last, but for attention's output; heads are a dimension of
    their own."""
    if key.endswith("patch_projection/linear/kernel"):
        side = patch_side(value)
        return value.T.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2)[:, :, None]  # pixels are (row, column, RGB)
    if key.endswith("/kernel"):
        return value.T
    if key.endswith("/w"):
        return value.flatten(1) if key.endswith("/post/w") else value.flatten(1).T
    if key.endswith("/b"):
        return value.flatten()
    if key.endswith(("pos_emb/emb_var", "pooling_attention_query")):
        return value[None]
    return value


def patch_side(kernel: torch.Tensor) -> int:
    side = math.isqrt(kernel.shape[0] // 3)
    if 3 * side * side != kernel.shape[0]:
        raise CheckpointError(f"A patch of {kernel.shape[0]} numbers is no square of RGB pixels.")
    return side


def layers_of(state: StateDict, stack: str) -> dict[str, Any]:
    """What the layers `stack` + "0", "1", … tell of a transformer."""
    numbers = {int(key.removeprefix(stack).split("/")[0]) for key in state if key.startswith(stack)}
    return {
        "num_layers": len(numbers),
        "num_attention_heads": state[f"{stack}0/self_attention/query/w"].shape[1],
        "intermediate_size": state[f"{stack}0/ff_layer/ffn_layer1/linear/kernel"].shape[1],
    }


def vision_config(state: StateDict, stem: str, pooler: str) -> dict[str, Any]:
    """Fields of `VideoPrismVisionConfig`; `stem` stands before the encoder's keys, `pooler` is the pooling's name."""
    patch = patch_side(state[f"{stem}patch_projection/linear/kernel"])
    places, width = state[f"{stem}spatial_pos_emb/emb_var"].shape
    side = math.isqrt(places)
    if side * side != places:
        raise CheckpointError(f"{places} positions in space are no square; VideoPrism's images are.")
    spatial = layers_of(state, f"{stem}spatial_encoder/transformers_stack/x_layers_")
    temporal = layers_of(state, f"{stem}temporal_encoder/transformers_stack/x_layers_")
    auxiliary = "auxiliary_encoder/transformers_stack/x_layers_"
    config = {
        "image_size": side * patch,
        "num_frames": state[f"{stem}temporal_pos_emb/emb_var"].shape[0],
        "tubelet_size": [1, patch, patch],
        "hidden_size": width,
        "num_spatial_layers": spatial.pop("num_layers"),
        "num_temporal_layers": temporal["num_layers"],
        **spatial,
    }
    config["num_auxiliary_layers"] = sum(key.startswith(auxiliary) and key.endswith("/query/w") for key in state)
    query = state.get(f"{pooler}/pooling_attention/query/w")
    if query is not None and query[0].numel() != config["intermediate_size"]:
        config["pooler_size"] = query[0].numel()
    return config


def text_config(state: StateDict) -> dict[str, Any]:
    layers = layers_of(state, "text_encoder/unimodal_transformer/x_layers_")
    words, width = state["text_encoder/token_emb/emb_var"].shape
    return {"vocab_size": words, "hidden_size": width, "num_hidden_layers": layers.pop("num_layers"), **layers}


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. The cap of attention's logits is in no key; all published models have 50. Overrides
    of a clip model's towers are `vision_config` and `text_config`; what else comes is of the video tower, but for
    `max_position_embeddings`, and the cap is of both."""
    official = dict(one_by_one(state))
    stem = next((s for s in ("vision_encoder/", "encoder/", "") if f"{s}patch_projection/linear/kernel" in state), None)
    if stem is None or f"{stem}temporal_pos_emb/emb_var" not in state:
        raise CheckpointError(f"No VideoPrism checkpoint: keys begin {sorted(state)[:5]}, no patch_projection found.")
    given = rename_overrides(overrides, OFFICIAL_NAMES)
    arranged = {key: from_flax(key, value).contiguous() for key, value in official.items()}
    renamed = rename(arranged, lambda key: substitute(key, RENAMES))
    if stem != "vision_encoder/":
        config = vision_config(official, stem, "atten_pooler") | given
        unspecified = missing_overrides(given, "attn_logit_softcapping")
        if "classifier.weight" in renamed:
            config.setdefault("num_labels", renamed["classifier.weight"].shape[0])
            return Converted("VideoPrismForVideoClassification", config, renamed, unspecified=unspecified)
        renamed = rename(renamed, lambda key: key.removeprefix("vision_model."))
        return Converted("VideoPrismVisionModel", config, renamed, unspecified=unspecified)
    towers = {name: dict(given.pop(name, {})) for name in ("vision_config", "text_config")}
    texts = {name: given[name] for name in ("attn_logit_softcapping", "max_position_embeddings") if name in given}
    given.pop("max_position_embeddings", None)
    towers["text_config"] = {**texts, **towers["text_config"]}
    towers["vision_config"] = {**given, **towers["vision_config"]}
    unspecified = missing_overrides(
        towers,
        "vision_config.attn_logit_softcapping",
        "text_config.attn_logit_softcapping",
        "text_config.max_position_embeddings",
    )
    config = {
        "vision_config": vision_config(official, stem, "contrastive_vision_pooler") | towers["vision_config"],
        "text_config": text_config(official) | towers["text_config"],
    }
    text = VideoPrismTextConfig(**config["text_config"])
    renamed = rename(renamed, lambda key: key if key.startswith("text_model.") else f"video_model.{key}")
    half = text.hidden_size // 2
    table = sines_and_cosines(text.max_position_embeddings, text.hidden_size, half - 1)
    renamed["text_model.embeddings.position_embedding"] = table
    renamed["text_model.embeddings.position_ids"] = torch.arange(text.max_position_embeddings)[None]
    return Converted("VideoPrismClipModel", config, renamed, unspecified=unspecified)
