"""VideoPrism's attention: softmax(c · tanh(q kᵀ / (c · √d))) v. The cap c keeps logits within ±c, and no fused kernel
of PyTorch knows it. So there are

- the formula as it stands, where probabilities are asked for, in training on a CPU, and in compiled CPU graphs, whose
  compiler fuses it;
- the same a few heads and queries at a time, elsewhere on a CPU: scores stay in the cache, and memory does not grow
  with their number;
- `flex_attention`, compiled, on a GPU.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers.integrations.flex_attention import flex_attention_forward

from hf_video.layers.linear import transformed

SCORES = 1 << 21  # of a block: 8 MB in float32


def capped_softmax(
    scores: torch.Tensor, scaling: float, softcap: float, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(c · tanh(scaling · scores / c) + mask) over the last dimension, in the scores' type; overwrites them.

    Half precision is left for the whole of it, as a logit near 50 would have steps of .25. There it is
    tanh(x) = 2 · sigmoid(2x) - 1, whose constant a softmax doesn't see: an eighth of tanh's time, and a rounding (of
    1e-6) that only float32 would notice."""
    if scores.dtype in (torch.float16, torch.bfloat16):
        capped = scores.float().mul_(2 * scaling / softcap).sigmoid_() * (2 * softcap)
    else:
        capped = scores.mul_(scaling / softcap).tanh_() * softcap
    return (capped if mask is None else capped + mask).softmax(dim=-1).to(scores.dtype)


def plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    softcap: float,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Three (B, heads, tokens, head_dim) -> context (B, tokens, heads, head_dim) and probabilities. `mask` is added to
    the capped logits; `dropout` is of the probabilities."""
    probs = capped_softmax(query @ key.transpose(-2, -1), scaling, softcap, mask)
    context = F.dropout(probs, dropout) @ value
    return context.transpose(1, 2).contiguous(), probs


def attention_in_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, softcap: float
) -> torch.Tensor:
    """As `plain_attention` without gradients, at most `SCORES` scores at a time: whole samples, or some of the heads,
    or some of the queries of one head."""
    batch, heads, tokens, _ = query.shape
    keys = key.shape[2]
    context = query.new_empty(batch, tokens, heads, value.shape[-1])
    samples = max(1, SCORES // (heads * tokens * keys))
    some_heads = heads if samples > 1 else min(heads, max(1, SCORES // (tokens * keys)))
    some_queries = tokens if some_heads > 1 else max(1, SCORES // keys)
    for b in range(0, batch, samples):
        for h in range(0, heads, some_heads):
            block = slice(b, b + samples), slice(h, h + some_heads)
            k, v = key[block].transpose(-2, -1), value[block]
            for t in range(0, tokens, some_queries):
                probs = capped_softmax(query[block][:, :, t : t + some_queries] @ k, scaling, softcap)
                context[block[0], t : t + some_queries, block[1]] = (probs @ v).transpose(1, 2)
    return context


def learns(*tensors: torch.Tensor) -> bool:
    """Whether autograd follows one of these. Within `torch.func`'s transforms a tensor doesn't say so: then too."""
    return torch.is_grad_enabled() and (transformed() or any(tensor.requires_grad for tensor in tensors))


def lean_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    softcap: float,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """`plain_attention`'s context, by the leanest way there is; masked attention is of short texts, and plain."""
    plain = mask is not None or dropout > 0
    if query.is_cuda and not plain and query.shape[-1] >= 16:
        return flex_attention_forward(module, query, key, value, None, scaling=scaling, softcap=softcap)[0]
    if plain or learns(query, key, value) or query.device.type != "cpu" or torch.compiler.is_compiling():
        return plain_attention(query, key, value, scaling, softcap, mask, dropout)[0]
    return attention_in_blocks(query, key, value, scaling, softcap)
