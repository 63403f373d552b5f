"""Official TriDet checkpoints (dingfengshi/TriDet). Their files hold `state_dict` and its moving average
`state_dict_ema`, which the authors evaluate."""

from __future__ import annotations

from typing import Any

from hf_video.base.convert import Converted, StateDict, missing_overrides
from hf_video.base.detection.convert import detection_overrides, detection_values, from_opentad, our_tensors
from hf_video.errors import CheckpointError

OFFICIAL_NAMES = {
    "k": "window_scale",
    "init_conv_vars": "kernel_std",
    **dict.fromkeys(
        (
            "n_sgp_win_size",
            "downsample_type",
            "use_trident_head",
            "boudary_kernel_size",
            "sgp_mlp_dim",
            "num_bins",
            "dropout",
        )
    ),
}
RULES = [
    (r"\.ln\.", ".norm."),
    (r"\.gn\.", ".mlp_norm."),
    (r"\.psi\.", ".gate."),
    (r"\.convw\.", ".window."),
    (r"\.convkw\.", ".wide_window."),
    (r"\.global_fc\.", ".instant_scale."),
    (r"\.fc\.", ".instant."),
    (r"\.downsample\.1\.", ".downsample.projection."),
    (r"\.drop_path_out\.", ".path."),
    (r"\.drop_path_mlp\.", ".mlp_path."),
]
LINEAR = r"(mlp\.\d|downsample\.projection|laterals\.\d+)\.weight$"


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`; OpenTAD's TriDet too. Shapes tell the windows; `max_length`, the grid and how
    segments are merged must be passed, or taken from a recipe."""
    state, differing = from_opentad(state)
    if "backbone.stem.0.psi.weight" not in state and "backbone.stem.0.conv1.conv.weight" not in state:
        raise CheckpointError(f"No TriDet checkpoint: keys begin {sorted(state)[:5]}; backbone.stem is missing.")
    overrides = detection_overrides(overrides, OFFICIAL_NAMES)
    config = {**detection_values(state), **differing}
    branches = range(config["branch_layers"])
    has_trident = "start_head.cls_head.conv.weight" in state
    if "backbone.stem.0.psi.weight" in state:
        config |= {
            "backbone": "sgp",
            "intermediate_size": state["backbone.stem.0.mlp.0.weight"].shape[0],
            "window_size": [1, *(state[f"backbone.branch.{i}.psi.weight"].shape[2] for i in branches)],
            "downsampling": "avg" if "backbone.branch.0.downsample.1.weight" in state else "max",
            **({} if "backbone.branch.0.drop_path_out.scale" in state else {"drop_path_rate": 0.0}),
        }
    else:
        config["backbone"] = "conv"
    config["use_trident_head"] = has_trident
    if has_trident:
        config["num_bins"] = state["reg_head.offset_head.conv.weight"].shape[0] // 2 - 1
        config["boundary_kernel_size"] = state["start_head.cls_head.conv.weight"].shape[2]
    unspecified = missing_overrides(overrides, "max_length", "window_scale", "feature_stride", "feature_frames")
    return Converted(
        "TriDetForTemporalActionDetection",
        config | overrides,
        our_tensors(state, "tridet", RULES, LINEAR),
        unspecified=unspecified,
        optional={"detection_loss.normalizer"},
    )
