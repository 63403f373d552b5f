"""The steps that a client takes in a round, by `VideoTrainer`s, as rules of `rules.personal` ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback

from hf_video.federated.rules.corrections import GradientTerm
from hf_video.training.trainer import VideoTrainer


class BeforeStep(TrainerCallback):
    """Adds terms to the gradients once for each step of the optimiser, whatever was accumulated."""

    def __init__(self, terms: Sequence[GradientTerm]) -> None:
        self.terms = terms

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        for term in self.terms:
            term.add()


class Deadline(TrainerCallback):
    """Ends training when it is `end` of `time.monotonic`, after at least one step."""

    def __init__(self, end: float) -> None:
        self.end = end

    def on_step_end(self, args, state, control, **kwargs):
        if time.monotonic() >= self.end:
            control.should_training_stop = True


class LocalSteps:
    """The `Train` of personal rules; see there.

    Args:
        make_trainer: Makes the trainer of a module, with changes of its training arguments.
        terms: What the strategy adds to the gradients of the common model.
        end: When training has to be over, of `time.monotonic`.

    Attributes:
        steps: Of the common model so far.
        loss: Mean over the last of them.
    """

    def __init__(
        self,
        make_trainer: Callable[..., VideoTrainer],
        terms: Sequence[GradientTerm] = (),
        end: float | None = None,
    ) -> None:
        self.make_trainer, self.terms, self.end = make_trainer, terms, end
        self.steps, self.loss = 0, 0.0

    def __call__(
        self,
        module: nn.Module,
        *,
        steps: int | None = None,
        term: GradientTerm | None = None,
        learning_rate: float | None = None,
        own: bool = False,
    ) -> None:
        changes: dict[str, Any] = {} if steps is None else {"max_steps": steps}
        if learning_rate is not None:
            plain = {"weight_decay": 0.0, "layer_decay": None, "backbone_rate": 1.0, "max_grad_norm": 0.0}
            changes |= {"optim": "sgd", "learning_rate": learning_rate, **plain}
        trainer = self.make_trainer(module, private=not own, **changes)
        terms = [*(() if own else self.terms), *(() if term is None else (term,))]
        if terms:
            trainer.add_callback(BeforeStep(terms))
        if self.end is not None:
            trainer.add_callback(Deadline(self.end))
        outcome = trainer.train()
        if not own:
            self.steps += trainer.state.global_step
            self.loss = float(outcome.training_loss)
