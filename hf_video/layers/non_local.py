"""The non-local block (Wang et al., 2018, arXiv:1711.07971): every place of a map sees all of a pooled one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.layers.convolution import BatchNorm, Triple


class NonLocalBlock(nn.Module):
    """x + norm(output(weights · value)): (B, D, T, H, W) -> the same.

    Keys and values come from the map after max-pooling by `pool`. `normalization` of the products of queries and keys:
    "softmax" (of them divided by the root of the width), or "dot_product" (they are divided by the number of keys).
    """

    def __init__(self, channels: int, inner: int, *, pool: Triple = (1, 2, 2), normalization: str = "dot_product"):
        super().__init__()
        self.pool, self.normalization = pool, normalization
        self.query = nn.Conv3d(channels, inner, 1)
        self.key = nn.Conv3d(channels, inner, 1)
        self.value = nn.Conv3d(channels, inner, 1)
        self.output = nn.Conv3d(inner, channels, 1)
        self.norm = BatchNorm(channels)
        self.norm.starts_at_zero = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = F.max_pool3d(x, self.pool) if max(self.pool) > 1 else x
        query, key, value = self.query(x).flatten(2), self.key(pooled).flatten(2), self.value(pooled).flatten(2)
        products = query.transpose(1, 2) @ key  # (B, places, places of the pooled map)
        if self.normalization == "softmax":
            weights = (products * query.shape[1] ** -0.5).softmax(-1)
        else:
            weights = products / key.shape[2]
        seen = (weights @ value.transpose(1, 2)).transpose(1, 2)
        return x + self.norm(self.output(seen.unflatten(2, x.shape[2:])))
