"""Keys by which a site is known to the others: ECDSA on P-384, registered out of band.

The server relays the keys of each round. Their signatures keep it from putting its own in their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hf_video.errors import FederatedError
from hf_video.federated.secure.masks import import_cryptography

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

Key = TypeVar("Key")


def new_signing_key() -> bytes:
    """Draws a site's private key; PEM (PKCS#8, without a password)."""
    import_cryptography()
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_part(signing_key: bytes) -> bytes:
    """The public key of a private one, which the other sites register; a line as of OpenSSH."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return read_signing_key(signing_key).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def read_signing_key(text: bytes) -> EllipticCurvePrivateKey:
    """A private key from PEM or from OpenSSH's format, as `ssh-keygen -t ecdsa -b 384` writes it.

    Raises:
        FederatedError: It is no such key, or on another curve.
    """
    import_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    read = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in text else load_pem_private_key
    try:
        key = read(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FederatedError(
            f"A site's private key can't be read ({error}): it must be PEM without a password."
        ) from None
    return _on_p384(key)


def read_public_key(text: bytes) -> EllipticCurvePublicKey:
    """A public key from PEM or from a line of OpenSSH's.

    Raises:
        FederatedError: It is no such key, or on another curve.
    """
    import_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

    read = load_pem_public_key if text.lstrip().startswith(b"-----") else load_ssh_public_key
    try:
        key = read(text.strip())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FederatedError(
            f"A site's public key can't be read ({error}): it must be PEM or a line of OpenSSH's."
        ) from None
    return _on_p384(key)


def _on_p384(key: Key) -> Key:
    if getattr(getattr(key, "curve", None), "name", "") != "secp384r1":
        raise FederatedError("A site's key must be ECDSA on the curve P-384: ssh-keygen -t ecdsa -b 384.")
    return key


def sign(key: EllipticCurvePrivateKey, message: bytes) -> bytes:
    """The signature of a message, with SHA-384."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA384

    return key.sign(message, ECDSA(SHA384()))


def is_signed(key: EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    """Whether the holder of the key signed this message."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA384

    try:
        key.verify(signature, message, ECDSA(SHA384()))
    except InvalidSignature:
        return False
    return True
