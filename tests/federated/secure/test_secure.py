"""Secure sums: shares, masks that vanish, one client that drops out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hf_video.errors import FederatedError
from hf_video.federated.secure import masks
from hf_video.federated.secure.quantization import check_sum_fits, dequantize_sum, quantize
from hf_video.federated.secure.shamir import PRIME, join_secret, split_secret

FACTS = json.loads((Path(__file__).parent.parent.parent / "golden_federated" / "golden_federated.json").read_text())


def test_shares_as_computed():
    case = FACTS["shamir"]
    prime, secret = int(case["field_prime"]), int(case["secret"])
    shares = split_secret(
        secret, 5, case["threshold"], prime=prime, coefficients=[int(c) for c in case["coefficients"]]
    )
    assert shares == {x: int(y) for x, y in case["shares"]}
    chosen = {x: shares[x] for x in case["reconstruct_from"]}
    assert join_secret(chosen, case["threshold"], prime=prime) == secret
    with pytest.raises(FederatedError, match="3 shares give the secret back, and 2 came"):
        join_secret({1: shares[1], 2: shares[2]}, 3, prime=prime)


def test_any_threshold_of_shares_gives_32_bytes_back():
    secret = int.from_bytes(bytes(range(200, 232)), "big")
    shares = split_secret(secret, 6, 4)
    for chosen in ((1, 2, 3, 4), (3, 4, 5, 6), (1, 2, 3, 4, 5, 6)):
        assert join_secret({x: shares[x] for x in chosen}, 4) == secret
    assert join_secret({x: shares[x] for x in (1, 2, 3)}, 3) != secret


@pytest.mark.parametrize(("secret", "shares", "threshold"), [(5, 3, 4), (5, 3, 0), (-1, 3, 2), (PRIME, 3, 2)])
def test_shares_that_mean_nothing(secret, shares, threshold):
    with pytest.raises(FederatedError):
        split_secret(secret, shares, threshold)


@pytest.mark.parametrize("row", FACTS["secagg_guards"]["rows"], ids=str)
def test_sums_that_fit(row):
    arguments = (row["clients"], row["bits"], row["max_weight"])
    if row["accepted"]:
        check_sum_fits(*arguments)
    else:
        with pytest.raises(FederatedError, match="modulus"):
            check_sum_fits(*arguments)


@pytest.mark.parametrize("clients", [0, 1, 2])
def test_two_clients_would_learn_each_other(clients):
    with pytest.raises(FederatedError, match="3 clients or more"):
        check_sum_fits(clients, 16)


def stream(key, size):
    return masks.add_mask(np.zeros(size, np.uint32), key)


@pytest.fixture(scope="module")
def parties():
    """The clients of the golden case: levels, keys and masked vectors."""
    pytest.importorskip("cryptography")
    given = FACTS["secagg"]["inputs"]
    keys = [masks.private_key(bytes.fromhex(one)) for one in given["secret_keys"]]
    public = [key.public_key().public_bytes_raw() for key in keys]
    info = given["info"].encode()
    pairs = [
        {j: masks.agreed_key(key, public[j], info) for j in range(len(keys)) if j != i} for i, key in enumerate(keys)
    ]
    levels = [quantize(np.array(one), given["clip"], given["bits"]) for one in given["vectors"]]
    own = [bytes.fromhex(one) for one in given["self_seeds"]]
    sent = [masks.masked_vector(levels[i], i, pairs[i], own[i]) for i in range(len(keys))]
    return given, public, pairs, levels, own, sent


def test_masks_as_computed(parties):
    _, public, pairs, levels, _, sent = parties
    expected = FACTS["secagg"]["expected"]
    assert [one.hex() for one in public] == expected["public_keys"]
    assert pairs[0][1].hex() == expected["pair_key_0_1"] == pairs[1][0].hex()
    assert stream(pairs[0][1], 6).tolist() == expected["mask_0_1"]
    assert [one.tolist() for one in levels] == expected["quantised"]
    assert [one.tolist() for one in sent] == expected["masked"]


def test_the_sum_of_all_and_of_survivors(parties):
    given, _, pairs, levels, own, sent = parties
    expected = FACTS["secagg"]["expected"]
    everyone = sum(sent) - sum(stream(key, 6) for key in own)
    assert everyone.tolist() == expected["sum_all"] == sum(levels).tolist()
    dropped = expected["dropped"]
    left = [i for i in range(4) if i != dropped]
    masked = sum(sent[i] for i in left)
    assert masked.tolist() == expected["masked_sum_of_survivors"]
    # The survivors' pair masks with the one that dropped out remain; with its key the server takes them away.
    masked = masked - sum(stream(own[i], 6) for i in left)
    masked = masked + masks.add_pair_masks(np.zeros(6, np.uint32), dropped, {i: pairs[dropped][i] for i in left})
    assert masked.tolist() == expected["sum_survivors"]
    mean = dequantize_sum(masked, given["clip"], given["bits"], len(left)) / len(left)
    np.testing.assert_allclose(mean, expected["mean_survivors"], atol=1e-9)
    np.testing.assert_allclose(mean, np.mean([np.clip(given["vectors"][i], -4, 4) for i in left], axis=0), atol=1e-5)


def test_streams_in_blocks(monkeypatch):
    """However long the blocks are, also where the last one is not full, the stream is the same."""
    pytest.importorskip("cryptography")
    whole = stream(bytes(range(32)), 1000)
    monkeypatch.setattr(masks, "_BLOCK", 96)
    np.testing.assert_array_equal(stream(bytes(range(32)), 1000), whole)
    vector = np.arange(1000, dtype=np.uint32)
    np.testing.assert_array_equal(masks.add_mask(vector.copy(), bytes(range(32)), subtract=True), vector - whole)


def test_masked_vectors_look_uniform(parties):
    """Zeros under a mask: bytes pass a chi-squared test, whose statistic is below 330 with chance .999."""
    _, _, pairs, _, own, _ = parties
    hidden = masks.masked_vector(np.zeros(100_000, np.uint32), 1, pairs[1], own[1])
    counts = np.bincount(hidden.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 330
    assert hidden.max() > 2**32 - 10**5
