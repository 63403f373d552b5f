"""LoRA adapters of a federation's model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_video.errors import FederatedError


def add_adapters(model: nn.Module, options: Mapping[str, Any]) -> None:
    """Adds LoRA adapters (Hu et al., ICLR 2022) to a model by PEFT; they and the classifier are trained.

    Raises:
        FederatedError: PEFT is not there, or does not take the options.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(**options), model)
    except ImportError as error:
        raise FederatedError("lora needs PEFT: pip install peft") from error
    except (TypeError, ValueError) as error:
        raise FederatedError(f"lora={dict(options)!r} does not fit {type(model).__name__}: {error}") from error
    for name, parameter in model.named_parameters():
        if name.split(".")[0] == "classifier":
            parameter.requires_grad_(True)


def merged(model: nn.Module) -> nn.Module:
    """A copy of a model with its adapters merged into the weights; without adapters, the model itself."""
    if not getattr(model, "peft_config", None):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, module.get_base_layer())
    del plain.peft_config
    return plain
