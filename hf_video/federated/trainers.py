"""A client's part of a round: the model that it is sent, trained on its own videos.

`LocalTrainer` is the interface; `VideoLocalTrainer` trains with the `VideoTrainer` of any task of `hf-video train`.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import set_seed

from hf_video.data import load_videos
from hf_video.data.rows import VideoRows
from hf_video.errors import DataError, FederatedError
from hf_video.federated.arrays import Arrays, check_arrays, to_arrays, to_tensors
from hf_video.federated.config import FederatedConfig
from hf_video.federated.data.feature_shift import Appearance, ShiftedDataset
from hf_video.federated.local_steps import LocalSteps
from hf_video.federated.lora import add_adapters, merged
from hf_video.federated.privacy.ledger import LEDGER_FILE, PrivacyLedger
from hf_video.federated.privacy.tasks import private_task
from hf_video.federated.rules.corrections import ControlTerm, DynamicTerm, GradientTerm, ProximalTerm
from hf_video.federated.rules.strategies import ClientResult
from hf_video.federated.store import PersonalStore, Tensors
from hf_video.training.arguments import make_arguments
from hf_video.training.callbacks import LogLines
from hf_video.training.recipes import for_model, load_recipe, override_recipe
from hf_video.training.runs.classification import Classification, default_recipe
from hf_video.training.runs.model_loading import LoadedModel, find_source
from hf_video.training.runs.run import Task
from hf_video.training.trainer import VideoTrainer

# A round is too short for a schedule: the rate is constant, and the server lowers it from round to round.
_SCHEDULE = (
    *("schedule", "lr_scheduler_type", "warmup_epochs", "warmup_steps", "warmup_ratio", "warmup_learning_rate"),
    *("milestone_epochs", "milestone_steps", "min_learning_rate", "min_train_steps", "ema_decay"),
    *("eval_strategy", "eval_steps", "save_strategy", "save_steps", "load_best_model_at_end", "metric_for_best_model"),
)
# What transformers' Trainer says of an evaluation besides what was measured.
_CLOCKS = ("runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time")


@dataclass(frozen=True)
class ClientTask:
    """What the server asks of a client in a round.

    Args:
        round: Its number, from 1.
        arrays: The tensors that travel.
        settings: Of the strategy, such as `proximal_mu`.
        control: The server's control variates (SCAFFOLD).
        deadline: Seconds in which the client should answer.
        begin: What a client begins with that has no tensors of its own yet.
    """

    round: int
    arrays: Arrays
    settings: Mapping[str, float] = field(default_factory=dict)
    control: Arrays | None = None
    deadline: float | None = None
    begin: Arrays | None = None


class LocalTrainer(ABC):
    """What a client does with a model. A subclass may train anything; it is asked for nothing but this."""

    @abstractmethod
    def fit(self, task: ClientTask) -> ClientResult:
        """Trains the model that came."""

    @abstractmethod
    def evaluate(self, task: ClientTask) -> dict[str, float]:
        """Measures the model that came on the client's held-out videos: `num_examples`, `loss`, `accuracy`, …; empty
        where there are none."""


def client_seed(seed: int, client: str, round_number: int) -> int:
    """A seed of its own for each client and round, the same in every process."""
    text = f"{seed}/{client}/{round_number}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "little")


class FederatedClassification(Classification):
    """Classes of a federation: a site may lack videos of some."""

    def __init__(self, data: Any, config: FederatedConfig, **reading: Any) -> None:
        source = find_source(config.model)
        super().__init__(data, source, division={}, reading=reading, protocol="1x1", revision=None)
        self.labels = config.labels

    def read_splits(self) -> dict[str, VideoRows]:
        splits = rows_by_split(self.data)
        if splits is None:
            labels = self.labels or self.source.labels
            splits = load_videos(self.data, labels=labels, num_frames=self.source.num_frames, **self.reading)
        if not len(splits.get("train", ())) or not splits["train"].labelled:
            raise DataError(f"There are no labelled videos to train on in {self.data}.")
        return splits


def rows_by_split(data: Any) -> dict[str, VideoRows] | None:
    """Rows that were read already, by split; None where data are something else."""
    given = isinstance(data, Mapping) and data and all(isinstance(rows, VideoRows) for rows in data.values())
    return dict(data) if given else None


def make_task(config: FederatedConfig, data: Any) -> Task:
    """The task of a site, with its videos and the recipe, which the site's own videos fill.

    Args:
        config: Of the federation.
        data: What `load_videos` or, for "video-text", `load_captions` takes; of classification also `VideoRows` by
            split.

    Raises:
        HFVideoError: The data or the model can't be used.
    """
    task: Task
    if config.task == "classification":
        task = FederatedClassification(data, config)
        recipe = default_recipe(task.source)
    elif config.task == "pretraining":
        from hf_video.training.runs.masked_pretraining import MaskedPretraining
        from hf_video.training.runs.pretraining import pretraining_recipe, read_unlabelled_splits

        splits = read_unlabelled_splits(data)
        task = MaskedPretraining(data, find_source(config.model), splits, probe=None, probe_every=1, revision=None)
        recipe = pretraining_recipe(sum(map(len, splits.values())))
    else:
        from hf_video.training.runs.video_text import VideoText, is_narrow

        task = VideoText(data, config.model, None, {}, chunk_size=None, hard_negatives=False)
        recipe = "videoclip:small" if is_narrow(config.model) else "videoclip"
    task.settings = config.settings
    task.recipe = override_recipe(for_model(load_recipe(config.recipe or recipe), task.model_type), config.settings)
    task.splits = task.read_splits()
    task.recipe = task.fit_recipe()
    return task


def with_splits(task: Task, splits: Mapping[str, VideoRows]) -> Task:
    """The same task on other videos, with a batch that they fill."""
    other = copy.copy(task)
    other.splits = dict(splits)
    other.recipe = other.fit_recipe()
    return other


class FederatedModel:
    """The model that the server and all clients make alike, divided into tensors that travel and those that don't.

    Args:
        config: Of the federation.
        task: Any site's task: its classes and recipe decide the model.

    Attributes:
        loaded: Model and processor.
        names: Tensors that travel, sorted.
        initial: The tensors that don't, as they were before any training.
    """

    def __init__(self, config: FederatedConfig, task: Task) -> None:
        set_seed(config.seed)  # new heads and models without weights begin alike everywhere
        self.loaded: LoadedModel = task.load_model(lambda model_class, model_config: None)
        self.model: nn.Module = self.loaded.model
        if config.lora:
            add_adapters(self.model, config.lora)
        self.names = config.travelling(self.model)
        state = self.model.state_dict()
        self.initial: Tensors = {name: state[name].clone() for name in sorted(set(state) - set(self.names))}
        self.like = to_arrays(state, self.names)

    def arrays(self) -> Arrays:
        """The tensors that travel, as they are now."""
        return to_arrays(self.model.state_dict(), self.names)

    def own(self) -> Tensors:
        """The tensors that don't and that training changes, as they are now: a frozen backbone is everybody's."""
        frozen = {name for name, one in self.model.named_parameters() if not one.requires_grad}
        state = self.model.state_dict()
        return {name: state[name].clone() for name in self.initial if name not in frozen}

    def receive(self, arrays: Arrays, own: Tensors | None = None) -> None:
        """Puts tensors that came into the model, and a client's own beside them.

        Raises:
            FederatedError: They are not those of this model.
        """
        check_arrays("the server", arrays, self.like)
        self.model.load_state_dict({**self.initial, **(own or {}), **to_tensors(arrays)}, strict=True)

    def save(self, folder: str | Path) -> None:
        """Writes a model folder as training does; adapters are merged into the weights."""
        model = merged(self.model)
        model.save_pretrained(folder)
        self.loaded.processor.save_pretrained(folder)


class VideoLocalTrainer(LocalTrainer):
    """Trains with a `VideoTrainer`: a new optimiser each round, a constant rate, an order of videos of its own.

    Args:
        client: Its name.
        config: Of the federation.
        task: The client's videos and recipe.
        model: The federation's; clients of one process may share it.
        store: Where the client keeps what is its own.
        output: Folder that the trainer may write to.
        appearance: What is done to the frames of all its videos, in a simulation.
    """

    def __init__(
        self,
        client: str,
        config: FederatedConfig,
        task: Task,
        model: FederatedModel,
        store: PersonalStore,
        output: str | Path,
        *,
        appearance: Appearance | None = None,
    ) -> None:
        self.client, self.config, self.task, self.model, self.store = client, config, task, model, store
        self.output, self.appearance = Path(output), appearance
        policy = config.privacy_policy()
        private = policy is not None and policy.unit == "video"
        self.ledger = PrivacyLedger(store.folder / LEDGER_FILE, client) if private else None

    def fit(self, task: ClientTask) -> ClientResult:
        started = time.monotonic()
        self.receive(task)
        trainer = self.make_trainer(task, self.model.model)
        before = None
        if task.settings.get("needs_loss"):
            before = float(trainer.evaluate(trainer.train_dataset)["eval_loss"])
        terms = self.gradient_terms(task, trainer)
        train = LocalSteps(
            functools.partial(self.make_trainer, task),
            terms,
            None if task.deadline is None else started + task.deadline,
        )
        rule = self.config.personal_rule()
        kept = rule.local_round(self.model.model, self.store.load("personal", task.round) or {}, train)
        control = self.finish_terms(task, terms, train.steps, trainer.args.learning_rate)
        if own := self.model.own():
            self.store.save("own", task.round, own)
        if kept:
            self.store.save("personal", task.round, kept)
        metrics = {"loss": train.loss, "seconds": time.monotonic() - started}
        if self.ledger is not None and (policy := self.config.privacy_policy()):
            metrics["epsilon"] = self.ledger.spent(policy)
        count = len(self.task.splits["train"])
        return ClientResult(self.model.arrays(), count, train.steps, loss=before, control=control, metrics=metrics)

    def receive(self, task: ClientTask, before: int | None = None) -> None:
        """Puts what came into the model, and the client's own tensors as they were before a round; by default the
        task's."""
        own = self.store.load("own", before or task.round)
        if own is None and task.begin is not None:
            own = to_tensors(task.begin)
        self.model.receive(task.arrays, own)

    def evaluate(self, task: ClientTask) -> dict[str, float]:
        rows = self.task.evaluation_rows()
        if rows is None or not len(rows):
            return {}
        # What the client kept of this round is evaluated with what the server made of it.
        rule, measured = self.config.personal_rule(), {}
        self.receive(task, task.round + 1)
        if rule.changes_model:
            measured = {f"common_{name}": value for name, value in self.measure(task).items()}
            kept = self.store.load("personal", task.round + 1) or {}
            rule.make_personal(self.model.model, kept, LocalSteps(functools.partial(self.make_trainer, task)))
        if rule.name and task.round == self.config.rounds:
            self.model.save(self.store.folder / "personal_model")
        return {"num_examples": float(len(rows)), **measured, **self.measure(task)}

    def measure(self, task: ClientTask) -> dict[str, float]:
        """Measures the model as it is on the client's held-out videos."""
        measured = self.make_trainer(task, self.model.model, private=False).evaluate()
        numbers = {name.removeprefix("eval_"): value for name, value in measured.items()}
        return {name: float(value) for name, value in numbers.items() if name not in _CLOCKS}

    def make_trainer(
        self, task: ClientTask, module: nn.Module, *, private: bool = True, **changes: Any
    ) -> VideoTrainer:
        """The task's trainer of a module for one round; `changes` are training arguments. It is private where the
        federation is, but for what never leaves the client."""
        local, policy = self.task, self.config.privacy_policy()
        if policy is not None and self.ledger is not None and private:
            left = (self.config.rounds - task.round + 1) * self.config.personal_rule().trainings
            local = private_task(local, policy, self.ledger, left)
        settings = {name: value for name, value in local.recipe["training"].items() if name not in _SCHEDULE}
        settings |= {
            "num_train_epochs": self.config.local_epochs,
            "max_steps": self.config.local_steps or -1,
            "lr_scheduler_type": "constant",
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "logging_strategy": "no",
            "seed": client_seed(self.config.seed, self.client, task.round),
            "dataloader_num_workers": settings.get("dataloader_num_workers", 0),
            # A client with fewer videos than a batch takes a step of all of them.
            "per_device_train_batch_size": min(
                settings.get("per_device_train_batch_size", 8), len(self.task.splits["train"])
            ),
            **changes,
        }
        arguments = make_arguments(self.output, settings)
        if "learning_rate" not in changes:
            arguments.learning_rate *= self.config.learning_rate_decay ** (task.round - 1)
        trainer = local.make_trainer(replace(self.model.loaded, model=module), arguments)
        trainer.remove_callback(LogLines)  # rounds are what is shown
        if self.appearance is not None:
            trainer.train_dataset = ShiftedDataset.of(trainer.train_dataset, self.appearance)
            if trainer.eval_dataset is not None:
                trainer.eval_dataset = ShiftedDataset.of(trainer.eval_dataset, self.appearance)
        return trainer

    def gradient_terms(self, task: ClientTask, trainer: VideoTrainer) -> list[GradientTerm]:
        """What the strategy adds to the gradients."""
        trained = {name: one for name, one in self.model.model.named_parameters() if one.requires_grad}
        travelling = {name: one for name, one in trained.items() if name in task.arrays}
        terms: list[GradientTerm] = []
        if mu := task.settings.get("proximal_mu"):
            terms.append(ProximalTerm(travelling, mu))
        if task.control is not None:
            if trainer.args.optim != "sgd":
                raise FederatedError(
                    f"SCAFFOLD's control variates are for plain SGD, and the optimiser is {trainer.args.optim}: set "
                    "training.optim=sgd."
                )
            server = {name: one for name, one in _float32(task.control).items() if name in travelling}
            terms.append(ControlTerm(travelling, server, self.store.load("control", task.round)))
        if alpha := task.settings.get("dynamic_alpha"):
            terms.append(DynamicTerm(travelling, alpha, self.store.load("gathered", task.round)))
        return terms

    def finish_terms(
        self, task: ClientTask, terms: Sequence[GradientTerm], steps: int, learning_rate: float
    ) -> Arrays | None:
        """Keeps what terms carry to the next round; returns what SCAFFOLD's server is told."""
        answered = None
        for term in terms:
            if isinstance(term, ControlTerm):
                following, change = term.finish(steps, learning_rate)
                self.store.save("control", task.round, following)
                answered = {name: np.zeros(array.shape, np.float32) for name, array in (task.control or {}).items()}
                answered |= to_arrays(change)
            elif isinstance(term, DynamicTerm):
                self.store.save("gathered", task.round, term.finish())
        return answered


def _float32(arrays: Arrays) -> Tensors:
    return {name: one.to(torch.float32) for name, one in to_tensors(arrays).items()}
