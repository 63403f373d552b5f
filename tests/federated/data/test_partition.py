"""Videos divided among clients, LEAF's files and its synthetic data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hf_video.errors import FederatedError
from hf_video.federated.data import partition
from hf_video.federated.data.leaf import read_leaf, synthetic

FACTS = json.loads((Path(__file__).parent.parent.parent / "golden_federated" / "golden_federated.json").read_text())
LABELS = np.random.default_rng(0).integers(0, 5, 200).tolist()


def test_dirichlet_cuts_as_defined():
    case = FACTS["partition"]["dirichlet"]
    given = case["inputs"]
    parts = partition.dirichlet(given["labels"], 4, 1.0, proportions=np.array(given["proportions"]))
    assert parts == case["expected"]["parts"]


def test_recordings_are_dealt_out_as_defined():
    case = FACTS["partition"]["by_recording"]
    groups = case["inputs"]["recordings"]
    parts = partition.by_group(groups, case["inputs"]["clients"])
    assert {groups[row]: client for client, part in enumerate(parts) for row in part} == case["expected"]["client_of"]


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.3", "labels:2", "quantity:0.5", "recording"])
def test_every_partition_is_one(text):
    """Each row is at one client, and a seed gives the same."""
    groups = [f"r{n % 11}" for n in range(len(LABELS))]
    options = {"labels": LABELS, "groups": groups, "clients": 5}
    parts = partition.parse_partition(text, **options, seed=3)
    assert len(parts) == 5
    assert min(map(len, parts)) > 0
    assert sorted(row for part in parts for row in part) == list(range(200))
    assert parts == partition.parse_partition(text, **options, seed=3)
    if text == "labels:2":
        assert all(len({LABELS[row] for row in part}) == 2 for part in parts)
    if text == "recording":
        owners = [{groups[row] for row in part} for part in parts]
        assert not set.intersection(*owners)
    elif text != "iid":
        assert len({len(part) for part in parts}) > 1


def test_a_smaller_alpha_makes_clients_more_different():
    def spread(alpha):
        parts = partition.dirichlet(LABELS, 5, alpha, seed=1)
        shares = [np.bincount([LABELS[row] for row in part], minlength=5) / len(part) for part in parts]
        return np.std(shares, axis=0).mean()

    assert spread(0.1) > 2 * spread(100)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dirichle:1", "Did you mean 'dirichlet'"),
        ("dirichlet", "is none of"),
        ("iid:3", "is none of"),
        ("dirichlet:x", "no number"),
        ("dirichlet:-1", "alpha"),
        ("labels:9", "labels of a client"),
        ("recording", "0 recordings"),
    ],
)
def test_partitions_that_mean_nothing(text, words):
    with pytest.raises(FederatedError, match=words):
        partition.parse_partition(text, labels=LABELS, clients=3)


def test_too_few_rows():
    with pytest.raises(FederatedError, match="2 rows can't give"):
        partition.dirichlet([0, 1], 3, 1.0)
    with pytest.raises(FederatedError, match="No draw with alpha"):
        partition.dirichlet([0] * 40, 20, 1e-3)


def test_synthetic_as_defined():
    case = FACTS["leaf_synthetic"]
    given, expected = case["inputs"], case["expected"]
    drawn = synthetic(given["alpha"], given["beta"], given["users"], seed=given["seed"])
    assert [len(x) for x, _ in drawn] == expected["sizes"]
    assert [np.bincount(y, minlength=10).tolist() for _, y in drawn] == expected["label_counts"]
    np.testing.assert_allclose(drawn[0][0].flat[:4], expected["x_first"], atol=1e-9)
    np.testing.assert_allclose([x.sum() for x, _ in drawn], expected["x_sums"], atol=1e-5)


def test_leaf_files(tmp_path):
    case = FACTS["leaf_json"]
    path = tmp_path / "all_data.json"
    path.write_text(json.dumps(case["file"]))
    users = read_leaf(path)
    assert {name: (one.x, one.y) for name, one in users.items()} == {
        name: (own["x"], own["y"]) for name, own in case["file"]["user_data"].items()
    }
    for invalid in case["invalid"]:
        path.write_text(json.dumps({**case["file"], **invalid["change"]}))
        with pytest.raises(FederatedError, match=r"num_samples says|no data"):
            read_leaf(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"users": ["f0001_01", "f0001_01"]}, "stands there twice"),
        ({"users": ["f0001_01"], "num_samples": [2]}, "whom users has not"),
        ({"num_samples": [2]}, "2 users, 1 num_samples"),
        ({"users": None}, "no file of LEAF"),
    ],
)
def test_leaf_files_that_are_wrong(tmp_path, change, words):
    path = tmp_path / "all_data.json"
    path.write_text(json.dumps({**FACTS["leaf_json"]["file"], **change}))
    with pytest.raises(FederatedError, match=words):
        read_leaf(path)
    path.write_text("[]")
    with pytest.raises(FederatedError, match="no file of LEAF"):
        read_leaf(path)
