"""Video Swin checkpoints to ours: the authors' (`{"state_dict": …}`, keys `backbone.layers.…`, `cls_head.fc_cls`),
mmaction2's (the same, with `norm3`), torchvision's `swin3d_*` (`features.…`, `head`); and Swin image checkpoints, the
authors' or transformers', inflated to video as in the paper's section 3.3."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isqrt
from typing import Any

import torch
from torch.nn import functional as F

from hf_video.base.convert import (
    VIT_BLOCK,
    Converted,
    StateDict,
    missing_overrides,
    rename,
    rename_overrides,
    substitute,
)
from hf_video.errors import CheckpointError
from hf_video.models.published_inputs import short_side
from hf_video.models.video_swin.configuration_video_swin import VideoSwinConfig

OFFICIAL_NAMES = {
    "num_classes": "num_labels",
    "in_chans": "num_channels",
    "in_channels": "num_channels",
    "embed_dims": "embed_dim",
    "drop_rate": "hidden_dropout_prob",
    "dropout": "hidden_dropout_prob",
    "attn_drop_rate": "attention_probs_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "stochastic_depth_prob": "drop_path_rate",
    "dropout_ratio": "classifier_dropout",
}

# Tables that a model works out for itself; files hold them or not.
DERIVED = ("relative_position_index", "attn_mask")

# Other layouts -> the authors' names.
TORCHVISION = (
    (r"^features\.(\d+)\.(\d+)\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}."),
    (r"^features\.(\d+)\.(norm|reduction)\.", lambda m: f"layers.{int(m[1]) // 2}.downsample.{m[2]}."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)
TRANSFORMERS = (
    (r"^swin\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.", ""),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.self\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)

# The authors' names -> ours, after the prefix of a block or merging has been numbered through.
RENAMES = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    *VIT_BLOCK,
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.attention."),
    (r"^norm\.", "layernorm."),
)


def authors_name(key: str) -> str:
    """The name in the authors' backbone of a key of any video layout; heads become `head.`."""
    key = key.removeprefix("backbone.")
    key = re.sub(r"^norm3\.", "norm.", key)
    return re.sub(r"^cls_head\.fc_cls\.", "head.", substitute(key, TORCHVISION))


def stage_depths(state: StateDict) -> list[int]:
    """Blocks of each stage, from the authors' names."""
    found: dict[int, int] = {}
    for key in state:
        if block := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", key):
            stage, number = map(int, block.groups())
            found[stage] = max(found.get(stage, 0), number + 1)
    if sorted(found) != list(range(len(found))) or not found:
        raise CheckpointError(
            f"No Video Swin checkpoint: stages {sorted(found)} found; keys begin {sorted(state)[:5]}."
        )
    return [found[stage] for stage in range(len(found))]


def new_names(depths: list[int]) -> Callable[[str], str]:
    """The rule from the authors' names to ours: blocks are counted through all stages, and a merging belongs to the
    first block after it."""
    starts = [sum(depths[:stage]) for stage in range(len(depths) + 1)]

    def rule(key: str) -> str:
        key = re.sub(
            r"^layers\.(\d+)\.blocks\.(\d+)\.", lambda m: f"encoder.layer.{starts[int(m[1])] + int(m[2])}.", key
        )
        key = re.sub(
            r"^layers\.(\d+)\.downsample\.", lambda m: f"encoder.layer.{starts[int(m[1]) + 1]}.downsample.", key
        )
        return substitute(key, RENAMES)

    return rule


