"""Official ActionFormer checkpoints (happyharrycn/actionformer_release): `backbone.embd.0.conv.weight`, … Their files
hold `state_dict` and its moving average `state_dict_ema`, which the authors evaluate."""

from __future__ import annotations

import re
from typing import Any

from hf_video.base.convert import Converted, StateDict, not_given, our_names, rename, substitute
from hf_video.errors import CheckpointError

OFFICIAL_NAMES = {
    "num_classes": "num_labels",
    "n_head": "num_attention_heads",
    "n_mha_win_size": "window_size",
    "max_seq_len": "max_length",
    "use_abs_pe": "use_absolute_positions",
    "use_rel_pe": None,
    "input_dim": None,
    "embd_dim": None,
}
RULES = (
    (r"^backbone\.proj\.(\d+)\.conv\.", r"actionformer.embeddings.projections.\1."),
    (r"^backbone\.embd\.(\d+)\.conv\.", r"actionformer.embeddings.layers.\1."),
    (r"^backbone\.embd_norm\.", "actionformer.embeddings.norms."),
    (r"\.ln1\.", ".attention_norm."),
    (r"\.ln2\.", ".mlp_norm."),
    (r"\.attn\.(query|key|value)_conv\.conv\.", r".attention.\1_conv."),
    (r"\.attn\.proj\.", ".attention.output."),
    (r"\.attn\.rel_pe$", ".attention.relative_positions"),
    (r"\.attn\.", ".attention."),
    (r"\.drop_path_attn\.", ".attention_path."),
    (r"\.drop_path_mlp\.", ".mlp_path."),
    (r"\.(conv1|conv2)\.conv\.", r".\1."),
    (r"\.downsample\.conv\.", ".shortcut."),
    (r"^neck\.fpn_norms\.", "actionformer.neck.norms."),
    (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"actionformer.neck.laterals.\1."),
    (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"actionformer.neck.convs.\1."),
    (r"^reg_head\.scale\.", "offset_scales."),
    (r"^cls_head\.cls_head\.conv\.", "class_head.output."),
    (r"^reg_head\.offset_head\.conv\.", "offset_head.output."),
    (r"^(cls|reg)_head\.head\.(\d+)\.conv\.", lambda m: f"{HEADS[m[1]]}.layers.{m[2]}."),
    (r"^(cls|reg)_head\.norm\.", lambda m: f"{HEADS[m[1]]}.norms."),
)
HEADS = {"cls": "class_head", "reg": "offset_head"}
LINEAR = re.compile(r"(mlp\.\d|attention\.(query|key|value|output)|projections\.\d+|laterals\.\d+)\.weight$")


def count(state: StateDict, pattern: str) -> int:
    """One more than the highest number that stands in the first group of `pattern`."""
    return max((int(match[1]) + 1 for key in state if (match := re.match(pattern, key))), default=0)


def reshaped(key: str, value: Any) -> Any:
    """A tensor as our layers hold it: products for convolutions of one position, norms and scales without axes of 1."""
    if key.endswith("relative_positions"):
        return value[0, 0]
    if LINEAR.search(key):
        return value[..., 0]
    return value.flatten() if value.ndim == 3 and value.shape[0] == value.shape[2] == 1 else value


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. Shapes don't tell the window, `max_length`, the grid and how segments are merged:
    pass `window_size`, `max_length`, `feature_stride`, …, or take a recipe's."""
    stems, branches = count(state, r"backbone\.stem\.(\d+)\."), count(state, r"backbone\.branch\.(\d+)\.")
    if not stems or "cls_head.cls_head.conv.weight" not in state:
        raise CheckpointError(f"No ActionFormer checkpoint: keys begin {sorted(state)[:5]}; backbone.stem is missing.")

    def new_name(key: str) -> str:
        key = re.sub(r"^backbone\.stem\.(\d+)\.", r"actionformer.blocks.\1.", key)
        key = re.sub(r"^backbone\.branch\.(\d+)\.", lambda m: f"actionformer.blocks.{stems + int(m[1])}.", key)
        return substitute(key, RULES)

    overrides = our_names(overrides, OFFICIAL_NAMES)
    streams = count(state, r"backbone\.proj\.(\d+)\.")
    first, head = state["backbone.embd.0.conv.weight"], state["cls_head.cls_head.conv.weight"]
    projections = [state[f"backbone.proj.{i}.conv.weight"] for i in range(streams)]
    has_path = "backbone.stem.0.drop_path_attn.scale" in state
    is_pyramid = "neck.lateral_convs.0.conv.weight" in state
    config = {
        "input_size": [one.shape[1] for one in projections] if streams else first.shape[1],
        "stream_sizes": [one.shape[0] for one in projections] if streams else None,
        "hidden_size": first.shape[0],
        "embedding_layers": count(state, r"backbone\.embd\.(\d+)\."),
        "embedding_kernel_size": first.shape[2],
        "embedding_norm": "backbone.embd_norm.0.weight" in state,
        "stem_layers": stems,
        "branch_layers": branches,
        "backbone": "conv" if "backbone.stem.0.conv1.conv.weight" in state else "transformer",
        "use_relative_positions": "backbone.stem.0.attn.rel_pe" in state,
        "neck": "fpn" if is_pyramid else "identity",
        "neck_size": state["neck.lateral_convs.0.conv.weight"].shape[0] if is_pyramid else first.shape[0],
        "neck_norm": "neck.fpn_norms.0.weight" in state,
        "head_size": head.shape[1],
        "head_kernel_size": head.shape[2],
        "head_layers": count(state, r"cls_head\.head\.(\d+)\.") + 1,
        "head_norm": "cls_head.norm.0.weight" in state,
        "num_labels": head.shape[0],
        **({} if has_path else {"drop_path_rate": 0.0}),
        **overrides,
    }
    ours = {key: reshaped(key, value) for key, value in rename(state, new_name).items()}
    unsaid = not_given(
        overrides, "window_size", "max_length", "feature_stride", "feature_frames", "num_attention_heads"
    )
    return Converted(
        "ActionFormerForTemporalActionDetection", config, ours, unsaid=unsaid, optional={"detection_loss.normalizer"}
    )
