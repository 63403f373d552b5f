"""Keys of a federation: TLS takes the certificate, nobody else reads a private key, nothing is written over."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import threading

import pytest

from hf_video.cli import DONE, WRONG, main
from hf_video.errors import FederatedError, OutputError
from hf_video.federated.deployment.certificates import make_keys

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_keys(tmp_path_factory.mktemp("keys") / "sites", ["north", "south-2"], ["fed.example.org", "10.0.0.7"])


def greet(server_folder, root, host):
    """One TLS handshake on loopback: what the client says of it."""
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(server_folder / "server.crt", server_folder / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        try:
            inside.wrap_socket(connection, server_side=True).close()
        except (ssl.SSLError, OSError):
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    context = ssl.create_default_context(cafile=root)
    try:
        with socket.create_connection(listener.getsockname()) as plain:
            with context.wrap_socket(plain, server_hostname=host) as secure:
                return secure.version()
    finally:
        thread.join()
        listener.close()


@pytest.mark.parametrize("host", ["fed.example.org", "10.0.0.7", "localhost", "127.0.0.1"])
def test_sites_trust_the_server_under_every_host(made, host):
    assert greet(made.server, made.sites["north"] / "ca.crt", host) == "TLSv1.3"


def test_another_host_or_authority_is_refused(made, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(doesn't match|mismatch|not valid for)"):
        greet(made.server, made.sites["north"] / "ca.crt", "other.example.org")
    other = make_keys(tmp_path / "sites", ["north"], ["fed.example.org"])
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        greet(other.server, made.sites["north"] / "ca.crt", "fed.example.org")


def test_each_site_has_its_own_key_and_all_public_ones(made):
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    listed = [json.loads((folder / "public_keys.json").read_text()) for folder in (made.server, *made.sites.values())]
    assert listed[0] == listed[1] == listed[2]
    assert list(listed[0]) == ["north", "south-2"]
    for name, folder in made.sites.items():
        key = load_ssh_private_key((folder / f"{name}.key").read_bytes(), None)
        assert isinstance(key.curve, ec.SECP384R1)
        assert listed[0][name] == key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert len(set(listed[0].values())) == 2


def test_private_keys_are_for_their_owner_alone(made):
    everything = [made.authority, *(p for folder in (made.server, *made.sites.values()) for p in folder.iterdir())]
    private = {path for path in everything if b"PRIVATE KEY" in path.read_bytes()}
    assert {path.name for path in private} == {"ca.key", "server.key", "north.key", "south-2.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert not [p for p in made.sites["north"].iterdir() if p.name in ("server.key", "ca.key", "south-2.key")]


def test_nothing_is_written_over(tmp_path):
    made = make_keys(tmp_path, ["a"], ["localhost"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for names in (["a"], ["b"]):
        with pytest.raises(OutputError, match="is there already, and keys are never written over"):
            make_keys(tmp_path, names, ["localhost"])
    made.authority.unlink()
    with pytest.raises(OutputError, match="server is there already"):
        make_keys(tmp_path, ["b"], ["localhost"])
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == {path: text for path, text in before.items() if path != made.authority}


@pytest.mark.parametrize(
    ("names", "hosts", "reason"),
    [
        ([], ["localhost"], "Sites need names, each its own: none came"),
        (["a", "a"], ["localhost"], "each its own: a, a came"),
        (["../a"], ["localhost"], "'../a' of a site must be of letters"),
        (["server"], ["localhost"], "not 'server'"),
        (["a"], [], "needs the hosts"),
        (["a"], ["https://fed.example.org"], "without scheme and port"),
        (["a"], ["fed.example.org:8443"], "without scheme and port"),
        (["a"], ["-fed"], "neither a host's name nor an IP address"),
    ],
)
def test_bad_names_and_hosts(tmp_path, names, hosts, reason):
    with pytest.raises(FederatedError, match=reason):
        make_keys(tmp_path / "sites", names, hosts)
    assert not (tmp_path / "sites").exists()


def test_command(tmp_path, capsys):
    words = ["federated", "keys", str(tmp_path / "sites"), "--names", "a, b", "--hosts", "::1,fed.example.org"]
    assert main(words) == DONE
    shown = capsys.readouterr().out
    for given in ("server/  to the server", "a/  to the site 'a' alone", "ca.key  to nobody"):
        assert given in shown
    assert main([*words, "--debug"]) == WRONG


def test_keys_of_sites_sign_secure_sums(made):
    """What is beside a site's key is all that a secure sum asks for."""
    from hf_video.federated.secure.options import SiteKeys
    from hf_video.federated.secure.signatures import is_signed, public_part, read_public_key, read_signing_key, sign

    for name, folder in made.sites.items():
        keys = SiteKeys.beside(folder / f"{name}.key")
        assert set(keys.registered) == set(made.sites)
        assert keys.shared is None
        assert public_part(keys.signing_key) == keys.registered[name]
        signature = sign(read_signing_key(keys.signing_key), b"text")
        verdicts = {site: is_signed(read_public_key(key), signature, b"text") for site, key in keys.registered.items()}
        assert verdicts == {site: site == name for site in made.sites}
    with pytest.raises(FederatedError, match="can't be read"):
        SiteKeys.beside(made.server / "server.key" / "none.key")


def test_sites_share_a_key_for_encryption(tmp_path):
    pytest.importorskip("tenseal", reason="TenSEAL is not installed (the extra federated-he)")
    from hf_video.federated.secure.options import SiteKeys

    made = make_keys(tmp_path / "sites", ["north", "south"], ["fed.example.org"], encryption=True)
    shared = {SiteKeys.beside(folder / f"{name}.key").shared for name, folder in made.sites.items()}
    assert len(shared) == 1
    assert None not in shared
    assert not (made.server / "shared.key").exists()
    for folder in made.sites.values():
        assert stat.S_IMODE((folder / "shared.key").stat().st_mode) == 0o600
