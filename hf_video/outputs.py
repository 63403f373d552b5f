"""Output dataclasses that more than one model returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class VideoModelOutput(ModelOutput):
    """`last_hidden_state` (B, tokens, D); `hidden_states`: the embeddings and every block's output, each of that shape;
    `attentions`: each block's probabilities (rows, heads, queries, keys); `temporal_attentions`: those over time, where
    a model attends over time and space apart."""

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    temporal_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VideoClassifierOutput(ModelOutput):
    """`loss` (scalar, with labels), `logits` (B, classes), and the rest as in `VideoModelOutput`."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    temporal_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VideoFeatures(ModelOutput):
    """`embedding` (B, D): one vector per clip, what the classifier sees; `feature_map` (B, T', H', W', D): the last
    hidden state on its grid, without class tokens."""

    embedding: torch.Tensor | None = None
    feature_map: torch.Tensor | None = None


@dataclass
class TextFeatures(ModelOutput):
    """`embedding` (N, D): one vector per text, in the space of `VideoFeatures.embedding`; `projected` (N, D): the same
    before normalisation."""

    embedding: torch.Tensor | None = None
    projected: torch.Tensor | None = None
