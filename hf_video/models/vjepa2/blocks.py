"""What V-JEPA 2's encoder, predictor and pooler are made of, under the names that files on disk have."""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_video.layers.attention import Attended
from hf_video.layers.linear import on_rows, side_by_side
from hf_video.layers.vit import DropPath, SelfAttention, SplitSelfAttention, drop_path_rates
from hf_video.models.vjepa2.configuration_vjepa2 import VJEPA2Config
from hf_video.models.vjepa2.rotation import Rotation, rotate


class VJEPA2MLP(nn.Module):
    """(B, tokens, D) -> the same, through D · ratio channels."""

    def __init__(self, config: VJEPA2Config, width: int, ratio: float = 4.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return on_rows(self.fc2, on_rows(self.fc1, x, self.activation))


class VJEPA2RopeAttention(SplitSelfAttention):
    """Self-attention with rotated queries and keys: (B, tokens, D) -> the same, and probabilities or None."""

    def __init__(self, config: VJEPA2Config, width: int, heads: int) -> None:
        super().__init__(config, width, heads, config.qkv_bias, key_bias=True)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, rotation: Rotation, output_attentions: bool = False) -> Attended:  # type: ignore[override]
        qkv = self.project(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        query, key = rotate(qkv[:, :, :2], rotation).permute(2, 0, 3, 1, 4).unbind(0)
        context, probs = self.attend(query, key, qkv[:, :, 2].transpose(1, 2), output_attentions)
        return on_rows(self.proj, context), probs


class VJEPA2Layer(GradientCheckpointingLayer):
    """x + attention(norm1(x)), then x + mlp(norm2(x)); both branches with stochastic depth. `number`, from 1, is the
    layer's in its stack, by which the start of its last weights is scaled."""

    def __init__(
        self, config: VJEPA2Config, width: int, heads: int, ratio: float, drop_path: float, number: int
    ) -> None:
        super().__init__()
        self.number = number
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = VJEPA2RopeAttention(config, width, heads)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = VJEPA2MLP(config, width, ratio)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: torch.Tensor,
        output_attentions: bool = False,
        first_only: bool = False,
        rotation: Rotation | None = None,
    ) -> Attended:
        """As `run_blocks` calls it: there is no first token to be had alone, so `first_only` is never set."""
        update, probs = self.attention(self.norm1(x), rotation, output_attentions)
        x = x + self.drop_path(update)
        return x + self.drop_path(self.mlp(self.norm2(x))), probs


def make_layers(config: VJEPA2Config, width: int, heads: int, ratio: float, depth: int) -> nn.ModuleList:
    """The stack of the encoder or, narrower, of the predictor."""
    rates = drop_path_rates(config.drop_path_rate, depth)
    return nn.ModuleList(VJEPA2Layer(config, width, heads, ratio, rate, i) for i, rate in enumerate(rates, 1))


class VJEPA2PoolerAttention(SelfAttention):
    """Attention of the pooler, over tokens that carry no positions any more. With `out_proj` it attends among all
    tokens, without it from a query."""

    def __init__(self, config: VJEPA2Config, *, among_tokens: bool) -> None:
        width = config.hidden_size
        super().__init__(config, width, config.pooler_num_attention_heads or config.num_attention_heads)
        self.dropout = float(config.attention_dropout)
        self.k_proj, self.v_proj, self.q_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width) if among_tokens else None

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        """Queries (B, q, D) and, if they are not the same, tokens (B, n, D) -> (B, q, D)."""
        if tokens is None:
            query, key, value = self.split_heads(side_by_side(queries, (self.q_proj, self.k_proj, self.v_proj)))
        else:
            both = side_by_side(tokens, (self.k_proj, self.v_proj))
            key, value = both.unflatten(-1, (2, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
            query = self.q_proj(queries).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        context, _ = self.attend(query, key, value)
        return context if self.out_proj is None else on_rows(self.out_proj, context)


class VJEPA2PoolerLayer(GradientCheckpointingLayer):
    """Norms and MLP around an attention; the files' names of the two kinds differ in that attention's."""

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__()
        eps = config.layer_norm_eps if config.pooler_layer_norm_eps is None else config.pooler_layer_norm_eps
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=eps)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=eps)
        self.mlp = VJEPA2MLP(config, config.hidden_size)


class VJEPA2PoolerSelfAttentionLayer(VJEPA2PoolerLayer):
    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__(config)
        self.self_attn = VJEPA2PoolerAttention(config, among_tokens=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.self_attn(self.layer_norm1(tokens))
        return tokens + self.mlp(self.layer_norm2(tokens))


class VJEPA2PoolerCrossAttentionLayer(VJEPA2PoolerLayer):
    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__(config)
        self.cross_attn = VJEPA2PoolerAttention(config, among_tokens=False)

    def forward(self, query: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        query = query + self.cross_attn(query, self.layer_norm1(tokens))
        return query + self.mlp(self.layer_norm2(query))


class VJEPA2AttentivePooler(nn.Module):
    """A clip's tokens (B, n, D) -> its vector (B, D): blocks of self-attention, then one learned query that attends to
    all tokens (section 4 of the paper: four blocks, the last of which is the query's)."""

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.cross_attention_layer = VJEPA2PoolerCrossAttentionLayer(config)
        self.self_attention_layers = nn.ModuleList(
            VJEPA2PoolerSelfAttentionLayer(config) for _ in range(config.num_pooler_layers)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for layer in self.self_attention_layers:
            tokens = layer(tokens)
        query = self.query_tokens.expand(tokens.shape[0], -1, -1)
        return self.cross_attention_layer(query, tokens).squeeze(1)
