"""`s3d_howto100m.pth` (keys `conv1.conv1`, `mixed_3b.conv_b0.conv1`, ..., `fc`) to ours. Its `text_module` is another
model's text half and is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hf_video.base.convert import Converted, StateDict, missing_overrides, rename, rename_overrides
from hf_video.errors import CheckpointError

NAMES = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
# Convolutions of a branch: their place in its Sequential.
BRANCHES = {"b0": "b0.0", "b1_a": "b1.0", "b1_b": "b1.1", "b2_a": "b2.0", "b2_b": "b2.1", "b3_b": "b3.0"}
GATES = {"b0": "b0.1", "b1": "b1.2", "b2": "b2.2", "b3": "b3.1"}


def convert(state: StateDict, overrides: Mapping[str, Any]) -> Converted:
    state = {key: value for key, value in state.items() if not key.startswith("text_module.")}
    if "conv1.conv1.weight" not in state or "fc.weight" not in state:
        raise CheckpointError(f"No S3D checkpoint: conv1 or fc is missing. Keys begin {sorted(state)[:5]}.")
    stem = state["conv1.conv1.weight"]
    config = {
        "stem_channels": stem.shape[0],
        "projection_dim": state["fc.weight"].shape[0],
        "gating": "gating.fc.weight" in state,
        "space_to_depth": tuple(stem.shape[2:]) == (2, 4, 4),
    }
    names = {"num_classes": None, "gating": None, "space_to_depth": None}
    given = rename_overrides(overrides, names)
    unspecified = missing_overrides(given, "image_size", "num_frames")
    return Converted("S3DModel", config | given, rename(state, s3d_name), unspecified=unspecified)


def s3d_name(key: str) -> str:
    key = re.sub(r"^fc\.", "projection.", key)
    key = re.sub(r"^gating\.", "embeddings.gate.", key)
    key = re.sub(r"^conv1\.", "embeddings.conv_1.", key)
    key = re.sub(r"^conv_2b\.", "embeddings.conv_2b.", key)
    key = re.sub(r"^conv_2c\.(\w+?)([12])\.", r"embeddings.conv_2c.\2.\1\2.", key)
    if block := re.match(r"mixed_(\w\w)\.(?:conv_(b\d(?:_[ab])?)|gating_(b\d))\.(.*)", key):
        name, conv, gate, rest = block.groups()
        place = f"encoder.layer.{NAMES.index(name)}.{BRANCHES[conv] if conv else GATES[gate]}"
        split = conv in ("b1_b", "b2_b") and re.match(r"(conv|bn)([12])\.", rest)
        key = f"{place}.{split[2]}.{rest}" if split else f"{place}.{rest}"
    # `1` and `2` of a separable convolution are places 0 and 1 of its Sequential.
    key = re.sub(r"(embeddings\.conv_2c|\.b[12]\.1)\.([12])\.", lambda m: f"{m[1]}.{int(m[2]) - 1}.", key)
    return re.sub(r"\.bn[12]\.", ".norm.", re.sub(r"\.conv[12]\.", ".conv.", key))
