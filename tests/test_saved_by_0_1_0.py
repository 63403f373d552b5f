"""What version 0.1.0 wrote (saved_by_0_1_0/: a model, a run, two indexes, two folders of vectors) still loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import hf_video

SAVED = Path(__file__).parent / "saved_by_0_1_0"
EXPECTED = json.loads((SAVED / "expected.json").read_text())
EXAMPLE = "videos/still/still1.mp4"


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A copy to work in: everything in it was made with paths relative to its own folder."""
    folder = tmp_path / "library"
    shutil.copytree(SAVED, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", ["library.index", "prints.index"])
def test_an_index_finds_what_it_found(saved, name):
    from hf_video.retrieval import VideoIndex

    wanted = dict(map(tuple, reversed(EXPECTED[name])))  # the best score of each file
    for moment in VideoIndex.open(name).search(EXAMPLE, top_k=8):
        path = moment.path.removeprefix("/data/library/")  # where the index was made
        if path in wanted:
            assert moment.score == pytest.approx(wanted.pop(path), abs=1e-3)
    assert not wanted


@pytest.mark.parametrize("name", ["shards", "shards_parquet"])
def test_vectors_are_kept_and_not_made_again(saved, name):
    from hf_video.cli import main

    before = {path.name: path.read_bytes() for path in (saved / name).glob("features-*")}
    form = ["--format", "parquet", "--windows", "0.5s/0.5s"] if "parquet" in name else []
    assert main(["embed", "videos", "--model", "model", "--output", name, *form]) == 0
    assert {path.name: path.read_bytes() for path in (saved / name).glob("features-*")} == before


@pytest.mark.parametrize("name", ["run", "run/checkpoint-4"])
def test_a_run_classifies_as_it_did(saved, name):
    from transformers import pipeline

    scores = {one["label"]: one["score"] for one in pipeline("video-classification", model=name)(EXAMPLE)}
    assert scores == pytest.approx(EXPECTED["run"], abs=1e-4)


def test_a_run_goes_on_from_its_checkpoint(saved):
    from hf_video.cli import main

    weights = load_file("run/model.safetensors")
    for path in ("run/model.safetensors", "run/training_summary.json"):
        (saved / path).unlink()
    settings = json.loads((saved / "expected.json").read_text())["settings"]
    options = [part for setting in settings for part in ("--set", setting)]
    assert (
        main(["train", "videos", "--model", "model", "--output", "run", "--test-size", "0.25", "--resume", *options])
        == 0
    )
    resumed = load_file("run/model.safetensors")
    assert all(np.allclose(resumed[name], weights[name]) for name in weights)  # all four steps were done


def test_the_model_loads_by_the_auto_classes(saved):
    from transformers import AutoModelForVideoClassification

    model = AutoModelForVideoClassification.from_pretrained("model")
    assert type(model) is hf_video.VideoMAEForVideoClassification
