"""Metrics for the Trainer and as `evaluate.Metric`, without a network."""

from __future__ import annotations

import math
import socket

import numpy as np
import pytest
from transformers import EvalPrediction

from hf_video.errors import MetricError
from hf_video.evaluation import hf_metrics, metrics


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return {"cache_dir": str(tmp_path)}


@pytest.fixture(scope="module")
def answers():
    random = np.random.default_rng(0)
    return random.normal(size=(40, 7)).astype(np.float32), random.integers(0, 7, 40)


def test_for_the_trainer(answers):
    logits, labels = answers
    found = hf_metrics.classification_metrics(EvalPrediction(logits, labels))
    assert found["accuracy"] == metrics.top_k_accuracy(logits, labels)
    assert found["top5"] == metrics.top_k_accuracy(logits, labels, 5)
    assert found["log_loss"] == metrics.log_loss(metrics.softmax(logits), labels)
    assert hf_metrics.classification_metrics(((logits, np.zeros((40, 3, 3))), labels)) == found
    assert "top5" not in hf_metrics.classification_metrics((logits[:, :3], labels % 3))
    several = hf_metrics.classification_metrics((logits, np.eye(7)[labels]))
    assert several == {"mean_average_precision": metrics.mean_average_precision(logits, np.eye(7)[labels])}
    with pytest.raises(MetricError, match="NaN"):
        hf_metrics.classification_metrics((logits * math.nan, labels))


def test_as_metrics_of_evaluate(answers, offline):
    evaluate = pytest.importorskip("evaluate")
    logits, labels = answers
    whole = hf_metrics.load_metric("video_classification", **offline)
    assert isinstance(whole, evaluate.Metric)
    expected = hf_metrics.classification_metrics((logits, labels))
    assert whole.compute(predictions=logits, references=labels) == pytest.approx(expected)
    top = hf_metrics.TopKAccuracy(**offline)
    for part in (slice(0, 15), slice(15, 40)):
        top.add_batch(predictions=logits[part], references=labels[part])
    assert top.compute(k=3) == {"top3": metrics.top_k_accuracy(logits, labels, 3)}
    calibration = hf_metrics.load_metric("calibration_error", **offline)
    assert calibration.compute(predictions=logits, references=labels, bins=5) == {
        "calibration_error": pytest.approx(metrics.expected_calibration_error(metrics.softmax(logits), labels, 5))
    }
    precision = hf_metrics.MeanAveragePrecision(**offline)
    assert precision.compute(predictions=logits, references=np.eye(7, dtype=int)[labels]) == {
        "mean_average_precision": pytest.approx(metrics.mean_average_precision(logits, np.eye(7)[labels]))
    }
    assert "k (default 1)" in top.description


def test_unknown_names():
    with pytest.raises(MetricError, match="top_k_accuracy"):
        hf_metrics.load_metric("accuracy")
    with pytest.raises(AttributeError):
        hf_metrics.Accuracy  # noqa: B018
