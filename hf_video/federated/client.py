"""A site's side of a federation: what it answers to each kind of message, apart from any engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hf_video.base.version import __version__
from hf_video.data.rows import VideoRows
from hf_video.errors import FederatedError, HFVideoError
from hf_video.federated.arrays import Arrays, to_arrays, to_tensors
from hf_video.federated.config import FederatedConfig
from hf_video.federated.data.feature_shift import Appearance
from hf_video.federated.deployment.limits import SiteLimits
from hf_video.federated.messages.compression import compress_payload, parse_compression
from hf_video.federated.messages.payload import Payload, Value
from hf_video.federated.rules.strategies import ClientResult
from hf_video.federated.secure.client import SecureClient
from hf_video.federated.secure.encrypted import KEEP_MODEL, open_task, seal_answer
from hf_video.federated.secure.homomorphic import HomomorphicKeys
from hf_video.federated.secure.layout import Contribution
from hf_video.federated.secure.options import Encryption, SecureAggregation, SiteKeys
from hf_video.federated.secure.protocol import KINDS, MEASURE
from hf_video.federated.secure.quantization import MIN_CLIENTS
from hf_video.federated.store import PersonalStore
from hf_video.federated.trainers import ClientTask, FederatedModel, LocalTrainer, VideoLocalTrainer, make_task
from hf_video.training.runs.run import Task

SETTING = "settings."  # before names of what a strategy tells clients
METRIC = "metrics."
BEGIN = "begin"  # arrays of a client that has none of its own yet


@dataclass(frozen=True)
class Site:
    """Who a client is and what it has.

    Args:
        name: Unlike that of any other client.
        data: A folder or list of videos, or a task whose videos were read already.
        folder: Where it keeps what is its own.
        limits: What it agrees to.
        keys: For sums that the server can't look into.
        appearance: What its camera makes of the videos, in a simulation.
    """

    name: str
    data: Any
    folder: Path
    limits: SiteLimits = field(default_factory=SiteLimits)
    keys: SiteKeys = field(default_factory=SiteKeys)
    appearance: Appearance | None = None

    def task(self, config: FederatedConfig) -> Task:
        """Its videos as the task of a federation."""
        return self.data if isinstance(self.data, Task) else make_task(config, self.data)


class ClientRuntime:
    """Answers messages.

    Args:
        site: Whose videos are trained on.
        models: Models of federations by their configuration, which clients of one process share.
        make_trainer: Makes the `LocalTrainer` of a federation; default a `VideoLocalTrainer`.
    """

    def __init__(
        self,
        site: Site,
        models: dict[str, FederatedModel] | None = None,
        make_trainer: Callable[[FederatedConfig], LocalTrainer] | None = None,
    ) -> None:
        self.site = site
        self.models = {} if models is None else models
        self.store = PersonalStore(site.folder)
        self._make_trainer = make_trainer or self.video_trainer
        self._trainers: dict[str, LocalTrainer] = {}
        self._tasks: dict[str, Task] = {}
        self.handlers: dict[str, Callable[[Payload], Payload]] = {
            "query.describe": self.describe,
            "train": self.train,
            "evaluate": self.evaluate,
            **{kind: partial(self.answer_secure_sum, kind) for kind in KINDS},
            "query.own": self.own,
        }
        self._secure_client: SecureClient | None = None

    def handle(self, kind: str, payload: Payload) -> Payload:
        """Answers a message; what can't be done is told in the answer's `error`."""
        if kind not in self.handlers:
            return Payload({"error": f"Client {self.site.name!r} knows no message {kind!r}; update hf_video there."})
        try:
            if "config" in payload.values:
                number = int(payload.number("round", "The server")) if "round" in payload.values else 0
                self.site.limits.check(read_config(payload), number)
            return self.handlers[kind](payload)
        except HFVideoError as error:
            return Payload({"error": f"{type(error).__name__}: {error}"})

    # ---- what it answers ----

    def describe(self, payload: Payload) -> Payload:
        """Its name and version; with a configuration also its classes, and its number of videos
        where the federation does not hide that."""
        values: dict[str, Value] = {"name": self.site.name, "hf_video": __version__}
        if "config" in payload.values:
            config = read_config(payload)
            splits = self.task(config).splits
            values |= {"labels": _labels(splits["train"])}
            if not isinstance(config.secure_options(), SecureAggregation):
                values |= {"num_examples": len(splits["train"])}
        return Payload(values)

    def train(self, payload: Payload) -> Payload:
        config, payload = self.open_task(payload)
        task = client_task(payload)
        answer = result_payload(self.trainer(config).fit(task))
        if isinstance(config.secure_options(), Encryption):
            return seal_answer(self.shared_keys(), answer, payload)
        compression = parse_compression(config.compression)
        if compression is None:
            return answer
        left = self.store.load("residual", task.round)
        answer, residual = compress_payload(answer, task.arrays, compression, left and to_arrays(left))
        if residual:
            self.store.save("residual", task.round, to_tensors(residual))
        return answer

    def evaluate(self, payload: Payload) -> Payload:
        config, payload = self.open_task(payload)
        trainer = self.trainer(config)
        measured = Payload(dict(trainer.evaluate(client_task(payload))))
        if payload.values.get(KEEP_MODEL) and isinstance(trainer, VideoLocalTrainer):
            trainer.receive(client_task(payload))
            trainer.model.save(self.site.folder / "model")
        return measured

    # ---- under secure sums ----

    def open_task(self, payload: Payload) -> tuple[FederatedConfig, Payload]:
        """The configuration and the task of a message, whose model may be encrypted.

        Raises:
            FederatedError: An answer in the clear is asked for in a federation of secure sums.
        """
        config = read_config(payload)
        options = config.secure_options()
        if isinstance(options, SecureAggregation):
            raise FederatedError(f"Client {self.site.name!r} answers this federation by secure sums alone.")
        return config, open_task(self.shared_keys(), payload) if isinstance(options, Encryption) else payload

    def shared_keys(self) -> HomomorphicKeys:
        """The keys that the sites share for encryption."""
        if self.site.keys.shared is None:
            raise FederatedError(f"Site {self.site.name!r} has no key file for homomorphic encryption.")
        return HomomorphicKeys(self.site.keys.shared)

    def answer_secure_sum(self, kind: str, payload: Payload) -> Payload:
        if self._secure_client is None:
            keys = self.site.keys
            if keys.signing_key is None:
                raise FederatedError(f"Site {self.site.name!r} has no keys for secure sums.")
            self._secure_client = SecureClient(
                self.site.name,
                keys.signing_key,
                keys.registered,
                self.contribute,
                state_file=self.site.folder / "secure_sum.json",
                min_clients=max(self.site.limits.clients or MIN_CLIENTS, MIN_CLIENTS),
            )
        return self._secure_client.handle(kind, payload)

    def contribute(self, payload: Payload) -> Contribution:
        """What it adds to a secure sum: of training, or of measuring a model."""
        config, task = read_config(payload), client_task(payload)
        if payload.values.get(MEASURE):
            measured = self.trainer(config).evaluate(task)
            return Contribution({}, int(measured.get("num_examples", 0)), measured)
        result = self.trainer(config).fit(task)
        return Contribution(result.arrays, result.num_examples, result.metrics)

    def own(self, payload: Payload) -> Payload:
        """Its batch norms, or what else it keeps of that kind, for clients that are new; nothing if it has none yet.

        Raises:
            FederatedError: The rule of the federation does not ask for it.
        """
        config = read_config(payload)
        if not config.asks_for_own():
            raise FederatedError("No rule of this federation asks for what a client keeps.")
        own = self.store.load("own", int(payload.number("round", "The server")) + 1)
        return Payload(arrays={} if own is None else {"own": to_arrays(own)})

    # ---- what it has ----

    def task(self, config: FederatedConfig) -> Task:
        key = config.digest()
        if key not in self._tasks:
            self._tasks = {key: self.site.task(config)}
        return self._tasks[key]

    def trainer(self, config: FederatedConfig) -> LocalTrainer:
        key = config.digest()
        if key not in self._trainers:
            self._trainers = {key: self._make_trainer(config)}
        return self._trainers[key]

    def video_trainer(self, config: FederatedConfig) -> VideoLocalTrainer:
        """The trainer of its videos, with the model that its process has for the federation."""
        key, task = config.digest(), self.task(config)
        if key not in self.models:
            self.models[key] = FederatedModel(config, task)
        folder = self.site.folder / "trainer"
        site = self.site
        return VideoLocalTrainer(
            site.name, config, task, self.models[key], self.store, folder, appearance=site.appearance
        )


def _labels(rows: VideoRows) -> list[str]:
    """The classes that a site's videos show."""
    return [label for label, count in rows.counts().items() if count] if rows.labelled else []


