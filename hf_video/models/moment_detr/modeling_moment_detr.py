"""Moment-DETR (Lei, Berg, Bansal, NeurIPS 2021, arXiv:2107.09609; jayleicn/moment_detr): moments of a video that a
sentence describes, as a set of queries that a transformer answers over clips and words together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from hf_video.base.modeling import InitializesAllModules
from hf_video.base.safe_weights import SafeWeights
from hf_video.errors import ModelInputError
from hf_video.layers.segments import segment_iou
from hf_video.models.moment_detr.configuration_moment_detr import MomentDetrConfig


@dataclass
class MomentDetrOutput(ModelOutput):
    """Outputs for one sentence of each video.

    Args:
        loss: scalar, with `moments`; `losses` are its parts by name, those of earlier decoder layers with a number.
        logits: (B, queries, 2): class 0 is a moment, class 1 is none.
        spans: (B, queries, 2), centre and width as fractions of the video.
        saliency: (B, clips), the higher the more of a highlight.
        intermediate: logits and spans of the earlier decoder layers.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    spans: torch.Tensor | None = None
    saliency: torch.Tensor | None = None
    intermediate: tuple[tuple[torch.Tensor, torch.Tensor], ...] | None = None
    losses: dict[str, torch.Tensor] | None = None


class MomentDetrProjection(nn.Module):
    """Features to the width of the transformer: LayerNorm, dropout, product, and ReLU in all but the last layer."""

    def __init__(self, size: int, config: MomentDetrConfig) -> None:
        super().__init__()
        sizes = [size] + [config.hidden_size] * (config.input_layers - 1)
        self.norms = nn.ModuleList(nn.LayerNorm(one) for one in sizes)
        self.layers = nn.ModuleList(nn.Linear(one, config.hidden_size) for one in sizes)
        self.dropout = nn.Dropout(config.input_dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True), start=1):
            x = layer(self.dropout(norm(x)))
            x = F.relu(x) if number < len(self.layers) else x
        return x


class MomentDetrTextPositions(nn.Module):
    """Learned positions of tokens. As in the official code, the tokens themselves are added before the norm."""

    def __init__(self, config: MomentDetrConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.max_text_length, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.input_dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.norm(x + self.table.weight[: x.shape[1]]))


class MomentDetrAttention(nn.Module):
    """Attention whose queries and keys, but not values, carry positions."""

    def __init__(self, config: MomentDetrConfig) -> None:
        super().__init__()
        self.num_heads, self.dropout = config.num_attention_heads, config.dropout
        for name in ("query", "key", "value", "output"):
            self.add_module(name, nn.Linear(config.hidden_size, config.hidden_size))

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, L, D), (B, S, D), (B, S, D) and a mask (B, S), True for keys that count -> (B, L, D)."""
        q, k, v = (
            layer(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        seen = None if mask is None else mask[:, None, None].bool()
        out = F.scaled_dot_product_attention(q, k, v, seen, dropout_p=self.dropout if self.training else 0.0)
        return self.output(out.transpose(1, 2).flatten(2))


class MomentDetrLayer(nn.Module):
    """A layer of encoder or decoder (`cross`): attention, in the decoder attention to the encoder's output, MLP."""

    def __init__(self, config: MomentDetrConfig, *, cross: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.pre_norm = config.pre_norm
        self.self_attention = MomentDetrAttention(config)
        self.cross_attention = MomentDetrAttention(config) if cross else None
        self.mlp = nn.Sequential(
            nn.Linear(width, config.intermediate_size), nn.ReLU(), nn.Dropout(config.dropout),
            nn.Linear(config.intermediate_size, width),
        )  # fmt: skip
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 + cross))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        memory: torch.Tensor | None = None,
        memory_positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`mask` (B, S) is that of the keys: of `x` in the encoder, of `memory` in the decoder."""

        def attend(y: torch.Tensor) -> torch.Tensor:
            return self.self_attention(y + positions, y + positions, y, mask if memory is None else None)

        def cross(y: torch.Tensor) -> torch.Tensor:
            return self.cross_attention(y + positions, memory + memory_positions, memory, mask)

        steps = [attend, self.mlp] if memory is None else [attend, cross, self.mlp]
        for step, norm in zip(steps, self.norms, strict=True):
            x = x + self.dropout(step(norm(x))) if self.pre_norm else norm(x + self.dropout(step(x)))
        return x


def sine_positions(mask: torch.Tensor, width: int) -> torch.Tensor:
    """Sine-cosine positions (B, L, width) of the positions that count (B, L), spread over 2π whatever their number."""
    place = mask.cumsum(1, dtype=torch.float32)
    place = place / (place[:, -1:] + 1e-6) * 2 * math.pi
    column = torch.arange(width, device=mask.device, dtype=torch.float32)
    angle = place[:, :, None] / 10000 ** (2 * (column // 2) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


class MomentDetrPreTrainedModel(SafeWeights, InitializesAllModules, PreTrainedModel):
    config_class = MomentDetrConfig
    base_model_prefix = "moment_detr"
    main_input_name = "video_features"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier in the transformer, PyTorch's own draw elsewhere, as the official code."""
        if isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, MomentDetrLayer):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    init.xavier_uniform_(layer.weight)


