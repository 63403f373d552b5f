"""Official V-JEPA 2 checkpoints (facebookresearch/vjepa2) to ours: pretrained ones (`{"encoder": …, "target_encoder":
…, "predictor": …}`, keys `module.backbone.blocks.…`), the state dict of an encoder alone, and with one of them the
probes of the authors' evaluations:

    checkpoint = torch.load("vitl.pt") | {"classifiers": torch.load("ssv2-vitl-16x2x3.pt")["classifiers"]}
    hf_video.from_official("vjepa2", checkpoint, num_frames=16)

Of V-JEPA 2-AC it takes the encoder, with a warning. Refused, each with its reason: V-JEPA 2.1 (other patches, norms and
positions), V-JEPA (1) with its predictor, probes of EPIC-KITCHENS (three queries on predicted tokens), SwiGLU encoders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers.utils import logging

from hf_video.base.convert import (
    Converted,
    StateDict,
    count_layers,
    is_array,
    missing_overrides,
    number_of_heads,
    rename,
    rename_overrides,
    substitute,
)
from hf_video.base.convert import unwrap as unwrap_one
from hf_video.errors import CheckpointError
from hf_video.models.vjepa2.configuration_vjepa2 import VJEPA2Config
from hf_video.models.vjepa2.encoder import VJEPA2Predictor

logger = logging.get_logger(__name__)

# Encoders of a file, best first: the moving average is what the authors evaluate and train their probes on.
ENCODERS = ("target_encoder", "ema_encoder", "encoder")

OFFICIAL_NAMES = {
    "img_size": "crop_size",
    "image_size": "crop_size",
    "resolution": "crop_size",
    "num_frames": "frames_per_clip",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_channels": "in_chans",
    "num_classes": "num_labels",
    "out_layers": "pooler_layers",
    "predictor_embed_dim": "pred_hidden_size",
    "pred_embed_dim": "pred_hidden_size",
    "pred_depth": "pred_num_hidden_layers",
    "pred_num_heads": "pred_num_attention_heads",
    "num_mask_tokens": "pred_num_mask_tokens",
    # What keys tell, and what says nothing of a trained model.
    **dict.fromkeys(("num_probe_blocks", "use_rope", "uniform_power", "use_sdpa", "use_silu", "wide_silu")),
}

BLOCK = (
    (r"\.attn\.(query|key|value|proj)\.", r".attention.\1."),
    (r"^(blocks|predictor_blocks)\.", "layer."),
)
ENCODER_RENAMES = (
    *BLOCK,
    (r"^patch_embed\.", "embeddings.patch_embeddings."),
    (r"^norm\.", "layernorm."),
    (r"^", "encoder."),
)
PREDICTOR_RENAMES = (
    *BLOCK,
    (r"^predictor_embed\.", "embeddings.predictor_embeddings."),
    (r"^mask_tokens$", "embeddings.mask_tokens"),
    (r"^predictor_norm\.", "layernorm."),
    (r"^predictor_proj\.", "proj."),
    (r"^", "predictor."),
)
PROBE_RENAMES = (
    (r"\.(self_attn|xattn|attn)\.(query|key|value|q)\.", lambda m: f".{m[1]}.{m[2][0]}_proj."),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.attn\.", ".self_attn."),
    (r"\.xattn\.", ".cross_attn."),
    (r"^pooler\.blocks\.", "pooler.self_attention_layers."),
    (r"^pooler\.cross_attention_block\.", "pooler.cross_attention_layer."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"^linear\.", "classifier."),
)


def unwrap(checkpoint: Mapping[str, Any]) -> StateDict:
    """The tensors of a file's parts, under "encoder/…", "predictor/…", "classifiers/0/…"; a file of other shape is
    taken for an encoder's."""
    parts: dict[str, Mapping[str, Any]] = {
        name: checkpoint[name] for name in (*ENCODERS, "predictor") if isinstance(checkpoint.get(name), Mapping)
    }
    probes = checkpoint.get("classifiers", ())
    parts |= {f"classifiers/{i}": probe for i, probe in enumerate([probes] if isinstance(probes, Mapping) else probes)}
    if not parts:
        parts = {"encoder": unwrap_one(checkpoint)}
    return {
        f"{part}/{re.sub(r'(^|[.])(module|backbone|_orig_mod)(?=[.])', '', key).lstrip('.')}": value
        for part, state in parts.items()
        for key, value in state.items()
        if is_array(value)
    }


