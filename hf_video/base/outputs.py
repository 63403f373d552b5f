"""Output dataclasses that more than one model returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


class _OneVector(ModelOutput):
    """Gives `pooler_output` the name `embedding` as well, as an attribute and as a key: (B, D), where some models of
    transformers have a `pooler_output` of (B, 1, D)."""

    @property
    def embedding(self) -> torch.Tensor | None:
        return None if self.pooler_output is None else self.pooler_output.flatten(1)

    def __getitem__(self, key: str | int | slice):
        return super().__getitem__("pooler_output").flatten(1) if key == "embedding" else super().__getitem__(key)


@dataclass
class VideoFeatures(_OneVector):
    """What `get_video_features` gives, in transformers' names: `pooler_output` (B, D), also called `embedding`, one
    vector per clip, what the classifier sees; `last_hidden_state`, `hidden_states` and `attentions` of the forward;
    `feature_map` (B, T', H', W', D), the last hidden state on its grid, without class tokens; and `kept_tokens`, see
    `VideoModelOutput`."""

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    temporal_attentions: tuple[torch.Tensor, ...] | None = None
    feature_map: torch.Tensor | None = None
    kept_tokens: torch.Tensor | None = None


@dataclass
class VideoModelOutput(ModelOutput):
    """`last_hidden_state` (B, tokens, D); `hidden_states`: the embeddings and every block's output, each of that shape;
    `attentions`: each block's probabilities (rows, heads, queries, keys); `temporal_attentions`: those over time, where
    a model attends over time and space apart; `kept_tokens` (B, tokens) bool: which ones were encoded, where a model
    leaves out static patches."""

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    temporal_attentions: tuple[torch.Tensor, ...] | None = None
    kept_tokens: torch.Tensor | None = None

    def features(self, pooler_output: torch.Tensor, feature_map: torch.Tensor) -> VideoFeatures:
        """These states as `VideoFeatures`, with the clips' vectors (B, D) and maps (B, T', H', W', D)."""
        return VideoFeatures(
            last_hidden_state=self.last_hidden_state,
            pooler_output=pooler_output,
            hidden_states=self.hidden_states,
            attentions=self.attentions,
            temporal_attentions=self.temporal_attentions,
            feature_map=feature_map,
            kept_tokens=self.kept_tokens,
        )


@dataclass
class VideoClassifierOutput(ModelOutput):
    """`loss` (scalar, with labels), `logits` (B, classes), and the rest as in `VideoModelOutput`."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    temporal_attentions: tuple[torch.Tensor, ...] | None = None
    kept_tokens: torch.Tensor | None = None


@dataclass
class TextFeatures(_OneVector):
    """What `get_text_features` gives: `pooler_output` (N, D), also called `embedding`, one vector per text, in the
    space of the videos' ones; `last_hidden_state`, `hidden_states` and `attentions` of the text tower; and `projected`
    (N, D), the vector before normalisation."""

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    projected: torch.Tensor | None = None
