"""Attention of each position to its neighbours on a line, without the quadratic table of scores."""

from __future__ import annotations

import torch
from torch.nn import functional as F

BLOCK = 64  # queries that share a block of keys; blocks of this size keep products large and the surplus small


def with_margins(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """(B, heads, T, D) with zeros before and after; `F.pad` would fill all of it before it copies."""
    batch, heads, _, columns = x.shape
    return torch.cat((x.new_zeros(batch, heads, before, columns), x, x.new_zeros(batch, heads, after, columns)), dim=2)


def local_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    window: int,
    *,
    bias: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention within `window // 2` positions to either side.

    Queries are taken in blocks; each block sees its own keys and those of the margins, so that time and memory grow
    with the length and not with its square.

    Args:
        query, key, value: (B, heads, T, D), float.
        mask: (B, T), 1 for positions that may be attended to. A query all of whose neighbours are 0 attends to them
            equally; the caller masks it.
        window: odd number of positions a query sees, its own in the middle.
        bias: (heads, window), added to the scores by distance; or None.
        dropout: probability with which weights are dropped.

    Returns:
        (B, heads, T, D).
    """
    length, radius = query.shape[2], window // 2
    size = min(BLOCK, length)
    blocks = -(-length // size)
    rest = blocks * size - length
    # Blocks become rows of the batch: (B · blocks, heads, size, D), which torch's fused attention takes.
    q = (F.pad(query, (0, 0, 0, rest)) if rest else query).unflatten(2, (blocks, size)).transpose(1, 2).flatten(0, 1)
    k, v = (
        with_margins(x, radius, radius + rest).unfold(2, size + 2 * radius, size).permute(0, 2, 1, 4, 3).flatten(0, 1)
        for x in (key, value)
    )
    # Keys that do not exist are -inf and masked ones -1e4, so that a row of masked keys alone has no NaN.
    keys = torch.where(mask.bool(), 0.0, -1e4).to(query.dtype)
    keys = F.pad(keys, (radius, radius + rest), value=float("-inf")).unfold(1, size + 2 * radius, size)
    distance = torch.arange(size + 2 * radius, device=query.device) - torch.arange(size, device=query.device)[:, None]
    band = torch.zeros(distance.shape, dtype=query.dtype, device=query.device)
    band = band.masked_fill((distance < 0) | (distance >= window), float("-inf"))
    scores = (keys[:, :, None, None] + band).flatten(0, 1)
    if bias is not None:
        scores = scores + bias.to(query.dtype)[:, distance.clamp(0, window - 1)]
    if rest:  # queries of the last block that are no positions would see nothing but keys that do not exist
        scores = scores.clamp_min(torch.finfo(query.dtype).min)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=scores, dropout_p=dropout)
    return out.unflatten(0, (-1, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :length]
