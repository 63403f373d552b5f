"""Which layers a shortcut may replace by their weights.

Several linear maps as one product, a convolution over patches as a product, a norm folded into the convolution before
it: all of these read a layer's weights and don't call the layer. That is right only where a call does nothing else. A
layer that somebody hooked, offloaded, pruned, quantised, sharded, parametrised or put an adapter around must be called.
Every shortcut asks `is_plain`, and calls the layer where the answer is no.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of `layer` is what the class `kind` does with the layer's own `weight` and `bias`, and no more:
    `is_untouched`, and weights that are ordinary dense tensors in memory, not quantised, sharded, sparse or meta."""
    return is_untouched(layer, kind) and is_ordinary(layer.weight) and is_ordinary(layer.bias)


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of `module` runs the class's `forward` alone.

    False for any class but `kind` (parametrised and quantised layers are subclasses of it, adapters are other modules),
    for a hook of whatever sort, the module's own or a global one (pruning, the old weight and spectral norms and
    `accelerate`'s offloading are hooks), and for a `forward` that was put on the module itself."""
    return (
        type(module) is kind
        and "forward" not in module.__dict__
        and not module._forward_pre_hooks
        and not module._forward_hooks
        and not module._backward_pre_hooks
        and not module._backward_hooks
        and not torch_module._global_forward_pre_hooks
        and not torch_module._global_forward_hooks
        and not torch_module._global_backward_pre_hooks
        and not torch_module._global_backward_hooks
    )


def is_ordinary(tensor: torch.Tensor | None) -> bool:
    """Whether there is no tensor, or a dense one with memory that is `torch.Tensor` or `nn.Parameter` itself. While a
    graph is traced tensors stand for others, and are of the tracer's own class."""
    if tensor is None:
        return True
    known = type(tensor) in (nn.Parameter, torch.Tensor)
    traced = torch.compiler.is_compiling() and not is_traceable_wrapper_subclass(tensor)
    return (known or traced) and tensor.layout is torch.strided and tensor.device.type != "meta"
