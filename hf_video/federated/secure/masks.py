"""Masks that vanish in the sum of all clients (Bonawitz et al., CCS 2017), from the library `cryptography`.

Two clients agree on a key by X25519; HKDF-SHA256 with the run, the round and the purpose in its `info` makes the key of
AES-256-CTR, whose stream, read as little-endian uint32, is the mask. Of each pair the later client adds it and the
earlier one subtracts it. A mask of its own hides each client's vector until the server knows who is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hf_video.errors import BackendError, FederatedError

_BLOCK = 2**20  # numbers of a stream at once

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


def import_cryptography() -> None:
    """Raises BackendError, with what to install, where the library is not there."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise BackendError(
            'Secure aggregation needs cryptography, which is not installed: pip install "hf_video[federated]".'
        ) from error


def new_key() -> X25519PrivateKey:
    """Draws a key pair; one is used for one round."""
    import_cryptography()
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate()


def private_key(secret: bytes) -> X25519PrivateKey:
    """The key pair of 32 secret bytes."""
    import_cryptography()
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(secret)


def agreed_key(own: X25519PrivateKey, other: bytes, info: bytes) -> bytes:
    """The key (32 bytes) that two clients share for one purpose.

    Args:
        own: A client's key pair.
        other: The other one's public key, 32 bytes.
        info: Run, round and purpose.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise FederatedError(f"A client's key for a secure sum can't be used: {error}") from None
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared)


def add_mask(vector: np.ndarray, key: bytes, *, subtract: bool = False) -> np.ndarray:
    """Adds the stream of a key to a vector (size,) uint32 in place, modulo 2^32, or subtracts it; returns the vector.

    The stream is made in blocks: a model of 350 MB is masked with a few megabytes more.
    """
    import_cryptography()
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    encryptor = Cipher(AES(key), CTR(bytes(16))).encryptor()
    zeros, change = bytes(4 * _BLOCK), np.subtract if subtract else np.add
    for begin in range(0, vector.size, _BLOCK):
        part = vector[begin : begin + _BLOCK]
        change(part, np.frombuffer(encryptor.update(zeros[: 4 * part.size]), dtype="<u4"), out=part)
    return vector


def masked_vector(vector: np.ndarray, client: int, pair_keys: Mapping[int, bytes], self_key: bytes) -> np.ndarray:
    """A client's vector as the server sees it.

    Args:
        vector: (size,) uint32 levels.
        client: Its number.
        pair_keys: By the other clients' numbers.
        self_key: Of its own mask.
    """
    return add_pair_masks(add_mask(vector.copy(), self_key), client, pair_keys)


def add_pair_masks(vector: np.ndarray, client: int, pair_keys: Mapping[int, bytes]) -> np.ndarray:
    """Adds a client's pair masks to a vector in place, modulo 2^32, and returns it; the server needs them of a client
    that dropped out."""
    for other, key in pair_keys.items():
        add_mask(vector, key, subtract=client < other)
    return vector
