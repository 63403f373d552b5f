"""Sums under encryption: the server adds ciphertexts that only clients can open (CKKS, Cheon et al., 2017, by TenSEAL).

All clients share one secret key, which they give each other without the server: a client that lends it to the server
opens everything. The server sees clients' numbers of videos and metrics, and never a model after the first.

Clients weigh their tensors before they encrypt them, so that the server does nothing but add; this takes the smallest
parameters, with one prime, which has no room for a multiplication.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hf_video.base.written_files import atomic_write
from hf_video.errors import BackendError, FederatedError, check_count
from hf_video.federated.arrays import Arrays, is_floating, narrowed, widened

POLY_DEGREE, PRIME_BITS, SCALE = 4096, (54, 54), 2.0**40
SLOTS = POLY_DEGREE // 2  # numbers in a ciphertext
CIPHERTEXT_BYTES = 61_800
MOST_BYTES = 50_000_000
LARGEST_SUM = 2.0**12  # twice this passes the prime
_MAGIC = b"hf_video CKKS 1\n"


def import_tenseal() -> Any:
    """The module. Raises BackendError, with what to install, where it is not there."""
    try:
        import tenseal
    except ImportError as error:
        raise BackendError(
            'Homomorphic encryption needs TenSEAL, which is not installed: pip install "hf_video[federated-he]".'
        ) from error
    return tenseal


class HomomorphicKeys:
    """The keys that all clients share.

    Args:
        content: Of the file that `new_keys` makes.

    Raises:
        FederatedError: It is something else, or damaged.
    """

    def __init__(self, content: bytes) -> None:
        tenseal = import_tenseal()
        if not content.startswith(_MAGIC):
            raise FederatedError("This is no key file for homomorphic encryption; `new_keys` makes one.")
        begin = len(_MAGIC)
        # SHA-256 of the public keys, made with them, by which two key files are told apart.
        self.fingerprint = content[begin : begin + 32].hex()
        try:
            self.context = tenseal.context_from(content[begin + 32 :])
        except (ValueError, RuntimeError) as error:
            raise FederatedError(f"A key file for homomorphic encryption is damaged: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> HomomorphicKeys:
        """Reads a key file."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise FederatedError(f"The key file {path} can't be read: {error.strerror}.") from None


def _new_context() -> Any:
    tenseal = import_tenseal()
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=POLY_DEGREE, coeff_mod_bit_sizes=list(PRIME_BITS)
    )
    context.global_scale = SCALE
    return context


def new_keys() -> bytes:
    """Draws keys; returns the file that every client needs, and nobody else may have."""
    context = _new_context()
    secret, public = (
        context.serialize(save_secret_key=secret, save_galois_keys=False, save_relin_keys=False)
        for secret in (True, False)
    )
    return _MAGIC + hashlib.sha256(public).digest() + secret


def write_keys(path: str | Path) -> None:
    """Writes a new key file, which its owner alone can read."""
    with atomic_write(Path(path)) as draft:
        draft.touch(mode=0o600)
        draft.write_bytes(new_keys())


def server_context() -> Any:
    """What the server needs to add: the parameters, with no secret key and with none of the clients' keys."""
    context = _new_context()
    context.make_context_public()
    return context


