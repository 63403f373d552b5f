"""Messages of rounds under homomorphic encryption: what clients open and seal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hf_video.errors import FederatedError
from hf_video.federated.arrays import Arrays, is_floating
from hf_video.federated.messages.payload import Payload
from hf_video.federated.secure.homomorphic import HomomorphicKeys, decrypt, encrypt

ENCRYPTED = "encrypted"  # arrays of bytes, and the prefix of values
FINGERPRINT, SHARE, TOTAL = f"{ENCRYPTED}.keys", f"{ENCRYPTED}.share", f"{ENCRYPTED}.total_weight"
KEEP_MODEL, WEIGHTING = f"{ENCRYPTED}.keep_model", f"{ENCRYPTED}.weighting"


def floating(arrays: Arrays) -> Arrays:
    """Those that are encrypted; counts travel as they are."""
    return {name: one for name, one in arrays.items() if is_floating(one)}


def weight_of(weighting: object, num_examples: int) -> int:
    """What a client counts for, in videos or all alike."""
    return 1 if weighting == "uniform" else num_examples


def to_pieces(ciphertexts: Sequence[bytes]) -> Arrays:
    """Ciphertexts as arrays of bytes, by number."""
    return {f"{number:06d}": np.frombuffer(one, dtype=np.uint8) for number, one in enumerate(ciphertexts)}


def from_pieces(sender: str, pieces: Arrays) -> list[bytes]:
    """The reverse of `to_pieces`. Raises FederatedError for something else."""
    if not pieces or any(one.dtype != np.uint8 for one in pieces.values()):
        raise FederatedError(f"{sender} sent no ciphertexts.")
    return [pieces[name].tobytes() for name in sorted(pieces)]


def open_task(keys: HomomorphicKeys, payload: Payload) -> Payload:
    """A client's task with the model opened: the last sum of ciphertexts, or in the first round what came as it is.

    Raises:
        FederatedError: The sum is of other keys, or can't be opened.
    """
    if ENCRYPTED not in payload.arrays:
        return payload
    if payload.values.get(FINGERPRINT) != keys.fingerprint:
        raise FederatedError(
            f"The model was encrypted with other keys ({payload.values.get(FINGERPRINT)!s:.12}…) than this site has "
            f"({keys.fingerprint:.12}…): give all sites the same key file."
        )
    like = dict(payload.arrays["model"])
    total = from_pieces("The server", dict(payload.arrays[ENCRYPTED]))
    model = {**like, **decrypt(keys, total, payload.number(SHARE, "The server"), floating(like))}
    others = {purpose: group for purpose, group in payload.arrays.items() if purpose != ENCRYPTED}
    return replace(payload, arrays={**others, "model": model})


def seal_answer(keys: HomomorphicKeys, answer: Payload, task: Payload) -> Payload:
    """A client's answer to a task with its model encrypted and the fingerprint of its keys."""
    model = dict(answer.arrays["model"])
    weight = weight_of(task.values.get(WEIGHTING), int(answer.number("num_examples", "The client")))
    sealed = encrypt(keys, floating(model), weight, int(task.number(TOTAL, "The server")))
    counts = {name: one for name, one in model.items() if not is_floating(one)}
    arrays = {ENCRYPTED: to_pieces(sealed), **({"model": counts} if counts else {})}
    return Payload({**answer.values, FINGERPRINT: keys.fingerprint}, arrays)
