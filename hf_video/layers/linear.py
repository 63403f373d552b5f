"""Several linear maps as one product, where that is the same and less work (see `layers.plain`)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.layers.plain import is_plain


def on_rows(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """layer(x) for (B, ..., D), handed over as (B, rows, D): bitsandbytes' 8-bit layers know no more dimensions."""
    return layer(x) if x.ndim <= 3 else layer(x.flatten(1, -2)).unflatten(1, x.shape[1:-1])


def side_by_side(x: torch.Tensor, layers: tuple[nn.Linear, ...], bias: torch.Tensor | None = None) -> torch.Tensor:
    """(..., D) -> the layers' outputs joined along the last dimension, plus `bias` where the layers have none."""
    if not all(is_plain(layer, nn.Linear) for layer in layers):
        joined = torch.cat([on_rows(layer, x) for layer in layers], dim=-1)
        return joined if bias is None else joined + bias
    if layers[0].bias is not None:
        bias = torch.cat([layer.bias for layer in layers])
    return F.linear(x, torch.cat([layer.weight for layer in layers]), bias)


def chain(x: torch.Tensor, first: nn.Linear, second: nn.Linear) -> torch.Tensor:
    """second(first(x)) for two linear maps with nothing between them: as one map where that is fewer operations, which
    it is as soon as there are more rows than channels."""
    exporting = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    # Rows of one sample: a batch must not change its samples' rounding, nor a graph with a dynamic batch ask its size.
    many = not exporting and x.shape[1:-1].numel() > x.shape[-1]
    if not (many and is_plain(first, nn.Linear) and is_plain(second, nn.Linear)):
        return on_rows(second, on_rows(first, x))
    return F.linear(x, second.weight @ first.weight, F.linear(first.bias, second.weight, second.bias))