class MomentDetrForMomentRetrieval(MomentDetrPreTrainedModel):
    """Clips and words through an encoder; queries through a decoder to spans; highlights from the encoded clips."""

    def __init__(self, config: MomentDetrConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.video_projection = MomentDetrProjection(config.video_size, config)
        self.text_projection = MomentDetrProjection(config.text_size, config)
        # The official files hold the positions of words even where they are not used.
        self.text_positions = MomentDetrTextPositions(config)
        self.encoder = nn.ModuleList(MomentDetrLayer(config, cross=False) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(width) if config.pre_norm else nn.Identity()
        self.decoder = nn.ModuleList(MomentDetrLayer(config, cross=True) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.queries = nn.Embedding(config.num_queries, width)
        self.class_head = nn.Linear(width, 2)
        self.span_head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )
        self.saliency_head = nn.Linear(width, 1)
        self.post_init()

    def forward(
        self,
        video_features: torch.Tensor,
        text_features: torch.Tensor,
        video_mask: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
        moments: Sequence[torch.Tensor] | None = None,
        saliency_pairs: tuple[torch.Tensor, torch.Tensor] | None = None,
        return_dict: bool | None = None,
    ) -> MomentDetrOutput | tuple:
        """Args:
            video_features: (B, clips, video_size), float.
            text_features: (B, tokens, text_size), float.
            video_mask, text_mask: (B, clips), (B, tokens), 1 for what counts; None for all.
            moments: for the loss, centre and width (N, 2) as fractions for each video.
            saliency_pairs: for the loss, clip numbers (B, pairs) of highlights and of clips that are less of one.
            return_dict: False for a tuple.

        Returns:
            `MomentDetrOutput`; `find_moments` turns it into seconds.
        """
        for name, given in (("video", video_features), ("text", text_features)):
            width = getattr(self.config, f"{name}_size")
            if given.ndim != 3 or given.shape[2] != width:
                raise ModelInputError(f"{name}_features must be (batch, length, {width}); {tuple(given.shape)} came.")
        video_mask = video_features.new_ones(video_features.shape[:2]) if video_mask is None else video_mask
        text_mask = text_features.new_ones(text_features.shape[:2]) if text_mask is None else text_mask
        clips, words = self.video_projection(video_features), self.text_projection(text_features)
        text_positions = self.text_positions(words) if self.config.use_text_positions else torch.zeros_like(words)
        places = sine_positions(video_mask, self.config.hidden_size).to(clips.dtype)
        positions = torch.cat((places, text_positions), dim=1)
        mask = torch.cat((video_mask, text_mask), dim=1).bool()
        memory = torch.cat((clips, words), dim=1)
        for layer in self.encoder:
            memory = layer(memory, positions, mask)
        memory = self.encoder_norm(memory)
        queries = self.queries.weight.expand(len(memory), -1, -1)
        states, answers = torch.zeros_like(queries), []
        for layer in self.decoder:
            states = layer(states, queries, mask, memory, positions)
            decoded = self.decoder_norm(states)
            answers.append((self.class_head(decoded), self.span_head(decoded).sigmoid()))
        output = MomentDetrOutput(
            logits=answers[-1][0],
            spans=answers[-1][1],
            saliency=self.saliency_head(memory[:, : clips.shape[1]])[..., 0],
            intermediate=tuple(answers[:-1]),
        )
        if moments is not None:
            output.losses = self._losses(output, moments, saliency_pairs)
            output.loss = self._weighted(output.losses)
        return output if return_dict or (return_dict is None and self.config.return_dict) else output.to_tuple()

    # -- loss -------------------------------------------------------------------------------------------------------

    def _losses(
        self,
        output: MomentDetrOutput,
        moments: Sequence[torch.Tensor],
        saliency_pairs: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> dict[str, torch.Tensor]:
        losses = self._set_losses(output.logits, output.spans, moments)
        if saliency_pairs is not None:
            more, less = (output.saliency.gather(1, numbers) for numbers in saliency_pairs)
            losses["saliency"] = 2 * F.relu(self.config.saliency_margin + less - more).mean()
        for number, (logits, spans) in enumerate(output.intermediate):
            losses |= {f"{name}_{number}": loss for name, loss in self._set_losses(logits, spans, moments).items()}
        return losses

    def _set_losses(
        self, logits: torch.Tensor, spans: torch.Tensor, moments: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Losses of the queries that the moments were assigned to (span), and of all (class)."""
        pairs = [self._assign(*one) for one in zip(logits, spans, moments, strict=True)]
        rows = torch.cat([torch.full_like(query, video) for video, (query, _) in enumerate(pairs)])
        queries = torch.cat([query for query, _ in pairs])
        found = spans[rows, queries]
        true = torch.cat([one[place] for one, (_, place) in zip(moments, pairs, strict=True)]).to(found)
        classes = torch.ones(logits.shape[:2], dtype=torch.long, device=logits.device)
        classes[rows, queries] = 0
        weight = logits.new_tensor([1.0, self.config.background_weight])
        overlap = generalized_iou(start_end(found), start_end(true)).diagonal()
        return {
            "span": (found - true).abs().mean(),
            "giou": (1 - overlap).mean(),
            "label": F.cross_entropy(logits.transpose(1, 2), classes, weight, reduction="none").mean(),
        }

    @torch.no_grad()
    def _assign(
        self, logits: torch.Tensor, spans: torch.Tensor, moments: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers of queries and of the moments they answer for: the assignment of least cost (Hungarian method)."""
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError as error:
            raise ImportError("Training Moment-DETR needs scipy: pip install hf_video[detection].") from error
        moments = moments.to(spans)
        cost = self.config.span_loss_weight * torch.cdist(spans, moments, p=1)
        cost = cost - self.config.giou_loss_weight * generalized_iou(start_end(spans), start_end(moments))
        cost = cost - self.config.class_loss_weight * logits.softmax(-1)[:, :1]
        query, place = linear_sum_assignment(cost.float().cpu())
        return torch.as_tensor(query, device=spans.device), torch.as_tensor(place, device=spans.device)

    def _weighted(self, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        names = {"span": "span", "giou": "giou", "label": "class", "saliency": "saliency"}
        return sum(
            getattr(self.config, f"{names[name.partition('_')[0]]}_loss_weight") * loss for name, loss in losses.items()
        )

    # -- answers ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def find_moments(
        self,
        output: MomentDetrOutput,
        durations: Sequence[float],
        *,
        limits: tuple[float, float] | None = None,
        rounding: float | None = None,
    ) -> list[torch.Tensor]:
        """Moments of each video, best first.

        Args:
            output: of `forward`.
            durations: of the videos, in seconds; spans are fractions of them.
            limits: seconds that moments are cut to; None for each video's own, 0 to its duration. QVHighlights is
                evaluated with (0, 150), whatever the duration.
            rounding: boundaries are rounded to multiples of so many seconds; None for `clip_seconds`, as QVHighlights
                is evaluated; 0 leaves them as they are.

        Returns:
            For each video (queries, 3): start and end in seconds, and the probability of being a moment.
        """
        found = []
        scores = output.logits.float().softmax(-1)[..., 0]
        step = self.config.clip_seconds if rounding is None else rounding
        for spans, score, duration in zip(output.spans.float(), scores, durations, strict=True):
            low, high = (0.0, duration) if limits is None else limits
            seconds = (start_end(spans) * duration).clamp(low, high)
            if step:
                seconds = ((seconds / step).round() * step).clamp(low, high)
            order = score.argsort(descending=True, stable=True)
            found.append(torch.cat((seconds, score[:, None]), dim=1)[order])
        return found


def start_end(spans: torch.Tensor) -> torch.Tensor:
    """Centre and width (..., 2) to start and end."""
    center, half = spans[..., 0], 0.5 * spans[..., 1]
    return torch.stack((center - half, center + half), dim=-1)


def generalized_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Generalised IoU of every pair of segments, (N, 2) and (M, 2) -> (N, M) (Rezatofighi et al., CVPR 2019)."""
    hull = torch.maximum(first[:, None, 1], second[:, 1]) - torch.minimum(first[:, None, 0], second[:, 0])
    shared = (
        torch.minimum(first[:, None, 1], second[:, 1]) - torch.maximum(first[:, None, 0], second[:, 0])
    ).clamp_min(0)
    union = (first[:, 1] - first[:, 0])[:, None] + second[:, 1] - second[:, 0] - shared
    return segment_iou(first, second) - (hull - union) / hull
