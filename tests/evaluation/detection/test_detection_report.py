"""Reports on detections: official numbers through the command, false positives by kind and events by length by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hf_video import cli
from hf_video.base.detection.types import Detection, write_detections
from hf_video.data.sources.event_files import Event
from hf_video.errors import DataError, MetricError, VideoOptionError
from hf_video.evaluation.detection.diagnosis import BOUNDS, diagnose
from hf_video.evaluation.detection.report import evaluate_detections
from hf_video.evaluation.detection.run import evaluate_files, parse_thresholds


def event(label, start, end, score=None):
    return {"label": label, "segment": (start, end), **({} if score is None else {"score": score})}


TRUTH = {"a": [event("run", 0, 10), event("jump", 20, 30)], "b": [event("run", 0, 100)]}


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (event("run", 0, 9, 0.5), "double detection"),
        (event("run", 21, 30, 0.5), "wrong label"),
        (event("run", 0, 3, 0.5), "localization"),
        (event("run", 20, 23, 0.5), "confusion"),
        (event("run", 50, 60, 0.5), "background"),
    ],
)
def test_each_kind_of_false_positive(found, kind):
    detections = {"a": [event("run", 0, 10, 0.9), found], "c": []}
    result = diagnose(TRUTH, detections, thresholds=[0.5])
    assert {name: int(count[0]) for name, count in result.counts.items() if count[0]} == {"true positive": 1, kind: 1}


def test_what_a_kind_costs():
    """A false positive that comes first halves the precision of the run; without it AP of run would be 1/2 and not
    1/4, and the mean over two classes rises by half of that."""
    detections = {"a": [event("run", 50, 60, 0.9), event("run", 0, 10, 0.5)]}
    result = diagnose(TRUTH, detections, thresholds=[0.5])
    assert result.gains["background"] == pytest.approx(0.125)
    assert result.gains["confusion"] == 0


def test_only_the_best_ten_times_as_many_are_looked_at():
    detections = {"c": [event("jump", n, n + 1, n / 100) for n in range(50)]}
    assert diagnose(TRUTH, detections, thresholds=[0.5]).counts["background"].tolist() == [10]


def test_events_by_length():
    detections = {"a": [event("run", 0, 10, 0.9)]}
    result = diagnose(TRUTH, detections, thresholds=[0.5], bounds=BOUNDS)
    groups = {group.name: group for group in result.lengths}
    assert {name: group.events for name, group in groups.items()} == {"XS": 2, "S": 0, "M": 1, "L": 0, "XL": 0}
    assert (groups["XS"].found, groups["M"].found) == (0.5, 0.0)
    assert groups["XS"].ap == pytest.approx(0.5)  # run 1, jump 0
    assert groups["M"].ap == 0
    assert result.sensitivity == pytest.approx(0.5)
    with pytest.raises(MetricError, match="four ascending"):
        diagnose(TRUTH, detections, thresholds=[0.5], bounds=[3, 1, 2, 4])
    with pytest.raises(MetricError, match="with a length"):
        diagnose({"a": [event("run", 1, 1)]}, {}, thresholds=[0.5])


def test_perfect_detections(tmp_path):
    truth = {video: [Event(e["label"], *e["segment"]) for e in events] for video, events in TRUTH.items()}
    found = {video: [Detection(e.label, 0.9, e.start, e.end) for e in events] for video, events in truth.items()}
    report = evaluate_detections(truth, found)
    assert report.mean_average_precision == 1
    assert report.measures()["recall@1x"] == 1
    assert "mAP        100.00%" in str(report)
    folder = report.save(tmp_path / "report")
    content = json.loads((folder / "report.json").read_text())
    assert content["false_positives"]["background"] == [0] * 10
    assert content["mAP@0.75"] == 1
    for name in ("per_class.csv", "by_length.csv", "detections.json", "precision_recall.png", "false_positives.png"):
        assert (folder / name).stat().st_size > 50, name


def test_no_detections_at_all(tmp_path):
    truth = {"a": [Event("run", 0, 10)]}
    report = evaluate_detections(truth, {})
    assert report.mean_average_precision == 0
    assert (report.found, report.total) == (0, 1)
    report.save(tmp_path)
    with pytest.raises(MetricError, match="no event"):
        evaluate_detections({"a": []}, {"a": [Detection("run", 0.5, 0, 1)]})


@pytest.fixture
def files(tmp_path):
    database = {
        "a": {"subset": "validation", "annotations": [{"label": "run", "segment": [0, 10]}]},
        "b": {"subset": "training", "annotations": [{"label": "run", "segment": [0, 10]}]},
    }
    (tmp_path / "truth.json").write_text(json.dumps({"database": database}))
    events = {"videos/a.mp4": [Detection("run", 0.9, 0, 10)], "b": [Detection("run", 0.5, 0, 10)]}
    write_detections(tmp_path / "found.json", events)
    return tmp_path


def test_the_command_compares_files(files, capsys):
    command = ["evaluate", "--task", "detection", "--predictions", str(files / "found.json")]
    command += ["--annotations", str(files / "truth.json"), "--output", str(files / "out")]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # The detection of the training video is wrong in the validation, but comes after the right one.
    assert (found["mAP"], found["events"], found["protocol"]) == (1.0, 1, "activitynet")
    assert (files / "out" / "report.json").exists()
    assert cli.main([*command, "--subset", "training", "--protocol", "actionformer", "--tiou", "0.5"]) == 0
    assert "mAP        50.00%" in capsys.readouterr().out
    assert cli.main([*command, "--model", "x"]) != 0
    assert cli.main(["evaluate", "--task", "moments", "--tiou", "0.5"]) != 0


def test_an_outside_classifier_names_proposals(files):
    write_detections(files / "found.csv", {"a": [Detection("action", 0.25, 0, 10)]})
    (files / "classes.json").write_text(json.dumps({"a": {"swim": 0.04, "run": 0.64}}))
    report = evaluate_files(files / "found.csv", files / "truth.json", class_scores=files / "classes.json")
    assert report.mean_average_precision == 1
    assert [(e.label, e.score) for e in report.detections["a"]] == [("run", 0.4), ("swim", pytest.approx(0.1))]
    (files / "classes.json").write_text(json.dumps({"b": {"run": 0.5}}))
    with pytest.raises(DataError, match="nothing of the video 'a'"):
        evaluate_files(files / "found.csv", files / "truth.json", class_scores=files / "classes.json")


def test_thresholds_are_names_or_numbers():
    assert parse_thresholds("thumos") == "thumos"
    assert parse_thresholds("0.75,0.5") == [0.5, 0.75]
    for text in ("tumos", "0,1", "0.5;1"):
        with pytest.raises(VideoOptionError, match="must be one of activitynet, thumos, epic"):
            parse_thresholds(text)


GOLDEN = json.loads((Path(__file__).parents[2] / "golden_detection" / "evaluator_tad.json").read_text())["cases"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_official_numbers_from_files(case, tmp_path):
    """Lengths of zero, copies, ties and ends before starts come through the readers as they stand in the files."""
    (tmp_path / "truth.json").write_text(json.dumps(case["ground_truth"]))
    (tmp_path / "found.json").write_text(json.dumps({"results": case["predictions"]}))
    options = {"subset": case["subset"], "thresholds": case["tiou_thresholds"]}
    for protocol, expected in case["expected"].items():
        report = evaluate_files(tmp_path / "found.json", tmp_path / "truth.json", protocol=protocol, **options)
        np.testing.assert_allclose(report.result.mean, expected["mAP"], atol=1e-9)
        str(report)
