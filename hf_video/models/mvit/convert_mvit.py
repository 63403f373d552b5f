"""Official MViT checkpoints to ours: SlowFast (`{"model_state": …}`, keys `patch_embed.proj`, `blocks.0.attn.qkv`,
`head.projection`), torchvision (`conv_proj`, `pos_encoding`, `head.1`) and pytorchvideo (`patch_embed.patch_model`,
`cls_positional_encoding`, `attn.q`, `attn.k`, `attn.v`)."""

from __future__ import annotations

import re
from math import isqrt
from typing import Any

import torch

from hf_video.base.convert import Converted, StateDict, missing_overrides, rename, rename_overrides, substitute
from hf_video.errors import CheckpointError
from hf_video.models.mvit.convert_options import OFFICIAL_NAMES, unfolded

RENAMES = (
    (r"^(patch_embed\.proj|patch_embed\.patch_model|conv_proj)\.", "embeddings.patch_embeddings.projection."),
    (r"^(cls_positional_encoding|pos_encoding)\.", ""),
    (r"^(cls_token|class_token)$", "embeddings.cls_token"),
    (r"^(pos_embed_spatial|spatial_pos)$", "embeddings.position_embeddings"),
    (r"^(pos_embed_temporal|temporal_pos)$", "embeddings.time_embeddings"),
    (r"^(pos_embed_class|class_pos)$", "embeddings.cls_position_embeddings"),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.(proj|project\.0)\.", ".attention.output.dense."),
    (r"\.attn\._attention_pool_([qkv])\.pool\.", r".attention.pool_\1.conv."),
    (r"\.attn\._attention_pool_([qkv])\.norm\.", r".attention.pool_\1.norm."),
    (r"\.attn\.pool_([qkv])\.(pool\.)?weight$", r".attention.pool_\1.conv.weight"),
    (r"\.attn\.(pool_([qkv])\.norm_act\.0|norm_([qkv]))\.", r".attention.pool_\2\3.norm."),
    (r"\.attn\.", ".attention."),
    (r"\.mlp\.(fc1|0)\.", ".intermediate.dense."),
    (r"\.mlp\.(fc2|3)\.", ".output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"^(encoder\.layer\.\d+)\.(proj|project)\.", r"\1.projection."),
    (r"^(norm|norm_embed)\.", "layernorm."),
    (r"^head\.(projection|proj|1)\.", "classifier."),
)
TOKENS = ("cls_token", "position_embeddings", "time_embeddings", "cls_position_embeddings")


def without_second_names(state: StateDict) -> StateDict:
    """pytorchvideo's files hold each pooling twice, `pool_k` and `_attention_pool_k.pool`: one of them is enough."""
    kept = dict(state)
    for key in state:
        first = re.sub(r"_attention_(pool_[qkv])\.pool\.", r"\1.", key)
        first = re.sub(r"_attention_pool_([qkv])\.norm\.", r"norm_\1.", first)
        if first != key and first in state:
            if not torch.equal(state[key], state[first]):
                raise CheckpointError(f"{key} and {first} are names of one tensor, but differ in this file.")
            del kept[key]
    return kept


def our_layout(state: StateDict) -> StateDict:
    """Our names; q, k and v as one weight; tokens and positions with the dimensions ours have."""
    renamed = rename(without_second_names(state), lambda key: substitute(key, RENAMES))
    for key in [key for key in renamed if key.endswith(("attention.q.weight", "attention.q.bias"))]:
        parts = [key.replace("attention.q.", f"attention.{letter}.") for letter in "qkv"]
        if missing := [part for part in parts if part not in renamed]:
            raise CheckpointError(f"{key} is there, but not {', '.join(missing)}: the checkpoint is incomplete.")
        renamed[key.replace("attention.q.", "attention.qkv.")] = torch.cat([renamed.pop(part) for part in parts])
    for name in (f"embeddings.{token}" for token in TOKENS):
        if name in renamed:
            renamed[name] = renamed[name].reshape(1, -1, renamed[name].shape[-1])
    return renamed


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. Widths, heads, depth, kernels and positions are read from the shapes. Not told by
    them, and taken as every published model has them unless passed: queries are pooled by 2 wherever channels grow, the
    stride of keys and values ends at 1, and relative positions go with residual pooling. A height that is not the
    width: pass `image_size`. Official configurations are understood: SlowFast's `MVIT` section as `mvit={...}`,
    torchvision's `block_setting=[...]`, pytorchvideo's keywords."""
    renamed = our_layout(state)
    stem = renamed.get("embeddings.patch_embeddings.projection.weight")
    if stem is None or stem.ndim != 5 or "encoder.layer.0.attention.qkv.weight" not in renamed:
        raise CheckpointError(f"No MViT checkpoint: keys begin {sorted(state)[:5]}, no stem and attention found.")
    given = rename_overrides(unfolded(overrides), OFFICIAL_NAMES)
    config = infer_mvit_config(renamed) | given
    read_sizes(renamed, config)
    unspecified = missing_overrides(
        given, "image_size", "patch_stride", "residual_pooling", *assumed_pooling(config, given)
    )
    unspecified += missing_overrides(config, "num_frames")
    if "classifier.weight" not in renamed:
        return Converted("MViTModel", config, renamed, unspecified=unspecified)
    prefixed = {key if key.startswith("classifier.") else f"mvit.{key}": value for key, value in renamed.items()}
    return Converted("MViTForVideoClassification", config, prefixed, unspecified=unspecified)


def assumed_pooling(config: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Strides that were assumed: one kernel everywhere says nothing of them."""
    if config.get("pool_kernel") is None:
        return []
    return ["pool_q_stride"] + ([] if given.get("pool_kv_stride") else ["pool_kv_stride_adaptive"])


def infer_mvit_config(state: StateDict) -> dict[str, Any]:
    """Configuration values that the tensors tell, and those that every published model with such tensors has."""
    stem = state["embeddings.patch_embeddings.projection.weight"]
    first = "encoder.layer.0."
    attention_widths, widths = read_widths(state)
    relative = [f"{first}attention.rel_pos_{axis}" in state for axis in "ht"]
    in_attention = attention_widths != widths[:-1]
    fc1 = state[f"{first}intermediate.dense.weight"]
    config: dict[str, Any] = {
        "num_channels": stem.shape[1],
        "patch_kernel": list(stem.shape[2:]),
        "embed_dim": stem.shape[0],
        "num_hidden_layers": len(attention_widths),
        "dim_mul_in_attention": in_attention,
        "dim_mul": growth(widths[1:] if in_attention else widths, widths[0]),
        "mlp_ratio": fc1.shape[0] / fc1.shape[1],
        "qkv_bias": f"{first}attention.qkv.bias" in state,
        "use_absolute_positions": "embeddings.position_embeddings" in state,
        "rel_pos_spatial": relative[0],
        "rel_pos_temporal": relative[1],
        "residual_pooling": relative[0],
        "layer_norm_eps": 1e-6,
    }
    heads = read_heads(state, attention_widths)
    config |= {"num_attention_heads": heads[0], "head_mul": growth(heads, heads[0])}
    if "classifier.weight" in state:
        config["num_labels"] = state["classifier.weight"].shape[0]
    return config | read_pooling(state, attention_widths)


def read_widths(state: StateDict) -> tuple[list[int], list[int]]:
    """Channels of every block's attention, and of every block's input with those of the last one's output."""
    layers = {int(key.split(".")[2]) for key in state if key.startswith("encoder.layer.")}
    qkv, out = ("encoder.layer.{}.attention.qkv.weight", "encoder.layer.{}.output.dense.weight")
    needed = [name.format(i) for i in range(max(layers) + 1) for name in (qkv, out)]
    if missing := [name for name in needed if name not in state]:
        raise CheckpointError(f"Missing in the checkpoint (our names): {', '.join(missing)}.")
    blocks = range(max(layers) + 1)
    widths = [state[qkv.format(i)].shape[1] for i in blocks] + [state[out.format(max(blocks))].shape[0]]
    return [state[qkv.format(i)].shape[0] // 3 for i in blocks], widths


def growth(sizes: list[int], first: int) -> list[list[float]]:
    """`[place, factor]` wherever a list of sizes changes from one place to the next; before the list stands `first`."""
    before = [first, *sizes]
    return [[i, now / was] for i, (was, now) in enumerate(zip(before, sizes, strict=False)) if now != was]


def read_heads(state: StateDict, attention_widths: list[int]) -> list[int]:
    """Heads of every block: a pooling convolution has the channels of one head. A block without takes them from the
    nearest that has one."""
    channels = {int(key.split(".")[2]): value.shape[0] for key, value in state.items() if key.endswith(".conv.weight")}
    if not channels:
        raise CheckpointError("No pooling convolution found: the number of heads can't be read, and this is no MViT.")
    nearest = [channels[min(channels, key=lambda j: abs(i - j))] for i in range(len(attention_widths))]
    return [width // c for width, c in zip(attention_widths, nearest, strict=True)]


def read_pooling(state: StateDict, attention_widths: list[int]) -> dict[str, Any]:
    """Kernels and strides. One kernel everywhere says nothing of strides; kernels that differ are stride + 1."""
    kernels = {
        (letter, i): tuple(state[key].shape[2:])
        for i in range(len(attention_widths))
        for letter in "qk"
        if (key := f"encoder.layer.{i}.attention.pool_{letter}.conv.weight") in state
    }
    if len(set(kernels.values())) > 1 or sum(letter == "k" for letter, _ in kernels) < len(attention_widths):
        rows = {"q": [], "k": []}
        for (letter, i), kernel in kernels.items():
            rows[letter].append([i, *(max(k - 1, 1) for k in kernel)])
        strides = {"pool_q_stride": rows["q"], "pool_kv_stride": rows["k"], "pool_kv_stride_adaptive": None}
        return {"pool_kernel": None, **strides}
    grows = [i > 0 and width > attention_widths[i - 1] for i, width in enumerate(attention_widths)]
    rows = [[i, 1, 2, 2] if grows[i] else [i, 1, 1, 1] for i in range(len(grows)) if ("q", i) in kernels]
    start = 2 ** sum(row[2] > 1 for row in rows)
    kernel = list(next(iter(kernels.values())))
    return {"pool_kernel": kernel, "pool_q_stride": rows, "pool_kv_stride_adaptive": [1, start, start]}


def read_sizes(state: StateDict, config: dict[str, Any]) -> None:
    """Adds frames and pixels that position tables were made for, unless they are passed."""
    time, rows, columns = config.get("patch_stride", (2, 4, 4))
    if config["use_absolute_positions"]:
        frames = state["embeddings.time_embeddings"].shape[1]
        places = state["embeddings.position_embeddings"].shape[1]
        if "image_size" not in config and isqrt(places) ** 2 != places:
            raise CheckpointError(f"{places} positions in space are no square: pass image_size=(height, width).")
        side = isqrt(places)
    else:
        tables = [state.get(f"encoder.layer.0.attention.rel_pos_{axis}") for axis in "th"]
        frames, side = ((None if table is None else (table.shape[0] + 1) // 2) for table in tables)
    if frames is not None:
        config.setdefault("num_frames", frames * time)
    if side is not None:
        config.setdefault("image_size", side * rows if rows == columns else [side * rows, side * columns])
