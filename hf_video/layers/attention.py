"""softmax(scaling · q kᵀ) v: which kernel makes it, forward and backward.

Functions have the arguments of transformers' attention interface: queries, keys and values (batch, heads, tokens,
head_dim) -> context (batch, tokens, heads, head_dim) and probabilities, or None where they are never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_video.layers.linear import has_tiles, multiplies_bf16, product, takes_onednn, transformed

SCORES_IN_CACHE = 2_500_000
QUERIES_IN_CACHE, MANY_QUERIES = 256, 1024
COLUMNS = 2

# A context or hidden state, and the probabilities of its attention where they were asked for.
Attended = tuple[torch.Tensor, torch.Tensor | None]


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> Attended:
    """softmax(scaling · q kᵀ + mask) v: (batch, heads, tokens, head_dim) -> (batch, tokens, heads, head_dim), probs."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scaling) @ key.transpose(-2, -1)
    if attention_mask is not None:
        scores = scores + attention_mask
    probs = scores.softmax(dim=-1)
    context = F.dropout(probs, p=dropout, training=module.training) @ value
    return context.transpose(1, 2).contiguous(), probs


def sdpa_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> Attended:
    """PyTorch's fused attention; shapes as in `eager_attention`, no probabilities.

    Stands in for transformers' function of the same name, which branches on the number of tokens: that number may come
    out of a mask (masked autoencoding), and a compiled or exported graph can't branch on data.
    """
    if attention_mask is None and dropout == 0.0:
        if plain_products_pay(query):
            return attention_by_heads(query, key, value, scaling), None
        if backward_by_products_pays(query, key, value):
            scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
            return FusedForward.apply(query, key, value, scaling), None
        # Several threads would wait for each other after every block.
        in_float32 = query.dtype == torch.float32 and takes_onednn(query, key, value)
        if in_float32 and query.shape[2] >= MANY_QUERIES and torch.get_num_threads() == 1:
            return attention_by_blocks(query, key, value, scaling), None
    context = F.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    context = context.transpose(1, 2)
    # An exporter takes the kernel apart, whose result then lies in memory otherwise than when this was traced.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()
    return context.clone(memory_format=torch.contiguous_format) if exporting else context.contiguous(), None


def plain_products_pay(query: torch.Tensor) -> bool:
    """bfloat16 on a CPU that multiplies bfloat16 vectors but not tiles (AVX512-BF16 without AMX): PyTorch's fused
    kernel is then as slow as in float32, forward and backward, which matrix products are not. While training they keep
    the probabilities, batch · heads · tokens² · 2 bytes a layer, as eager attention does."""
    return (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and multiplies_bf16()
        and not has_tiles()
    )


def backward_by_products_pays(*tensors: torch.Tensor) -> bool:
    """bfloat16 that learns on a CPU that multiplies tiles (AMX): the fused kernel's forward uses them well, its
    backward takes 1.2 to 3 times what matrix products do."""
    return (
        all(type(t) in (torch.Tensor, nn.Parameter) and t.dtype == torch.bfloat16 for t in tensors)
        and all(t.device.type == "cpu" and t.requires_grad for t in tensors)
        and torch.is_grad_enabled()
        and has_tiles()
        and not torch.compiler.is_compiling()
        and not transformed()
    )


class FusedForward(torch.autograd.Function):
    """softmax(scaling · q kᵀ) v by PyTorch's fused kernel, and its gradients by matrix products from probabilities that
    are made again, some samples or one head at a time (the formulas of FlashAttention, Dao et al., 2022, appendix B.2).
    (batch, heads, tokens, head_dim) -> (batch, tokens, heads, head_dim)."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        context, normaliser = fused(query, key, value, scale=scaling)  # (..., head_dim), and log Σ exp of each query
        context = context.transpose(1, 2).contiguous()
        ctx.save_for_backward(query, key, value, context, normaliser)
        ctx.scaling = scaling
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, context, normaliser = ctx.saved_tensors
        sums = (grad * context).sum(-1, dtype=torch.float32).transpose(1, 2)
        # What is subtracted from scores, and from the probabilities' gradients, is a part of the products.
        query, key = with_columns(query * ctx.scaling, -normaliser), with_columns(key)
        grad, value = with_columns(grad.transpose(1, 2), -sums), with_columns(value)
        grads = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in ctx.saved_tensors[:3]]
        batch, heads, tokens, _ = query.shape
        samples = SCORES_IN_CACHE // (heads * tokens * key.shape[2])
        one_head = [(b, h) for b in range(batch) for h in range(heads)]
        for part in one_head if samples == 0 else [slice(b, b + samples) for b in range(0, batch, samples)]:
            q, k, v, g = (t[part] for t in (query, key, value, grad))
            probs = (q @ k.mT).exp_()
            of_scores = (g @ v.mT).mul_(probs)
            width, depth = k.shape[-1] - COLUMNS, v.shape[-1] - COLUMNS
            grads[0][part] = (of_scores @ k[..., :width]).mul_(ctx.scaling)
            grads[1][part] = of_scores.mT @ q[..., :width]
            grads[2][part] = probs.mT @ g[..., :depth]
        return *grads, None


def with_columns(x: torch.Tensor, addend: torch.Tensor | None = None) -> torch.Tensor:
    """(..., n, d) with columns whose products with ones add `addend` (..., n), of float32, to every product of a row:
    what a half-precision number leaves of it is a second column. Without it: with the ones."""
    if addend is None:
        return F.pad(x, (0, COLUMNS), value=1.0)
    first = addend.to(x.dtype)
    return torch.cat([x, torch.stack([first, (addend - first).to(x.dtype)], dim=-1)], dim=-1)


def attention_by_heads(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None = None
) -> torch.Tensor:
    """softmax(scaling · q kᵀ) v, a few heads at a time, so that their scores stay in the cache; (batch, heads, tokens,
    head_dim) -> (batch, tokens, heads, head_dim). Scores are rounded to the inputs' type, as in `eager_attention`."""
    batch, _, tokens, head_dim = query.shape
    heads = max(1, SCORES_IN_CACHE // max(batch * tokens * key.shape[2], 1))
    query = query * (head_dim**-0.5 if scaling is None else scaling)
    groups = zip(query.split(heads, 1), key.transpose(-2, -1).split(heads, 1), value.split(heads, 1), strict=True)
    return torch.cat([(q @ k).softmax(-1) @ v for q, k, v in groups], dim=1).transpose(1, 2).contiguous()


def attention_by_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None = None
) -> torch.Tensor:
    """softmax(scaling · q kᵀ) v as in `attention_by_heads`, a head and a block of queries at a time, by `product`."""
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    key, value = key.contiguous(), value.transpose(-2, -1).contiguous()
    context = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[2])
    for clip in range(query.shape[0]):
        for head in range(query.shape[1]):
            parts = query[clip, head].split(QUERIES_IN_CACHE)
            probs = (product(part, key[clip, head]).softmax(-1) for part in parts)
            torch.cat([product(p, value[clip, head]) for p in probs], out=context[clip, :, head])
    return context


def attention_function(name: str | None) -> Callable[..., Attended]:
    """The function for `config._attn_implementation`: transformers' registry, with our own for eager and plain SDPA."""
    function = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
    return sdpa_attention if function is sdpa_attention_forward else function
