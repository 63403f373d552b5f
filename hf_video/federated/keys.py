"""Which tensors of a model travel, and which stay with a client."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from hf_video.errors import FederatedError, did_you_mean

POLICIES = {
    "all": "every tensor of the state dict",
    "trainable": "parameters that are trained, and buffers of the modules that own them",
    "adapters": "what PEFT added",
    "head": "what lies outside the backbone",
    "body": "the backbone (FedPer, FedRep: each client keeps its own head)",
    "without_batch_norms": "all but the parameters and statistics of batch norms (FedBN)",
    "without_layer_norms": "all but the parameters of layer norms",
}


@dataclass(frozen=True)
class KeyPolicy:
    """Names the tensors that travel.

    Args:
        rule: One of `POLICIES`, or a regular expression that is looked for in the names of tensors.

    Raises:
        FederatedError: It is neither.
    """

    rule: str = "all"

    def __post_init__(self) -> None:
        if self.rule in POLICIES:
            return
        near = did_you_mean(self.rule, POLICIES)
        try:
            if near:
                raise ValueError
            re.compile(self.rule)
        except (re.error, ValueError, TypeError):
            raise FederatedError(
                f"{self.rule!r} says nothing about which tensors travel.{near} Known: {', '.join(POLICIES)}, or a "
                "regular expression."
            ) from None

    def names(self, model: nn.Module) -> list[str]:
        """Returns the sorted names of the tensors that travel.

        Raises:
            FederatedError: There is not one, such as "adapters" of a model without.
        """
        every = list(model.state_dict())
        if self.rule == "all":
            chosen = set(every)
        elif self.rule == "trainable":
            chosen = _owned(model, lambda module: any(p.requires_grad for p in module.parameters(recurse=False)))
            chosen -= {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        elif self.rule == "adapters":
            chosen = {name for name in every if any(prefix in name for prefix in _adapter_prefixes(model))}
        elif self.rule in ("head", "body"):
            prefix = f"{_backbone(model)}."
            chosen = {name for name in every if name.startswith(prefix) == (self.rule == "body")}
        elif self.rule == "without_batch_norms":
            chosen = set(every) - _owned(model, lambda module: isinstance(module, _BatchNorm))
        elif self.rule == "without_layer_norms":
            chosen = set(every) - _owned(model, lambda module: isinstance(module, nn.LayerNorm))
        else:
            chosen = {name for name in every if re.search(self.rule, name)}
        if not chosen & set(every):
            meaning = POLICIES.get(self.rule, "a regular expression")
            raise FederatedError(f"{type(model).__name__} has no tensors that travel under {self.rule!r} ({meaning}).")
        return sorted(chosen & set(every))


def _owned(model: nn.Module, wanted: Callable[[nn.Module], bool]) -> set[str]:
    """Names of the parameters and buffers that modules of a kind own themselves."""
    found = set()
    for prefix, module in model.named_modules():
        if wanted(module):
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            found |= {f"{prefix}.{name}" if prefix else name for name, _ in own}
    return found


def _adapter_prefixes(model: nn.Module) -> set[str]:
    configs = getattr(model, "peft_config", None)
    if not configs:
        return set()
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    return {PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type] for config in configs.values()} | {"modules_to_save."}


def _backbone(model: nn.Module) -> str:
    inner = getattr(model, "base_model_prefix", "") if isinstance(model, PreTrainedModel) else ""
    if not inner or not hasattr(model, inner):
        raise FederatedError(f"{type(model).__name__} has no backbone apart from a head: name the tensors that travel.")
    return inner
