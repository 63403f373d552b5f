"""Rounds of which the server sees sums alone: under SecAgg, or under encryption."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hf_video.errors import FederatedError
from hf_video.federated.arrays import Arrays, arrays_digest, check_arrays, is_floating
from hf_video.federated.client import METRIC, prefixed, task_payload
from hf_video.federated.combinations import check_combination
from hf_video.federated.config import FederatedConfig
from hf_video.federated.messages.exchange import ClientFailure
from hf_video.federated.messages.payload import Payload, Value
from hf_video.federated.privacy.clients import update_norm
from hf_video.federated.rounds import ALL, FederatedRun, RoundReport
from hf_video.federated.rules.strategies import ClientResult, ServerState
from hf_video.federated.secure.encrypted import (
    ENCRYPTED,
    FINGERPRINT,
    KEEP_MODEL,
    SHARE,
    TOTAL,
    WEIGHTING,
    floating,
    from_pieces,
    open_task,
    to_pieces,
    weight_of,
)
from hf_video.federated.secure.homomorphic import HomomorphicKeys, add, check_encrypted_size, ciphertext_count
from hf_video.federated.secure.options import Encryption, SecureAggregation
from hf_video.federated.secure.protocol import MEASURE
from hf_video.federated.secure.server import SecureResult, SecureSum

ENCRYPTED_FACTS = f"{ENCRYPTED}_facts"
TRAINED, MEASURED = ("loss",), ("accuracy", "loss")


class SecureRun(FederatedRun):
    """Under SecAgg: of a round the server learns the mean change, how many videos it is of, and mean metrics."""

    def __init__(self, *arguments: Any, options: SecureAggregation, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.options = options
        self.session = secrets.token_hex(8)  # another after a restart, so that a round may be asked again

    def collect(self, chosen: Sequence[str], report: RoundReport) -> dict[str, ClientResult]:
        """Asks clients to train; returns their mean as if it were one client's answer."""
        payload = task_payload(self.config, self.round_task(report))
        found = self.sum_of(self.options.server(self.strategy.weighting, TRAINED), chosen, payload, report, 0)
        report.clients = list(found.survivors)
        digest, norm = arrays_digest(found.arrays), update_norm(self.change(found.arrays))
        self.audit("summed", round=report.round, clients=report.clients, sha256=digest, norm=norm)
        return {ALL: ClientResult(found.arrays, found.num_examples, metrics=found.metrics)}

    def evaluate(self, report: RoundReport) -> None:
        """Lets all clients measure the new model; the means are `ALL`'s."""
        payload = self.evaluation_payload(report)
        payload = replace(payload, values={**payload.values, MEASURE: True})
        server = self.options.server("examples", MEASURED)
        try:
            found = self.sum_of(server, sorted(self.exchange.nodes), payload, report, 1)
        except FederatedError as error:
            self.audit("failed", round=report.round, client=ALL, reason=f"evaluation: {error}")
        else:
            if found.metrics:
                report.evaluation[ALL] = {"num_examples": float(found.num_examples), **found.metrics}
        self.measure_here(report)

    def sum_of(
        self, server: SecureSum, clients: Sequence[str], payload: Payload, report: RoundReport, attempt: int
    ) -> SecureResult:
        """One secure sum; who was missing is noted in the report."""

        def ask(kind: str, messages: Mapping[str, Payload]) -> dict[str, Payload]:
            for client, message in messages.items():
                self.audit("sent", round=report.round, client=client, kind=kind, bytes=message.nbytes)
            answers = self.exchange.ask(kind, messages, self.config.deadline)
            given = {}
            for client, answer in answers.items():
                if isinstance(answer, ClientFailure):
                    self.reject(report, client, f"{kind}: {answer.reason}")
                else:
                    self.audit("received", round=report.round, client=client, kind=kind, bytes=answer.nbytes)
                    given[client] = answer
            return given

        try:
            found = server.run(ask, clients, payload, run=self.session, round_number=report.round, attempt=attempt)
        except FederatedError as error:
            why = "; ".join(f"{client}: {reason}" for client, reason in report.failed.items())
            raise FederatedError(
                f"Round {report.round}: {error} {why} The {self.state.round} rounds before are kept: --resume goes on."
            ) from error
        for client, fault in found.faults.items():
            if client not in report.failed:
                self.reject(report, client, fault)
        return found


