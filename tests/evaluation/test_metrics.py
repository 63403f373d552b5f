"""Metrics against numbers worked out by hand, and against slow definitions on random input."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from hf_video.errors import MetricError
from hf_video.evaluation import metrics

SCORES = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]
LABELS = [0, 1, 1, 1]


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_top_k_by_hand():
    # Predicted: 0 (right), 2, 1 (right), and a tie of 0 and 1, which goes to 0.
    assert metrics.top_k_accuracy(SCORES, LABELS) == 0.5
    assert metrics.top_k_accuracy(SCORES, LABELS, 2) == 1.0
    assert metrics.ranks(SCORES, LABELS).tolist() == [0, 1, 0, 1]
    assert metrics.top_k_accuracy(np.zeros((4, 8)), [0, 1, 2, 7], 2) == 0.5


def test_top_k_is_a_stable_sort(random):
    scores = random.integers(0, 4, (200, 9)).astype(np.float32)
    labels = random.integers(0, 9, 200)
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 3, 9):
        expected = np.mean([label in order[i, :k] for i, label in enumerate(labels)])
        assert metrics.top_k_accuracy(scores, labels, k) == expected


def test_confusion_and_classes_by_hand():
    #        predicted  0  1  2  3
    expected = np.array([[2, 1, 0, 0], [0, 3, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    predicted, labels = [0, 0, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 2]
    confusion = metrics.confusion_matrix(predicted, labels, 4)
    assert np.array_equal(confusion, expected)
    found = metrics.class_metrics(confusion)
    assert found.support.tolist() == [3, 3, 1, 0]
    assert found.predicted.tolist() == [3, 4, 0, 0]
    np.testing.assert_allclose(found.recall, [2 / 3, 1, 0, np.nan])
    np.testing.assert_allclose(found.precision, [2 / 3, 3 / 4, np.nan, np.nan])
    np.testing.assert_allclose(found.f1, [2 / 3, 6 / 7, 0, np.nan])
    assert metrics.mean_class_accuracy(confusion) == pytest.approx(5 / 9)
    assert metrics.macro_f1(confusion) == pytest.approx((2 / 3 + 6 / 7) / 3)


def test_log_loss_by_hand():
    assert metrics.log_loss([[0.5, 0.5], [0.25, 0.75]], [0, 1]) == pytest.approx((math.log(2) - math.log(0.75)) / 2)
    assert metrics.log_loss([[1.0, 0.0]], [0]) == 0
    assert metrics.log_loss([[1.0, 0.0]], [1]) == pytest.approx(12 * math.log(10))


def test_calibration_by_hand():
    # Confidences 0.9, 0.9 (one right), 0.6 (right), 0.5 on an edge: the bin below it (right).
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.5, 0.5]]
    found = metrics.reliability(probabilities, [0, 1, 1, 0], bins=4)
    assert found.counts.tolist() == [0, 1, 1, 2]
    np.testing.assert_allclose(found.confidence, [np.nan, 0.5, 0.6, 0.9])
    np.testing.assert_allclose(found.accuracy, [np.nan, 1, 1, 0.5])
    expected = (1 * 0.5 + 1 * 0.4 + 2 * 0.4) / 4
    assert found.error == pytest.approx(expected)
    assert metrics.expected_calibration_error(probabilities, [0, 1, 1, 0], 4) == pytest.approx(expected)
    assert metrics.expected_calibration_error(np.eye(3, dtype=np.float32), [0, 1, 2]) == 0


def test_answers_drawn_from_their_own_probabilities_are_calibrated(random):
    probabilities = random.dirichlet(np.ones(4), size=20000)
    labels = (random.random(20000)[:, None] > probabilities.cumsum(1)).sum(1)
    assert metrics.expected_calibration_error(probabilities, labels) < 0.015
    sharper = probabilities**4 / (probabilities**4).sum(1, keepdims=True)
    assert metrics.expected_calibration_error(sharper, labels) > 0.2


def test_softmax_is_robust():
    np.testing.assert_allclose(metrics.softmax([1e4, 1e4 - math.log(3)]), [0.75, 0.25], rtol=1e-9)
    np.testing.assert_allclose(metrics.softmax(np.array([[-np.inf, 0.0], [-1e30, -1e30]])), [[0, 1], [0.5, 0.5]])
    assert metrics.softmax(np.float16([[60000, -60000]])).dtype == np.float64


def test_average_precision_by_hand():
    # Sorted: 1 0 1 0; precision at the positives 1/1 and 2/3.
    assert metrics.average_precision([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]) == pytest.approx((1 + 2 / 3) / 2)
    # All alike are one threshold, whatever their order: 2 of 4.
    assert (
        metrics.average_precision([1, 1, 1, 1], [1, 1, 0, 0]) == metrics.average_precision([1] * 4, [0, 0, 1, 1]) == 0.5
    )
    assert math.isnan(metrics.average_precision([0.1, 0.2], [0, 0]))
    scores, targets = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.1]]), np.array([[0, 0, 0], [1, 1, 0]])
    assert metrics.mean_average_precision(scores, targets) == pytest.approx((0.5 + 1) / 2)
    assert math.isnan(metrics.mean_average_precision(scores, targets * 0))


def test_average_precision_of_random_scores_is_its_definition(random):
    """The sum over thresholds of (recall gained) x (precision), written as a loop."""
    scores, targets = random.integers(0, 12, 80).astype(float), random.integers(0, 2, 80)
    expected, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        recall, precision = targets[taken].sum() / targets.sum(), targets[taken].mean()
        expected, before = expected + (recall - before) * precision, recall
    assert metrics.average_precision(scores, targets) == pytest.approx(expected)


def test_wilson_interval():
    low, high = metrics.wilson_interval(80, 100)
    assert (low, high) == pytest.approx((0.7112, 0.8666), abs=1e-4)
    assert metrics.wilson_interval(0, 5)[0] == 0
    assert metrics.wilson_interval(5, 5)[1] == 1
    with pytest.raises(MetricError):
        metrics.wilson_interval(3, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.top_k_accuracy([0.1, 0.9], [1]), r"\(videos, classes\)"),
        (lambda: metrics.top_k_accuracy(np.zeros((0, 3)), []), "at least one"),
        (lambda: metrics.top_k_accuracy([[0.1, np.nan]], [1]), "NaN, the first in row 0"),
        (lambda: metrics.top_k_accuracy(SCORES, [0, 1, 2]), "4 videos and 3 labels"),
        (lambda: metrics.top_k_accuracy(SCORES, [0, 1, 2, 3]), "numbered 0 to 2"),
        (lambda: metrics.top_k_accuracy(SCORES, [0, 1, 2, -1]), "from -1"),
        (lambda: metrics.top_k_accuracy(SCORES, [0.0, 1, 2, 2]), "whole numbers"),
        (lambda: metrics.top_k_accuracy(SCORES, LABELS, 4), "k=4"),
        (lambda: metrics.top_k_accuracy(SCORES, LABELS, 0), "k=0"),
        (lambda: metrics.top_k_accuracy([["a", "b"]], [0]), "numbers"),
        (lambda: metrics.confusion_matrix([0, 1], [0], 2), "2 predictions and 1 labels"),
        (lambda: metrics.confusion_matrix([0, 5], [0, 1], 2), "predicted run from 0 to 5"),
        (lambda: metrics.class_metrics(np.zeros((2, 3), int)), r"\(C, C\)"),
        (lambda: metrics.log_loss([[2.0, -1.0]], [0]), "take softmax"),
        (lambda: metrics.log_loss([[0.2, 0.2]], [0]), "sum to 1"),
        (lambda: metrics.reliability(SCORES, LABELS, 0), "bins=0"),
        (lambda: metrics.average_precision([0.1], [[1]]), r"\(N,\)"),
        (lambda: metrics.average_precision([0.1, 0.2], [1, 2]), "0 or 1"),
        (lambda: metrics.average_precision([0.1, np.nan], [1, 0]), "NaN"),
        (lambda: metrics.mean_average_precision([[0.1, 0.2]], [[1]]), r"\(N, C\)"),
        (lambda: metrics.softmax([[np.nan, 1]]), "NaN"),
        (lambda: metrics.softmax([]), "classes"),
    ],
)
def test_what_has_no_metric(call, message):
    with pytest.raises(MetricError, match=message):
        call()


def test_it_needs_numpy_only():
    code = (
        "import sys, types; package = types.ModuleType('hf_video'); package.__path__ = ['hf_video']\n"
        "sys.modules['hf_video'] = package; import hf_video.evaluation.metrics\n"
        "assert not {'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