def window_of(ways: int, overrides: Mapping[str, Any]) -> list[int]:
    """The window that a bias table of so many rows stands for: rows × columns are 7 × 7 in every published model."""
    window = list(overrides.get("window_size") or [(ways // 169 + 1) // 2, 7, 7])
    t, h, w = window
    if (2 * t - 1) * (2 * h - 1) * (2 * w - 1) != ways:
        raise CheckpointError(
            f"The relative position tables have {ways} rows; a window of {window} makes {(2 * t - 1)}·{2 * h - 1}·"
            f"{2 * w - 1}. Pass the window_size=(time, rows, columns) that the checkpoint was trained with."
        )
    return window


def infer_video_swin_config(state: StateDict, overrides: dict[str, Any]) -> dict[str, Any]:
    """Configuration values that a state dict under the authors' names tells."""
    width, channels, *patch = state["patch_embed.proj.weight"].shape
    tables = [state[f"layers.{i}.blocks.0.attn.relative_position_bias_table"] for i in range(len(stage_depths(state)))]
    config: dict[str, Any] = {
        "num_channels": channels,
        "patch_size": patch,
        "embed_dim": width,
        "depths": stage_depths(state),
        "num_heads": [table.shape[1] for table in tables],
        "mlp_ratio": state["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / width,
        "qkv_bias": "layers.0.blocks.0.attn.qkv.bias" in state,
        "patch_norm": "patch_embed.norm.weight" in state,
    }
    if "head.weight" in state:
        config["num_labels"] = state["head.weight"].shape[0]
    return config | overrides | {"window_size": window_of(tables[0].shape[0], overrides)}


def from_transformers(state: StateDict) -> StateDict:
    """A Swin image model's file as transformers writes it, under the authors' names; q, k and v become one."""
    state = rename(state, lambda key: substitute(key, TRANSFORMERS))
    joined: StateDict = {
        key: value for key, value in state.items() if not re.search(r"\.attn\.(query|key|value)\.", key)
    }
    for key in state:
        if part := re.match(r"(.*\.attn)\.query\.(weight|bias)$", key):
            stem, kind = part.groups()
            joined[f"{stem}.qkv.{kind}"] = torch.cat([state[f"{stem}.{n}.{kind}"] for n in ("query", "key", "value")])
    return joined


def inflate_swin(state: StateDict, patch_frames: int, window: list[int]) -> StateDict:
    """A Swin image model, under the authors' names, as a video model (section 3.3): the patch embedding is repeated
    over `patch_frames` and divided by them, the bias tables are repeated over time (and interpolated if the window has
    other rows and columns). A still video of whole windows gives what its frame gives the image model. The
    classifier is left out."""
    inflated: StateDict = {}
    for key, value in state.items():
        if key == "patch_embed.proj.weight":
            inflated[key] = value[:, :, None].repeat(1, 1, patch_frames, 1, 1) / patch_frames
        elif key.endswith("relative_position_bias_table"):
            side, wanted = isqrt(value.shape[0]), (2 * window[1] - 1, 2 * window[2] - 1)
            if (side, side) != wanted:
                table = value.t().unflatten(1, (side, side))[None].float()
                value = F.interpolate(table, size=wanted, mode="bicubic")[0].flatten(1).t().to(value.dtype)
            inflated[key] = value.repeat(2 * window[0] - 1, 1)
        elif not key.startswith("head."):
            inflated[key] = value
    return inflated


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. The shapes tell everything but `temporal_stride` (VIOLET: 1) and, where rows and
    columns are not 7, `window_size`. An image checkpoint becomes a `VideoSwinModel` of `patch_size` (2, 4, 4) and
    `window_size` (8, 7, 7), or what overrides say."""
    overrides = rename_overrides(overrides, OFFICIAL_NAMES)
    given = dict(overrides)
    state = {key: value for key, value in state.items() if not key.endswith(DERIVED)}
    torchvision = any(key.startswith("features.") for key in state)
    state = rename(state, authors_name)
    if any(key.endswith("patch_embeddings.projection.weight") for key in state):
        state = from_transformers(state)
    projection = state.get("patch_embed.proj.weight")
    if projection is None or projection.ndim not in (4, 5):
        raise CheckpointError(f"No Video Swin checkpoint: keys begin {sorted(state)[:5]}, no patch embedding found.")
    if projection.ndim == 4:
        window = list(overrides.setdefault("window_size", [8, 7, 7]))
        state = inflate_swin(state, overrides.get("patch_size", [2])[0], window)
    config = infer_video_swin_config(state, overrides)
    renamed = rename(state, new_names(config["depths"]))
    # torchvision tests the authors' weights on frames an eighth larger than the crop.
    processor = {"size": {"shortest_edge": short_side(VideoSwinConfig(**config)) * 8 // 7}} if torchvision else {}
    inflated = ["patch_size"] if projection.ndim == 4 else []
    unspecified = missing_overrides(given, "window_size", "temporal_stride", *inflated, "image_size", "num_frames")
    if "head.weight" not in renamed:
        return Converted("VideoSwinModel", config, renamed, processor=processor, unspecified=unspecified)
    head = {key.replace("head.", "classifier.", 1): v for key, v in renamed.items() if key.startswith("head.")}
    body = {f"video_swin.{key}": v for key, v in renamed.items() if not key.startswith("head.")}
    return Converted(
        "VideoSwinForVideoClassification", config, body | head, processor=processor, unspecified=unspecified
    )
