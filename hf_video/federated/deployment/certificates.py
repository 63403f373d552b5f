"""Certificates and keys of a federation: one folder for the server and one for each site.

The server proves who it is by a certificate that the federation's own authority signed (TLS); a site proves it by a key
pair whose public half the server knows. All are ECDSA on the curve P-384, made by the library `cryptography`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from hf_video.base.written_files import check_output_folder, writing_into
from hf_video.errors import BackendError, FederatedError, OutputError, check_count

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import PrivateFormat
    from cryptography.x509 import Certificate, CertificateBuilder, GeneralName, Name

SERVER = "server"
PUBLIC_KEYS, SHARED_KEY = "public_keys.json", "shared.key"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
YEARS_OF_AUTHORITY = 10
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")

KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)

SITE_FILE = """\
# What this site offers, for: hf-video federated client {name}/site.yaml
name: {name}
server: {host}:8443   # where the server listens
root: ca.crt          # by which the server proves who it is
key: {name}.key       # by which this site proves who it is; it never leaves this machine
data: videos          # what is trained on; it never leaves this machine
# What this site agrees to. A round that asks for more is refused and trains nothing.
# limits:
#   rounds: 50                      # no more than these
#   strategies: [fedavg, fedprox]   # no others
#   clients: 3                      # no round with fewer of them
"""


@dataclass(frozen=True)
class FederationKeys:
    """Where the files of `make_keys` are.

    Args:
        authority: Key of the authority; whoever has it can pass for the server. Keep it off every machine in use.
        server: Folder for the server.
        sites: Folder for each site, by name.
    """

    authority: Path
    server: Path
    sites: dict[str, Path]

    def lines(self) -> list[str]:
        """Who gets which file, a line each."""
        given = [f"{folder}/  to the site {name!r} alone" for name, folder in self.sites.items()]
        return [
            f"{self.server}/  to the server",
            *given,
            f"{self.authority}  to nobody: keep it offline, it makes further certificates",
        ]


def make_keys(
    folder: str | os.PathLike[str],
    names: Sequence[str],
    hosts: Sequence[str],
    *,
    days: int = 825,
    encryption: bool = False,
) -> FederationKeys:
    """Makes an authority, the server's certificate and a key pair for each site. Private keys are readable by their
    owner alone (mode 600).

    Args:
        folder: Where the folders for the server and the sites are made; nothing in it is written over.
        names: Of the sites.
        hosts: Names and IP addresses under which the sites reach the server. Those of the machine itself (localhost)
            are certified too.
        days: How long the server's certificate is valid.
        encryption: Whether sites also get `shared.key`, by which they encrypt what the server adds (`secure: he`).

    Returns:
        Where everything is.

    Raises:
        FederatedError: A name or a host that can't be one, or no site.
        OutputError: A folder that is there already or can't be written.
        BackendError: `cryptography` is not installed.
    """
    for name in names:
        if not SITE_NAME.fullmatch(name) or name == SERVER:
            raise FederatedError(
                f"The name {name!r} of a site must be of letters, digits, - and _, and not {SERVER!r}: it names files."
            )
    if not names or len(set(names)) < len(names):
        raise FederatedError(f"Sites need names, each its own: {', '.join(names) or 'none'} came.")
    if not hosts:
        raise FederatedError("The server's certificate needs the hosts under which sites reach it: none came.")
    check_count("days", days, FederatedError, most=365 * YEARS_OF_AUTHORITY)
    shared = None
    if encryption:
        from hf_video.federated.secure.homomorphic import new_keys

        shared = new_keys()
    certified = [_subject_name(host) for host in dict.fromkeys([*hosts, *LOCAL_HOSTS])]
    folder = Path(folder)
    check_output_folder(folder)
    made = FederationKeys(folder / "ca.key", folder / SERVER, {name: folder / name for name in names})
    for path in (made.authority, made.server, *made.sites.values()):
        if path.exists():
            raise OutputError(f"{path} is there already, and keys are never written over. Name another folder.")
    with writing_into(folder, OutputError):
        _write_all(made, certified, hosts[0], days)
        for site in made.sites.values() if shared else ():
            _write_new(site / SHARED_KEY, shared)
    return made


def _subject_name(host: str) -> GeneralName:
    """A host as a certificate names it."""
    try:
        from cryptography import x509
    except ImportError as error:
        raise BackendError(
            'Keys need cryptography, which is not installed: pip install "hf_video[federated]".'
        ) from error
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    label = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
    if not re.fullmatch(rf"(\*\.)?{label}(\.{label})*", host):
        raise FederatedError(f"{host!r} is neither a host's name nor an IP address; give it without scheme and port.")
    return x509.DNSName(host)


def _write_all(made: FederationKeys, certified: Sequence[GeneralName], host: str, days: int) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat

    authority, server = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    sites = {name: ec.generate_private_key(ec.SECP384R1()) for name in made.sites}
    root = _authority_certificate(authority)
    public_keys = {
        name: key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        for name, key in sites.items()
    }
    for folder in (made.server, *made.sites.values()):
        folder.mkdir(parents=True, mode=0o700)
        (folder / "ca.crt").write_bytes(root.public_bytes(Encoding.PEM))
        (folder / PUBLIC_KEYS).write_text(json.dumps(public_keys, indent=1) + "\n", encoding="utf-8")
    certificate = _server_certificate(server, authority, root, certified, days)
    (made.server / "server.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    _write_private(made.server / "server.key", server, PrivateFormat.PKCS8)
    _write_private(made.authority, authority, PrivateFormat.PKCS8)
    for name, folder in made.sites.items():
        _write_private(folder / f"{name}.key", sites[name], PrivateFormat.OpenSSH)
        (folder / "site.yaml").write_text(SITE_FILE.format(name=name, host=host), encoding="utf-8")


def _write_private(path: Path, key: EllipticCurvePrivateKey, form: PrivateFormat) -> None:
    """Writes a private key into a new file, without a password."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption

    _write_new(path, key.private_bytes(Encoding.PEM, form, NoEncryption()))


def _write_new(path: Path, content: bytes) -> None:
    """Writes a file that nobody else could read at any time."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _authority_certificate(key: EllipticCurvePrivateKey) -> Certificate:
    """Signed by itself; it may sign servers and no further authorities."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hf_video federation")])
    usage = dict.fromkeys(KEY_USAGES, False)
    return (
        _certificate(name, name, key, 365 * YEARS_OF_AUTHORITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA384())
    )


def _server_certificate(
    key: EllipticCurvePrivateKey,
    authority: EllipticCurvePrivateKey,
    root: Certificate,
    hosts: Sequence[GeneralName],
    days: int,
) -> Certificate:
    """Names every host as a subject alternative name: clients look at nothing else."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hf_video server")])
    usage = dict.fromkeys(KEY_USAGES, False)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    return (
        _certificate(name, root.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signer, critical=False)
        .sign(authority, SHA384())
    )


def _certificate(subject: Name, issuer: Name, key: EllipticCurvePrivateKey, days: int) -> CertificateBuilder:
    """Valid from an hour ago, because clocks differ."""
    from cryptography import x509

    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )
