"""Parameter groups: layer-wise decay of the learning rate, and who is left out of weight decay.

Layer-wise decay is BEiT's, as VideoMAE's scripts use it (optim_factory.py): with L blocks, the stem is layer 0, block i
layer i + 1, all that follows layer L + 1, and layer n learns at rate x decay ** (L + 1 - n).
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from hf_video.errors import ConfigError

# What wrappers (DDP, torch.compile, FSDP, checkpointing) put into names.
WRAPPERS = re.compile(r"(^module\.|_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.)")


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Parameter name -> factor of its learning rate.

    Raises ConfigError for a model that does not tell its layers (transformers' own class of the same name).
    """
    groups = getattr(model, "layer_groups", None)
    if groups is None:
        raise ConfigError(
            f"layer_decay needs a model of hf_video, which knows its layer_groups(); a {type(model).__name__} came. "
            "Load it through hf_video (without HF_VIDEO_OVERRIDE=0), or leave layer_decay out."
        )
    groups = groups()
    return {name: layer_decay ** (len(groups) - 1 - layer) for layer, names in enumerate(groups) for name in names}


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters without weight decay: of one dimension, tokens, positions."""
    if hasattr(model, "no_weight_decay"):
        return model.no_weight_decay()
    return {name for name, parameter in model.named_parameters() if parameter.ndim <= 1}


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float | None = None,
    backbone_rate: float = 1.0,
    decay_all: bool = False,
    described_by: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Groups for a torch optimiser: `params`, `lr`, `weight_decay`, and `lr_scale` to look at. One for each pair of
    scale and decay that occurs, frozen parameters left out.

    `backbone_rate` is a factor for all but the head (Video Swin's recipe). `described_by` is the model that knows the
    layers where `model` is a wrapper of it. Raises ConfigError where nothing is to be trained.
    """
    described_by = described_by or model
    scales = layer_scales(described_by, layer_decay) if layer_decay is not None else {}
    spared = set() if decay_all else undecayed(described_by)
    body = f"{getattr(described_by, 'base_model_prefix', '')}."
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for wrapped_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        name = WRAPPERS.sub("", wrapped_name)
        scale, decay = scales.get(name, 1.0), 0.0 if name in spared else weight_decay
        scale *= backbone_rate if name.startswith(body) else 1.0
        empty = {"params": [], "lr": learning_rate * scale, "weight_decay": decay, "lr_scale": scale}
        groups.setdefault((scale, decay), empty)["params"].append(parameter)
    if not groups:
        raise ConfigError("No parameter of the model has requires_grad=True: there is nothing to train.")
    return list(groups.values())
