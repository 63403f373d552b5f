"""Official Moment-DETR checkpoints (jayleicn/moment_detr): `transformer.encoder.layers.0.linear1.weight`, …"""

from __future__ import annotations

from typing import Any

from hf_video.base.convert import (
    Converted,
    StateDict,
    count_layers,
    missing_overrides,
    rename,
    rename_overrides,
    substitute,
)
from hf_video.errors import CheckpointError

OFFICIAL_NAMES = {
    "hidden_dim": None, "dim_feedforward": None, "enc_layers": None, "dec_layers": None, "position_embedding": None,
    "max_q_l": None, "t_feat_dim": None, "v_feat_dim": None, "n_input_proj": None, "max_v_l": None, "aux_loss": None,
    "contrastive_align_loss": None, "contrastive_hdim": None, "span_loss_type": None, "temperature": None,
    "contrastive_align_loss_coef": None, "set_cost_span": None, "set_cost_giou": None, "set_cost_class": None,
    "nheads": "num_attention_heads", "use_txt_pos": "use_text_positions", "clip_length": "clip_seconds",
    "span_loss_coef": "span_loss_weight", "giou_loss_coef": "giou_loss_weight", "label_loss_coef": "class_loss_weight",
    "lw_saliency": "saliency_loss_weight", "eos_coef": "background_weight",
}  # fmt: skip
INPUTS = {"vid": "video_projection", "txt": "text_projection"}
RULES = (
    (r"^transformer\.(encoder|decoder)\.norm\.", r"\1_norm."),
    (r"^transformer\.(encoder|decoder)\.layers\.", r"\1."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.multihead_attn\.", ".cross_attention."),
    (r"attention\.out_proj\.", "attention.output."),
    (r"\.linear1\.", ".mlp.0."),
    (r"\.linear2\.", ".mlp.3."),
    (r"\.norm(\d)\.", lambda match: f".norms.{int(match[1]) - 1}."),
    (r"^txt_position_embed\.position_embeddings\.", "text_positions.table."),
    (r"^txt_position_embed\.LayerNorm\.", "text_positions.norm."),
    (r"^span_embed\.layers\.(\d)\.", lambda match: f"span_head.{2 * int(match[1])}."),
    (r"^class_embed\.", "class_head."),
    (r"^saliency_proj\.", "saliency_head."),
    (r"^query_embed\.", "queries."),
    (r"^input_(vid|txt)_proj\.(\d)\.LayerNorm\.", lambda match: f"{INPUTS[match[1]]}.norms.{match[2]}."),
    (r"^input_(vid|txt)_proj\.(\d)\.net\.1\.", lambda match: f"{INPUTS[match[1]]}.layers.{match[2]}."),
)


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. Shapes don't tell the number of heads, whether words have positions, nor the
    weights of the loss."""
    if "query_embed.weight" not in state or "input_vid_proj.0.net.1.weight" not in state:
        raise CheckpointError(f"No Moment-DETR checkpoint: keys begin {sorted(state)[:5]}; query_embed is missing.")
    overrides = rename_overrides(overrides, OFFICIAL_NAMES)
    config = {
        "video_size": state["input_vid_proj.0.net.1.weight"].shape[1],
        "text_size": state["input_txt_proj.0.net.1.weight"].shape[1],
        "hidden_size": state["class_embed.weight"].shape[1],
        "intermediate_size": state["transformer.encoder.layers.0.linear1.weight"].shape[0],
        "encoder_layers": count_layers(state, "transformer.encoder.layers."),
        "decoder_layers": count_layers(state, "transformer.decoder.layers."),
        "pre_norm": "transformer.encoder.norm.weight" in state,
        "num_queries": state["query_embed.weight"].shape[0],
        "input_layers": count_layers(state, "input_vid_proj."),
        "max_text_length": state["txt_position_embed.position_embeddings.weight"].shape[0],
        **overrides,
    }
    split: StateDict = {}
    for key, value in rename(state, lambda key: substitute(key, RULES)).items():
        if ".in_proj_" in key:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                split[key.replace(".in_proj_", f".{name}.")] = part
        else:
            split[key] = value
    unspecified = missing_overrides(overrides, "num_attention_heads", "use_text_positions")
    return Converted("MomentDetrForMomentRetrieval", config, split, unspecified=unspecified)
