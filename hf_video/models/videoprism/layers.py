"""What VideoPrism's three transformers are built from (google-deepmind/videoprism, `layers.py`), under transformers'
names: a layer norm whose weight is saved less 1, pre-norm layers with capped attention, and pooling by attention."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_video.layers.linear import is_plain, on_rows, product, side_by_side
from hf_video.models.videoprism.attention import lean_attention, learns, plain_attention

MLP_ROWS = 2048  # tokens whose hidden layer is in memory at once
R_SOFTPLUS_0 = 1.442695041  # 1 / softplus(0), as rounded in the official code


class VideoPrismLayerNorm(nn.LayerNorm):
    """Layer norm whose scale is 1 + `weight`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight + 1.0, self.bias, self.eps)


class VideoPrismAttention(nn.Module):
    """Self-attention with capped logits: (B, tokens, D) -> the same, and probabilities or None."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config  # `model.set_attn_implementation()` changes it in place
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.scaling = (width // self.num_heads) ** -0.5
        self.is_causal = False
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=config.qkv_bias) for _ in range(3))
        self.o_proj = nn.Linear(width, width)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        qkv = side_by_side(x, (self.q_proj, self.k_proj, self.v_proj))
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        options = {"scaling": self.scaling, "softcap": self.config.attn_logit_softcapping}
        options["dropout"] = float(self.config.attention_probs_dropout_prob) if self.training else 0.0
        name, probs = self.config._attn_implementation, None
        if output_attentions or name == "eager":
            context, probs = plain_attention(query, key, value, mask=mask, **options)
        elif name == "sdpa":
            context = lean_attention(self, query, key, value, mask=mask, **options)
        else:
            attend = ALL_ATTENTION_FUNCTIONS[name]
            context = attend(self, query, key, value, mask, is_causal=False, **options)[0]
        return on_rows(self.o_proj, context.flatten(2)), probs if output_attentions else None


class VideoPrismMLP(nn.Module):
    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        # "gelu_python" is the exact GELU in five passes over memory; "gelu" is the same in one.
        self.activation_fn = ACT2FN["gelu" if config.hidden_act == "gelu_python" else config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., D); without gradients on a CPU, so many rows at a time that the cache holds them."""
        plain = is_plain(self.fc1, nn.Linear) and is_plain(self.fc2, nn.Linear)
        if not plain or learns(x, self.fc1.weight) or x.device.type != "cpu" or torch.compiler.is_compiling():
            return on_rows(self.fc2, on_rows(self.fc1, x, self.activation_fn))
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        for rows, result in zip(x.flatten(0, -2).split(MLP_ROWS), out.flatten(0, -2).split(MLP_ROWS), strict=True):
            hidden = product(rows, self.fc1.weight, self.fc1.bias, self.activation_fn)
            result.copy_(product(hidden, self.fc2.weight, self.fc2.bias))
        return out


class VideoPrismLayer(GradientCheckpointingLayer):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.attention = VideoPrismAttention(config)
        self.layernorm_before = VideoPrismLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = VideoPrismLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VideoPrismMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, probs = self.attention(self.layernorm_before(x), mask, output_attentions)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.layernorm_after(x))), probs


def run_layers(
    layers: nn.ModuleList,
    x: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Layers in turn: the last one's output, the input and every output, and all probabilities, as far as asked for."""
    states: tuple[torch.Tensor, ...] = (x,) if output_hidden_states else ()
    attentions: tuple[torch.Tensor, ...] = ()
    for layer in layers:
        x, probs = layer(x, mask, output_attentions)
        states += (x,) if output_hidden_states else ()
        attentions += (probs,) if output_attentions else ()
    return x, states, attentions


class VideoPrismMultiheadAttentionPoolingHead(nn.Module):
    """One learned query attends to all tokens, with heads as wide as the MLP and a learned scale for each of a head's
    channels: (B, tokens, D) -> (B, 1, D)."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.pooler_size or config.intermediate_size
        self.num_heads, self.head_dim = config.num_attention_heads, inner // config.num_attention_heads
        self.dropout = float(config.attention_probs_dropout_prob)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner, bias=config.qkv_bias) for _ in range(3))
        self.o_proj = nn.Linear(inner, width)
        self.per_dim_scale = nn.Parameter(torch.zeros(self.head_dim))
        self.pooling_attention_query = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        query = on_rows(self.q_proj, self.pooling_attention_query).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        query = query * (R_SOFTPLUS_0 / math.sqrt(self.head_dim)) * F.softplus(self.per_dim_scale)
        plain = is_plain(self.k_proj, nn.Linear) and is_plain(self.v_proj, nn.Linear)
        pool = self.pool if not plain or learns(tokens, self.k_proj.weight) else self.pool_folded
        return on_rows(self.o_proj, pool(query, tokens).flatten(1)[:, None])

    def pool(self, query: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Query (1, heads, 1, head_dim), tokens (B, N, D) -> (B, heads, head_dim)."""
        key, value = (
            on_rows(layer, tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.k_proj, self.v_proj)
        )
        probs = (query @ key.transpose(-2, -1)).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        return (F.dropout(probs, self.dropout, self.training) @ value)[:, :, 0]

    def pool_folded(self, query: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The same in a few thousandths of the operations. With one query, q · (W_k x) = (W_kᵀ q) · x, the key's bias
        drops out of the softmax, and values are made of the pooled tokens instead of every token."""
        key, value = (layer.weight.unflatten(0, (self.num_heads, -1)) for layer in (self.k_proj, self.v_proj))
        scores = tokens @ (query[0] @ key)[:, 0].T  # (B, N, heads)
        probs = scores.softmax(dim=1, dtype=torch.float32).to(query.dtype)
        probs = F.dropout(probs, self.dropout, self.training).transpose(1, 2)
        pooled = ((probs @ tokens)[:, :, None] @ value.transpose(-2, -1))[:, :, 0]
        if self.v_proj.bias is None:
            return pooled
        return pooled + self.v_proj.bias.unflatten(0, (self.num_heads, -1)) * probs.sum(-1, keepdim=True)
