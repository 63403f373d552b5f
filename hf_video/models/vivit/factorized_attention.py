"""ViViT's attention over time and space apart: the paper's models 3 and 4 (section 3.3), after the authors'
`EncoderFactorizedSelfAttentionBlock` and `factorized_dot_product_attention`. Tokens come as (B, t, n, D): n places at t
times."""

from __future__ import annotations

import torch
from torch import nn

from hf_video.layers.vit import Attention, SplitSelfAttention, ViTBlock


class FactorizedSelfAttentionBlock(ViTBlock):
    """Model 3: attention over time, each place on its own, then over space, each time on its own, then the MLP.
    (B, t, n, D) -> the same, and the spatial (B·t, heads, n, n) and temporal (B·n, heads, t, t) probabilities."""

    def __init__(self, temporal_attention: SplitSelfAttention, **parts) -> None:
        super().__init__(**parts)
        self.temporal_layernorm = nn.LayerNorm(parts["hidden_size"], eps=parts["eps"])
        self.temporal_attention = Attention(temporal_attention, parts["hidden_size"], parts["dropout"])

    def forward(self, tokens: torch.Tensor, output_attentions: bool = False, first_only: bool = False):
        times, places = tokens.shape[1:3]
        rows = self.temporal_layernorm(tokens).transpose(1, 2).flatten(0, 1)
        attended, temporal_probs = self.temporal_attention(rows, output_attentions)
        tokens = tokens + self.drop_path(attended.unflatten(0, (-1, places)).transpose(1, 2))
        attended, probs = self.attention(self.layernorm_before(tokens).flatten(0, 1), output_attentions)
        tokens = tokens + self.drop_path(attended.unflatten(0, (-1, times)))
        return tokens + self.drop_path(self.mlp(tokens)), (probs, temporal_probs)


class FactorizedDotProductAttention(SplitSelfAttention):
    """Model 4: the first half of the heads attends over time, the second half over space. (B, t, n, D) -> the same, and
    the spatial (B·t, heads/2, n, n) and temporal (B·n, heads/2, t, t) probabilities."""

    def forward(self, x: torch.Tensor, output_attentions: bool = False, first_only: bool = False):
        times, places = x.shape[1:3]
        qkv = self.project(x).unflatten(-1, (3, self.num_heads, self.head_dim))  # (B, t, n, 3, heads, head_dim)
        in_time, in_space = qkv.chunk(2, dim=-2)
        in_time = in_time.permute(3, 0, 2, 4, 1, 5).flatten(1, 2)
        in_space = in_space.permute(3, 0, 1, 4, 2, 5).flatten(1, 2)
        over_time, temporal_probs = self.attend(*in_time.unbind(0), output_attentions)
        over_space, probs = self.attend(*in_space.unbind(0), output_attentions)
        over_time = over_time.unflatten(0, (-1, places)).transpose(1, 2)
        return torch.cat([over_time, over_space.unflatten(0, (-1, times))], dim=-1), (probs, temporal_probs)
