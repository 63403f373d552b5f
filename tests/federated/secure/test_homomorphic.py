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
def keys():
    return HomomorphicKeys(homomorphic.new_keys())


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
    sent = {client: encrypt(keys, one, EXAMPLES[client], TOTAL) for client, one in given.items()}
    return add(sent, dict.fromkeys(sent, keys.fingerprint))


@pytest.mark.parametrize(("seed", "scale"), [(0, 0.05), (1, 1.0), (2, 30.0)])
@pytest.mark.parametrize("gone", [(), ("c",), ("a", "b")])
def test_the_mean_is_the_plain_one(keys, seed, scale, gone):
    given = {client: one for client, one in models(seed, scale).items() if client not in gone}
    share = sum(EXAMPLES[client] for client in given) / TOTAL
    like = given[min(given)]
    found = decrypt(keys, summed(keys, given), share, like)
    assert list(found) == list(like)
    for name, array in weighted_mean(given, EXAMPLES).items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, atol=1e-6, rtol=1e-3 if array.dtype == np.float16 else 1e-6)


def test_the_server_can_t_decrypt(keys):
    import tenseal

    total = summed(keys, models())
    server = homomorphic.server_context()
    assert not server.has_secret_key()
    with pytest.raises(ValueError, match="secret_key"):
        tenseal.ckks_vector_from(server, total[0]).decrypt()


def test_other_keys_are_refused(keys):
    other = HomomorphicKeys(homomorphic.new_keys())
    given = models()
    sent = {client: encrypt(keys, one, EXAMPLES[client], TOTAL) for client, one in given.items()}
    sent["b"] = encrypt(other, given["b"], EXAMPLES["b"], TOTAL)
    prints = {client: (other if client == "b" else keys).fingerprint for client in sent}
    assert other.fingerprint != keys.fingerprint
    with pytest.raises(FederatedError, match="'b' encrypted with other keys"):
        add(sent, prints)
    with pytest.raises(FederatedError, match="'a' encrypted with other keys"):
        add(sent, prints, expected=other.fingerprint)
    with pytest.raises(FederatedError, match="'a' encrypted with other keys"):
        add(sent, {"c": keys.fingerprint}, keys.fingerprint)
    # The sum under one key is no sum under another: it is noise, and most of it too large to be one.
    with pytest.raises(FederatedError, match="encrypted numbers"):
        decrypt(other, summed(keys, given), 1.0, given["a"])


def test_key_files(tmp_path):
    homomorphic.write_keys(tmp_path / "he.key")
    assert (tmp_path / "he.key").stat().st_mode & 0o077 == 0
    assert len(HomomorphicKeys.load(tmp_path / "he.key").fingerprint) == 64
    for content in (b"", b"something else", homomorphic._MAGIC, (tmp_path / "he.key").read_bytes()[:5000]):
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
        encrypt(keys, change, examples, 10)


def test_sums_that_are_no_sums(keys):
    one, prints = {"x": np.arange(3000.0) / 3000}, dict.fromkeys("ab", keys.fingerprint)
    sent = encrypt(keys, one, 1, 2)
    assert len(sent) == 2
    with pytest.raises(FederatedError, match="no ciphertexts"):
        add({}, {})
    with pytest.raises(FederatedError, match="other numbers of ciphertexts"):
        add({"a": sent, "b": sent[:1]}, prints)
    with pytest.raises(FederatedError, match="of 'b' can't be added"):
        add({"a": sent, "b": [sent[0], sent[1][:500]]}, prints)
    with pytest.raises(FederatedError, match="of 'b' can't be added"):
        add({"a": sent, "b": [sent[1], sent[0]]}, prints)
    for total, like in ((sent[:1], one), (sent, {"x": np.zeros(7)}), ([], one)):
        with pytest.raises(FederatedError, match="encrypted numbers came"):
            decrypt(keys, total, 1.0, like)
    for share in (0.0, 1.5, -1.0):
        with pytest.raises(FederatedError, match="share"):
            decrypt(keys, sent, share, one)


def test_sizes(keys):
    adapters = {"x": np.zeros(5000, np.float32)}
    assert sum(map(len, encrypt(keys, adapters, 1, 1))) == pytest.approx(
        homomorphic.encrypted_bytes(adapters), rel=0.01
    )
    check_encrypted_size({"x": np.zeros(298_000, np.float32)})
    whole = {"x": np.zeros(86_000_000, np.int8)}
    with pytest.raises(FederatedError, match=r"86,000,000 numbers are 2,595 MB encrypted"):
        check_encrypted_size(whole)
    check_encrypted_size(whole, force=True)
