"""What V-JEPA 2's models return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput

from hf_video.base.outputs import VideoModelOutput


@dataclass
class VJEPA2PredictorOutput(ModelOutput):
    """`last_hidden_state` (rows, target tokens, D): what is predicted; `target_hidden_state`, of the same shape: what
    the encoder made of these tokens. Rows are the clips, once for each pair of masks."""

    last_hidden_state: torch.Tensor | None = None
    masked_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    target_hidden_state: torch.Tensor | None = None


@dataclass
class VJEPA2ForPreTrainingOutput(ModelOutput):
    """`loss` (scalar): the mean error over pairs of masks; `logits` (B, predicted tokens, D): what the predictor says,
    the target tokens of one pair behind those of the one before. `hidden_states` and `attentions` are the context
    encoder's, of the first pair."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VJEPA2ModelOutput(ModelOutput):
    """`last_hidden_state` (B, tokens, D); `masked_hidden_state` (rows, context tokens, D): those of the context;
    `hidden_states`: the embeddings and every block's output; `attentions`: each block's probabilities;
    `predictor_output`: a `VJEPA2PredictorOutput`."""

    last_hidden_state: torch.Tensor | None = None
    masked_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    predictor_output: VJEPA2PredictorOutput | None = None

    features = VideoModelOutput.features
    temporal_attentions = kept_tokens = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(v.to_tuple() if isinstance(v, ModelOutput) else v for v in super().to_tuple())
