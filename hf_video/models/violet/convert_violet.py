"""The authors' checkpoints to VIOLET: `ckpt_violet_pretrain.pt`, and files of retrieval, open-ended and multiple-choice
question answering (`enc_img.…`, `enc_txt.emb_txt.…`, `trsfr.…`, `fc.…`, `fc_mtm.…`, `fc_mvm.…`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.utils import logging

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
from hf_video.models.video_swin import convert_video_swin as video_swin

logger = logging.get_logger(__name__)

# What shapes tell, and names that the authors' arguments have for the rest.
OFFICIAL_NAMES = {
    **dict.fromkeys(("swin", "bert_layers", "hidden_size", "vocab_size", "answers", "size_vocab")),
    "size_option": "options",
}
# Worked out, or written twice: old transformers saved the numbers of positions, and the bias of words under two names.
DERIVED = (*video_swin.DERIVED, ".position_ids", ".token_type_ids", "fc_mtm.predictions.bias")

RENAMES = (
    (r"^enc_img\.emb_cls$", "violet.video_embeddings.frame_token"),
    (r"^enc_img\.emb_pos$", "violet.video_embeddings.position_embeddings"),
    (r"^enc_img\.emb_len$", "violet.video_embeddings.time_embeddings"),
    (r"^enc_img\.norm\.", "violet.video_embeddings.norm."),
    (r"^enc_txt\.emb_txt\.", "violet.bert.embeddings."),
    (r"^trsfr\.", "violet.bert.encoder."),
    (r"^fc_mvm\.1\.", "visual_head.dense."),
    (r"^fc_mvm\.3\.", "visual_head.out."),
    (r"^fc_mtm\.predictions\.", "word_head."),
)


def convert(state: StateDict, overrides: Mapping[str, Any]) -> Converted:
    """Retrieval and multiple choice have the same tensors: with `options` (or the authors' `size_option`), any number,
    the latter is made. `video_config` and `text_config` are dictionaries of further fields. Raises CheckpointError for
    what is no VIOLET."""
    overrides = rename_overrides(overrides, OFFICIAL_NAMES)
    for name in ("enc_img.emb_pos", "enc_txt.emb_txt.word_embeddings.weight", "trsfr.layer.0.output.dense.weight"):
        if name not in state:
            raise CheckpointError(f"No VIOLET checkpoint: {name} is missing. Keys begin {sorted(state)[:5]}.")
    if (bias := state.get("fc_mtm.predictions.bias")) is not None:
        state = {"fc_mtm.predictions.decoder.bias": bias, **state}
    state = {key: value for key, value in state.items() if not key.endswith(DERIVED)}
    options, heads = overrides.pop("options", None), overrides.pop("bert_heads", None)
    swin = {key.removeprefix("enc_img.swin."): v for key, v in state.items() if key.startswith("enc_img.swin.")}
    config = {
        "max_frames": state["enc_img.emb_len"].shape[1],
        "max_patches": state["enc_img.emb_pos"].shape[2] - 1,
        "retrieval_loss": "video",
        **overrides,
        "video_config": {
            **video_swin.infer_video_swin_config(swin, dict(overrides.get("video_config", {}))),
            "temporal_stride": 1,
        },
        "text_config": {**text_shapes(state, heads), **overrides.get("text_config", {})},
    }
    class_name, head = class_and_head(state, options)
    ids = ("mask_token_id", "special_token_ids")  # of BERT's uncased vocabulary; for masking while training
    parts = () if heads else ("text_config.num_attention_heads",)
    unspecified = missing_overrides(overrides, *parts, "video_config.window_size", "num_frames", *ids)
    if class_name == "VioletForVideoTextRetrieval":
        logger.warning_once(
            "Retrieval and multiple choice have the same tensors; this is read as retrieval. For multiple choice pass "
            "options= (the number of them, any)."
        )
        unspecified += missing_overrides(overrides, "retrieval_loss")
    if class_name == "VioletForQuestionAnswering":
        config.setdefault("num_labels", state["fc.3.weight"].shape[0])
    if class_name == "VioletForPreTraining":
        config["visual_vocab_size"] = state["fc_mvm.3.weight"].shape[0]
        config.setdefault("num_frames", 4)
    swin_name = video_swin.new_names(config["video_config"]["depths"])
    rules = (*RENAMES, (r"^fc\.1\.", f"{head}.dense."), (r"^fc\.3\.", f"{head}.out."))

    def rule(key: str) -> str:
        if key.startswith("enc_img.swin."):
            return "violet.swin." + swin_name(key.removeprefix("enc_img.swin."))
        return substitute(key, rules)

    state = rename(state, rule)
    if class_name == "VioletModel":
        state = rename(state, lambda key: key.removeprefix("violet."))
    return Converted(class_name, config, state, unspecified=unspecified)


def class_and_head(state: StateDict, options: int | None) -> tuple[str, str]:
    """The class that a file's tensors call for, and what its head is called there."""
    if "fc_mvm.3.weight" in state:
        return "VioletForPreTraining", "matching_head"
    if "fc.3.weight" not in state:
        return "VioletModel", ""
    if options is not None:
        return "VioletForMultipleChoice", "matching_head"
    if state["fc.3.weight"].shape[0] > 1:
        return "VioletForQuestionAnswering", "classifier"
    return "VioletForVideoTextRetrieval", "matching_head"


def text_shapes(state: StateDict, heads: int | None) -> dict[str, Any]:
    """`BertConfig` values; heads have 64 channels each, as BERT's."""
    words, width = state["enc_txt.emb_txt.word_embeddings.weight"].shape
    return {
        "vocab_size": words,
        "hidden_size": width,
        "num_hidden_layers": count_layers(state, "trsfr.layer."),
        "num_attention_heads": heads or number_of_heads(width, {}, "bert_heads"),
        "intermediate_size": state["trsfr.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state["enc_txt.emb_txt.position_embeddings.weight"].shape[0],
        "type_vocab_size": state["enc_txt.emb_txt.token_type_embeddings.weight"].shape[0],
    }
