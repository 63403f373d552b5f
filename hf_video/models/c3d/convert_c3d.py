"""Official C3D checkpoints to ours. Three layouts:

- DavideA/c3d-pytorch's `c3d.pickle` and jfzhang95's trained networks: `conv1`, `conv2`, `conv3a` … `fc8`;
- jfzhang95's `c3d-pretrained.pth`: `features.0` … `features.18`, `classifier.0`, `classifier.3`, without a classifier;
- mmaction2: `backbone.conv1a.conv` … `backbone.fc7`, `cls_head.fc_cls`, or the backbone alone without its prefix.
"""

from __future__ import annotations

import math
import re
from typing import Any

from hf_video.base.convert import Converted, StateDict, missing_overrides, rename, rename_overrides
from hf_video.errors import CheckpointError
from hf_video.models.c3d.configuration_c3d import C3DConfig
from hf_video.models.c3d.modeling_c3d import LAYERS

OFFICIAL_NAMES = {
    "num_classes": "num_labels",
    "dropout_ratio": "classifier_dropout",
    "out_dim": None,
    "pretrained": None,
}

PLACE = {"conv1a": "c3d.embeddings"} | {name: f"c3d.encoder.layer.{i}" for i, (name, _, _) in enumerate(LAYERS)}
PLACE |= {"conv1": PLACE["conv1a"], "conv2": PLACE["conv2a"]}
# Positions in an nn.Sequential of convolutions, ReLUs and poolings.
SEQUENTIAL = dict(
    zip(("0", "3", "6", "8", "11", "13", "16", "18"), ("conv1a", *(n for n, _, _ in LAYERS)), strict=True)
)
LINEAR = {"classifier.0": "c3d.fc6", "classifier.3": "c3d.fc7", "classifier.6": "classifier"}
LINEAR |= {"fc6": "c3d.fc6", "fc7": "c3d.fc7", "fc8": "classifier", "cls_head.fc_cls": "classifier"}


def c3d_name(key: str) -> str:
    key = key.removeprefix("backbone.")
    key = re.sub(r"^features\.(\d+)\.", lambda m: SEQUENTIAL.get(m[1], m[0]) + ".", key)
    match = re.match(r"(conv\w+)(?:\.conv)?\.(weight|bias)$", key)
    if match and match[1] in PLACE:
        return f"{PLACE[match[1]]}.conv.{match[2]}"
    layer, _, kind = key.rpartition(".")
    return f"{LINEAR.get(layer, layer)}.{kind}"


def frame_size(places: int, frames: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """Image size for the places (time · rows · columns) of the last map that fc6 reads. Where those of one frame make a
    square it is the official size; else any clip with as many places is taken, unless `image_size` is given."""
    per_frame = places // max(frames // 16, 1)
    rows = max(n for n in range(1, math.isqrt(per_frame) + 1) if per_frame % n == 0)
    columns = per_frame // rows
    size = [16 * (2 * rows - 1), 16 * (2 * columns - 1)]
    if rows == columns:
        return {"image_size": size[0]}
    return {"image_size": size, "any_grid": "image_size" not in overrides}


# mmaction2's UCF101 networks were trained on RGB less BGR's means, of frames that keep their proportions.
MMACTION = {"do_flip_channel_order": False, "image_mean": [104, 117, 128], "size": {"shortest_edge": 128}}


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. Pass `image_size` where frames were no squares, and `pool5_padding="ceil"` for
    weights that came from Caffe or Keras without being trained further in PyTorch."""
    processor = MMACTION if any(re.search(r"(^|\.)conv1a\.conv\.", key) for key in state) else {}
    state, overrides = rename(state, c3d_name), rename_overrides(overrides, OFFICIAL_NAMES)
    stem, fc6 = state.get("c3d.embeddings.conv.weight"), state.get("c3d.fc6.weight")
    if stem is None or fc6 is None:
        raise CheckpointError(f"No C3D checkpoint: keys begin {sorted(state)[:5]}; conv1 or fc6 is missing.")
    config = {
        "num_channels": stem.shape[1],
        "stem_channels": stem.shape[0],
        "fc_size": fc6.shape[0],
        "num_frames": C3DConfig.num_frames,
    }
    config |= frame_size(fc6.shape[1] // (8 * stem.shape[0]), overrides.get("num_frames", 16), overrides) | overrides
    told = {
        "processor": processor,
        "unspecified": missing_overrides(overrides, "image_size", "num_frames", "pool5_padding"),
    }
    if "classifier.weight" in state:
        config.setdefault("num_labels", state["classifier.weight"].shape[0])
        return Converted("C3DForVideoClassification", config, state, **told)
    return Converted("C3DModel", config, rename(state, lambda key: key.removeprefix("c3d.")), **told)
