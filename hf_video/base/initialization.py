"""First values of weights: every module gets those that its model's `_init_weights` says."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init


def with_owners(owner: PreTrainedModel, module: nn.Module) -> Iterator[tuple[PreTrainedModel, nn.Module]]:
    """All modules below and `module` itself, each with the model whose `_init_weights` knows it."""
    for child in module.children():
        yield from with_owners(child if isinstance(child, PreTrainedModel) else owner, child)
    yield owner, module


class InitializesAllModules:
    """Mixed in before `PreTrainedModel`: modules without parameters of their own are initialised too."""

    @torch.no_grad()
    @init.guard_torch_init_functions()
    def initialize_weights(self) -> None:
        """As transformers does it for its own models. For others it passes by every module that has no parameters of
        its own, and with it the initialisation of attentions, MLPs and whole models; that spares unguarded code of
        users, and so it stays for classes that are derived from ours elsewhere."""
        if not type(self).__module__.startswith("hf_video."):
            return super().initialize_weights()
        for owner, module in with_owners(self, self):
            owner._initialize_weights(module)
