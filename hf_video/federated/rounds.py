"""The server's loop: ask clients to train, check what they answer, make the next model, keep it, go on.

A run's folder holds `federation.json`, `rounds/000003/` (the server's state after round 3; the last two are kept),
`history.json` (a row for each round), `audit.jsonl` (what was sent and received, when, by whom) and in the end the
model. A run that was stopped goes on after its last finished round.
"""

from __future__ import annotations

import json
import math
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hf_video.base.version import __version__
from hf_video.base.written_files import read_json, write_json
from hf_video.errors import FederatedError, HFVideoError, OutputError
from hf_video.federated.arrays import (
    Arrays,
    arrays_digest,
    check_arrays,
    is_floating,
    payload_bytes,
    to_arrays,
    to_tensors,
    widened,
)
from hf_video.federated.client import BEGIN, client_result, task_payload
from hf_video.federated.config import FederatedConfig
from hf_video.federated.messages.compression import decompress_payload, parse_compression
from hf_video.federated.messages.exchange import ClientFailure, Exchange
from hf_video.federated.messages.payload import Payload
from hf_video.federated.privacy.clients import update_norm
from hf_video.federated.privacy.ledger import LEDGER_FILE, PrivacyLedger
from hf_video.federated.privacy.server import ClientLevelPrivacy
from hf_video.federated.rules.personal import mean_of_kept
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, ServerState
from hf_video.federated.trainers import ClientTask

CONFIG, HISTORY, AUDIT, ROUNDS = "federation.json", "history.json", "audit.jsonl", "rounds"
_KEPT = 2
ALL = "all clients"  # whose numbers a secure sum has, in place of a client's name
Measure = Callable[[Arrays], Mapping[str, float]]


@dataclass
class RoundReport:
    """A row of the history.

    Args:
        round: Its number.
        clients: Those whose answers count.
        failed: Why others don't, by client.
        seconds: It took.
        bytes_down, bytes_up: Of payloads, all clients together.
        metrics: Means of what clients measured while training, and of the server's own measurement ("server_…").
        evaluation: What clients measured on their held-out videos, by client.
    """

    round: int
    clients: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)


