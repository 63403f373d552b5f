"""The pre-norm transformer block of ViT (Dosovitskiy et al., 2021), under the names transformers writes to disk.

Attention runs through transformers' attention interface (eager, SDPA, flash, flex), and one product makes queries, keys
and values. `output_attentions=True` is right under every implementation: fused kernels never form the probabilities,
so such a call takes the eager path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_video.layers.linear import has_tiles, multiplies_bf16, on_rows, product, side_by_side, takes_onednn, transformed

SCORES_IN_CACHE = 2_500_000
QUERIES_IN_CACHE, MANY_QUERIES = 256, 1024

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
    return context.transpose(1, 2).contiguous(), None


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
        context = F.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2).contiguous()
        ctx.save_for_backward(query, key, value, context)
        ctx.scaling = scaling
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, context = ctx.saved_tensors
        sums = (grad * context).sum(-1, keepdim=True, dtype=torch.float32).to(grad.dtype).transpose(1, 2)
        grad = grad.transpose(1, 2)
        grads = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (query, key, value)]
        batch, heads, tokens, _ = query.shape
        samples = SCORES_IN_CACHE // (heads * tokens * key.shape[2])
        one_head = [(b, h) for b in range(batch) for h in range(heads)]
        for part in one_head if samples == 0 else [slice(b, b + samples) for b in range(0, batch, samples)]:
            q, k, v, g = (t[part].contiguous() for t in (query, key, value, grad))
            q = q * ctx.scaling
            probs = (q @ k.mT).softmax(-1)
            of_scores = (g @ v.mT).sub_(sums[part]).mul_(probs)
            for whole, of_part in zip(
                grads, ((of_scores @ k).mul_(ctx.scaling), of_scores.mT @ q, probs.mT @ g), strict=True
            ):
                whole[part] = of_part
        return *grads, None


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


class SelfAttention(nn.Module):
    """The inner half of a ViT attention: projections and the softmax product. Subclasses say how q, k, v are made.

    `config` is kept because `model.set_attn_implementation()` changes it in place.
    """

    is_causal = False

    def __init__(self, config: PreTrainedConfig, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = float(config.attention_probs_dropout_prob)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., 3·D): queries, keys and values side by side."""
        raise NotImplementedError

    def split_heads(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(batch, tokens, 3·D) -> three views (batch, heads, tokens, head_dim)."""
        return qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        output_attentions: bool = False,
        scaling: float | None = None,
        mask: torch.Tensor | None = None,
    ) -> Attended:
        """Three (batch, heads, tokens, head_dim) -> context (batch, tokens, D) and probabilities or None. `mask` is
        added to the scores: it must broadcast to (batch, heads, queries, keys) and have the queries' dtype."""
        attention = eager_attention if output_attentions else attention_function(self.config._attn_implementation)
        context, probs = attention(
            self,
            query,
            key,
            value,
            mask,
            scaling=self.scaling if scaling is None else scaling,
            dropout=self.dropout if self.training else 0.0,
            is_causal=False,
        )
        return context.flatten(2), probs if output_attentions else None

    def forward(self, x: torch.Tensor, output_attentions: bool = False, first_only: bool = False) -> Attended:
        """(batch, tokens, D) -> context of all tokens, or of the first one, and probabilities or None."""
        query, key, value = self.split_heads(self.project(x))
        return self.attend(query[:, :, :1] if first_only else query, key, value, output_attentions)


class FusedSelfAttention(SelfAttention):
    """q, k and v from one weight on disk, `qkv` (TimeSformer, MViT)."""

    def __init__(self, config: PreTrainedConfig, hidden_size: int, num_heads: int, bias: bool = True) -> None:
        super().__init__(config, hidden_size, num_heads)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=bias)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return on_rows(self.qkv, x)


class SplitSelfAttention(SelfAttention):
    """q, k and v from three weights on disk, `query`, `key`, `value`. With `bias` there are biases `q_bias`, `v_bias`
    (VideoMAE: a key bias drops out of the softmax and is left away); with `key_bias` besides, each of the three layers
    has its own, as in ViT.

    The weights stay three parameters so that what lies in memory is what lies on disk: a training run that resumes by
    `load_state_dict` must find its weights under the names that were saved. They are joined when used: 0.4 % of a
    ViT-B layer's time on a CPU, and one kernel instead of three on a GPU.
    """

    def __init__(
        self, config: PreTrainedConfig, hidden_size: int, num_heads: int, bias: bool = True, *, key_bias: bool = False
    ) -> None:
        super().__init__(config, hidden_size, num_heads)
        self.query, self.key, self.value = (
            nn.Linear(hidden_size, hidden_size, bias=bias and key_bias) for _ in range(3)
        )
        self.q_bias = nn.Parameter(torch.zeros(hidden_size)) if bias and not key_bias else None
        self.v_bias = nn.Parameter(torch.zeros(hidden_size)) if bias and not key_bias else None

    def project(self, x: torch.Tensor) -> torch.Tensor:
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return side_by_side(x, (self.query, self.key, self.value), bias)


