"""The server's side of a secure sum."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from hf_video.errors import FederatedError
from hf_video.federated.arrays import Arrays
from hf_video.federated.messages.payload import Payload, Value
from hf_video.federated.secure.layout import SumLayout, SumSettings
from hf_video.federated.secure.masks import add_mask, add_pair_masks, agreed_key, private_key
from hf_video.federated.secure.protocol import (
    CONFIRM,
    KEYS,
    MASKED,
    PREFIX,
    SHARE_BYTES,
    SHARES,
    UNMASK,
    Ask,
    mask_purpose,
    summed_arrays,
    task_digest,
)
from hf_video.federated.secure.quantization import MIN_CLIENTS
from hf_video.federated.secure.roster import Member, Roster, Session, default_threshold
from hf_video.federated.secure.shamir import join_secret


@dataclass(frozen=True)
class SecureResult:
    """What the server learns of a round.

    Args:
        arrays: The mean model, weighted.
        num_examples: Videos of all survivors together; their number where weights are uniform.
        metrics: Means, and `clipped_share`.
        survivors: Clients in the sum.
        dropped: Clients that were asked and are not in it.
        faults: What was missing, by client; those who left after their vector came are in the sum.
    """

    arrays: Arrays
    num_examples: int
    metrics: Mapping[str, float]
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    faults: Mapping[str, str] = field(default_factory=dict)


class SecureSum:
    """The server's side.

    Args:
        settings: How numbers become levels.
        threshold: Shares that give a secret back. Default: two thirds; more than half on the circle of many clients.
        min_survivors: Clients that must be left.

    Raises:
        FederatedError: Fewer than three survivors would do: of two, each learns the other's part.
    """

    def __init__(
        self, settings: SumSettings | None = None, *, threshold: int | None = None, min_survivors: int = MIN_CLIENTS
    ) -> None:
        if min_survivors < MIN_CLIENTS:
            raise FederatedError(
                f"min_survivors={min_survivors} must be {MIN_CLIENTS} or more: of two, each learns the other's part."
            )
        self.settings = settings or SumSettings()
        self.threshold = threshold
        self.min_survivors = min_survivors

    def run(
        self, ask: Ask, clients: Collection[str], task: Payload, *, run: str, round_number: int, attempt: int = 0
    ) -> SecureResult:
        """Learns the mean of what clients make of a task.

        Args:
            ask: Sends a payload to each client and gives the answers; clients that did not answer are absent.
            clients: Whom to ask.
            task: What all of them are sent, with the arrays "model"; with the value `MEASURE` for metrics alone.
            run: Of the server's process, another after a restart.
            round_number: Higher than that of the last sum of this run, or the same with a higher attempt.
            attempt: See `round_number`.

        Raises:
            FederatedError: Too few clients are left (nothing was learnt), or one did not keep to the protocol.
        """
        if len(set(clients)) < MIN_CLIENTS:
            raise FederatedError(
                f"A secure sum needs {MIN_CLIENTS} clients or more, and {len(set(clients))} are asked: of two, each "
                "learns the other's part."
            )
        sessions = dict.fromkeys(sorted(set(clients)), Session(run, round_number, attempt))
        faults: dict[str, str] = {}
        roster = self._roster(ask, sessions, faults)
        terms = dict.fromkeys(roster.names, Payload(values=roster.to_values()))
        shares = self._answers(ask, SHARES, terms, _share_checks(roster), faults, roster.quorum)
        masked = sorted(shares)
        layout = SumLayout(summed_arrays(task), self.settings, len(masked))
        total = np.zeros(layout.size, dtype=np.uint32)
        tasks = _tasks(task, roster, shares)
        needed = max(roster.quorum, self.min_survivors)
        vectors = self._answers(ask, MASKED, tasks, _vector_check(layout), faults, needed)
        survivors = sorted(vectors)
        for client in survivors:
            total += vectors.pop(client).arrays["masked"]["vector"]
        purpose = mask_purpose(roster, task_digest(task))
        given = self._given_shares(ask, roster, masked, survivors, faults)
        for client in masked:
            found = {
                number: int.from_bytes(given[holder][client], "big")
                for number, holder in enumerate(roster.holders(client), 1)
                if holder in given and client in given[holder]
            }
            secret = join_secret(found, roster.threshold).to_bytes(SHARE_BYTES, "big")
            secret, above = secret[-32:], any(secret[:-32])
            if client in survivors:
                if above or hashlib.sha256(secret).digest() != shares[client].values["commitment"]:
                    raise FederatedError(f"Shares of the mask of {client!r} were changed: the round's sum is lost.")
                add_mask(total, secret, subtract=True)
                continue
            key = private_key(secret)
            if above or key.public_key().public_bytes_raw() != roster.by_name[client].mask_key:
                raise FederatedError(f"Shares of the key of {client!r} were changed: the round's sum is lost.")
            pairs = {
                roster.names.index(other): agreed_key(key, roster.by_name[other].mask_key, purpose)
                for other in roster.holders(client)
                if other in survivors
            }
            add_pair_masks(total, roster.names.index(client), pairs)
        arrays, weight, metrics = layout.decode(total, len(survivors))
        dropped = tuple(sorted(set(sessions) - set(survivors)))
        return SecureResult(arrays, weight, metrics, tuple(survivors), dropped, faults)

    def _roster(self, ask: Ask, sessions: Mapping[str, Session], faults: dict[str, str]) -> Roster:
        questions = {client: Payload(values=asdict(session)) for client, session in sessions.items()}
        answers = self._answers(ask, KEYS, questions, _key_check, faults, self.min_survivors)
        members = tuple(
            Member(name, *(answers[name].values[part] for part in ("share_key", "mask_key", "signature")))
            for name in sorted(answers)
        )
        self.settings.bits_for(len(members))
        threshold = default_threshold(len(members)) if self.threshold is None else self.threshold
        return Roster(next(iter(sessions.values())), members, threshold, self.settings.to_terms())

    def _answers(
        self,
        ask: Ask,
        kind: str,
        messages: Mapping[str, Payload],
        check: Callable[[str, Payload], bool],
        faults: dict[str, str],
        needed: int,
    ) -> dict[str, Payload]:
        """Those that answer as the protocol has it; who does not is left out like one who is gone."""
        answers = dict(ask(kind, messages))
        good = {client: answer for client, answer in answers.items() if client in messages and check(client, answer)}
        for client in messages:
            if client not in good:
                faults[client] = f"{kind}: {'not an answer of the protocol' if client in answers else 'no answer'}"
        if len(good) < needed:
            raise FederatedError(
                f"{len(good)} of {len(messages)} clients answered {kind}, and a secure sum needs {needed}: nothing was "
                f"learnt of them. Missing: {', '.join(faults)}."
            )
        return good

    def _given_shares(
        self, ask: Ask, roster: Roster, masked: list[str], survivors: list[str], faults: dict[str, str]
    ) -> dict[str, dict[str, bytes]]:
        """By holder and owner, once clients have agreed on who is left."""
        question = dict.fromkeys(survivors, Payload(values={"survivors": survivors}))
        signed = self._answers(ask, CONFIRM, question, _signature_check, faults, roster.quorum)
        signers = sorted(signed)
        signatures: list[bytes] = [signed[signer].values["signature"] for signer in signers]
        proof = Payload({"signers": signers, "signatures": signatures})

        def gives_shares(client: str, answer: Payload) -> bool:
            owners = [name for name in roster.holders(client) if name in masked]
            return answer.values.get("owners") == owners and _are_bytes(answer, "shares", len(owners), SHARE_BYTES)

        answers = self._answers(ask, UNMASK, dict.fromkeys(signers, proof), gives_shares, faults, 1)
        return {
            holder: dict(zip(answer.values["owners"], answer.values["shares"], strict=True))
            for holder, answer in answers.items()
        }


def _tasks(task: Payload, roster: Roster, shares: Mapping[str, Payload]) -> dict[str, Payload]:
    """The task of each client, with the shares that the others sealed for it."""
    sealed = {
        sender: dict(zip(answer.values["recipients"], answer.values["shares"], strict=True))
        for sender, answer in shares.items()
    }
    tasks = {}
    for client in sorted(shares):
        senders = [name for name in roster.holders(client) if name in sealed and name != client]
        sealed_for_it: list[bytes] = [sealed[sender][client] for sender in senders]
        relayed: dict[str, Value] = {
            PREFIX + "clients": sorted(shares),
            PREFIX + "senders": senders,
            PREFIX + "shares": sealed_for_it,
        }
        tasks[client] = replace(task, values={**task.values, **relayed})
    return tasks


def _are_bytes(answer: Payload, entry: str, count: int, size: int | None = None) -> bool:
    given = answer.values.get(entry)
    given = given if isinstance(given, list) else [given]
    return len(given) == count and all(isinstance(one, bytes) and size in (None, len(one)) for one in given)


def _key_check(client: str, answer: Payload) -> bool:
    return all(_are_bytes(answer, *entry) for entry in (("share_key", 1, 32), ("mask_key", 1, 32), ("signature", 1)))


def _signature_check(client: str, answer: Payload) -> bool:
    return _are_bytes(answer, "signature", 1)


def _share_checks(roster: Roster) -> Callable[[str, Payload], bool]:
    def check(client: str, answer: Payload) -> bool:
        others = [name for name in roster.holders(client) if name != client]
        sealed = answer.values.get("recipients") == others and _are_bytes(answer, "shares", len(others))
        return sealed and _are_bytes(answer, "commitment", 1, 32)

    return check


def _vector_check(layout: SumLayout) -> Callable[[str, Payload], bool]:
    def check(client: str, answer: Payload) -> bool:
        vector = answer.arrays.get("masked", {}).get("vector")
        return vector is not None and vector.dtype == np.uint32 and vector.shape == (layout.size,)

    return check
