"""A head for anomalies from videos that are labelled as a whole: one run from videos to scores of files; bad input."""

from __future__ import annotations

import json

import drifting
import numpy as np
import pytest
import tiny
import torch

from hf_video import cli
from hf_video.errors import CheckpointError, ConfigError, DataError
from hf_video.features import AnomalyHead, FeatureSequence
from hf_video.training.bags import BagPairs, collate_pairs
from hf_video.training.runs.anomalies import labelled_videos, train_anomalies


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bags")
    lines = []
    for number in range(10):
        jumps = [(2.0, 5.0)] if number % 2 else []
        drifting.write_drifting(folder / "videos" / f"{number}.mp4", number, seconds=6, jumps=jumps)
        lines.append(f"{number}.mp4,{'abnormal' if jumps else 'normal'}")
    (folder / "list.txt").write_text("video,label\n" + "\n".join(lines) + "\n")
    tiny.save_tiny(folder / "encoder")
    return folder


@pytest.mark.parametrize("head", ["rtfm", "mil_ranking"])
def test_from_videos_to_scores(videos, tmp_path, head, capsys):
    settings = ["training.max_steps=30", "training.min_train_steps=0", "training.per_device_train_batch_size=4"]
    output = tmp_path / "head"
    summary = train_anomalies(
        videos / "videos", videos / "list.txt", str(videos / "encoder"), head=head, output=output, grid="8/4",
        settings=settings,
    )  # fmt: skip
    assert "4 normal and 4 abnormal videos" in capsys.readouterr().out
    assert summary["steps"] == 30
    assert 0 <= summary["evaluation"]["test"]["video_auc"] <= 1
    assert json.loads((output / "training_summary.json").read_text())["encoder"]["digest"]
    scorer = AnomalyHead.load(output)
    curve = scorer.score(videos / "videos" / "1.mp4")
    assert len(curve.scores) == (48 - 8) // 4 + 1
    assert len(curve.frame_scores()) == 48
    sequence = scorer.encoder(videos / "videos" / "1.mp4")
    expected = scorer.model(torch.from_numpy(sequence.vectors)[None]).scores[0]
    np.testing.assert_allclose(curve.scores, expected.detach().numpy(), atol=1e-6)
    other = FeatureSequence(sequence.vectors, sequence.grid, sequence.timeline, "0123456789abcdef")
    with pytest.raises(DataError, match="another encoder"):
        scorer.score(other)


def test_the_command(videos, tmp_path, capsys):
    words = ["train", str(videos / "videos"), "--task", "anomaly", "--model", str(videos / "encoder"), "--grid", "8/8"]
    assert cli.main([*words, "--output", str(tmp_path / "head")]) == cli.WRONG
    assert "--annotations" in capsys.readouterr().err
    words += [
        "--annotations",
        str(videos / "list.txt"),
        "--detector",
        "mil_ranking",
        "--output",
        str(tmp_path / "head"),
    ]
    assert cli.main([*words, "--videos", "x"]) == cli.WRONG
    assert "no use for --videos" in capsys.readouterr().err
    assert cli.main([*words, "--set", "training.max_steps=2", "--set", "training.min_train_steps=0"]) == cli.DONE
    capsys.readouterr()
    scores = tmp_path / "scores.json"
    code = cli.main(["anomalies", str(tmp_path / "head"), str(videos / "videos" / "1.mp4"), "--output", str(scores)])
    assert code == cli.DONE
    about = json.loads(scores.read_text())
    assert (about["head"], about["grid"]) == ("mil_ranking", "8/8")
    assert len(next(iter(about["videos"].values()))["frame_scores"]) == 48
    assert cli.main(["anomalies", str(tmp_path / "head"), str(videos / "videos"), "--k", "3"]) == cli.WRONG
    assert "leave it out" in capsys.readouterr().err


def test_pairs_are_drawn_anew_and_show_every_video():
    data = BagPairs([torch.full((4, 2), float(number)) for number in range(7)], [0, 0, 1, 1, 1, 1, 1], seed=3)
    assert len(data) == 5
    epochs = []
    for epoch in range(3):
        data.set_epoch(epoch)
        pairs = [data[number] for number in range(5)]
        assert sorted(int(one["abnormal"][0, 0]) for one in pairs) == [2, 3, 4, 5, 6]
        normal = [int(one["normal"][0, 0]) for one in pairs]
        assert sorted(normal[:2]) == sorted(normal[2:4]) == [0, 1]
        epochs.append([int(one["abnormal"][0, 0]) for one in pairs])
    assert len({tuple(one) for one in epochs}) > 1
    batch = collate_pairs(pairs[:2])
    assert batch["features"].shape == (4, 4, 2)
    assert batch["labels"].tolist() == [0, 0, 1, 1]


def test_names_of_a_list(videos, tmp_path):
    (tmp_path / "list.txt").write_text("Abuse/1.mp4 1\n0 0\n")
    rows = labelled_videos(videos / "videos", tmp_path / "list.txt")
    assert [(row.name, row.label) for row in rows] == [("1.mp4", 1), ("0.mp4", 0)]
    (tmp_path / "list.txt").write_text("1.mp4 1\ngone.mp4 0\n")
    with pytest.raises(DataError, match=r"1 of 2 videos in .* gone\.mp4"):
        labelled_videos(videos / "videos", tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("text", "options", "error", "words"),
    [
        ("0.mp4 0\n2.mp4 0\n", {}, DataError, "a normal and an abnormal video"),
        ("0.mp4 0\n1.mp4 1\n", {"head": "rtmf"}, CheckpointError, "Did you mean 'rtfm'"),
        ("0.mp4 0\n1.mp4 1\n", {"settings": ["data.frames=3"]}, ConfigError, "frames"),
        ("0.mp4 0\n1.mp4 1\n", {"recipe": "tiny"}, ConfigError, "is for classification"),
    ],
)
def test_what_can_not_be_trained(videos, tmp_path, text, options, error, words):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(error, match=words):
        train_anomalies(
            videos / "videos", tmp_path / "list.txt", str(videos / "encoder"), output=tmp_path / "head", **options
        )
    assert not (tmp_path / "head").exists()


def test_other_models_are_no_heads(videos):
    with pytest.raises(CheckpointError, match="scores no anomalies; mil_ranking, rtfm do"):
        AnomalyHead.load(videos / "encoder")