class EncryptedRun(FederatedRun):
    """Under encryption: the server has the first model and then sums of ciphertexts, which clients open.

    The state's arrays stay those of the first model, but for counts; the sum is in its slots.
    """

    def __init__(self, *arguments: Any, options: Encryption, **named: Any) -> None:
        super().__init__(*arguments, **named)
        check_encrypted_size(floating(self.state.arrays), options.force)
        self.examples: dict[str, int] = {}  # videos that clients say they have
        self.total = 0  # weight of the clients of this round
        self.answered: dict[str, tuple[list[bytes], str]] = {}  # of this round: ciphertexts and fingerprint

    def collect(self, chosen: Sequence[str], report: RoundReport) -> dict[str, ClientResult]:
        """Asks clients to train; returns what is not encrypted of their answers, and has the rest for `aggregate`."""
        self.answered = {}
        payload = self.outgoing(task_payload(self.config, self.round_task(report)))
        weighting = self.strategy.weighting
        self.total = len(chosen) if weighting == "uniform" else self.total_examples(chosen)
        payload = replace(payload, values={**payload.values, TOTAL: self.total, WEIGHTING: weighting})
        for client in chosen:
            self.audit("sent", round=report.round, client=client, bytes=payload.nbytes)
        answers = self.exchange.ask("train", dict.fromkeys(chosen, payload), self.config.deadline)
        before = self.state.slots.get(ENCRYPTED_FACTS)
        prints = [str(one.values.get(FINGERPRINT)) for one in answers.values() if isinstance(one, Payload)]
        expected = max(prints, key=prints.count, default="") if before is None else _text(before["keys"])
        results = {}
        for client, answer in answers.items():
            if isinstance(answer, ClientFailure):
                self.reject(report, client, answer.reason)
                continue
            try:
                results[client] = self.accept_encrypted(client, answer, expected)
            except FederatedError as error:
                self.answered.pop(client, None)
                self.reject(report, client, str(error))
                if self.config.on_bad_update == "stop":
                    raise
                continue
            self.audit("received", round=report.round, client=client, bytes=answer.nbytes)
        report.clients = sorted(results)
        return results

    def total_examples(self, clients: Sequence[str]) -> int:
        """Videos of these clients together, of which each weighs its part; asked once of each."""
        question = Payload({"config": json.dumps(self.config.to_dict())})
        new = [client for client in clients if client not in self.examples]
        for client, answer in self.exchange.ask(
            "query.describe", dict.fromkeys(new, question), self.config.deadline
        ).items():
            if isinstance(answer, Payload):
                self.examples[client] = int(answer.number("num_examples", f"Client {client!r}"))
        return max(sum(self.examples.get(client, 0) for client in clients), 1)

    def accept_encrypted(self, client: str, answer: Payload, expected: str) -> ClientResult:
        """Raises FederatedError for an answer that can't be used: other counts, no ciphertexts, or of other keys."""
        counts = {name: one for name, one in self.state.arrays.items() if not is_floating(one)}
        given = dict(answer.arrays.get("model", {}))
        check_arrays(client, given, counts)
        ciphertexts = from_pieces(f"Client {client!r}", dict(answer.arrays.get(ENCRYPTED, {})))
        fingerprint = str(answer.values.get(FINGERPRINT))
        if len(ciphertexts) != ciphertext_count(floating(self.state.arrays)):
            raise FederatedError(f"Client {client!r} sent {len(ciphertexts)} ciphertexts, which is not the model.")
        add({client: ciphertexts}, {client: fingerprint}, expected)
        examples = int(answer.number("num_examples", f"Client {client!r}"))
        if examples < 1:
            raise FederatedError(f"Client {client!r} says that it trained on {examples} videos.")
        self.answered[client] = ciphertexts, fingerprint
        return ClientResult(given, examples, metrics=prefixed(answer.values, METRIC))

    def aggregate(self, results: Mapping[str, ClientResult]) -> ServerState:
        """The sum of ciphertexts; of counts, the largest."""
        given = {client: self.answered[client] for client in results}
        prints = {client: fingerprint for client, (_, fingerprint) in given.items()}
        total = add({client: ciphertexts for client, (ciphertexts, _) in given.items()}, prints)
        share = sum(weight_of(self.strategy.weighting, one.num_examples) for one in results.values()) / self.total
        facts = {
            "share": np.array(share),
            "keys": np.frombuffer(min(prints.values()).encode(), dtype=np.uint8),
        }
        counts = {
            name: np.asarray(np.maximum.reduce([one.arrays[name] for one in results.values()]))
            for name, array in self.state.arrays.items()
            if not is_floating(array)
        }
        slots = {ENCRYPTED: to_pieces(total), ENCRYPTED_FACTS: facts}
        return replace(self.state, arrays={**self.state.arrays, **counts}, slots=slots, round=self.state.round + 1)

    def outgoing(self, payload: Payload) -> Payload:
        """A task with the encrypted model beside the first one, which says of what form it is."""
        if ENCRYPTED not in self.state.slots:
            return payload
        facts = self.state.slots[ENCRYPTED_FACTS]
        values: dict[str, Value] = {SHARE: float(facts["share"]), FINGERPRINT: _text(facts["keys"])}
        arrays = {**payload.arrays, ENCRYPTED: dict(self.state.slots[ENCRYPTED])}
        return Payload({**payload.values, **values}, arrays)

    def evaluation_payload(self, report: RoundReport) -> Payload:
        """After the last round clients also keep the model, which the server can't."""
        payload = self.outgoing(super().evaluation_payload(report))
        last = report.round == self.config.rounds
        return replace(payload, values={**payload.values, KEEP_MODEL: last})

    def opened(self, keys: HomomorphicKeys) -> Arrays:
        """The model, for whoever has the clients' keys."""
        return dict(open_task(keys, self.outgoing(Payload(arrays={"model": self.state.arrays}))).arrays["model"])


def _text(array: np.ndarray) -> str:
    return array.tobytes().decode()


def make_run(config: FederatedConfig, *arguments: Any, **named: Any) -> FederatedRun:
    """The rounds that a configuration asks for, see `FederatedRun`."""
    options, exchange = config.secure_options(), arguments[0]
    if options is not None:
        asked = max(round(config.fraction * len(exchange.nodes)), 1)
        measures = named.get("measure") is not None
        check_combination(replace(config.combination(), clients=asked, server_evaluation=measures))
    if isinstance(options, SecureAggregation):
        return SecureRun(config, *arguments, options=options, **named)
    if isinstance(options, Encryption):
        return EncryptedRun(config, *arguments, options=options, **named)
    return FederatedRun(config, *arguments, **named)
