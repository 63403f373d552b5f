"""Sums under encryption: equal to plain means, closed to the server."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tenseal", reason="TenSEAL is not installed (the extra federated-he)")

from hf_video.errors import FederatedError
from hf_video.federated.arrays import weighted_mean
from hf_video.federated.secure import homomorphic
from hf_video.federated.secure.homomorphic import HomomorphicKeys, add, check_encrypted_size, decrypt, encrypt

EXAMPLES = {"a": 30, "b": 5, "c": 200}
TOTAL = 240


@pytest.fixture(scope="module")
def files():
    return homomorphic.new_keys()


@pytest.fixture(scope="module")
def keys(files):
    return tuple(map(HomomorphicKeys, files))


def models(seed=0, scale=0.05):
    rng = np.random.default_rng(seed)
    return {
        client: {
            "head.weight": rng.normal(0, scale, (5, 700)).astype(np.float32),
            "head.bias": rng.normal(0, scale, 5).astype(np.float64),
            "half": rng.normal(0, scale, 9).astype(np.float16),
        }
        for client in EXAMPLES
    }


def summed(keys, given):
    client_keys, server_keys = keys
    sent = {client: encrypt(client_keys, one, EXAMPLES[client], TOTAL) for client, one in given.items()}
    return add(server_keys, sent, dict.fromkeys(sent, client_keys.fingerprint))


@pytest.mark.parametrize(("seed", "scale"), [(0, 0.05), (1, 1.0), (2, 30.0)])
@pytest.mark.parametrize("gone", [(), ("c",), ("a", "b")])
def test_the_mean_is_the_plain_one(keys, seed, scale, gone):
    given = {client: one for client, one in models(seed, scale).items() if client not in gone}
    share = sum(EXAMPLES[client] for client in given) / TOTAL
    like = given[min(given)]
    found = decrypt(keys[0], summed(keys, given), share, like)
    assert list(found) == list(like)
    for name, array in weighted_mean(given, EXAMPLES).items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, atol=1e-6, rtol=1e-3 if array.dtype == np.float16 else 1e-6)


def test_the_server_can_t_decrypt(files, keys):
    client_keys, server_keys = keys
    assert client_keys.can_decrypt
    assert not server_keys.can_decrypt
    total, like = summed(keys, models()), models()["a"]
    with pytest.raises(FederatedError, match="the secret key is with the clients"):
        decrypt(server_keys, total, 1.0, like)
    # Nor by TenSEAL itself.
    import tenseal

    with pytest.raises(ValueError, match="secret_key"):
        tenseal.ckks_vector_from(server_keys.context, total[0]).decrypt()
    assert len(files[1]) < len(files[0])


def test_the_server_s_keys_encrypt(keys):
    one = {"x": np.arange(10.0)}
    np.testing.assert_allclose(decrypt(keys[0], encrypt(keys[1], one, 1, 1), 1.0, one)["x"], np.arange(10.0), atol=1e-6)


def test_other_keys_are_refused(keys):
    other = HomomorphicKeys(homomorphic.new_keys()[0])
    given = models()
    sent = {client: encrypt(keys[0], one, EXAMPLES[client], TOTAL) for client, one in given.items()}
    sent["b"] = encrypt(other, given["b"], EXAMPLES["b"], TOTAL)
    prints = {client: (other if client == "b" else keys[0]).fingerprint for client in sent}
    assert other.fingerprint != keys[0].fingerprint == keys[1].fingerprint
    with pytest.raises(FederatedError, match="'b' encrypted with other keys"):
        add(keys[1], sent, prints)
    with pytest.raises(FederatedError, match="'a' encrypted with other keys"):
        add(keys[1], sent, {})


def test_key_files(tmp_path, keys):
    client, server = homomorphic.write_keys(tmp_path)
    assert client.stat().st_mode & 0o077 == 0
    assert HomomorphicKeys.load(client).fingerprint == HomomorphicKeys.load(server).fingerprint
    for content in (b"", b"something else", homomorphic._MAGIC, client.read_bytes()[:5000]):
        with pytest.raises(FederatedError, match="key file"):
            HomomorphicKeys(content)
    with pytest.raises(FederatedError, match="can't be read"):
        HomomorphicKeys.load(tmp_path / "nowhere.key")


@pytest.mark.parametrize(
    ("change", "examples", "words"),
    [
        ({"x": np.array([1.0, np.nan])}, 1, "not finite"),
        ({"x": np.array([5000.0])}, 1, "past 4,096"),
        ({"x": np.array([1, 2])}, 1, "counts"),
        ({"x": np.array([1.0])}, 11, "num_examples=11"),
        ({"x": np.array([1.0])}, 0, "num_examples=0"),
    ],
)
def test_what_can_t_be_encrypted(keys, change, examples, words):
    with pytest.raises(FederatedError, match=words):
        encrypt(keys[0], change, examples, 10)


def test_sums_that_are_no_sums(keys):
    one, prints = {"x": np.arange(3000.0) / 3000}, {"a": keys[1].fingerprint, "b": keys[1].fingerprint}
    sent = encrypt(keys[0], one, 1, 2)
    assert len(sent) == 2
    with pytest.raises(FederatedError, match="no ciphertexts"):
        add(keys[1], {}, {})
    with pytest.raises(FederatedError, match="other numbers of ciphertexts"):
        add(keys[1], {"a": sent, "b": sent[:1]}, prints)
    with pytest.raises(FederatedError, match="of 'b' can't be added"):
        add(keys[1], {"a": sent, "b": [sent[0], sent[1][:500]]}, prints)
    with pytest.raises(FederatedError, match="of 'b' can't be added"):
        add(keys[1], {"a": sent, "b": [sent[1], sent[0]]}, prints)
    for total, like in ((sent[:1], one), (sent, {"x": np.zeros(7)}), ([], one)):
        with pytest.raises(FederatedError, match="encrypted numbers came"):
            decrypt(keys[0], total, 1.0, like)
    for share in (0.0, 1.5, -1.0):
        with pytest.raises(FederatedError, match="share"):
            decrypt(keys[0], sent, share, one)


def test_sizes(keys):
    adapters = {"x": np.zeros(5000, np.float32)}
    assert sum(map(len, encrypt(keys[0], adapters, 1, 1))) == pytest.approx(
        homomorphic.encrypted_bytes(adapters), rel=0.01
    )
    check_encrypted_size({"x": np.zeros(298_000, np.float32)})
    whole = {"x": np.zeros(86_000_000, np.int8)}
    with pytest.raises(FederatedError, match=r"86,000,000 numbers are 2,595 MB encrypted"):
        check_encrypted_size(whole)
    check_encrypted_size(whole, force=True)
