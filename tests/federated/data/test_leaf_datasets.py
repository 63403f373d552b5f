"""The five data sets of LEAF, from files of its form."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hf_video.errors import FederatedError
from hf_video.federated.data.leaf_datasets import read_leaf_dataset

TEXT = ("To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer" * 2)[:81]
TWEET = ["1467810369", "Mon Apr 06", "NO_QUERY", "user", "what a day", "training"]
TARGET = {"target_tokens": [["b", "c"], ["<EOS>", "<PAD>"]], "count_tokens": [[1, 1], [1, 0]], "subreddit": "x"}
GOOD = {
    "femnist": ([[0.0] * 783 + [1.0], [0.5] * 784], [61, 0]),
    "shakespeare": ([TEXT[:80]], [TEXT[80]]),
    "sent140": ([TWEET, [*TWEET[:4], "no"]], ["1", 0]),
    "celeba": (["000001.jpg", "000002.jpg"], [0, 1]),
    "reddit": ([[["a", "b"], ["c", "<PAD>"]]], [TARGET]),
}


def write(path, users):
    counts = [len(x) for x, _ in users.values()]
    data = {user: {"x": x, "y": y} for user, (x, y) in users.items()}
    path.write_text(json.dumps({"users": list(users), "num_samples": counts, "user_data": data}))


def test_each_data_set(tmp_path):
    read = {}
    for name, entries in GOOD.items():
        write(tmp_path / f"{name}.json", {"u": entries})
        read[name] = read_leaf_dataset(name, tmp_path / f"{name}.json")["u"]
    assert read["femnist"].x.shape == (2, 28, 28)
    assert read["femnist"].x[0, 27, 27] == 1
    assert read["femnist"].y.tolist() == [61, 0]
    assert read["shakespeare"].y == [TEXT[80]]
    assert read["sent140"].x == ["what a day", "no"]
    assert read["sent140"].y.tolist() == [1, 0]
    assert read["celeba"].y.dtype == np.int64
    assert read["reddit"].x[0][1] == ["c", "<PAD>"]
    assert read["reddit"].y == [TARGET["target_tokens"]]


def test_a_folder_of_files(tmp_path):
    write(tmp_path / "a.json", {"one": GOOD["celeba"]})
    write(tmp_path / "b.json", {"two": GOOD["celeba"]})
    assert list(read_leaf_dataset("celeba", tmp_path)) == ["one", "two"]
    write(tmp_path / "c.json", {"one": GOOD["celeba"]})
    with pytest.raises(FederatedError, match="'one' stands in another file"):
        read_leaf_dataset("celeba", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FederatedError, match=r"no \.json files"):
        read_leaf_dataset("celeba", tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "x", "y", "words"),
    [
        ("femnist", [[0.0] * 783], [1], "784 numbers"),
        ("femnist", [[255.0] * 784], [1], "from 0 to 1"),
        ("femnist", [[0.0] * 784], [62], "from 0 to 61"),
        ("femnist", [[0.0] * 784], [1.5], "whole numbers"),
        ("shakespeare", [TEXT], ["a"], "80 letters"),
        ("shakespeare", [TEXT[:80]], ["ab"], "80 letters"),
        ("sent140", [TWEET[:3]], [1], "not of sent140"),
        ("sent140", [TWEET], [4], "from 0 to 1"),
        ("celeba", ["../x.jpg"], [1], "picture file"),
        ("reddit", [[["a"], ["b", "c"]]], [TARGET], "one length"),
        ("reddit", [[["a", "b"]]], [{}], "target_tokens"),
        ("reddit", [[["a", 3], ["c", "d"]]], [TARGET], "tokens are texts"),
        ("femnits", [], [], "Did you mean 'femnist'"),
    ],
)
def test_entries_of_something_else(tmp_path, name, x, y, words):
    write(tmp_path / "all.json", {"u": (x, y)})
    with pytest.raises(FederatedError, match=words):
        read_leaf_dataset(name, tmp_path / "all.json")
