"""Official AdaTAD checkpoints (sming256/OpenTAD): whole detectors, and their encoders alone: VideoMAE in mmaction2's
names, with adapters."""

from __future__ import annotations

from typing import Any

from hf_video.base.convert import (
    Converted,
    StateDict,
    count_layers,
    missing_overrides,
    number_of_heads,
    rename,
    rename_overrides,
    substitute,
)
from hf_video.errors import CheckpointError
from hf_video.models.actionformer import convert_actionformer
from hf_video.models.adatad.configuration_adatad import ENCODER
from hf_video.models.videomae.convert_videomae import ENCODER_HEADS, is_our_table, split_qkv

PART = "encoder_config"
OFFICIAL_NAMES = {
    "img_size": f"{PART}.image_size",
    "embed_dims": f"{PART}.hidden_size",
    "depth": f"{PART}.num_hidden_layers",
    "num_heads": f"{PART}.num_attention_heads",
    "qkv_bias": f"{PART}.qv_bias",
    "drop_rate": f"{PART}.hidden_dropout_prob",
    "attn_drop_rate": f"{PART}.attention_probs_dropout_prob",
    **{name: f"{PART}.{name}" for name in ("patch_size", "drop_path_rate", "layer_norm_eps", "tubelet_size")},
    "input_size": "image_size",
    "total_frames": "num_frames",
    "adapter_index": "adapter_layers",
    "adapter_mlp_ratio": "adapter_ratio",
    "scale_factor": "frames_per_step",
    # What shapes tell, and what says nothing of a trained encoder.
    **dict.fromkeys(("in_channels", "mlp_ratio", "norm_cfg", "return_feat_map", "use_mean_pooling", "with_cp")),
}

ENCODER_PREFIX, DETECTOR_PARTS = "backbone.model.backbone.", ("projection.", "neck.", "rpn_head.")

RENAMES = (
    (r"^patch_embed\.projection", "embeddings.patch_embeddings.projection"),
    (r"^blocks\.", "encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.attention."),
    (r"\.mlp\.layers\.0\.0\.", ".intermediate.dense."),
    (r"\.mlp\.layers\.1\.", ".output.dense."),
    (r"\.adapter\.dwconv\.", ".adapter.depthwise."),
    (r"\.adapter\.conv\.", ".adapter.pointwise."),
)


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. Shapes don't tell the frames of a window and of a chunk, the size that positions
    were made for, and heads: pass `num_frames` and `encoder_config={"num_frames": …, "image_size": …,
    "num_attention_heads": …}`, or the official `total_frames`, `num_frames`, `img_size` and `num_heads`; of a whole
    detector also `frames_per_step` and what ActionFormer's converter asks for, in `detector_config`. The norm behind
    the encoder is left out: the sequence is taken before it."""
    overrides = dict(overrides)
    detector = {key: value for key, value in state.items() if key.startswith(DETECTOR_PARTS)}
    found = convert_actionformer.convert(detector, overrides.pop("detector_config", None) or {}) if detector else None
    state = {key.removeprefix(ENCODER_PREFIX): value for key, value in state.items() if key not in detector}
    if "patch_embed.projection.weight" not in state or not any(".adapter." in key for key in state):
        raise CheckpointError(f"No AdaTAD encoder: keys begin {sorted(state)[:5]}, no patch_embed or no adapter found.")
    official = OFFICIAL_NAMES | ({"num_frames": f"{PART}.num_frames"} if "total_frames" in overrides else {})
    given = rename_overrides(overrides, official)
    asked = {name.removeprefix(f"{PART}."): given.pop(name) for name in list(given) if name.startswith(f"{PART}.")}
    asked |= given.pop(PART, {})
    width, channels, tubelet, patch, _ = state["patch_embed.projection.weight"].shape
    depth = count_layers(state, "blocks.")
    adapters = [layer for layer in range(depth) if f"blocks.{layer}.adapter.gamma" in state]
    first = f"blocks.{adapters[0]}.adapter."
    encoder = {
        **ENCODER,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "intermediate_size": state["blocks.0.mlp.layers.0.0.weight"].shape[0],
        "num_channels": channels,
        "tubelet_size": tubelet,
        "patch_size": patch,
        "qv_bias": "blocks.0.attn.q_bias" in state,
        **asked,
    }
    if "num_attention_heads" not in encoder:
        encoder["num_attention_heads"] = number_of_heads(width, ENCODER_HEADS, "num_attention_heads")
    config = {
        "num_channels": channels,
        "adapter_layers": None if len(adapters) == depth else adapters,
        "adapter_ratio": state[f"{first}down_proj.weight"].shape[0] / width,
        "adapter_kernel_size": state[f"{first}dwconv.weight"].shape[2],
        **given,
        PART: encoder,
    }
    used = {
        key: value[..., 0] if key.endswith("adapter.conv.weight") else value
        for key, value in state.items()
        if not key.startswith("fc_norm.") and not is_our_table(key, value)
    }
    ours = split_qkv(rename(used, lambda key: substitute(key, RENAMES)))
    unspecified = missing_overrides(
        {**given, PART: asked}, "num_frames", f"{PART}.num_frames", f"{PART}.image_size", f"{PART}.num_attention_heads"
    )
    if found is None:
        return Converted("AdaTADModel", config, ours, unspecified=unspecified)
    sizes = {name: value for name, value in found.config.items() if name not in ("input_size", "num_labels")}
    asked_of = ("feature_stride", "window_size")
    return Converted(
        "AdaTADForTemporalActionDetection",
        {**config, "num_labels": found.config["num_labels"], "detector_config": sizes},
        {
            **{f"adatad.{key}": value for key, value in ours.items()},
            **{f"detector.{key}": value for key, value in found.state_dict.items()},
        },
        optional={f"detector.{key}" for key in found.optional},
        unspecified=(
            *unspecified,
            *missing_overrides(given, "frames_per_step"),
            *missing_overrides({"detector_config": sizes}, *(f"detector_config.{name}" for name in asked_of)),
        ),
    )