class FederatedRun:
    """Rounds of a federation.

    Args:
        config: With its classes settled.
        exchange: To the clients.
        folder: Of the run.
        initial: The tensors that travel, before training.
        measure: What the server measures itself, on videos that it has.
        on_round: Told of each round's report when it is done.
        num_clients: All of the federation, where more are expected than are there.
    """

    def __init__(
        self,
        config: FederatedConfig,
        exchange: Exchange,
        folder: str | Path,
        initial: Arrays,
        *,
        measure: Measure | None = None,
        on_round: Callable[[RoundReport], None] | None = None,
        num_clients: int | None = None,
    ) -> None:
        self.config, self.exchange, self.folder = config, exchange, Path(folder)
        self.measure, self.on_round = measure, on_round
        clients = num_clients or max(len(exchange.nodes), 1)
        self.strategy: AggregationStrategy = config.make_strategy(clients)
        policy, self.client_privacy = config.privacy_policy(), None
        if policy is not None and policy.unit == "client":
            ledger = PrivacyLedger(self.folder / LEDGER_FILE)
            self.client_privacy = ClientLevelPrivacy(policy, clients, config.fraction, ledger)
        self.state = ServerState(initial)
        self.history: list[RoundReport] = []

    # ---- the loop ----

    def run(self, *, resume: bool = False) -> list[RoundReport]:
        """Does the rounds that are left.

        Raises:
            FederatedError: Too few clients answered, or an answer can't be used and `on_bad_update` is "stop". What was
                done so far is kept; `resume` goes on with it.
        """
        self.open(resume=resume)
        while self.state.round < self.config.rounds:
            report = RoundReport(self.state.round + 1)
            started, before = time.monotonic(), self._bytes()
            self.exchange.discover(1)
            chosen = self.select(report)
            results = self.collect(chosen, report)
            self.check_enough(report, chosen)
            self.state = self.aggregate(results)
            report.metrics = mean_metrics({client: one.metrics for client, one in results.items()})
            if "epsilon" in report.metrics:  # each client has its own; what holds for all is the largest
                report.metrics["epsilon"] = max(one.metrics.get("epsilon", 0.0) for one in results.values())
            if self.client_privacy is not None and math.isfinite(spent := self.client_privacy.spent()):
                report.metrics["epsilon"] = spent
            if report.round % self.config.evaluate_every == 0 or report.round == self.config.rounds:
                self.evaluate(report)
            after = self._bytes()
            report.bytes_down, report.bytes_up = after[0] - before[0], after[1] - before[1]
            report.seconds = time.monotonic() - started
            self.keep(report)
        return self.history

    def select(self, report: RoundReport) -> list[str]:
        """The clients of a round. Client-level privacy draws them itself, if a round more is within its target."""
        clients = sorted(self.exchange.nodes)
        if self.client_privacy is None:
            return self.strategy.select(clients, self.config.fraction, report.round, self.config.seed)
        self.client_privacy.begin_round(self.config.rounds - self.state.round)
        return self.client_privacy.select(clients)

    def collect(self, chosen: Sequence[str], report: RoundReport) -> dict[str, ClientResult]:
        """Asks clients to train; returns the answers that can be used, and notes the others in the report."""
        payloads = self.payloads(task_payload(self.config, self.round_task(report)), chosen)
        sent = arrays_digest(self.state.arrays)
        for client in chosen:
            self.audit("sent", round=report.round, client=client, bytes=payloads[client].nbytes, sha256=sent)
        answers = self.exchange.ask("train", payloads, self.config.deadline)
        results, compression = {}, parse_compression(self.config.compression)
        for client, answer in answers.items():
            received = answer.nbytes if isinstance(answer, Payload) else 0
            if isinstance(answer, ClientFailure):
                self.reject(report, client, answer.reason)
                continue
            try:
                if compression is not None:
                    answer = decompress_payload(answer, self.state.arrays, compression, client)
                results[client] = self.accept(client, client_result(client, answer))
            except FederatedError as error:
                self.reject(report, client, str(error))
                if self.config.on_bad_update == "stop":
                    raise
                continue
            digest = arrays_digest(results[client].arrays)
            norm = update_norm(self.change(results[client].arrays))
            facts = {"round": report.round, "client": client, "bytes": received, "sha256": digest, "norm": norm}
            self.audit("received", **facts, **spent_by(results[client]))
        report.clients = sorted(results)
        return results

    def round_task(self, report: RoundReport) -> ClientTask:
        """What clients are asked in a round."""
        deadline = self.config.deadline
        return ClientTask(
            report.round,
            self.state.arrays,
            self.client_settings(),
            self.strategy.client_arrays(self.state),
            None if deadline is None else 0.8 * deadline,  # the rest is for the way
        )

    def payloads(self, payload: Payload, clients: Sequence[str], trained: Sequence[str] = ()) -> dict[str, Payload]:
        """What each client is sent. Under FedBN those that are new get the mean of the others' norms."""
        known = {client for row in self.history for client in row.clients} | set(trained)
        begin = self.mean_of_own(sorted(known)) if set(clients) - known else None
        new = payload if begin is None else Payload(payload.values, {**payload.arrays, BEGIN: begin})
        return {client: payload if client in known else new for client in clients}

    def mean_of_own(self, clients: Sequence[str]) -> Arrays | None:
        """The mean of what clients keep; None where the rule does not ask for it, or nobody answers."""
        if not self.config.asks_for_own() or not clients:
            return None
        payload = Payload({"config": json.dumps(self.config.to_dict()), "round": self.state.round})
        there = [client for client in clients if client in self.exchange.nodes]
        answers = self.exchange.ask("query.own", dict.fromkeys(there, payload), self.config.deadline)
        kept = {
            client: to_tensors(one.arrays["own"])
            for client, one in answers.items()
            if isinstance(one, Payload) and "own" in one.arrays
        }
        return to_arrays(mean_of_kept(kept)) if kept else None

    def client_settings(self) -> dict[str, float]:
        """What clients are told besides the model."""
        settings = dict(self.strategy.client_settings(self.state))
        if "loss" in self.strategy.needs:
            settings["needs_loss"] = 1.0
        return settings

    def change(self, arrays: Arrays) -> Arrays:
        """What a client's floating tensors differ by from those that were sent, float64."""
        sent = self.state.arrays
        return {name: widened(one) - widened(sent[name]) for name, one in arrays.items() if is_floating(one)}

    def accept(self, client: str, result: ClientResult) -> ClientResult:
        """Raises FederatedError for an answer that can't be used."""
        check_arrays(client, result.arrays, self.state.arrays)
        if result.num_examples < 1:
            raise FederatedError(f"Client {client!r} says that it trained on {result.num_examples} videos.")
        most = self.config.max_update_norm
        if most is not None and (norm := update_norm(self.change(result.arrays))) > most:
            raise FederatedError(f"Client {client!r} changed the model by {norm:.4g}, more than {most:g} in L2 norm.")
        return result

    def reject(self, report: RoundReport, client: str, reason: str) -> None:
        report.failed[client] = reason
        self.audit("failed", round=report.round, client=client, reason=reason)

    def check_enough(self, report: RoundReport, chosen: Sequence[str]) -> None:
        """Raises FederatedError for fewer answers than `min_clients`; where privacy drew fewer clients, than those."""
        least = self.config.min_clients
        if len(report.clients) >= (least if self.client_privacy is None else min(least, len(chosen))):
            return
        why = "; ".join(f"{client}: {reason}" for client, reason in list(report.failed.items())[:3])
        raise FederatedError(
            f"Round {report.round} has {len(report.clients)} answers, and min_clients={self.config.min_clients} are "
            f"needed. {why or 'No more clients are there.'} The {self.state.round} rounds before are kept: --resume "
            "goes on."
        )

    def aggregate(self, results: Mapping[str, ClientResult]) -> ServerState:
        """The next state of the answers."""
        if self.client_privacy is not None:
            return self.client_privacy.aggregate(self.strategy, self.state, results)
        return self.strategy.aggregate(self.state, results)

    def evaluate(self, report: RoundReport) -> None:
        """Lets all clients, and the server if it can, measure the new model."""
        payloads = self.payloads(self.evaluation_payload(report), sorted(self.exchange.nodes), report.clients)
        answers = self.exchange.ask("evaluate", payloads, self.config.deadline)
        for client, answer in answers.items():
            if isinstance(answer, ClientFailure):
                self.audit("failed", round=report.round, client=client, reason=f"evaluation: {answer.reason}")
            elif answer.values:
                values = {name: value for name, value in answer.values.items() if isinstance(value, (int, float))}
                report.evaluation[client] = {name: float(value) for name, value in values.items()}
        self.measure_here(report)

    def evaluation_payload(self, report: RoundReport) -> Payload:
        """What clients are sent to measure the new model."""
        return task_payload(self.config, ClientTask(report.round, self.state.arrays))

    def measure_here(self, report: RoundReport) -> None:
        """Measures the new model on the server's own videos, if it has some."""
        if self.measure is not None:
            report.metrics |= {
                f"server_{name}": float(value) for name, value in self.measure(self.state.arrays).items()
            }

    def digest(self) -> str:
        """Tells models apart, see `arrays_digest`."""
        return arrays_digest(self.state.arrays)

    def _bytes(self) -> tuple[int, int]:
        return sum(self.exchange.bytes_down.values()), sum(self.exchange.bytes_up.values())

    # ---- what is kept ----

    def open(self, *, resume: bool) -> None:
        """Makes the folder of a new run, or reads the state of one that goes on.

        Raises:
            OutputError: There is a run already, or none to resume.
            FederatedError: The run that is there was begun otherwise.
        """
        path = self.folder / CONFIG
        if not resume:
            if path.exists():
                raise OutputError(f"{self.folder} holds a federated run already: go on with --resume, or name another.")
            (self.folder / ROUNDS).mkdir(parents=True, exist_ok=True)
            facts = {"config": self.config.to_dict(), "digest": self.config.digest(), "hf_video": __version__}
            write_json(path, facts)
            sizes = {"tensors": len(self.state.arrays), "bytes": payload_bytes(self.state.arrays)}
            self.audit("started", **facts, **sizes, versions=software())
            return
        if not path.exists():
            raise OutputError(f"{self.folder} holds no federated run to resume.")
        before = read_json(path)
        if before["digest"] != self.config.digest():
            differ = [n for n, v in self.config.to_dict().items() if n != "rounds" and before["config"].get(n) != v]
            raise FederatedError(
                f"{self.folder} was begun with other settings ({', '.join(differ) or 'labels'}). Resume with the same."
            )
        finished = sorted((self.folder / ROUNDS).glob("??????"))
        if finished:
            self.state = load_state(finished[-1])
        rows = read_json(self.folder / HISTORY)["rounds"] if (self.folder / HISTORY).exists() else []
        self.history = [RoundReport(**row) for row in rows if row["round"] <= self.state.round]
        self.audit("resumed", round=self.state.round, versions=software())

    def keep(self, report: RoundReport) -> None:
        """Writes what a round made, the state first: a round counts when its state is there."""
        save_state(self.state, self.folder / ROUNDS)
        self.history.append(report)
        write_json(self.folder / HISTORY, {"rounds": [vars(one) for one in self.history]})
        facts = {name: value for name, value in vars(report).items() if name != "evaluation"}
        self.audit("round", **facts, sha256=arrays_digest(self.state.arrays))
        if self.on_round is not None:
            self.on_round(report)

    def audit(self, event: str, **facts: Any) -> None:
        """Adds a line to the log, with the time."""
        line = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "event": event, **facts}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / AUDIT).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def software() -> dict[str, str]:
    """Versions of what a result may depend on."""
    packages = ("flwr", "numpy", "torch", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def spent_by(result: ClientResult) -> dict[str, float]:
    """ε that a client says it has spent so far, for the log; nothing where its videos have no such guarantee."""
    return {name: value for name, value in result.metrics.items() if name == "epsilon"}


def mean_metrics(measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Means over the clients that measured a thing, each client alike."""
    names = sorted({name for one in measured.values() for name in one})
    return {name: float(np.mean([one[name] for one in measured.values() if name in one])) for name in names}


def save_state(state: ServerState, rounds: Path) -> Path:
    """Writes a state as `rounds/<number>`, whole or not at all; older ones but one go."""
    target, aside = rounds / f"{state.round:06d}", rounds / "unfinished"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    groups = {"arrays": state.arrays, **{f"slots.{slot}": arrays for slot, arrays in state.slots.items()}}
    for group, arrays in groups.items():
        save_file(to_tensors(arrays), aside / f"{group}.safetensors")
    write_json(aside / "state.json", {"round": state.round, "groups": list(groups)})
    aside.rename(target)
    for old in sorted(rounds.glob("??????"))[:-_KEPT]:
        shutil.rmtree(old)
    return target


def load_state(folder: Path) -> ServerState:
    """Reads what `save_state` wrote.

    Raises:
        FederatedError: It is damaged.
    """
    try:
        facts = read_json(folder / "state.json")
        groups = {group: to_arrays(load_file(folder / f"{group}.safetensors")) for group in facts["groups"]}
    except (OSError, ValueError, KeyError, SafetensorError, HFVideoError) as error:
        raise FederatedError(
            f"The server's state in {folder} can't be read: {error}. Delete it to go on from the one before."
        ) from error
    slots = {group.removeprefix("slots."): arrays for group, arrays in groups.items() if group != "arrays"}
    return replace(ServerState(groups["arrays"]), round=facts["round"], slots=slots)
