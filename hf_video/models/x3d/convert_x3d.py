"""Official X3D checkpoints (PyTorchVideo's `X3D_{XS,S,M,L}.pyth`: `{"model_state": {"blocks.…": …}}`) to ours."""

from __future__ import annotations

import re
from typing import Any

from hf_video.base.convert import Converted, StateDict, missing_overrides, rename, rename_overrides, substitute
from hf_video.errors import CheckpointError
from hf_video.models.x3d.configuration_x3d import STAGE_DEPTHS

OFFICIAL_NAMES = {
    "model_num_class": "num_labels",
    "input_channel": "num_channels",
    "input_clip_length": "num_frames",
    "input_crop_size": "image_size",
    "stem_dim_in": "stem_channels",
    "dropout_rate": "classifier_dropout",
    "head_dim_out": "head_size",
}

RENAMES = (
    (r"^blocks\.0\.conv\.conv_t\.", "x3d.embeddings.space."),
    (r"^blocks\.0\.conv\.conv_xy\.", "x3d.embeddings.time.conv."),
    (r"^blocks\.0\.norm\.", "x3d.embeddings.time.norm."),
    (r"\.branch2\.conv_([abc])\.", r".conv_\1.conv."),
    (r"\.branch2\.norm_([ac])\.", r".conv_\1.norm."),
    (r"\.branch2\.norm_b\.0\.", ".conv_b.norm."),
    (r"\.branch2\.norm_b\.1\.block\.0\.", ".gate.squeeze."),
    (r"\.branch2\.norm_b\.1\.block\.2\.", ".gate.excite."),
    (r"^blocks\.5\.pool\.pre_(conv|norm)\.", r"x3d.conv_5.\1."),
    (r"^blocks\.5\.pool\.post_conv\.", "x3d.fc_1."),
    (r"^blocks\.5\.proj\.", "classifier."),
)


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. Clip length and frame size are not in the shapes: pass `num_frames` and
    `image_size` for XS (4, 160) and S (13, 160); M's 16 and 224 are assumed, 312 for a network as deep as L. And pass
    `width_factor` where it is not 2."""
    stem = state.get("blocks.0.conv.conv_t.weight")
    if stem is None or "blocks.5.pool.pre_conv.weight" not in state:
        raise CheckpointError(f"No X3D checkpoint: keys begin {sorted(state)[:5]}; stem or head is missing.")
    found = [re.match(r"blocks\.(\d+)\.res_blocks\.(\d+)\.", key) for key in state]
    places = sorted({(int(m[1]), int(m[2])) for m in found if m})
    normed = {m[1] for key in state if (m := re.match(r"(.*)\.branch1_norm\.weight$", key))}

    def name(key: str) -> str:
        if match := re.match(r"(blocks\.(\d+)\.res_blocks\.(\d+))\.(branch1_conv|branch1_norm)?", key):
            layer = f"x3d.encoder.layer.{places.index((int(match[2]), int(match[3])))}."
            if match[4]:
                part = f"shortcut.{match[4][8:]}" if match[1] in normed else "shortcut"
                return layer + part + key[match.end() :]
            key = layer + key[match.end() :]
        return substitute(key, RENAMES)

    deepest = sum(stage == 3 for stage, _ in places)
    config = {
        "num_channels": stem.shape[1],
        "depth_factor": deepest / STAGE_DEPTHS[2],
        "head_size": state["blocks.5.pool.post_conv.weight"].shape[0],
    }
    if config["depth_factor"] == 5:  # L; the others are of one shape
        config["image_size"] = 312
    state = rename(state, name)
    state["x3d.fc_1.weight"] = state["x3d.fc_1.weight"].flatten(1)
    if "classifier.weight" in state:
        config["num_labels"] = state["classifier.weight"].shape[0]
    given = rename_overrides(overrides, OFFICIAL_NAMES)
    if given.get("causal"):
        raise CheckpointError(
            "The official X3D sees frames before and behind: its weights make no causal network. Leave causal out, "
            "save the model, and fine-tune it from there: hf-video train --set model.causal=true."
        )
    config |= given
    unspecified = missing_overrides(given, "image_size", "num_frames")
    if "classifier.weight" in state:
        return Converted("X3DForVideoClassification", config, state, unspecified=unspecified)
    return Converted("X3DModel", config, rename(state, lambda key: key.removeprefix("x3d.")), unspecified=unspecified)
