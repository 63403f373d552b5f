"""Every evaluator of detections against the official one: numbers, ties, empty classes, copies and lengths of zero."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hf_video.errors import MetricError
from hf_video.evaluation.detection.anomaly import anomaly_metrics
from hf_video.evaluation.detection.moments import moment_metrics
from hf_video.evaluation.detection.spatio_temporal import frame_map
from hf_video.evaluation.detection.temporal import temporal_map

FOLDER = Path(__file__).parents[2] / "golden_detection"


def cases(name):
    found = json.loads((FOLDER / f"evaluator_{name}.json").read_text())["cases"]
    return pytest.mark.parametrize("case", found, ids=lambda case: case["name"])


@cases("tad")
def test_temporal_detections(case):
    database, thresholds = case["ground_truth"]["database"], case["tiou_thresholds"]
    truth = {video: about["annotations"] for video, about in database.items() if about["subset"] == case["subset"]}
    official = case["expected"]["activitynet"]
    got = temporal_map(truth, case["predictions"], thresholds=thresholds)
    assert set(got.ap) == set(official["ap_per_class"])
    for label, ap in official["ap_per_class"].items():
        np.testing.assert_allclose(got.ap[label], ap, atol=1e-9)
    np.testing.assert_allclose(got.mean, official["mAP"], atol=1e-9)
    assert got.average == pytest.approx(official["average_mAP"], abs=1e-9)
    if other := case["expected"].get("actionformer"):
        got = temporal_map(truth, case["predictions"], thresholds=thresholds, protocol="actionformer")
        np.testing.assert_allclose(got.mean, other["mAP"], atol=1e-9)
        for k, recall in other["recall_top_kx"].items():
            np.testing.assert_allclose(got.recall[int(k[:-1])], recall, atol=1e-9)


@cases("ava")
@pytest.mark.parametrize("protocol", ["activitynet", "slowfast", "mmaction2"])
def test_boxes_in_frames(case, protocol):
    expected, classes = case["expected"][protocol], dict(case["label_map"])
    if expected is None:
        pytest.skip("the official code raises an error here")
    got = frame_map(case["ground_truth"], case["detections"], classes, excluded=case["excluded"], protocol=protocol)
    mean = expected.get("overall", expected.get("Precision/mAP@0.5IOU"))
    assert got.mean == pytest.approx(mean, abs=1e-6)
    for name in classes.values():
        if (ap := expected.get(f"PerformanceByCategory/AP@0.5IOU/{name}")) is not None:
            assert got.ap[name] == pytest.approx(ap, abs=1e-6)


@cases("moments")
def test_moments_and_highlights(case):
    def compare(expected, got):
        for key, value in expected.items():
            if isinstance(value, dict):
                compare(value, got[key])
            else:
                assert got[key] == pytest.approx(value, abs=1e-9), key

    compare(case["expected"], moment_metrics(case["submission"], case["ground_truth"]))


def test_queries_of_one_side_can_be_left_out():
    whole = moment_metrics([MOMENT], [MOMENT])
    assert whole["brief"]["MR-full-R1@0.7"] == 100.0
    disjoint = {**MOMENT, "qid": 2, "pred_relevant_windows": [[5, 6, 1.0]]}
    assert moment_metrics([MOMENT, disjoint], [MOMENT], match_number=False) == whole
    assert moment_metrics([disjoint], [disjoint])["full"]["MR-mAP"]["0.5"] == 0.0


NAMES = {
    "micro_auc": "micro_auc",
    "macro_auc": "macro_auc",
    "average_precision": "average_precision",
    "pr_auc_trapezoid": "pr_auc",
    "auc_abnormal_videos_only": "abnormal_auc",
    "equal_error_rate": "equal_error_rate",
}


@cases("anomaly")
def test_anomalies(case):
    videos = {about["video"]: about for about in case["videos"]}
    got = anomaly_metrics(
        *({video: about[key] for video, about in videos.items()} for key in ("scores", "segments", "frames")),
        repeat=case["repeat"],
        gaussian_sigma=case["gaussian_sigma"],
    )
    for theirs, ours in NAMES.items():
        if (value := case["expected"].get(theirs)) is not None:
            assert getattr(got, ours) == pytest.approx(value, abs=1e-9), theirs
    assert got.auc_by_video == pytest.approx(case["expected"]["macro_auc_per_video"], abs=1e-9)


MOMENT = {"qid": 1, "relevant_windows": [[0, 4]], "pred_relevant_windows": [[0, 4, 1.0]]}
MARKS = {"duration": 4, "relevant_clip_ids": [2], "saliency_scores": [[1, 2, 3]]}
EVENT = {"segment": (0.0, 1.0), "label": "jump", "score": 1.0}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: temporal_map({}, {}), "no event"),
        (lambda: temporal_map({"a": [EVENT]}, {}, protocol="coco"), "'activitynet'"),
        (lambda: temporal_map({"a": [EVENT]}, {}, thresholds="coco"), "'thumos'"),
        (lambda: temporal_map({"a": [{**EVENT, "segment": (0, float("nan"))}]}, {}), "'a'"),
        (lambda: frame_map([["v", 1, 0, 0]], [], {1: "sit"}), "columns"),
        (lambda: frame_map([], [], {1: "sit"}, protocol="coco"), "'slowfast'"),
        (lambda: moment_metrics([], []), "qid"),
        (lambda: moment_metrics([{"qid": 1}], [{"qid": 2}]), r"\['1', '2'\]"),
        (lambda: moment_metrics([MOMENT, MOMENT], [MOMENT]), "more than one"),
        (lambda: moment_metrics([{"qid": 1}], [MOMENT]), "no 'pred_relevant_windows'"),
        (lambda: moment_metrics([MOMENT, {"qid": 2}], [MOMENT, {**MOMENT, "qid": 2}]), "2 has no 'pred_relevant"),
        (lambda: moment_metrics([{**MOMENT, "pred_relevant_windows": []}], [MOMENT]), "no predicted window"),
        (lambda: moment_metrics([{**MOMENT, "pred_saliency_scores": [1]}], [MOMENT]), "1 has no 'duration'"),
        (lambda: moment_metrics([{**MOMENT, "pred_saliency_scores": [1]}], [{**MOMENT, **MARKS}]), "within its 4"),
        (lambda: anomaly_metrics({}, {}, {}), "No video"),
        (lambda: anomaly_metrics({"a": []}, {}, {"a": 16}), "'a' has 0 scores"),
    ],
)
def test_what_can_not_be_compared(call, words):
    with pytest.raises(MetricError, match=words):
        call()


def test_labels_without_ground_truth_are_counted():
    found = temporal_map({"a": [EVENT]}, {"a": [EVENT, {**EVENT, "label": "fall"}]})
    assert (found.average, found.unknown) == (1.0, 1)
