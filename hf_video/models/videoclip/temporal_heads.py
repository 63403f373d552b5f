"""What makes one vector of a video out of the vectors of its frames: CLIP4Clip's heads (arXiv:2104.08860, section 3.3;
ArrowLuo/CLIP4Clip, `modules/modeling.py` and `modules/module_cross.py`).

Frames are (B, T, D); `mask` (B, T) is true where a frame is there, padding stands at the end. Frame vectors that come
out of a masked place mean nothing, and `masked_mean` leaves them out. A head gives states and their mask: BERT's has
one place more.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import BertConfig, BertModel, CLIPTextConfig
from transformers.activations import ACT2FN
from transformers.models.clip.modeling_clip import CLIPEncoder

from hf_video.errors import ModelInputError
from hf_video.models.videoclip.configuration_videoclip import VideoCLIPConfig


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the places (B, T, D) that `mask` (B, T) has: (B, D); zeros where it has none."""
    weight = mask.to(states.dtype)[..., None]
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


class MeanHead(nn.Module):
    """Nothing of its own: the frames as they are."""

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return frames, mask


class LSTMHead(nn.Module):
    """frames + LSTM(frames). It only looks back, so padding at the end changes no frame before it and nothing has to
    be packed."""

    def __init__(self, config: VideoCLIPConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.width, config.width, batch_first=True)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return frames + self.lstm(frames)[0], mask


class ClipSequenceTransformer(nn.Module):
    """Learnt positions and CLIP's transformer, without its causal mask: (B, N, D) -> (B, N, D)."""

    def __init__(self, config: VideoCLIPConfig) -> None:
        super().__init__()
        width = config.width
        self.positions = config.max_position_embeddings
        self.position_embedding = nn.Embedding(self.positions, width)
        layers = CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=config.temporal_layers,
            num_attention_heads=max(width // 64, 1),
            hidden_act="quick_gelu",
        )
        layers._attn_implementation = "sdpa"  # a dozen tokens: what the towers use makes no difference here
        self.encoder = CLIPEncoder(layers)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        if length > self.positions:
            raise ModelInputError(
                f"A sequence of {length} frames came and the model has {self.positions} positions. Take fewer frames."
            )
        tokens = tokens + self.position_embedding(torch.arange(length, device=tokens.device))
        return self.encoder(tokens, mask.bool()[:, None, None, :]).last_hidden_state


class TransformerHead(nn.Module):
    """frames + transformer(frames + positions)."""

    def __init__(self, config: VideoCLIPConfig) -> None:
        super().__init__()
        self.sequence = ClipSequenceTransformer(config)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return frames + self.sequence(frames, mask), mask


class TightHead(nn.Module):
    """A transformer over [text, frames] whose first token, pooled, becomes the score of the pair."""

    def __init__(self, config: VideoCLIPConfig) -> None:
        super().__init__()
        self.sequence = ClipSequenceTransformer(config)
        self.dropout = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(config.width)
        self.pooler = nn.Linear(config.width, config.width)
        self.act = ACT2FN["quick_gelu"]
        self.score = nn.Linear(config.width, 1)

    def forward(self, text: torch.Tensor, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Every text (N, D) with every video (V, T, D): (N, V). All pairs at once: N · V sequences of 1 + T tokens."""
        texts, videos = len(text), len(frames)
        tokens = torch.cat(
            [text[:, None, None].expand(-1, videos, 1, -1), frames[None].expand(texts, -1, -1, -1)], dim=2
        ).flatten(0, 1)
        there = torch.cat([mask.new_ones(videos, 1), mask], dim=1).repeat(texts, 1)
        state = self.sequence(self.dropout(tokens), there)[:, 0]
        return self.score(self.act(self.pooler(self.norm(state)))).view(texts, videos)


class TokenMLP(nn.Module):
    """Segment vectors to BERT's width: linear, GELU, norm, linear."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.norm(nn.functional.gelu(self.linear1(x))))


class BertHead(nn.Module):
    """VideoCLIP's video tower: a BERT over [CLS] segments [SEP] (fairseq's `examples/MMPT`, `MMBertForEncoder`). Its
    states without the [CLS]: what is pooled are the segments and the [SEP]."""

    def __init__(self, config: VideoCLIPConfig) -> None:
        super().__init__()
        bert = BertConfig(**(config.temporal_config or {}))
        self.mlp = TokenMLP(config.width, bert.hidden_size)
        self.bert = BertModel(bert, add_pooling_layer=False)
        self.segments = config.max_segments
        self.ends = config.end_token_ids

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, length = mask.shape
        if length > self.segments:
            raise ModelInputError(f"{length} segments came and the model takes {self.segments} at most (max_segments).")
        # The [SEP] stands behind all the places there are, filled or not.
        padding = self.segments - length
        frames = nn.functional.pad(self.mlp(frames), (0, 0, 0, padding))
        one = mask.new_ones(batch, 1)
        mask = torch.cat([one, nn.functional.pad(mask, (0, padding)), one], dim=1)
        ends = self.bert.get_input_embeddings()(torch.tensor(self.ends, device=frames.device))
        first, last = ends[:, None, None].expand(-1, batch, -1, -1)
        tokens = torch.cat([first, frames, last], dim=1)
        states = self.bert(inputs_embeds=tokens, attention_mask=mask.long()).last_hidden_state
        return states[:, 1:], mask[:, 1:]


HEADS = {
    "mean": lambda config: MeanHead(),
    "lstm": LSTMHead,
    "transformer": TransformerHead,
    "tight": TightHead,
    "bert": BertHead,
}