def ciphertext_count(arrays: Arrays) -> int:
    """How many ciphertexts a client's tensors make."""
    return -(-sum(array.size for array in arrays.values()) // SLOTS)


def encrypted_bytes(arrays: Arrays) -> int:
    """About how many bytes the ciphertexts of a client's tensors have."""
    return ciphertext_count(arrays) * CIPHERTEXT_BYTES


def check_encrypted_size(arrays: Arrays, force: bool = False) -> None:
    """Raises FederatedError where ciphertexts pass 50 MB, unless forced."""
    size = encrypted_bytes(arrays)
    if size > MOST_BYTES and not force:
        raise FederatedError(
            f"{sum(array.size for array in arrays.values()):,} numbers are {size / 1e6:,.0f} MB encrypted, from each "
            f"client in each round; {MOST_BYTES / 1e6:.0f} MB is the limit. Let the head or adapters travel alone "
            "(keys=head, lora), or force it."
        )


def encrypt(keys: HomomorphicKeys, arrays: Arrays, num_examples: int, total_examples: int) -> list[bytes]:
    """A client's tensors, weighted by its part of all videos, as ciphertexts.

    Args:
        keys: The clients'.
        arrays: Its floating tensors, in the order of names.
        num_examples: Videos that it trained on.
        total_examples: Of all clients that may be added, or more, so that weights sum to 1 at most.

    Raises:
        FederatedError: A tensor is not floating, not finite or has numbers past 4,096, or the weight is above 1.
    """
    check_count("num_examples", num_examples, FederatedError, most=total_examples)
    if counts := [name for name, array in arrays.items() if not is_floating(array)]:
        raise FederatedError(f"{counts[0]!r} holds counts, which can't be encrypted: leave it out of what travels.")
    flat = np.concatenate([widened(arrays[name]).ravel() for name in sorted(arrays)])
    if not (np.abs(flat) < LARGEST_SUM).all():
        raise FederatedError(
            f"Tensors have numbers that are not finite or past {LARGEST_SUM:,.0f}: they can't be added."
        )
    flat *= num_examples / total_examples
    tenseal = import_tenseal()
    return [
        tenseal.ckks_vector(keys.context, flat[begin : begin + SLOTS].tolist()).serialize()
        for begin in range(0, flat.size, SLOTS)
    ]


def add(given: Mapping[str, list[bytes]], fingerprints: Mapping[str, str], expected: str | None = None) -> list[bytes]:
    """The sum of clients' ciphertexts, in the order of their names. No key is needed.

    Args:
        given: By client, of the same tensors.
        fingerprints: Of the keys that clients used. Ciphertexts of two keys would add to nonsense without a word.
        expected: Fingerprint of the keys of earlier rounds; by default that of most clients.

    Raises:
        FederatedError: None came, other keys were used, or ciphertexts differ in number or can't be read.
    """
    if not given:
        raise FederatedError("There are no ciphertexts to add.")
    tenseal = import_tenseal()
    context, used = server_context(), [fingerprints.get(client, "") for client in sorted(given)]
    expected = expected or max(used, key=used.count)
    if other := [client for client in sorted(given) if fingerprints.get(client, "") != expected]:
        raise FederatedError(
            f"{other[0]!r} encrypted with other keys ({fingerprints.get(other[0], 'none')[:12]}…) than the others "
            f"({expected[:12]}…): give all sites the same key file."
        )
    lengths = {client: len(one) for client, one in given.items()}
    if len(set(lengths.values())) > 1:
        raise FederatedError(f"Clients sent other numbers of ciphertexts: {lengths!r}.")
    total: list[bytes] = []
    for number in range(min(lengths.values())):
        summed = None
        for client in sorted(given):
            try:
                vector = tenseal.ckks_vector_from(context, given[client][number])
                summed = vector if summed is None else summed + vector
            except (ValueError, RuntimeError) as error:
                raise FederatedError(f"A ciphertext of {client!r} can't be added: {error}") from None
        total.append(summed.serialize())
    return total


def decrypt(keys: HomomorphicKeys, total: Iterable[bytes], share: float, like: Arrays) -> Arrays:
    """The mean of clients' tensors.

    Args:
        keys: The clients'.
        total: The sum of ciphertexts.
        share: Sum of the weights that went into it: videos of the clients in it / `total_examples`.
        like: Tensors of the same names, shapes and dtypes.

    Raises:
        FederatedError: The sum is of other tensors or was damaged.
    """
    if not 0 < share <= 1:
        raise FederatedError(f"share={share!r} must be above 0 and at most 1.")
    tenseal = import_tenseal()
    try:
        pieces = [tenseal.ckks_vector_from(keys.context, one).decrypt() for one in total]
    except (ValueError, RuntimeError) as error:
        raise FederatedError(f"A sum of ciphertexts can't be opened: {error}") from None
    flat = np.concatenate(pieces) if pieces else np.empty(0)
    size = sum(array.size for array in like.values())
    if flat.size != size or not (np.abs(flat) < 2 * LARGEST_SUM).all():
        raise FederatedError(f"A sum of {flat.size:,} encrypted numbers came for {size:,} numbers of tensors.")
    arrays, place = {}, 0
    for name in sorted(like):
        arrays[name] = narrowed((flat[place : place + like[name].size] / share).reshape(like[name].shape), like[name])
        place += like[name].size
    return {name: arrays[name] for name in like}
