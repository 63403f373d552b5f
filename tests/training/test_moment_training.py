"""Moment-DETR from videos and a file of sentences to a folder that finds moments in files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_video_text
import torch
from transformers import pipeline

import hf_video
from hf_video.cli import main
from hf_video.data.sources.moments import MomentRow, load_moments
from hf_video.errors import DataError
from hf_video.training.moment_trainer import MomentCollator, MomentDataset
from hf_video.training.runs.moments import train_moments

FPS, CLIPS = 2, 15
COLOURS = {"left": (220, 20, 20), "right": (20, 220, 20), "up": (20, 20, 220)}


def make_data(folder, videos: int, seed: int = 0):
    """Grey videos of 30 seconds with a red ("left"), a green ("right") and a blue ("up") stretch of whole clips."""
    rng, lines = np.random.default_rng(seed), []
    for number in range(videos):
        frames = np.full((2 * CLIPS * FPS, 32, 32, 3), 110, np.uint8)
        places = sorted(rng.choice(CLIPS - 2, 3, replace=False))
        for word, first, limit in zip(rng.permutation(list(COLOURS)), places, [*places[1:], CLIPS], strict=True):
            last = min(first + int(rng.integers(1, 4)), limit)
            frames[2 * first * FPS : 2 * last * FPS] = COLOURS[word]
            lines.append({"qid": len(lines), "query": f"moving {word}", "vid": f"v{number}", "duration": 2 * CLIPS,
                          "relevant_windows": [[int(2 * first), int(2 * last)]],
                          "split": "test" if number % 4 == 0 else "train"})  # fmt: skip
        frames = (frames + rng.normal(0, 4, frames.shape)).clip(0, 255).astype(np.uint8)
        hf_video.write_video(folder / f"v{number}.mp4", frames, FPS)
    (folder / "moments.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_video_text.save_videoclip(tmp_path_factory.mktemp("videoclip"))


def test_a_run_from_files_to_moments(tmp_path, encoder, capsys):
    data = make_data(tmp_path, 8)
    settings = ("training.num_train_epochs=2", "training.min_train_steps=0", "model.hidden_size=32",
                "training.per_device_train_batch_size=6")  # fmt: skip
    words = ["train", data, "--task", "moment-retrieval", "--annotations", data / "moments.jsonl", "--model", encoder]
    words += ["--output", tmp_path / "out", "--yes", *(word for one in settings for word in ("--set", one))]
    assert main(list(map(str, words))) == 0
    assert "On test: mAP" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out/training_summary.json").read_text())
    assert summary["plan"]["sentences"] == {"train": [6, 18], "test": [2, 6]}
    assert np.isfinite(summary["train_loss"])
    lines = (tmp_path / "out/evaluation/test/predictions.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert len(json.loads(lines[0])["pred_relevant_windows"]) == 10
    assert (
        json.loads((tmp_path / "out/evaluation/test/report.json").read_text())["brief"] == summary["evaluation"]["test"]
    )
    find = pipeline("video-moment-retrieval", model=str(tmp_path / "out"))
    found = find(data / "v0.mp4", sentences="moving left")
    stated = next(one for one in map(json.loads, lines) if (one["vid"], one["query"]) == ("v0", "moving left"))
    got = sorted((one.start, one.end, round(one.score, 3)) for one in found)
    assert got == sorted((a, b, round(score, 3)) for a, b, score in stated["pred_relevant_windows"])


@pytest.mark.slow
def test_it_learns_to_find_moments(tmp_path, encoder):
    data = make_data(tmp_path, 160)
    summary = train_moments(data, data / "moments.jsonl", str(encoder), yes=True, output=tmp_path / "out")
    assert summary["evaluation"]["test"]["MR-full-R1@0.5"] >= 80


def rows(*queries):
    return [MomentRow("a.mp4", None, "a", None, {"qid": n, "query": "left", **one}) for n, one in enumerate(queries)]


def test_samples():
    """Moments are parts of the clips' length; pairs are the clips of the highest and lowest score, and one in a moment
    with one outside."""
    scores = [[1, 1, 1], [4, 4, 4], [2, 2, 2]]
    scored = {"relevant_windows": [[4, 8], [12, 14]], "relevant_clip_ids": [2, 3, 6], "saliency_scores": scores}
    plain = {"relevant_windows": [[0, 4]]}
    whole = {"relevant_windows": [[0, 20]]}
    data = MomentDataset(rows(scored, plain, whole), [torch.zeros(10, 3)] * 3, [torch.zeros(2, 4)] * 3, 2.0)
    one, two, three = data[0], data[1], data[2]
    assert sorted(one["moments"].tolist()) == [[pytest.approx(0.3), pytest.approx(0.2)],
                                              [pytest.approx(0.65), pytest.approx(0.1)]]  # fmt: skip
    assert one["pairs"][:, 0].tolist() == [3, 2]
    assert int(one["pairs"][0, 1]) in (2, 3, 6)
    assert int(one["pairs"][1, 1]) not in (2, 3, 6)
    assert set(two["pairs"][0].tolist()) <= {0, 1}
    assert set(two["pairs"][1].tolist()) <= set(range(2, 10))
    assert three["pairs"].tolist() == [[0, 0], [0, 0]]
    again = data[1]["pairs"]
    assert torch.equal(again, two["pairs"])
    drawn = []
    for epoch in range(6):
        data.set_epoch(epoch)
        drawn.append(tuple(data[1]["pairs"].flatten().tolist()))
    assert len(set(drawn)) > 1
    batch = MomentCollator()([one, two])
    assert batch["video_mask"].shape == (2, 10)
    assert [part.shape for part in batch["saliency_pairs"]] == [(2, 2), (2, 2)]


LINE = {"qid": 1, "query": "left", "vid": "a", "duration": 10, "relevant_windows": [[0, 4]]}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{**LINE, "relevant_windows": [[4, 12]]}], "the video 10 s"),
        ([{**LINE, "query": " "}], "must be a sentence"),
        ([{**LINE, "vid": "b"}], "None of the 1 video"),
        ([{**LINE, "vid": "a", "split": "train"}, {**LINE, "qid": 2, "vid": "c"}], "no split"),
        ([{"qid": 1, "query": "left"}], "no 'vid'"),
    ],
)
def test_annotations_that_fit_no_data(tmp_path, lines, says):
    for name in ("a.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=says):
        load_moments(tmp_path, tmp_path / "m.jsonl")
    with pytest.raises(DataError, match="no folder"):
        load_moments(tmp_path / "nowhere", tmp_path / "m.jsonl")


def test_a_moment_beyond_the_real_end(tmp_path, encoder):
    data = make_data(tmp_path, 4)
    lines = [json.loads(line) for line in (data / "moments.jsonl").read_text().splitlines()]
    lines[-1] |= {"duration": 90, "relevant_windows": [[60, 70]]}
    (data / "moments.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"the moment \[60, 70\], and v3 is 30.00 seconds long"):
        train_moments(data, data / "moments.jsonl", str(encoder), yes=True, output=tmp_path / "out")
