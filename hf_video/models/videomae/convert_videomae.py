"""Official VideoMAE and VideoMAE v2 checkpoints (MCG-NJU/VideoMAE, OpenGVLab/VideoMAEv2) to ours: fine-tuned
(`{"module": …}` or `{"model": …}`, keys `blocks.…`, `fc_norm`, `head`), pretrained (`encoder.…`, `decoder.…`,
`mask_token`), plain encoders, and those of VideoMAE-Action-Detection (`norm` and `head`); the Hub's
`OpenGVLab/VideoMAEv2-*` files (`model.blocks.…`, `model.fc_norm`, no head)."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

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
from hf_video.base.detection.box_convert import BOX_FIELDS, box_overrides
from hf_video.errors import CheckpointError
from hf_video.layers.embeddings import sinusoid_table
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig

OFFICIAL_NAMES = {
    "img_size": "image_size",
    "all_frames": "num_frames",
    "num_classes": "num_labels",
    "embed_dim": "hidden_size",
    "encoder_embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "encoder_depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "encoder_num_heads": "num_attention_heads",
    "decoder_embed_dim": "decoder_hidden_size",
    "decoder_depth": "decoder_num_hidden_layers",
    "decoder_num_heads": "decoder_num_attention_heads",
    "qkv_bias": "qv_bias",
    "cos_attn": "cosine_attention",
    "normlize_target": "norm_pix_loss",
    "in_chans": "num_channels",
    "drop_rate": "hidden_dropout_prob",
    "attn_drop_rate": "attention_probs_dropout_prob",
    "fc_drop_rate": "classifier_dropout",
    "head_drop_rate": "classifier_dropout",
    **BOX_FIELDS,
    # What shapes tell, and what says nothing of a trained model; all of it stands in the Hub's `model_config`.
    **dict.fromkeys((
        "mlp_ratio", "decoder_num_classes", "encoder_num_classes", "norm_layer", "qk_scale", "init_values",
        "init_scale", "use_learnable_pos_emb", "with_cp", "input_size",
    )),
}  # fmt: skip

# What VideoMAE-Action-Detection shows its models: the whole frame, every fourth of them around the key frame.
DETECTION_PROCESSOR = {
    "size": {"shortest_edge": 256},
    "do_center_crop": False,
    "image_mean": [122.7717 / 255, 115.9465 / 255, 102.9801 / 255],
    "image_std": [0.225, 0.225, 0.225],
    "sampler": "at_fps",
    "sampler_options": {"rate": 4, "start": "center"},
}

# Huge and giant have heads of 80 and 88 channels; small has 6 heads (transformers' own converter says 16).
ENCODER_HEADS = {1280: 16, 1408: 16}
DECODER_HEADS = {640: 8}

RENAMES = (
    (r"^(encoder\.)?patch_embed\.proj", "videomae.embeddings.patch_embeddings.projection"),
    (r"^(encoder\.)?blocks\.", "videomae.encoder.layer."),
    (r"^(encoder\.)?norm\.", "videomae.layernorm."),
    (r"^decoder\.blocks\.", "decoder.decoder_layers."),
    *VIT_BLOCK,
    (r"\.attn\.(q_bias|v_bias|scale|qkv\.weight)$", r".attention.attention.\1"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"^head\.", "classifier."),
)


def split_qkv(state: StateDict) -> StateDict:
    """`qkv.weight` (3·D, D) as the three weights that our files hold."""
    split: StateDict = {}
    for key, value in state.items():
        if key.endswith(".qkv.weight"):
            stem = key.removesuffix("qkv.weight")
            split |= {f"{stem}{n}.weight": v for n, v in zip(("query", "key", "value"), value.chunk(3), strict=True)}
        else:
            split[key] = value
    return split


def blocks_of(state: StateDict, prefix: str) -> dict[str, int]:
    """Width, depth, intermediate size and, with cosine attention, heads of a stack of blocks."""
    first = f"{prefix}0."
    found = {
        "hidden_size": state[f"{first}norm1.weight"].shape[0],
        "num_hidden_layers": count_layers(state, prefix),
        "intermediate_size": state[f"{first}mlp.fc1.weight"].shape[0],
    }
    if f"{first}attn.scale" in state:
        found["num_attention_heads"] = state[f"{first}attn.scale"].shape[0]
    return found


def infer_videomae_config(state: StateDict, overrides: dict[str, Any]) -> dict[str, Any]:
    """Configuration values that an official state dict tells, and the official constants."""
    pretraining = "mask_token" in state
    stem = "encoder." if pretraining or "encoder.patch_embed.proj.weight" in state else ""
    if f"{stem}patch_embed.proj.weight" not in state or state[f"{stem}patch_embed.proj.weight"].ndim != 5:
        raise CheckpointError(f"No VideoMAE checkpoint: keys begin {sorted(state)[:5]}, no tubelet embedding found.")
    _, channels, tubelet, p, q = state[f"{stem}patch_embed.proj.weight"].shape
    config: dict[str, Any] = {
        **blocks_of(state, f"{stem}blocks."),
        "num_channels": channels,
        "tubelet_size": tubelet,
        "patch_size": p if p == q else [p, q],
        "qv_bias": f"{stem}blocks.0.attn.q_bias" in state,
        "cosine_attention": f"{stem}blocks.0.attn.scale" in state,
        "use_mean_pooling": f"{stem}norm.weight" not in state,
        "layer_norm_eps": 1e-6,
        "head_norm_eps": 1e-6,
    }
    if "head.weight" in state:
        config["num_labels"] = state["head.weight"].shape[0]
    if pretraining:
        config |= {f"decoder_{name}": value for name, value in blocks_of(state, "decoder.blocks.").items()}
    config |= overrides
    for name, width, known in (
        ("num_attention_heads", "hidden_size", ENCODER_HEADS),
        ("decoder_num_attention_heads", "decoder_hidden_size", DECODER_HEADS),
    ):
        if width in config and name not in config:
            config[name] = number_of_heads(config[width], known, name)
    return config


def is_our_table(key: str, value: torch.Tensor) -> bool:
    """A saved position table that is the sine-cosine one we work out; a learnt one is left in, to be refused."""
    if key not in ("pos_embed", "encoder.pos_embed", "decoder.pos_embed"):
        return False
    return torch.allclose(value[0].float(), sinusoid_table(*value.shape[1:]), atol=1e-4)


def check_tables(state: StateDict, config: dict[str, Any]) -> None:
    """Raises CheckpointError where a saved position table is for other clips than the configuration's."""
    made = VideoMAEConfig(**{k: v for k, v in config.items() if k in ("image_size", "num_frames", "patch_size")}
                          | {"tubelet_size": config["tubelet_size"]})  # fmt: skip
    tokens = math.prod(made.grid)
    for key, value in state.items():
        if is_our_table(key, value) and value.shape[1] != tokens:
            raise CheckpointError(
                f"{key} has positions for {value.shape[1]} tokens, and {made.num_frames} frames of {made.image_size} "
                f"pixels make {tokens}: pass the num_frames and image_size that the checkpoint was made for."
            )


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. No shape tells `image_size` and `num_frames`: pass them if not 224 and 16."""
    asked, overrides = box_overrides(overrides)
    given = rename_overrides(overrides, OFFICIAL_NAMES)
    config = infer_videomae_config(state, given)
    check_tables(state, config)
    learned = {key: value for key, value in state.items() if not is_our_table(key, value)}
    renamed = split_qkv(rename(learned, lambda key: substitute(key, RENAMES)))
    heads = [] if config["cosine_attention"] else ["num_attention_heads"]  # whose scales are one for each head
    unspecified = missing_overrides(given, *heads, "image_size", "num_frames")
    if "mask_token" in renamed:
        heads = [f"decoder_{name}" for name in heads]
        unspecified += missing_overrides(given, *heads, "norm_pix_loss")
        return Converted("VideoMAEForPreTraining", config, renamed, unspecified=unspecified)
    # Both norm and head: a classifier would read `fc_norm`, and boxes need the tokens' own norm.
    if asked or (asked is None and {"videomae.layernorm.weight", "classifier.weight"} <= set(renamed)):
        config.setdefault("position_interpolation", "bicubic")
        state = rename(renamed, lambda key: re.sub("^classifier", "box_head.classifier", key))
        name = "VideoMAEForSpatioTemporalActionDetection"
        return Converted(name, config, state, processor=DETECTION_PROCESSOR, unspecified=unspecified)
    if "fc_norm.weight" in renamed and "classifier.weight" not in renamed:
        config["num_labels"] = 0  # a fine-tuned encoder without its classifier still pools through fc_norm
    if "fc_norm.weight" in renamed or "classifier.weight" in renamed:
        return Converted("VideoMAEForVideoClassification", config, renamed, unspecified=unspecified)
    encoder = rename(renamed, lambda key: key.removeprefix("videomae."))
    return Converted("VideoMAEModel", config, encoder, unspecified=unspecified)
