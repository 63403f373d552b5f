"""`hf-video anomalies`: new, again, from a detector, every output, and what is wrong."""

from __future__ import annotations

import csv
import json
import shutil

import drifting
import pytest
from PIL import Image

from hf_video import cli

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module", autouse=True)
def quick_figures():
    """Figures are looked at here."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(4):
        drifting.write_drifting(folder / "normal" / f"{seed}.mp4", seed, seconds=5)
    drifting.write_drifting(folder / "today" / "quiet.mp4", 0, seconds=5)
    drifting.write_drifting(folder / "today" / "jumping.mp4", 1, seconds=8, jumps=[(4.0, 8.0)])
    return folder


def run(capsys, *arguments):
    code = cli.main(["anomalies", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_every_output(capsys, videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    today = videos / "today"
    outputs = ["--output", tmp_path / "scores.json", "--figure", tmp_path / "scores.png"]
    code, out, err = run(capsys, videos / "normal", today, "--k", 1, "--threshold", "99%", *outputs)
    assert code == cli.DONE
    assert "28 moments of 4 normal videos in normal-fingerprint" in err
    about = json.loads((tmp_path / "scores.json").read_text())
    assert (about["k"], about["grid"], about["threshold_rule"]) == (1, "2s/0.5s", "99%")
    jumping = about["videos"][str(today / "jumping.mp4")]
    assert len(jumping["frame_scores"]) == 64
    assert len(jumping["scores"]) == len(jumping["seconds"]) == len(jumping["distances"]) == 13
    (event,) = jumping["events"]
    assert event["segment"] == pytest.approx([4, 8], abs=1.0)
    assert f"{event['segment'][0]:.2f}-{event['segment'][1]:.2f} s  anomaly" in out
    with Image.open(tmp_path / "scores.png") as picture:
        assert picture.width > 600
    detector = tmp_path / "normal-fingerprint"
    code, out, err = run(capsys, detector, today / "jumping.mp4", "--output", tmp_path / "scores.csv", "--json")
    assert (code, err) == (cli.DONE, "")
    assert json.loads(out)[str(today / "jumping.mp4")][0]["start"] == event["segment"][0]
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == jumping["scores"]
    assert (rows[1]["start"], rows[1]["end"]) == ("0.5", "2.5")
    code, out, err = run(capsys, detector, today / "jumping.mp4", "--output", tmp_path / "a.vtt", "--threshold", "9")
    assert (tmp_path / "a.vtt").read_text() == "WEBVTT\n"


def test_files_that_can_not_be_read(capsys, videos, tmp_path):
    shutil.copytree(videos / "normal", tmp_path / "normal")
    (tmp_path / "normal" / "bad.mp4").write_text("no video")
    code, out, err = run(
        capsys, tmp_path / "normal", videos / "today" / "quiet.mp4", tmp_path / "gone.mp4", "--detector", tmp_path / "d"
    )
    assert code == cli.SOME_FAILED
    assert "bad.mp4: not a video" in err
    assert "gone.mp4" in err
    assert "quiet.mp4" in out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["{today}x", "{today}"], "no folder"),
        (["{normal}", "{today}", "--grid", "2x"], "is no grid"),
        (["{normal}", "{today}", "--threshold", "high"], "quantile"),
        (["{normal}", "{today}", "--k", "0"], "--k"),
        (["{normal}", "{today}", "--k", "1000"], "lower k"),
        (["{normal}", "{today}", "--smooth", "-1"], "--smooth"),
        (["{normal}", "{today}", "--output", "{folder}/a.vtt"], "2 came"),
        (["{normal}", "{today}", "--output", "{folder}/a.txt"], ".csv"),
        (["{normal}", "{today}", "--output", "{folder}/none/a.csv"], "no folder"),
        (["{normal}", "{today}", "--figure", "{folder}/a.gif"], ".png"),
        (["{today}/quiet.mp4", "{today}"], "no folder"),
    ],
)
def test_wrong_usage_is_2(capsys, videos, tmp_path, arguments, hint):
    names = {"normal": videos / "normal", "today": videos / "today", "folder": tmp_path}
    code, out, err = run(capsys, *(a.format(**names) for a in arguments), "--detector", tmp_path / "detector")
    assert (code, out) == (cli.WRONG, "")
    assert hint in err
    assert not list(tmp_path.glob("a.*"))


def test_a_detector_has_its_own_settings(capsys, videos, tmp_path):
    from hf_video.retrieval import AnomalyDetector

    AnomalyDetector.fit(videos / "normal", folder=tmp_path / "detector", k=1)
    code, _, err = run(capsys, tmp_path / "detector", videos / "today", "--grid", "1s")
    assert code == cli.WRONG
    assert "leave it out" in err
    code, _, err = run(capsys, videos / "normal", videos / "today", "--grid", "1s", "--detector", tmp_path / "detector")
    assert code == cli.WRONG
    assert "2s/0.5s" in err
