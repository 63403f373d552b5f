"""Official SlowFast checkpoints (PyTorchVideo's `SLOWFAST_8x8_R{50,101}.pyth`: `{"model_state": {"blocks.…": …}}`) to
ours."""

from __future__ import annotations

import re
from typing import Any

from hf_video.base.convert import Converted, StateDict, missing_overrides, rename, rename_overrides
from hf_video.errors import CheckpointError

OFFICIAL_NAMES = {
    "model_num_class": "num_labels",
    "dropout_rate": "classifier_dropout",
    "model_depth": None,
    "slowfast_fusion_conv_kernel_size": None,
}
PATHWAY = ("slow", "fast")


def slowfast_names(layers: dict[tuple[int, int], int], last: dict[int, int]):
    """Official names under ours. `layers` numbers the residual blocks through, `last` has each stage's last."""

    def name(key: str) -> str:
        if match := re.match(r"blocks\.0\.multipathway_blocks\.(\d)\.", key):
            return f"slowfast.embeddings.{PATHWAY[int(match[1])]}.{key[match.end() :]}"
        if match := re.match(r"blocks\.(\d)\.multipathway_blocks\.(\d)\.res_blocks\.(\d+)\.", key):
            rest = re.sub(r"^branch1_(conv|norm)", r"shortcut.\1", key[match.end() :])
            rest = re.sub(r"^branch2\.(conv|norm)_([abc])", r"conv_\2.\1", rest)
            layer = layers[int(match[1]), int(match[3])]
            return f"slowfast.encoder.layer.{layer}.{PATHWAY[int(match[2])]}.{rest}"
        if match := re.match(r"blocks\.(\d)\.multipathway_fusion\.(conv_fast_to_slow|norm)\.", key):
            stage, unit = int(match[1]), "norm" if match[2] == "norm" else "conv"
            place = f"encoder.layer.{last[stage]}" if stage in last else "embeddings"
            return f"slowfast.{place}.fusion.lateral.{unit}.{key[match.end() :]}"
        return re.sub(r"^blocks\.\d\.proj\.", "classifier.", key)

    return name


def infer_slowfast_config(state: StateDict, places: list[tuple[int, int]]) -> dict[str, Any]:
    slow, fast = (state[f"blocks.0.multipathway_blocks.{i}.conv.weight"] for i in (0, 1))
    fusion = state["blocks.0.multipathway_fusion.conv_fast_to_slow.weight"]
    stages = sorted({stage for stage, _ in places})
    first = "blocks.{}.multipathway_blocks.{}.res_blocks.0.branch2.conv_a.weight"
    return {
        "num_channels": slow.shape[1],
        "stem_channels": slow.shape[0],
        "beta_inverse": slow.shape[0] // fast.shape[0],
        "fusion_ratio": fusion.shape[0] // fusion.shape[1],
        "fusion_kernel": fusion.shape[2],
        "depths": [sum(s == stage for s, _ in places) for stage in stages],
        "slow_kernels": [state[first.format(stage, 0)].shape[2] for stage in stages],
        "fast_kernels": [state[first.format(stage, 1)].shape[2] for stage in stages],
    }


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`."""
    overrides = dict(overrides)
    if "blocks.0.multipathway_fusion.conv_fast_to_slow.weight" not in state:
        raise CheckpointError(f"No SlowFast checkpoint: keys begin {sorted(state)[:5]}; the first fusion is missing.")
    found = [re.match(r"blocks\.(\d)\.multipathway_blocks\.\d\.res_blocks\.(\d+)\.", key) for key in state]
    places = sorted({(int(m[1]), int(m[2])) for m in found if m})
    if windows := overrides.pop("head_pool_kernel_sizes", None):
        overrides.setdefault("head_pool", windows[0][1:])  # (frames, rows, columns) of the slow and of the fast pathway
    given = rename_overrides(overrides, OFFICIAL_NAMES)
    config = infer_slowfast_config(state, places) | given
    unspecified = missing_overrides(given, "alpha", "head_pool", "image_size", "num_frames")
    layers = {place: i for i, place in enumerate(places)}
    state = rename(state, slowfast_names(layers, {stage: layer for (stage, _), layer in layers.items()}))
    if "classifier.weight" not in state:
        state = rename(state, lambda key: key.removeprefix("slowfast."))
        return Converted("SlowFastModel", config, state, unspecified=unspecified)
    config.setdefault("num_labels", state["classifier.weight"].shape[0])
    return Converted("SlowFastForVideoClassification", config, state, unspecified=unspecified)
