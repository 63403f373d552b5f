"""The pre-norm transformer block of ViT (Dosovitskiy et al., 2021), under the names transformers writes to disk.

Attention runs through transformers' attention interface (eager, SDPA, flash, flex), and one product makes queries, keys
and values. `output_attentions=True` is right under every implementation: fused kernels never form the probabilities,
so such a call takes the eager path.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_video.layers.attention import Attended, attention_function, eager_attention
from hf_video.layers.linear import on_rows, side_by_side


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
