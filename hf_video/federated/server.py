"""The server's side of a federation, from the first client to the finished model; the same for every engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_video.base.written_files import write_json
from hf_video.data.rows import VideoRows
from hf_video.errors import FederatedError
from hf_video.federated.arrays import arrays_digest, to_tensors
from hf_video.federated.client import with_labels
from hf_video.federated.config import FederatedConfig
from hf_video.federated.messages.exchange import ClientFailure, Exchange
from hf_video.federated.messages.payload import Payload
from hf_video.federated.privacy.statement import statement_of_clients
from hf_video.federated.report import FIGURE, rounds_figure
from hf_video.federated.rounds import ALL, FederatedRun, Measure, RoundReport
from hf_video.federated.secure.homomorphic import HomomorphicKeys
from hf_video.federated.secure.runs import EncryptedRun, make_run
from hf_video.federated.trainers import FederatedClassification, FederatedModel
from hf_video.hub.model_card import write_card
from hf_video.training.recipes import for_model, load_recipe, override_recipe
from hf_video.training.runs.classification import default_recipe
from hf_video.training.runs.run import Task

SUMMARY = "federated_summary.json"
ENDED = "ended.json"  # why a deployed server's run ended


def settle_labels(config: FederatedConfig, exchange: Exchange, deadline: float | None = None) -> FederatedConfig:
    """Asks all clients for their classes, and settles those of the federation.

    Raises:
        FederatedError: Too few clients can say, or their classes differ.
    """
    payload = Payload({"config": json.dumps(config.to_dict())})
    answers = exchange.ask("query.describe", dict.fromkeys(sorted(exchange.nodes), payload), deadline)
    failed = {client: one.reason for client, one in answers.items() if isinstance(one, ClientFailure)}
    described = {client: one for client, one in answers.items() if isinstance(one, Payload)}
    if len(described) < config.min_clients:
        why = "; ".join(f"{client}: {reason}" for client, reason in failed.items())
        raise FederatedError(f"{len(described)} clients have videos, and {config.min_clients} are needed. {why}")
    return with_labels(config, described)


def server_task(config: FederatedConfig) -> Task:
    """A task without videos, of which the server makes the model.

    Raises:
        FederatedError: This kind of task needs videos for that.
    """
    if config.task != "classification":
        raise FederatedError(f"A server without videos can't make the model of the task {config.task!r} yet.")
    task = FederatedClassification((), config)
    task.settings = config.settings
    recipe = load_recipe(config.recipe or default_recipe(task.source))
    task.recipe = override_recipe(for_model(recipe, task.model_type), config.settings)
    task.splits = {"train": VideoRows((), config.labels or ())}
    return task


def run_federation(
    config: FederatedConfig,
    exchange: Exchange,
    output: str | Path,
    *,
    model: FederatedModel | None = None,
    measure: Measure | None = None,
    on_round: Callable[[RoundReport], None] | None = None,
    wait: float | None = 0.0,
    resume: bool = False,
    shared_keys: HomomorphicKeys | None = None,
) -> dict[str, Any]:
    """Waits for the clients, does the rounds, and writes the model.

    Args:
        config: Of the federation.
        exchange: To the clients.
        output: Folder of the run, in the end also of the model.
        model: The federation's; by default it is made of the configuration.
        measure: What the server measures itself after a round.
        on_round: Told of each round.
        wait: Seconds to wait for `min_clients`; None for ever.
        resume: Go on with the run in `output`.
        shared_keys: The clients' keys of a federation under encryption, which a simulation has. Without them no model
            is written here: each client keeps it as `model/` in its folder.

    Returns:
        The summary that is also written to `federated_summary.json`.

    Raises:
        HFVideoError: What can't work; rounds that were done are kept.
    """
    started = time.monotonic()
    exchange.discover(config.min_clients, wait)
    config = settle_labels(config, exchange, config.deadline)
    model = model or FederatedModel(config, server_task(config))
    run = make_run(config, exchange, output, model.arrays(), measure=measure, on_round=on_round)
    history = run.run(resume=resume)
    arrays, clients = run.state.arrays, sorted({client for row in history for client in row.clients})
    if isinstance(run, EncryptedRun):
        arrays = None if shared_keys is None else run.opened(shared_keys)
    if arrays is not None:
        own = run.mean_of_own(clients)
        model.receive(arrays, None if own is None else to_tensors(own))
        model.save(output)
    summary = {
        "config": config.to_dict(),
        "rounds": len(history),
        "clients": clients,
        "seconds": round(time.monotonic() - started, 2),
        "bytes_down": sum(row.bytes_down for row in history),
        "bytes_up": sum(row.bytes_up for row in history),
        "metrics": history[-1].metrics if history else {},
        "evaluation": summarize_evaluation(history[-1]) if history else {},
        "sha256": None if arrays is None else arrays_digest(arrays),
        "privacy": privacy_facts(run),
    }
    write_json(Path(output) / SUMMARY, summary)
    if any(row.evaluation for row in history):
        rounds_figure(history, Path(output) / FIGURE)  # the card shows it
    if arrays is not None:
        write_card(Path(output))
    return summary


def privacy_facts(run: FederatedRun) -> dict[str, Any] | None:
    """The statement of a private run; None where there is no guarantee. Of single videos each client has an account of
    its own, and the run states what holds for all of them."""
    policy = run.config.privacy_policy()
    if run.client_privacy is not None:
        return run.client_privacy.statement().facts()
    if policy is None:
        return None
    largest = max((row.metrics.get("epsilon", 0.0) for row in run.history), default=0.0)
    return {**policy.as_dict(), "largest_epsilon": largest or None, "statement": statement_of_clients(policy, largest)}


def summarize_evaluation(report: RoundReport) -> dict[str, dict[str, float]]:
    """What clients measured on their own videos: the mean, each client alike, the worst and the best, the standard
    deviation ("spread"), and what nine clients of ten reach ("p10"). Under a personal rule numbers are those of the
    clients' own models, and "common_…" those of the server's. Of a secure sum there is the mean alone, by videos.
    """
    if ALL in report.evaluation:
        return {name: {"mean": value} for name, value in report.evaluation[ALL].items() if name != "num_examples"}
    wanted = {f"{whose}{name}" for whose in ("", "common_") for name in ("accuracy", "loss")}
    names = {name for one in report.evaluation.values() for name in one} & wanted
    result = {}
    for name in sorted(names):
        values = [one[name] for one in report.evaluation.values() if name in one]
        low, high = (0, 100) if name.endswith("accuracy") else (100, 0)
        worst, p10, best = np.percentile(values, [low, abs(low - 10), high]).tolist()
        spread = float(np.std(values))
        result[name] = {"mean": float(np.mean(values)), "worst": worst, "p10": p10, "best": best, "spread": spread}
    return result


def with_labels_of(config: FederatedConfig, task: Task) -> FederatedConfig:
    """The configuration with the classes of videos that were read already."""
    rows = task.splits["train"]
    return replace(config, labels=tuple(rows.labels)) if rows.labels and config.labels is None else config
