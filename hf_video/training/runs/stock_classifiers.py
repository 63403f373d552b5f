"""Video classifiers of transformers' own, of types that are none of ours, as rows of our table: what `hf-video train`
needs to fine-tune one that came with a new version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_video.base.losses import classification_loss
from hf_video.base.modeling import clip_logits
from hf_video.registry import ModelEntry

HEAD = "ForVideoClassification"


@dataclass(frozen=True)
class StockEntry(ModelEntry):
    """A classifier of transformers' Auto mapping; its processor is found beside its weights."""

    heads: tuple[str, ...] = (HEAD,)

    def load(self, name: str) -> type[Any]:
        config = CONFIG_MAPPING[self.model_type]
        return config if name == self.config else trainable(_mapping()[config])


def stock_entry(model_type: str | None) -> StockEntry | None:
    """The row of a model type of which transformers has a video classifier; None of others."""
    known = model_type in CONFIG_MAPPING  # whose `get` finds nothing
    config = CONFIG_MAPPING[model_type] if known else None
    if config is None or config not in _mapping():
        return None
    return StockEntry(model_type, _mapping()[config].__name__.removesuffix(HEAD))


def _mapping() -> Any:
    return transformers.AutoModelForVideoClassification._model_mapping


def trainable(kind: type[Any]) -> type[Any]:
    """A class of transformers' with our loss: exact under gradient accumulation, for soft and for several labels, and
    of logits (B, classes) whatever their shape was. Its files are those of `kind`."""

    class Trainable(kind):  # type: ignore[valid-type, misc]
        accepts_loss_kwargs = True

        def forward(self, *args: Any, labels: Any = None, num_items_in_batch: Any = None, **inputs: Any) -> Any:
            output = super().forward(*args, **inputs)
            output["logits"] = clip_logits(self, output)
            if labels is not None:
                problem = self.config.problem_type
                output["loss"] = classification_loss(output["logits"], labels, problem, num_items_in_batch)
            return output

    Trainable.__name__, Trainable.__qualname__ = kind.__name__, kind.__qualname__
    Trainable.__module__, Trainable.__doc__ = kind.__module__, kind.__doc__
    return Trainable
