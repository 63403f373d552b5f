"""Several linear maps as one product, where that is the same and less work.

A layer that is more than its weight (an adapter of PEFT around it, a quantised one, a hooked one) must be called:
reading its weight would silently pass by what was added. Such layers are recognised and called one by one.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def is_plain(layer: nn.Module) -> bool:
    """Whether calling this layer is `F.linear` with its weight and bias and nothing else."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__
    return type(layer) is nn.Linear and not hooked


def side_by_side(x: torch.Tensor, layers: tuple[nn.Linear, ...], bias: torch.Tensor | None = None) -> torch.Tensor:
    """(..., D) -> the layers' outputs joined along the last dimension, plus `bias` where the layers have none."""
    if not all(map(is_plain, layers)):
        joined = torch.cat([layer(x) for layer in layers], dim=-1)
        return joined if bias is None else joined + bias
    if layers[0].bias is not None:
        bias = torch.cat([layer.bias for layer in layers])
    return F.linear(x, torch.cat([layer.weight for layer in layers]), bias)


def chain(x: torch.Tensor, first: nn.Linear, second: nn.Linear) -> torch.Tensor:
    """second(first(x)) for two linear maps with nothing between them: as one map where that is fewer operations, which
    it is as soon as there are more rows than channels."""
    exporting = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    # Rows of one sample: a batch must not change its samples' rounding, nor a graph with a dynamic batch ask its size.
    many = not exporting and x.shape[1:-1].numel() > first.out_features
    if not (is_plain(first) and is_plain(second) and many):
        return second(first(x))
    return F.linear(x, second.weight @ first.weight, F.linear(first.bias, second.weight, second.bias))
