"""What the official layouts of ActionFormer and TriDet have in common: names such as `backbone.embd.0.conv.weight`, and
norms and scales of shape (1, C, 1); and OpenTAD's names for the same (`projection.embed.0.conv.weight`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_video.base.convert import StateDict, count_layers, rename, rename_overrides, substitute
from hf_video.errors import CheckpointError

HEADS = {"cls": "class_head", "reg": "offset_head", "start": "start_head", "end": "end_head"}
HEAD = "(cls|reg|start|end)_head"


def detection_rules(prefix: str) -> list[tuple[str, Any]]:
    """Rules for embeddings, neck and heads; `prefix` is the backbone's name in our model."""
    return [
        (r"^backbone\.proj\.(\d+)\.conv\.", rf"{prefix}.embeddings.projections.\1."),
        (r"^backbone\.embd\.(\d+)\.conv\.", rf"{prefix}.embeddings.layers.\1."),
        (r"^backbone\.embd_norm\.", f"{prefix}.embeddings.norms."),
        (r"\.(conv1|conv2)\.conv\.", r".\1."),
        (r"\.downsample\.conv\.", ".shortcut."),
        (r"^neck\.fpn_norms\.", f"{prefix}.neck.norms."),
        (r"^neck\.lateral_convs\.(\d+)\.conv\.", rf"{prefix}.neck.laterals.\1."),
        (r"^neck\.fpn_convs\.(\d+)\.conv\.", rf"{prefix}.neck.convs.\1."),
        (r"^reg_head\.scale\.", "offset_scales."),
        (rf"^{HEAD}\.(cls|offset)_head\.conv\.", lambda m: f"{HEADS[m[1]]}.output."),
        (rf"^{HEAD}\.head\.(\d+)\.conv\.", lambda m: f"{HEADS[m[1]]}.layers.{m[2]}."),
        (rf"^{HEAD}\.norm\.", lambda m: f"{HEADS[m[1]]}.norms."),
    ]


# OpenTAD's names, and those of ActionFormer's and TriDet's own code.
OPENTAD_RULES = (
    (r"^projection\.embed\.(\d+)\.norm\.", r"backbone.embd_norm.\1."),
    (r"^projection\.embed\.", "backbone.embd."),
    (r"^projection\.", "backbone."),
    (r"^rpn_head\.loss_normalizer$", "detection_loss.normalizer"),
    (r"^rpn_head\.scale\.", "reg_head.scale."),
    (r"^rpn_head\.cls_(start|end)_", r"rpn_head.\1_"),
    (r"^rpn_head\.(cls|reg|start|end)_convs\.(\d+)\.conv\.", r"\1_head.head.\2.conv."),
    (r"^rpn_head\.(cls|reg|start|end)_convs\.(\d+)\.norm\.", r"\1_head.norm.\2."),
    (r"^rpn_head\.reg_head\.", "reg_head.offset_head.conv."),
    (r"^rpn_head\.(cls|start|end)_head\.", r"\1_head.cls_head.conv."),
)
# What OpenTAD does otherwise than these: norms behind convolutions, and which segments are compared.
OPENTAD = {"conv_norm_eps": 1e-6, "mask_norms": True, "max_candidates": 2000, "min_length": 0.0}


def from_opentad(state: StateDict) -> tuple[StateDict, dict[str, Any]]:
    """The tensors of a detector of OpenTAD under the names of ActionFormer's and TriDet's own code, and the fields of
    the configuration that differ; a state dict of another layout as it is, and none.

    Raises:
        CheckpointError: it holds an encoder too.
    """
    if not any(key.startswith("projection.") for key in state):
        return state, {}
    if any(key.startswith("backbone.") for key in state):
        raise CheckpointError(
            "The checkpoint holds an encoder beside the detector (keys backbone.…): where that is a VideoMAE with "
            "adapters, convert it as adatad."
        )
    return rename(state, lambda key: substitute(key, OPENTAD_RULES)), dict(OPENTAD)


