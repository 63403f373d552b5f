"""Image-text and video-text checkpoints to `VideoCLIPModel`: OpenAI's CLIP (`visual.…`, `transformer.…`), CLIP4Clip in
all its heads (`clip.…`, `transformerClip.…`, `lstm_visual.…`, `cross.…`), and Facebook's VideoCLIP (`mmmodel.…`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

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
from hf_video.models.s3d.convert_s3d import convert as convert_s3d

OFFICIAL_NAMES = {
    "max_frames": "num_frames",
    **dict.fromkeys((
        "cross_num_hidden_layers", "sim_header", "linear_patch", "embed_dim", "image_resolution", "vision_layers",
        "vision_width", "vision_patch_size", "context_length", "vocab_size", "text_width", "text_layers", "max_words",
    )),
}  # fmt: skip

# Written by some exports of CLIP, worked out here from the shapes; CLIP4Clip's LSTM carries positions it doesn't use.
UNUSED = ("input_resolution", "context_length", "vocab_size")

BERT_WORDS = 30522
TOWERS = ("video_config", "text_config")

RENAMES = (
    (r"^frame_position_embeddings\.weight$", "temporal_head.sequence.position_embedding.weight"),
    (r"^cross\.embeddings\.position_embeddings\.weight$", "temporal_head.sequence.position_embedding.weight"),
    (r"^transformerClip\.resblocks\.", "temporal_head.sequence.encoder.layers."),
    (r"^cross\.transformer\.resblocks\.", "temporal_head.sequence.encoder.layers."),
    (r"^cross\.pooler\.ln_pool\.", "temporal_head.norm."),
    (r"^cross\.pooler\.dense\.", "temporal_head.pooler."),
    (r"^similarity_dense\.", "temporal_head.score."),
    (r"^lstm_visual\.", "temporal_head.lstm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),  # transformers' own spelling
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^text_projection$", "text_projection.weight"),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.attn\.([qkv])_proj\.", r".self_attn.\1_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


def convert(state: StateDict, overrides: Mapping[str, Any]) -> Converted:
    """CLIP's heads have 64 channels and its activation is `quick_gelu` unless `vision_heads`, `text_heads`, or fields
    of `video_config` and `text_config` say otherwise (open_clip trained many models with "gelu"). Raises
    CheckpointError for ResNet towers and what is no CLIP."""
    if any(key.startswith("mmmodel.") for key in state):
        return convert_mmpt(state, overrides)
    # Without the wrapper's prefix, tensors of CLIP4Clip's own head stand beside `clip.…`.
    state = {key.removeprefix("clip."): value for key, value in state.items() if key not in UNUSED}
    if "visual.proj" not in state or "text_projection" not in state:
        raise CheckpointError(
            "No CLIP with a ViT: visual.proj or text_projection is missing (CLIP's ResNets are not supported). "
            f"Keys begin {sorted(state)[:5]}."
        )
    temporal = temporal_head_of(state)
    if temporal == "lstm":
        state.pop("frame_position_embeddings.weight", None)
    given = towers_of(rename_overrides(overrides, OFFICIAL_NAMES))
    config = configuration(state, temporal, given)
    towers = [f"{tower}.{name}" for tower in TOWERS for name in ("num_attention_heads", "hidden_act")]
    unspecified = missing_overrides(given, *towers, "num_frames")
    for name in ("visual.proj", "text_projection"):
        state[name] = state[name].t().contiguous()
    if "visual.conv2.weight" in state:  # (width, 3, 3 frames, p, p) as a 2-D one over the channels of three frames
        cube = state.pop("visual.conv2.weight")
        state["visual.conv1.weight"] = cube.transpose(1, 2).flatten(1, 2).contiguous()
    state = rename(split_joined(state), lambda key: substitute(key, RENAMES))
    return Converted("VideoCLIPModel", config, state, unspecified=unspecified)


def towers_of(given: dict[str, Any]) -> dict[str, Any]:
    """Overrides with those of the towers as fields of `video_config` and `text_config`."""
    heads = {"video_config": given.pop("vision_heads", None), "text_config": given.pop("text_heads", None)}
    more = {tower: {"num_attention_heads": n} for tower, n in heads.items() if n is not None}
    return given | {tower: {**more.get(tower, {}), **given.get(tower, {})} for tower in TOWERS}


def convert_mmpt(state: StateDict, overrides: Mapping[str, Any]) -> Converted:
    """Facebook's VideoCLIP. Its file holds what joins the vectors of S3D-G, one a second, and not S3D-G itself: the
    model takes `segment_features`. Where the HowTo100M model's tensors are among the given, as `s3d.…`, it has both,
    and takes frames."""
    names = dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings"))
    names |= {"num_hidden_video_layers": None, "num_hidden_text_layers": None, "max_video_len": "max_segments"}
    given = rename_overrides({k: v for k, v in overrides.items() if k != "num_attention_heads"}, names)
    parts = [given.pop(name, {}) for name in ("text_config", "temporal_config")]
    s3d = {key.removeprefix("s3d."): value for key, value in state.items() if key.startswith("s3d.")}
    state = {key.removeprefix("mmmodel."): value for key, value in state.items() if key.startswith("mmmodel.")}
    heads = overrides.get("num_attention_heads") or number_of_heads(
        state["text_encoder.embeddings.LayerNorm.weight"].shape[0], {}, "num_attention_heads"
    )
    config = {
        "text_config": {"model_type": "bert", **bert_sizes(state, "text_encoder.", heads), **parts[0]},
        "temporal_config": {**bert_sizes(state, "video_encoder.bert.", heads), **parts[1]},
        "temporal": "bert",
        "projection_dim": None,
        "normalize": False,
        "text_pooling": "mean_after_first",
        "loss": "softmax_sum",
        "logit_scale_init_value": None,
        "feature_dim": state["video_encoder.videomlp.linear1.weight"].shape[1],
    }
    words = config["temporal_config"]["vocab_size"]
    if "end_token_ids" not in given and words != BERT_WORDS:
        raise CheckpointError(
            f"The checkpoint has a vocabulary of {words} words, and nothing in it says which of them are [CLS] and "
            "[SEP], which stand around the video. Pass both: end_token_ids=(id of [CLS], id of [SEP]), in hf-video "
            "convert --set end_token_ids=[101,102]. Its tokenizer has them as cls_token_id and sep_token_id."
        )
    # Its pooler takes no part, and ours has none.
    state = {key: value for key, value in state.items() if not key.startswith("video_encoder.bert.pooler.")}
    renamed = rename(state, mmpt_name)
    if s3d:
        tower = convert_s3d(s3d, {})
        renamed |= {f"vision_model.{key}": value for key, value in tower.state_dict.items()}
        config |= {"feature_dim": None, "segment_frames": 30, "video_config": {"model_type": "s3d", **tower.config}}
    unspecified = missing_overrides(given | overrides, "end_token_ids", "max_segments")
    if not overrides.get("num_attention_heads"):
        unspecified += ("text_config.num_attention_heads",)
    if s3d:
        unspecified += missing_overrides(given, "segment_frames")
    derived = {f"{part}.embeddings.position_ids" for part in ("text_model", "temporal_head.bert")}
    return Converted("VideoCLIPModel", config | given, renamed, optional=derived, unspecified=unspecified)


def mmpt_name(key: str) -> str:
    key = re.sub(r"^text_encoder\.", "text_model.", key)
    key = re.sub(r"^video_encoder\.bert\.", "temporal_head.bert.", key)
    return re.sub(r"^video_encoder\.videomlp\.", "temporal_head.mlp.", key).replace("mlp.LayerNorm.", "mlp.norm.")


def bert_sizes(state: StateDict, prefix: str, heads: int) -> dict[str, Any]:
    """What the shapes of a BERT tell."""
    words = state[f"{prefix}embeddings.word_embeddings.weight"]
    return {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "num_attention_heads": heads,
        "num_hidden_layers": count_layers(state, f"{prefix}encoder.layer."),
        "intermediate_size": state[f"{prefix}encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state[f"{prefix}embeddings.position_embeddings.weight"].shape[0],
    }


def temporal_head_of(state: StateDict) -> str:
    heads = {"lstm": "lstm_visual.weight_ih_l0", "transformer": "transformerClip.resblocks.0.ln_1.weight"}
    heads["tight"] = "similarity_dense.weight"
    return next((name for name, key in heads.items() if key in state), "mean")


def configuration(state: StateDict, temporal: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the shapes tell, and what was `given`."""
    width, _, _, patch = state["visual.conv1.weight"].shape
    text_width = state["ln_final.weight"].shape[0]
    grid = isqrt(state["visual.positional_embedding"].shape[0] - 1)
    positions, dim = state["positional_embedding"].shape[0], state["text_projection"].shape[1]
    layers = {"transformer": "transformerClip.resblocks.", "tight": "cross.transformer.resblocks."}.get(temporal)
    heads = {
        tower: given[tower].get("num_attention_heads") or number_of_heads(channels, {}, name)
        for tower, channels, name in zip(TOWERS, (width, text_width), ("vision_heads", "text_heads"), strict=True)
    }
    found = {
        "video_config": {
            "model_type": "clip_vision_model",
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": count_layers(state, "visual.transformer.resblocks."),
            "num_attention_heads": heads["video_config"],
            "hidden_act": "quick_gelu",
            "image_size": grid * patch,
            "patch_size": patch,
            "projection_dim": dim,
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": state["token_embedding.weight"].shape[0],
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "num_hidden_layers": count_layers(state, "transformer.resblocks."),
            "num_attention_heads": heads["text_config"],
            "hidden_act": "quick_gelu",
            "max_position_embeddings": positions,
            "projection_dim": dim,
            "eos_token_id": 2,  # transformers' sign for "the largest id", which is where OpenAI's code looks
        },
        "projection_dim": dim,
        "temporal": temporal,
        "temporal_layers": count_layers(state, layers) if layers else 4,
        "max_position_embeddings": positions,
        "patch_frames": 3 if "visual.conv2.weight" in state else 1,
    }
    return found | given | {tower: {**found[tower], **given[tower]} for tower in TOWERS}


def split_joined(state: StateDict) -> StateDict:
    """`attn.in_proj_weight` and `…_bias` (3·D, …) as the three projections."""
    split: StateDict = {}
    for key, value in state.items():
        if joined := re.fullmatch(r"(.*\.attn)\.in_proj_(weight|bias)", key):
            for name, part in zip("qkv", value.chunk(3), strict=True):
                split[f"{joined[1]}.{name}_proj.{joined[2]}"] = part.clone()
        else:
            split[key] = value
    return split
