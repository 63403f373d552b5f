"""Sums of clients' changes of which the server learns nothing else (Bonawitz et al., CCS 2017; Bell et al., CCS 2020).

Five messages to each client make a sum, and whoever misses one is left out:

`query.keys`: fresh keys, signed by the site.
`query.shares`: each client splits the secrets of its masks among the others, encrypted.
`train.masked`: it trains, and sends its masked vector. The masks follow from the model it was sent too, so that
clients who were sent different ones don't add up to anything.
`query.confirm`: it signs who is left.
`query.unmask`: shown that enough others signed the same, it gives its shares: for each client either of its own mask
(it is left) or of its key (it dropped out), never both.

No engine is meant here: the server asks through a function, a client answers payloads.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping

from hf_video.errors import FederatedError
from hf_video.federated.arrays import Arrays, arrays_digest
from hf_video.federated.messages.payload import Payload
from hf_video.federated.secure.roster import Roster

KEYS, SHARES, MASKED = "query.keys", "query.shares", "train.masked"
CONFIRM, UNMASK = "query.confirm", "query.unmask"
KINDS = (KEYS, SHARES, MASKED, CONFIRM, UNMASK)
SHARE_BYTES = 66  # a number of the field of 521 bits
MEASURE = "measure"  # a task's value that asks for metrics alone
PREFIX = "secure."  # of what the protocol adds to the values of a task
_NONCE_BYTES = 12

Ask = Callable[[str, Mapping[str, Payload]], Mapping[str, Payload]]


def task_digest(task: Payload) -> str:
    """Tells the tasks of a round apart: what all clients are sent to train with, without the protocol's own values."""
    values = {name: repr(value) for name, value in task.values.items() if not name.startswith(PREFIX)}
    arrays = {purpose: arrays_digest(dict(group)) for purpose, group in task.arrays.items()}
    return hashlib.sha256(json.dumps([values, arrays], sort_keys=True).encode()).hexdigest()


def summed_arrays(task: Payload) -> Arrays:
    """The tensors whose changes a task asks for; none where it asks for metrics alone."""
    return {} if task.values.get(MEASURE) else dict(task.arrays["model"])


def survivors_statement(roster: Roster, task: str, masked: list[str], survivors: list[str]) -> bytes:
    """What clients sign before they give shares."""
    return roster.session.purpose("survivors") + json.dumps([roster.digest, task, masked, survivors]).encode()


def mask_purpose(roster: Roster, digest: str) -> bytes:
    """What keys of pair masks are derived for: this roster and this task alone."""
    return roster.session.purpose("mask") + f" {roster.digest} {digest}".encode()


def seal(key: bytes, text: bytes, sender: str, receiver: str, roster: Roster) -> bytes:
    """Encrypts a share by AES-GCM; it opens for this receiver, from this sender, under this roster alone."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, _direction(sender, receiver, roster))


def unseal(key: bytes, sealed: bytes, sender: str, receiver: str, roster: Roster) -> bytes:
    """The reverse of `seal`.

    Raises:
        FederatedError: It was changed, or is of another sender, receiver or roster.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _direction(sender, receiver, roster))
    except (InvalidTag, TypeError, ValueError):
        raise FederatedError(
            f"The share of {sender!r} for {receiver!r} can't be opened: it was changed on its way, or the server gave "
            "the two different lists of clients."
        ) from None


def _direction(sender: str, receiver: str, roster: Roster) -> bytes:
    return json.dumps([sender, receiver, roster.digest]).encode()


def names_of(payload: Payload, entry: str) -> list[str]:
    """A list of names that a message must have.

    Raises:
        FederatedError: It has none.
    """
    names = payload.values.get(entry)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FederatedError(f"A message of the server's must have the names {entry!r}, and {names!r} came.")
    return names