# Fields of the official files, in their sections; None is what shapes tell.
OFFICIAL_FIELDS: dict[str, str | None] = {
    "num_classes": "num_labels",
    "max_seq_len": "max_length",
    "use_abs_pe": "use_absolute_positions",
    "regression_range": "regression_ranges",
    "init_loss_norm": "loss_normalizer",
    "cls_prior_prob": "prior_probability",
    "loss_weight": "regression_loss_weight",
    "droppath": "drop_path_rate",
    "head_empty_cls": "empty_classes",
    "pre_nms_thresh": "score_threshold",
    "pre_nms_topk": "candidates_per_level",
    "duration_thresh": "min_length",
    "nms_method": "nms",
    "iou_threshold": "nms_iou_threshold",
    "min_score": "nms_min_score",
    "voting_thresh": "voting_threshold",
    "max_seg_num": "max_detections",
    "feat_stride": "feature_stride",
    "num_frames": "feature_frames",
    "default_fps": "feature_fps",
    "force_upsampling": "fixed_length",
    **dict.fromkeys(
        (
            *(
                "input_dim",
                "embd_dim",
                "fpn_dim",
                "head_dim",
                "embd_kernel_size",
                "embd_with_ln",
                "fpn_with_ln",
                "fpn_type",
            ),
            *("head_kernel_size", "head_num_layers", "head_with_ln", "backbone_type", "backbone_arch", "scale_factor"),
            *("fpn_start_level", "max_buffer_len_factor", "use_rel_pe", "clip_grad_l2norm", "ext_score_file"),
            *("center_sample", "center_sample_radius", "multiclass_nms", "meta"),
        )
    ),
}
SECTIONS = ("train_cfg", "test_cfg", "dataset", "model")


def detection_overrides(given: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
    """Overrides under our names. `given` may hold the official files' sections (`train_cfg`, `test_cfg`, …) as they
    are; `names` are a model's own fields."""
    flat = {key: value for key, value in given.items() if key not in SECTIONS}
    for section in SECTIONS:
        flat |= given.get(section) or {}
    ours = rename_overrides(flat, OFFICIAL_FIELDS | names)
    if "center_sample" in flat:
        ours["center_radius"] = flat.get("center_sample_radius", 1.5) if flat["center_sample"] == "radius" else None
    if "multiclass_nms" in flat:
        ours["class_agnostic_nms"] = not flat["multiclass_nms"]
    rate = int(ours.pop("downsample_rate", 1))
    if rate > 1 and "feature_stride" in ours:
        ours["feature_stride"] *= rate
    return ours


def detection_values(state: StateDict) -> dict[str, Any]:
    """Fields of `TemporalDetectionConfig` that the shapes of an official state dict tell."""
    streams = count_layers(state, "backbone.proj.")
    first, head = state["backbone.embd.0.conv.weight"], state["cls_head.cls_head.conv.weight"]
    projections = [state[f"backbone.proj.{i}.conv.weight"] for i in range(streams)]
    is_pyramid = "neck.lateral_convs.0.conv.weight" in state
    return {
        "input_size": [one.shape[1] for one in projections] if streams else first.shape[1],
        "stream_sizes": [one.shape[0] for one in projections] if streams else None,
        "hidden_size": first.shape[0],
        "embedding_layers": count_layers(state, "backbone.embd."),
        "embedding_kernel_size": first.shape[2],
        "embedding_norm": "backbone.embd_norm.0.weight" in state,
        "stem_layers": count_layers(state, "backbone.stem."),
        "branch_layers": count_layers(state, "backbone.branch."),
        "neck": "fpn" if is_pyramid else "identity",
        "neck_size": state["neck.lateral_convs.0.conv.weight"].shape[0] if is_pyramid else first.shape[0],
        "neck_norm": "neck.fpn_norms.0.weight" in state,
        "head_size": head.shape[1],
        "head_kernel_size": head.shape[2],
        "head_layers": count_layers(state, "cls_head.head.") + 1,
        "head_norm": "cls_head.norm.0.weight" in state,
        "num_labels": head.shape[0],
    }


def our_tensors(state: StateDict, prefix: str, rules: Sequence[tuple[str, Any]], linear: str) -> StateDict:
    """The state dict in our layers' names and shapes. `linear`: a pattern of keys that are products here and
    convolutions of one position there."""
    stems = count_layers(state, "backbone.stem.")

    def new_name(key: str) -> str:
        key = re.sub(r"^backbone\.stem\.(\d+)\.", rf"{prefix}.blocks.\1.", key)
        key = re.sub(r"^backbone\.branch\.(\d+)\.", lambda m: f"{prefix}.blocks.{stems + int(m[1])}.", key)
        return substitute(key, [*rules, *detection_rules(prefix)])

    def reshaped(key: str, value: Any) -> Any:
        if re.search(linear, key):
            return value[..., 0]
        return value.flatten() if value.ndim == 3 and value.shape[0] == value.shape[2] == 1 else value

    return {key: reshaped(key, value) for key, value in rename(state, new_name).items()}
