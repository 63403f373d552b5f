"""Official ActionFormer checkpoints (happyharrycn/actionformer_release). Their files hold `state_dict` and its moving
average `state_dict_ema`, which the authors evaluate."""

from __future__ import annotations

from typing import Any

from hf_video.base.convert import Converted, StateDict, missing_overrides
from hf_video.base.detection.convert import detection_overrides, detection_values, from_opentad, our_tensors
from hf_video.errors import CheckpointError

OFFICIAL_NAMES = {"n_head": "num_attention_heads", "n_mha_win_size": "window_size"}
RULES = [
    (r"\.ln1\.", ".attention_norm."),
    (r"\.ln2\.", ".mlp_norm."),
    (r"\.attn\.(query|key|value)_conv\.conv\.", r".attention.\1_conv."),
    (r"\.attn\.proj\.", ".attention.output."),
    (r"\.attn\.rel_pe$", ".attention.relative_positions"),
    (r"\.attn\.", ".attention."),
    (r"\.drop_path_attn\.", ".attention_path."),
    (r"\.drop_path_mlp\.", ".mlp_path."),
]
LINEAR = r"(mlp\.\d|attention\.(query|key|value|output)|projections\.\d+|laterals\.\d+)\.weight$"


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`; OpenTAD's ActionFormer too. Shapes don't tell the window, `max_length`, the grid
    and how segments are merged: pass `window_size`, `max_length`, `feature_stride`, …, or take a recipe's."""
    state, differing = from_opentad(state)
    if "backbone.stem.0.ln1.weight" not in state and "backbone.stem.0.conv1.conv.weight" not in state:
        raise CheckpointError(f"No ActionFormer checkpoint: keys begin {sorted(state)[:5]}; backbone.stem is missing.")
    overrides = detection_overrides(overrides, OFFICIAL_NAMES)
    is_conv = "backbone.stem.0.conv1.conv.weight" in state
    config = {
        **detection_values(state),
        **differing,
        "backbone": "conv" if is_conv else "transformer",
        "use_relative_positions": "backbone.stem.0.attn.rel_pe" in state,
        **({} if is_conv or "backbone.stem.0.drop_path_attn.scale" in state else {"drop_path_rate": 0.0}),
        **overrides,
    }
    ours = our_tensors(state, "actionformer", RULES, LINEAR)
    ours = {key: value[0, 0] if key.endswith("relative_positions") else value for key, value in ours.items()}
    unspecified = missing_overrides(
        overrides, "window_size", "max_length", "feature_stride", "feature_frames", "num_attention_heads"
    )
    return Converted(
        "ActionFormerForTemporalActionDetection",
        config,
        ours,
        unspecified=unspecified,
        optional={"detection_loss.normalizer"},
    )
