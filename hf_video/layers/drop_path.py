"""Stochastic depth (Huang et al., 2016, arXiv:1603.09382)."""

from __future__ import annotations

import torch
from torch import nn


class DropPath(nn.Module):
    """Drops whole residual branches while training: each slice along the first `dims` dimensions is kept with
    probability `1 - p` and scaled by `1 / (1 - p)`; identity in eval mode.

    `dims=1` drops per sample; a larger `dims` drops each row of a grid on its own, as TimeSformer's official code does
    for its temporal and spatial branches.
    """

    def __init__(self, p: float = 0.0, dims: int = 1) -> None:
        super().__init__()
        self.p = p
        self.dims = dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.p == 0.0 or not self.training:
            return x
        keep = 1.0 - self.p
        mask = x.new_empty(x.shape[: self.dims] + (1,) * (x.ndim - self.dims)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"p={self.p}, dims={self.dims}"


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Rates that rise linearly from 0 at the first block to `last` at the last one (every model here uses this)."""
    return [last * i / max(depth - 1, 1) for i in range(depth)]