def part_of(state: StateDict, part: str) -> StateDict:
    """The tensors of a part under their own names, joined weights of queries, keys and values as three or two."""
    split: StateDict = {}
    for key, value in state.items():
        if not key.startswith(f"{part}/"):
            continue
        name = key.removeprefix(f"{part}/")
        joined = re.search(r"\.(qkv|kv)\.(weight|bias)$", name)
        if joined is None:
            split[name] = value
            continue
        names = ("query", "key", "value")[-len(joined[1]) :]
        stem = name[: joined.start()]
        for piece, rows in zip(names, value.chunk(len(names)), strict=True):
            split[f"{stem}.{piece}.{joined[2]}"] = rows
    return split


def ratio_of(hidden: int, width: int) -> float:
    """The `mlp_ratio` that makes `hidden` channels of `width`, rounded down as models do it."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def stack_of(state: StateDict, prefix: str) -> dict[str, Any]:
    """Width, depth and ratio of a stack of blocks."""
    width, hidden = state[f"{prefix}0.norm1.weight"].shape[0], state[f"{prefix}0.mlp.fc1.weight"].shape[0]
    return {
        "hidden_size": width,
        "num_hidden_layers": count_layers(state, prefix),
        "mlp_ratio": ratio_of(hidden, width),
    }


def check_encoder(encoder: StateDict, predictor: StateDict) -> None:
    """Raises CheckpointError for what is no encoder of V-JEPA 2."""
    weight = encoder.get("patch_embed.proj.weight")
    if weight is None or "blocks.0.norm1.weight" not in encoder:
        raise CheckpointError(
            f"No V-JEPA 2 encoder found; keys begin {sorted(encoder)[:5]}. Expected a file with one of "
            f"{', '.join(ENCODERS)}, or an encoder's state dict. A probe's file has none: add its `classifiers` to the "
            "pretrained checkpoint's dictionary."
        )
    newer = [key for key in encoder if re.match(r"norms_block\.|patch_embed_img\.|(img|video)_mod_embed", key)]
    if newer:
        raise CheckpointError(
            f"This is a checkpoint of V-JEPA 2.1 ({newer[0]}), whose patches of images, norms and positions V-JEPA 2 "
            "doesn't have. It is not supported."
        )
    if weight.ndim != 5:
        raise CheckpointError(
            f"The patches have a weight of shape {tuple(weight.shape)}: this is an encoder of images."
        )
    if "blocks.0.mlp.fc3.weight" in encoder:
        raise CheckpointError("The blocks have SwiGLU layers (use_silu), which no published V-JEPA 2 has.")
    if "predictor_pos_embed" in predictor and sum(key.startswith("mask_tokens.") for key in predictor) == 2:
        raise CheckpointError(
            "The predictor has a table of positions and two mask tokens: this is V-JEPA (1), whose tokens have "
            "positions added. V-JEPA 2 rotates them."
        )
    if "pos_embed" in encoder:
        logger.warning(
            "The encoder's table of positions (pos_embed) is left out, as by the authors' loader: V-JEPA 2 rotates "
            "queries and keys instead. A V-JEPA (1) encoder, which has the same keys, would give wrong features."
        )


def choose_encoder(state: StateDict, wanted: str | None) -> str:
    """The name of the part to take; raises CheckpointError where the wanted one is not there."""
    there = [name for name in ENCODERS if any(key.startswith(f"{name}/") for key in state)]
    if wanted is not None and wanted not in there:
        raise CheckpointError(
            f"checkpoint_key={wanted!r} is not in the file, which has {', '.join(there) or 'no encoder'}."
        )
    return wanted or next(iter(there), "encoder")


def choose_probe(state: StateDict, wanted: int | None) -> StateDict:
    """The tensors of the attentive probe, or nothing where there is none. Raises CheckpointError where it must be said
    which."""
    there = sorted({int(key.split("/")[1]) for key in state if key.startswith("classifiers/")})
    if len(there) > 1 and wanted is None:
        raise CheckpointError(
            f"The file has {len(there)} probes, trained side by side with other learning rates: say which by "
            f"classifier=0 to {there[-1]}; the log of their evaluation says which is best."
        )
    if wanted is not None and wanted not in there:
        raise CheckpointError(f"classifier={wanted} is not in the file, which has {len(there)} probes.")
    probe = part_of(state, f"classifiers/{there[0] if wanted is None else wanted}") if there else {}
    if any(key.startswith(("verb_", "noun_", "action_")) for key in probe):
        raise CheckpointError(
            "This is a probe of action anticipation (EPIC-KITCHENS), with classifiers of verbs, nouns and actions on "
            "predicted tokens. It is not supported; those of Something-Something, Diving48, Kinetics and the like are."
        )
    return probe


def convert_predictor(predictor: StateDict) -> tuple[dict[str, Any], StateDict]:
    """Configuration and tensors of the predictor of masked tokens; nothing where there is none."""
    if "action_encoder.weight" in predictor:
        logger.warning("The action-conditioned predictor of V-JEPA 2-AC is left out: only its encoder is converted.")
    if not predictor or "action_encoder.weight" in predictor:
        logger.warning("The checkpoint has no predictor of masked tokens: the model's starts from random weights.")
        return {}, {}
    names = sorted((key for key in predictor if key.startswith("mask_tokens.")), key=lambda key: int(key.split(".")[1]))
    kept = {key: value for key, value in predictor.items() if key not in (*names, "predictor_pos_embed")}
    if names:
        kept["mask_tokens"] = torch.stack([predictor[name] for name in names])
    config = {f"pred_{name}": value for name, value in stack_of(kept, "predictor_blocks.").items()}
    config["pred_num_mask_tokens"] = len(names)
    return config, rename(kept, lambda key: substitute(key, PREDICTOR_RENAMES))


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. `checkpoint_key` says which encoder of a file is wanted ("encoder" is the one that
    was trained; without it the moving average is taken where there is one), `classifier` which of several probes."""
    given = dict(overrides)
    encoder = part_of(state, choose_encoder(state, given.pop("checkpoint_key", None)))
    probe = choose_probe(state, given.pop("classifier", None))
    given = rename_overrides(given, OFFICIAL_NAMES)
    predictor = part_of(state, "predictor")
    check_encoder(encoder, predictor)
    predictor_config, converted = convert_predictor(predictor)
    _, channels, tubelet, p, q = encoder["patch_embed.proj.weight"].shape
    config: dict[str, Any] = {
        **stack_of(encoder, "blocks."),
        **predictor_config,
        "in_chans": channels,
        "tubelet_size": tubelet,
        "patch_size": p if p == q else [p, q],
        "qkv_bias": "blocks.0.attn.query.bias" in encoder,
        "layer_norm_eps": 1e-6,
        **({"pooler_num_attention_heads": 16, "pooler_layer_norm_eps": 1e-5} if probe else {}),
        **given,
    }
    if config.get("num_attention_heads") is None:
        config["num_attention_heads"] = number_of_heads(config["hidden_size"], {1280: 16}, "num_attention_heads")
    if isinstance(config.get("crop_size"), (list, tuple)):
        config["crop_size"] = min(config["crop_size"])
    kept = {key: value for key, value in encoder.items() if key != "pos_embed"}
    converted |= rename(kept, lambda key: substitute(key, ENCODER_RENAMES))
    told = ["num_attention_heads", "crop_size", "frames_per_clip"]
    told += ["pred_num_attention_heads"] if predictor_config else []
    if not probe:
        return finished("VJEPA2Model", config, converted, given, told, "")
    if "linear.weight" in probe:
        config["num_labels"] = probe["linear.weight"].shape[0]
    config["num_pooler_layers"] = count_layers(probe, "pooler.blocks.")
    told += ["pooler_num_attention_heads", "pooler_layers"]
    converted = {f"vjepa2.{key}": value for key, value in converted.items()}
    converted |= rename(probe, lambda key: substitute(key, PROBE_RENAMES))
    return finished("VJEPA2ForVideoClassification", config, converted, given, told, "vjepa2.")


def finished(
    name: str, config: dict[str, Any], state: StateDict, given: dict[str, Any], told: list[str], prefix: str
) -> Converted:
    """The result; without a predictor in the file, its keys are optional."""
    optional: set[str] = set()
    if not any(key.startswith(f"{prefix}predictor.") for key in state):
        with torch.device("meta"):
            keys = VJEPA2Predictor(VJEPA2Config(**config)).state_dict()
        optional = {f"{prefix}predictor.{key}" for key in keys}
    return Converted(name, config, state, optional=optional, unspecified=missing_overrides(given, *told))
