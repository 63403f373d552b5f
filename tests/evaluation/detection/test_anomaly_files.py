"""Scores of anomalies in files, measured by the command: equal to the official numbers; what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hf_video import cli
from hf_video.errors import DataError, MetricError
from hf_video.evaluation.detection.anomaly_files import evaluate_anomalies, read_scores

CASES = json.loads((Path(__file__).parents[2] / "golden_detection" / "evaluator_anomaly.json").read_text())["cases"]
NAMES = {
    "micro_auc": "micro_auc", "macro_auc": "macro_auc", "average_precision": "average_precision",
    "pr_auc_trapezoid": "pr_auc", "auc_abnormal_videos_only": "abnormal_auc", "equal_error_rate": "equal_error_rate",
    "macro_auc_per_video": "auc_by_video", "frames": "frames", "abnormal_frames": "abnormal_frames",
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_command_gives_the_official_numbers(case, tmp_path, capsys):
    videos = {about["video"]: about for about in case["videos"]}
    scores, annotations = tmp_path / "scores.json", tmp_path / "annotations.json"
    scores.write_text(json.dumps({video: about["scores"] for video, about in videos.items()}))
    truth = {name: {"frames": one["frames"], "segments": one["segments"]} for name, one in videos.items()}
    annotations.write_text(json.dumps(truth))
    sigma = case["gaussian_sigma"]
    words = ["evaluate", "--task", "anomaly", "--scores", scores, "--annotations", annotations, "--json"]
    words += ["--repeat", case["repeat"], *(["--smooth", sigma] if sigma else [])]
    code = cli.main([*map(str, words), "--output", str(tmp_path / "report")])
    out, err = capsys.readouterr()
    assert (code, err) == (cli.DONE, "")
    got = json.loads(out)
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == got
    for theirs, ours in NAMES.items():
        value = case["expected"].get(theirs)
        if value is not None:
            assert got[ours] == pytest.approx(value, abs=1e-9), theirs


def test_numbers_are_named_and_the_published_one_is_marked(tmp_path, capsys):
    (tmp_path / "scores.json").write_text(
        json.dumps({"Abuse028_x264.mp4": [0.1] * 10 + [0.9] * 6, "Normal_1": [0.2] * 4})
    )
    (tmp_path / "ucf.txt").write_text("Abuse028_x264  Abuse  160  256  -1  -1\nNormal_1  Normal  -1  -1  -1  -1\n")
    words = ["--scores", str(tmp_path / "scores.json"), "--annotations", str(tmp_path / "ucf.txt"), "--repeat", "16"]
    assert cli.main(["evaluate", "--task", "anomaly", *words]) == cli.DONE
    out = capsys.readouterr().out
    assert "2 videos, 320 frames, 96 of them abnormal" in out
    assert "frame AUC, all frames together (micro)         1.0000  (ucf-crime's number)" in out
    assert "(macro)" in out


def test_scores_of_the_detector_are_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"videos": {"a.mp4": {"scores": [1], "frame_scores": [0.5, 1.0]}}}))
    assert {name: line.tolist() for name, line in read_scores(tmp_path / "a.json").items()} == {"a.mp4": [0.5, 1.0]}
    np.save(tmp_path / "b.npy", np.arange(3.0))
    assert read_scores(tmp_path)["b"].tolist() == [0, 1, 2]


TRUTH = {"a": {"frames": 40, "segments": [[10, 20]]}, "b": {"frames": 30, "segments": []}}
SCORES = {"a": list(range(40)), "b": list(range(30))}


@pytest.mark.parametrize(
    ("scores", "truth", "options", "words"),
    [
        ({**SCORES, "c": [1]}, TRUTH, {}, "c is not annotated"),
        ({**SCORES, "a.mp4": [1]}, TRUTH, {}, "scores twice"),
        ({"a": SCORES["a"]}, TRUTH, {}, "1 of 2 annotated videos have no scores: b"),
        ({**SCORES, "a": [0.0] * 38}, TRUTH, {}, "38 scores for 1 frames each and 40"),
        (
            SCORES,
            {**TRUTH, "a": {"frames": 40, "segments": [[35, 45]]}},
            {},
            "from frame 35 to 45, and the video has 40",
        ),
        (SCORES, {**TRUTH, "a": {"segments": [[40, 41]]}}, {}, "from frame 40 to 41"),
        ({**SCORES, "b": [float("nan")] * 30}, TRUTH, {}, "finite"),
        ({**SCORES, "b": "high"}, TRUTH, {}, "no scores"),
        ({**SCORES, "b": [[1, 2]]}, TRUTH, {}, "a row of scores"),
        (SCORES, TRUTH, {"repeat": 0}, "repeat"),
        (SCORES, TRUTH, {"smooth": -1}, "smooth"),
        (SCORES, TRUTH, {"protocol": "ucf"}, "ucf-crime"),
    ],
)
def test_what_does_not_belong_together(tmp_path, scores, truth, options, words):
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises((DataError, MetricError), match=words):
        evaluate_anomalies(tmp_path / "scores.json", tmp_path / "truth.json", **options)


def test_one_kind_of_frames_alone_has_no_auc(tmp_path):
    report = evaluate_anomalies({"b": np.arange(30.0)}, write_truth(tmp_path, {"b": TRUTH["b"]}))
    assert report.as_dict()["micro_auc"] is None
    json.dumps(report.as_dict(), allow_nan=False)


def write_truth(folder, truth):
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder / "truth.json"
