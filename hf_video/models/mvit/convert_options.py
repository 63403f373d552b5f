"""The configurations of SlowFast, torchvision and pytorchvideo in our fields, and refusals of what they could build
besides but no published model has."""

from __future__ import annotations

from typing import Any

from hf_video.errors import CheckpointError

OFFICIAL_NAMES = {
    # SlowFast, beside its MVIT section
    "crop_size": "image_size",
    "num_classes": "num_labels",
    "base_yaml": None,
    # torchvision
    "spatial_size": "image_size",
    "temporal_size": "num_frames",
    "residual_pool": "residual_pooling",
    "proj_after_attn": "dim_mul_in_attention",
    "stochastic_depth_prob": "drop_path_rate",
    # pytorchvideo
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "input_channels": "num_channels",
    "patch_embed_dim": "embed_dim",
    "conv_patch_embed_kernel": "patch_kernel",
    "conv_patch_embed_stride": "patch_stride",
    "embed_dim_mul": "dim_mul",
    "atten_head_mul": "head_mul",
    "pool_q_stride_size": "pool_q_stride",
    "pool_kv_stride_size": "pool_kv_stride",
    "pool_kvq_kernel": "pool_kernel",
    "droppath_rate_block": "drop_path_rate",
    "dropout_rate_block": "hidden_dropout_prob",
    "head_dropout_rate": "classifier_dropout",
    "head_num_classes": "num_labels",
    "separate_qkv": None,
}
SECTION_NAMES = {
    "PATCH_KERNEL": "patch_kernel",
    "PATCH_STRIDE": "patch_stride",
    "EMBED_DIM": "embed_dim",
    "NUM_HEADS": "num_attention_heads",
    "MLP_RATIO": "mlp_ratio",
    "QKV_BIAS": "qkv_bias",
    "DEPTH": "num_hidden_layers",
    "DIM_MUL": "dim_mul",
    "HEAD_MUL": "head_mul",
    "POOL_KV_STRIDE": "pool_kv_stride",
    "POOL_KV_STRIDE_ADAPTIVE": "pool_kv_stride_adaptive",
    "POOL_Q_STRIDE": "pool_q_stride",
    "POOL_KVQ_KERNEL": "pool_kernel",
    "USE_ABS_POS": "use_absolute_positions",
    "REL_POS_SPATIAL": "rel_pos_spatial",
    "REL_POS_TEMPORAL": "rel_pos_temporal",
    "RESIDUAL_POOLING": "residual_pooling",
    "DIM_MUL_IN_ATT": "dim_mul_in_attention",
    "DROPPATH_RATE": "drop_path_rate",
    "DROPOUT_RATE": "hidden_dropout_prob",
}
# What our model is; a section that says otherwise describes another network.
SECTION_FIXED = {
    "MODE": "conv",
    "POOL_FIRST": False,
    "CLS_EMBED_ON": True,
    "PATCH_2D": False,
    "NORM": "layernorm",
    "NORM_STEM": False,
    "USE_MEAN_POOLING": False,
    "USE_FIXED_SINCOS_POS": False,
    "LAYER_SCALE_INIT_VALUE": 0.0,
}
# Starts and recipes: a finished network does not depend on them. PATCH_PADDING is checked beside its kernel.
SECTION_IDLE = {
    "SEPARATE_QKV",
    "SEP_POS_EMBED",
    "PATCH_PADDING",
    "HEAD_INIT_SCALE",
    "REL_POS_ZERO_INIT",
    "ZERO_DECAY_POS_CLS",
}


def unfolded(overrides: dict[str, Any]) -> dict[str, Any]:
    """`overrides` with `mvit={...}` (SlowFast) and `block_setting=[...]` (torchvision) written out in our fields."""
    options = dict(overrides)
    section, blocks = options.pop("mvit", None), options.pop("block_setting", None)
    if options.pop("residual_with_cls_embed", False) and options.get("residual_pool"):
        raise CheckpointError("residual_with_cls_embed=True with residual_pool=True is not supported: no model has it.")
    if "rel_pos_embed" in options:
        options["rel_pos_spatial"] = options["rel_pos_temporal"] = options.pop("rel_pos_embed")
    written = {**(from_section(section) if section else {}), **(from_blocks(blocks, options) if blocks else {})}
    written |= options
    if written.get("pool_kv_stride") or written.get("pool_kv_stride_size"):
        written.setdefault("pool_kv_stride_adaptive", None)
    return written


def from_section(section: dict[str, Any]) -> dict[str, Any]:
    """SlowFast's `cfg.MVIT`, all of it or some."""
    for name, value in section.items():
        if name == "REV" and not dict(value).get("ENABLE"):
            continue
        if name in SECTION_FIXED and value != SECTION_FIXED[name]:
            raise CheckpointError(f"MVIT.{name}={value!r} is not supported; only {SECTION_FIXED[name]!r} is.")
        if name not in SECTION_NAMES and name not in SECTION_FIXED and name not in SECTION_IDLE:
            raise CheckpointError(f"MVIT.{name} is not known. Known are: {', '.join(sorted(SECTION_NAMES))}.")
    if section.get("USE_ABS_POS") and not section.get("SEP_POS_EMBED", True):
        raise CheckpointError("MVIT.SEP_POS_EMBED=False, one table for space and time, is not supported.")
    kernel = section.get("PATCH_KERNEL", (3, 7, 7))
    if "PATCH_PADDING" in section and list(section["PATCH_PADDING"]) != [k // 2 for k in kernel]:
        raise CheckpointError(f"MVIT.PATCH_PADDING={section['PATCH_PADDING']} must be half of the kernel {kernel}.")
    found = {ours: section[theirs] for theirs, ours in SECTION_NAMES.items() if theirs in section}
    if not found.get("pool_kv_stride"):
        found.pop("pool_kv_stride", None)  # SlowFast writes "none" as []
    return found


def from_blocks(blocks: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    """torchvision's list of block settings (mappings or `MSBlockConfig`s)."""
    rows = [dict(block) if isinstance(block, dict) else vars(block) for block in blocks]
    kernels = [tuple(row[name]) for row in rows for name in ("kernel_q", "kernel_kv") if row[name]]
    strides = [tuple(row[name]) for row in rows for name in ("stride_q", "stride_kv") if row[name]]
    if len(set(kernels)) > 1 and kernels != [tuple(s + 1 if s > 1 else 1 for s in stride) for stride in strides]:
        raise CheckpointError(f"Pooling kernels {sorted(set(kernels))} are neither all the same nor stride + 1.")
    in_attention = options.get("proj_after_attn", False)
    grown = [row["output_channels"] / row["input_channels"] for row in rows]
    return {
        "embed_dim": rows[0]["input_channels"],
        "num_hidden_layers": len(rows),
        "num_attention_heads": rows[0]["num_heads"],
        "dim_mul": [[i if in_attention else i + 1, factor] for i, factor in enumerate(grown) if factor != 1],
        "head_mul": [
            [i, rows[i]["num_heads"] / rows[i - 1]["num_heads"]]
            for i in range(1, len(rows))
            if rows[i]["num_heads"] != rows[i - 1]["num_heads"]
        ],
        "pool_kernel": list(kernels[0]) if len(set(kernels)) == 1 else None,
        "pool_q_stride": [[i, *row["stride_q"]] for i, row in enumerate(rows) if row["kernel_q"]],
        "pool_kv_stride": [[i, *row["stride_kv"]] for i, row in enumerate(rows) if row["kernel_kv"]],
        "pool_kv_stride_adaptive": None,
    }
