"""A client's side of a secure sum."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf_video.base.written_files import atomic_write
from hf_video.errors import FederatedError
from hf_video.federated.messages.payload import Payload
from hf_video.federated.secure.layout import Contribution, SumLayout, SumSettings
from hf_video.federated.secure.masks import agreed_key, masked_vector, new_key, private_key
from hf_video.federated.secure.protocol import (
    CONFIRM,
    KEYS,
    KINDS,
    MASKED,
    PREFIX,
    SHARE_BYTES,
    SHARES,
    UNMASK,
    mask_purpose,
    names_of,
    seal,
    summed_arrays,
    survivors_statement,
    task_digest,
    unseal,
)
from hf_video.federated.secure.quantization import MIN_CLIENTS
from hf_video.federated.secure.roster import Member, Roster, Session
from hf_video.federated.secure.shamir import split_secret
from hf_video.federated.secure.signatures import is_signed, read_public_key, read_signing_key, sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_HEX = "<hex>"  # marks bytes in JSON; no client is named so


class SecureClient:
    """A client's side. What it must remember from message to message stands in a file, since each message may start a
    new process; it is never sent.

    Args:
        name: The client's, as registered.
        signing_key: Its site's private key, see `new_signing_key`.
        registered: Public keys of all sites, by name, itself among them.
        train: Trains by a task and says what to add to the sum; its arrays "model" are what it was sent.
        state_file: Where it remembers; None is in this object.
        min_clients: The fewest whose sum it takes part in.
    """

    def __init__(
        self,
        name: str,
        signing_key: bytes,
        registered: Mapping[str, bytes],
        train: Callable[[Payload], Contribution],
        *,
        state_file: Path | None = None,
        min_clients: int = MIN_CLIENTS,
    ) -> None:
        self.name = name
        self.signing_key = read_signing_key(signing_key)
        self.registered = {site: read_public_key(text) for site, text in registered.items()}
        self.train = train
        self.state_file = state_file
        self.min_clients = min_clients
        self._state: dict = {"stage": "", "seen": {}}
        if state_file is not None and state_file.exists():
            self._state = json.loads(state_file.read_text(), object_hook=_bytes_of)

    def handle(self, kind: str, payload: Payload) -> Payload:
        """Answers one message of the server's.

        Raises:
            FederatedError: The message is not the next one of a session, or asks for what would tell more than a sum.
        """
        expected = {KEYS: "", SHARES: KEYS, MASKED: SHARES, CONFIRM: MASKED, UNMASK: CONFIRM}
        if kind not in expected:
            raise FederatedError(f"{kind!r} is no message of a secure sum: {', '.join(KINDS)}.")
        if kind != KEYS and self._state["stage"] != expected[kind]:
            last = self._state["stage"] or "nothing"
            raise FederatedError(
                f"Client {self.name!r} refuses {kind}: it follows {expected[kind]}, and {last} was last."
            )
        steps = {
            KEYS: self._keys,
            SHARES: self._shares,
            MASKED: self._masked,
            CONFIRM: self._confirm,
            UNMASK: self._unmask,
        }
        return steps[kind](payload)

    def _remember(self, stage: str, **facts: object) -> None:
        self._state = {**self._state, "stage": stage, **facts}
        if self.state_file is not None:
            self.state_file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.state_file) as draft:
                draft.touch(mode=0o600)
                draft.write_text(json.dumps(self._state, default=_hex_of))

    def _keys(self, payload: Payload) -> Payload:
        try:
            session = Session(*(payload.values[name] for name in ("run", "round", "attempt")))
        except KeyError as error:
            raise FederatedError(f"The server's question for keys lacks {error}.") from None
        seen = dict(self._state["seen"])
        if [session.round, session.attempt] <= seen.get(session.run, [-1, -1]):
            raise FederatedError(
                f"Client {self.name!r} has taken part in round {seen[session.run][0]} of {session.run!r}: round "
                f"{session.round} is a replay."
            )
        share_key, mask_key = new_key(), new_key()
        member = Member(
            self.name, share_key.public_key().public_bytes_raw(), mask_key.public_key().public_bytes_raw(), b""
        )
        signature = sign(self.signing_key, member.statement(session))
        seen[session.run] = [session.round, session.attempt]
        self._state = {}
        self._remember(
            KEYS,
            seen=seen,
            session=asdict(session),
            secrets=[share_key.private_bytes_raw(), mask_key.private_bytes_raw()],
            member=[member.share_key, member.mask_key],
        )
        return Payload(values={"share_key": member.share_key, "mask_key": member.mask_key, "signature": signature})

    def _shares(self, payload: Payload) -> Payload:
        roster = Roster.from_values(payload.values)
        if asdict(roster.session) != self._state["session"]:
            raise FederatedError(f"Client {self.name!r} gave keys for another round than {roster.session}.")
        own = roster.by_name.get(self.name)
        if own is None or [own.share_key, own.mask_key] != self._state["member"]:
            raise FederatedError(f"The server's list of clients has not the keys that {self.name!r} gave.")
        roster.check(self.registered, self.min_clients)
        SumSettings.from_terms(roster.terms)
        share_secret, mask_secret = self._state["secrets"]
        seed = secrets.token_bytes(32)
        holders = roster.holders(self.name)
        parts = [
            split_secret(int.from_bytes(secret, "big"), len(holders), roster.threshold)
            for secret in (mask_secret, seed)
        ]
        shares = {
            holder: b"".join(part[number].to_bytes(SHARE_BYTES, "big") for part in parts)
            for number, holder in enumerate(holders, 1)
        }
        kept = shares.pop(self.name)
        key = private_key(share_secret)
        sealed = [
            seal(self._share_key(roster, key, holder), text, self.name, holder, roster)
            for holder, text in shares.items()
        ]
        self._remember(SHARES, roster=roster.to_values(), seed=seed, held={self.name: kept})
        return Payload(
            values={"recipients": list(shares), "shares": sealed, "commitment": hashlib.sha256(seed).digest()}
        )

    def _share_key(self, roster: Roster, own: X25519PrivateKey, other: str) -> bytes:
        return agreed_key(own, roster.by_name[other].share_key, roster.session.purpose("share"))

    def _masked(self, payload: Payload) -> Payload:
        roster = Roster.from_values(self._state["roster"])
        masked = names_of(payload, PREFIX + "clients")
        roster.check_survivors(masked, roster.names, self.min_clients)
        partners = [name for name in roster.holders(self.name) if name in masked and name != self.name]
        senders, sealed = names_of(payload, PREFIX + "senders"), payload.values.get(PREFIX + "shares", [])
        if self.name not in masked or senders != partners or len(sealed) != len(partners):
            raise FederatedError(f"The shares that the server relayed to {self.name!r} are not those of its partners.")
        if len(partners) + 1 < roster.threshold:
            raise FederatedError(f"Too few partners of {self.name!r} are left to mask for: {len(partners)}.")
        share_secret, mask_secret = (private_key(secret) for secret in self._state["secrets"])
        held = dict(self._state["held"])
        for sender, text in zip(partners, sealed, strict=True):
            held[sender] = unseal(self._share_key(roster, share_secret, sender), text, sender, self.name, roster)
        task = replace(payload, values={k: v for k, v in payload.values.items() if not k.startswith(PREFIX)})
        digest = task_digest(task)
        # Remembered before training: the same masks must never hide two vectors.
        self._remember(MASKED, held=held, masked=masked, task=digest)
        layout = SumLayout(summed_arrays(task), SumSettings.from_terms(roster.terms), len(masked))
        vector = layout.encode(self.name, self.train(task))
        purpose = mask_purpose(roster, digest)
        keys = {
            roster.names.index(other): agreed_key(mask_secret, roster.by_name[other].mask_key, purpose)
            for other in partners
        }
        hidden = masked_vector(vector, roster.names.index(self.name), keys, self._state["seed"])
        return Payload(arrays={"masked": {"vector": hidden}})

    def _confirm(self, payload: Payload) -> Payload:
        roster, masked = Roster.from_values(self._state["roster"]), self._state["masked"]
        survivors = names_of(payload, "survivors")
        roster.check_survivors(survivors, masked, self.min_clients)
        if self.name not in survivors:
            raise FederatedError(f"The server says that {self.name!r} is gone, which sent its vector.")
        self._remember(CONFIRM, survivors=survivors)
        statement = survivors_statement(roster, self._state["task"], masked, survivors)
        return Payload(values={"signature": sign(self.signing_key, statement)})

    def _unmask(self, payload: Payload) -> Payload:
        roster, state = Roster.from_values(self._state["roster"]), self._state
        signers, signatures = names_of(payload, "signers"), payload.values.get("signatures", [])
        statement = survivors_statement(roster, state["task"], state["masked"], state["survivors"])
        signed: set[str] = set()
        for signer, signature in zip(signers, signatures, strict=False):
            if len(signed) < roster.quorum and signer in state["survivors"] and signer not in signed:
                signed |= {signer} if is_signed(self.registered[signer], signature, statement) else set()
        if len(signed) < roster.quorum:
            raise FederatedError(
                f"Only {len(signed)} clients signed the list of those who are left that {self.name!r} knows: the "
                "server tells clients different things. Nothing is given."
            )
        shares = [
            text[SHARE_BYTES:] if owner in state["survivors"] else text[:SHARE_BYTES]
            for owner, text in sorted(state["held"].items())
        ]
        self._state = {"seen": state["seen"]}
        self._remember("")
        return Payload(values={"owners": sorted(state["held"]), "shares": shares})


def _hex_of(value: bytes) -> dict[str, str]:
    return {_HEX: value.hex()}


def _bytes_of(value: dict) -> dict | bytes:
    return bytes.fromhex(value[_HEX]) if set(value) == {_HEX} else value