class CosineSelfAttention(SplitSelfAttention):
    """Cosine attention with a learned temperature per head (VideoMAE v2 `CosAttention`, after Swin v2):
    softmax(exp(min(scale, ln 100)) · cos(q, k)) v. `scale` (heads, 1, 1) starts at ln 10."""

    max_scale = 4.6052

    def __init__(self, config: PreTrainedConfig, hidden_size: int, num_heads: int, bias: bool = True) -> None:
        super().__init__(config, hidden_size, num_heads, bias)
        self.scale = nn.Parameter(torch.full((num_heads, 1, 1), 10.0).log())

    def forward(self, x: torch.Tensor, output_attentions: bool = False, first_only: bool = False) -> Attended:
        query, key, value = self.split_heads(self.project(x))
        query = query[:, :, :1] if first_only else query
        query = F.normalize(query, dim=-1) * self.scale.clamp(max=self.max_scale).exp()
        return self.attend(query.to(value.dtype), F.normalize(key, dim=-1), value, output_attentions, scaling=1.0)


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


class Dense(nn.Module):
    """Linear, then an optional activation, then dropout. A module of its own because files on disk say `x.dense`."""

    def __init__(self, in_features: int, out_features: int, *, act: str | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.act = ACT2FN[act] if act else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(on_rows(self.dense, x, self.act))


class Attention(nn.Module):
    """Self-attention and its output projection: (batch, tokens, D) -> the same, and probabilities or None."""

    def __init__(self, attention: SelfAttention, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = attention
        self.output = Dense(hidden_size, hidden_size, dropout=dropout)

    def forward(
        self, x: torch.Tensor, output_attentions: bool = False, first_only: bool = False, **options: Any
    ) -> Attended:
        context, probs = self.attention(x, output_attentions, first_only, **options)
        return self.output(context), probs


class ViTBlock(GradientCheckpointingLayer):
    """x + attention(norm(x)), then x + mlp(norm(x)); both branches with stochastic depth.

    `mlp_dropout` sits between the two layers of the MLP (TimeSformer has it, VideoMAE only has the one at the end).
    """

    def __init__(
        self,
        attention: SelfAttention,
        hidden_size: int,
        intermediate_size: int,
        *,
        act: str = "gelu",
        eps: float = 1e-6,
        dropout: float = 0.0,
        mlp_dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = Attention(attention, hidden_size, dropout)
        self.intermediate = Dense(hidden_size, intermediate_size, act=act, dropout=mlp_dropout)
        self.output = Dense(intermediate_size, hidden_size, dropout=dropout)
        self.layernorm_before = nn.LayerNorm(hidden_size, eps=eps)
        self.layernorm_after = nn.LayerNorm(hidden_size, eps=eps)
        self.drop_path = DropPath(drop_path)

    def mlp(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.intermediate(self.layernorm_after(x)))

    def forward(self, x: torch.Tensor, output_attentions: bool = False, first_only: bool = False) -> Attended:
        """`first_only` returns just the first token, (batch, 1, D), and leaves out what only the others would need: a
        classifier that reads the class token wants no more of the last block."""
        attended, probs = self.attention(self.layernorm_before(x), output_attentions, first_only)
        x = x[:, : attended.shape[1]] + self.drop_path(attended)
        return x + self.drop_path(self.mlp(x)), probs


def run_blocks(
    blocks: nn.ModuleList,
    x: torch.Tensor,
    *,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    first_only: bool = False,
    **options: Any,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None, tuple[Any, ...] | None]:
    """Applies blocks in turn: the last hidden state, every hidden state (the input first) or None, and what each block
    returns beside it (attention probabilities) or None. `first_only` goes to the last block; `options` to all."""
    hidden_states: tuple[torch.Tensor, ...] = (x,)
    attentions: tuple[Any, ...] = ()
    for i, block in enumerate(blocks):
        x, probs = block(x, output_attentions, first_only and i == len(blocks) - 1, **options)
        if output_hidden_states:
            hidden_states += (x,)
        if output_attentions:
            attentions += (probs,)
    return x, hidden_states if output_hidden_states else None, attentions if output_attentions else None