def read_config(payload: Payload) -> FederatedConfig:
    """The configuration that a message carries."""
    text = payload.values.get("config")
    if not isinstance(text, str):
        raise FederatedError("The message has no configuration of a federation.")
    return FederatedConfig.from_dict(json.loads(text))


def task_payload(
    config: FederatedConfig,
    task: ClientTask,
) -> Payload:
    """What a client is sent to train or to evaluate."""
    values: dict[str, Value] = {"config": json.dumps(config.to_dict()), "round": task.round}
    values |= {SETTING + name: value for name, value in task.settings.items()}
    if task.deadline is not None:
        values["deadline"] = task.deadline
    arrays = {"model": task.arrays}
    if task.control is not None:
        arrays["control"] = task.control
    return Payload(values, arrays)


def client_task(payload: Payload) -> ClientTask:
    """The reverse of `task_payload`."""
    deadline = payload.values.get("deadline")
    return ClientTask(
        round=int(payload.number("round", "The server")),
        arrays=payload.arrays["model"],
        settings=prefixed(payload.values, SETTING),
        control=payload.arrays.get("control"),
        deadline=None if deadline is None else float(payload.number("deadline", "The server")),
        begin=payload.arrays.get(BEGIN),
    )


def prefixed(values: Mapping[str, Value], prefix: str) -> dict[str, float]:
    """The numbers whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): float(value)
        for name, value in values.items()
        if name.startswith(prefix) and isinstance(value, (int, float))
    }


def result_payload(result: ClientResult) -> Payload:
    """What a client answers after training."""
    values: dict[str, Value] = {"num_examples": result.num_examples}
    if result.steps is not None:
        values["steps"] = result.steps
    if result.loss is not None:
        values["loss"] = result.loss
    values |= {METRIC + name: value for name, value in result.metrics.items()}
    arrays: dict[str, Arrays] = {"model": result.arrays}
    if result.control is not None:
        arrays["control"] = result.control
    return Payload(values, arrays)


def client_result(client: str, payload: Payload) -> ClientResult:
    """The reverse of `result_payload`.

    Raises:
        FederatedError: A part is missing, or a number is not finite.
    """
    sender = f"Client {client!r}"
    if "model" not in payload.arrays:
        raise FederatedError(f"{sender} answered without a model.")
    has = payload.values
    return ClientResult(
        arrays=payload.arrays["model"],
        num_examples=int(payload.number("num_examples", sender)),
        steps=int(payload.number("steps", sender)) if "steps" in has else None,
        loss=payload.number("loss", sender) if "loss" in has else None,
        control=payload.arrays.get("control"),
        metrics=prefixed(has, METRIC),
    )


def with_labels(config: FederatedConfig, answers: Mapping[str, Payload]) -> FederatedConfig:
    """The configuration with its classes settled by what clients say of theirs.

    Raises:
        FederatedError: Clients have other classes than each other, or than `labels` of the configuration.
    """
    if config.task != "classification":
        return config
    own = {client: list(answer.values.get("labels") or ()) for client, answer in sorted(answers.items())}
    known = config.labels
    if known is None:
        first, labels = next(iter(own.items()))
        for client, other in own.items():
            if sorted(map(str, other)) != sorted(map(str, labels)):
                differ = sorted(set(map(str, other)) ^ set(map(str, labels)))
                raise FederatedError(
                    f"Clients {first!r} and {client!r} have other classes: {', '.join(map(repr, differ))} at one of "
                    "them alone. Rename what means the same, or list all classes under `labels:` if a site may lack "
                    "some."
                )
        return replace(config, labels=tuple(map(str, labels)))
    for client, other in own.items():
        if strange := sorted(set(map(str, other)) - set(known)):
            raise FederatedError(
                f"Client {client!r} has the class {strange[0]!r}, which is not under `labels:` ({', '.join(known)})."
            )
    return config
