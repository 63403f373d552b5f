"""The pre-norm transformer block of ViT (Dosovitskiy et al., 2021), under the names transformers writes to disk."""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_video.layers.attention import SelfAttention
from hf_video.layers.drop_path import DropPath
from hf_video.layers.linear import on_rows


class Dense(nn.Module):
    """Linear, then an optional activation, then dropout. A module of its own because files on disk say `x.dense`."""

    def __init__(self, in_features: int, out_features: int, *, act: str | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.act = ACT2FN[act] if act else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = on_rows(self.dense, x)
        return self.dropout(x if self.act is None else self.act(x))


class Attention(nn.Module):
    """Self-attention and its output projection: (batch, tokens, D) -> the same, and probabilities or None."""

    def __init__(self, attention: SelfAttention, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = attention
        self.output = Dense(hidden_size, hidden_size, dropout=dropout)

    def forward(self, x: torch.Tensor, output_attentions: bool = False, first_only: bool = False, **options):
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

    def forward(self, x: torch.Tensor, output_attentions: bool = False, first_only: bool = False):
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
    **options,
):
    """Applies blocks in turn: the last hidden state, every hidden state (the input first) or None, and what each block
    returns beside it (attention probabilities) or None. `first_only` goes to the last block; `options` to all."""
    hidden_states, attentions = (x,), ()
    for i, block in enumerate(blocks):
        x, probs = block(x, output_attentions, first_only and i == len(blocks) - 1, **options)
        if output_hidden_states:
            hidden_states += (x,)
        if output_attentions:
            attentions += (probs,)
    return x, hidden_states if output_hidden_states else None, attentions if output_attentions else None
