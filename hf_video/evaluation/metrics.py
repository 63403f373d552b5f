"""Metrics of classification, in NumPy; those of retrieval and question answering are in `video_text_metrics`.

`scores` are (N, C): N videos, C classes, the higher the likelier (logits, or probabilities where a function says so);
`labels` are (N,) whole numbers from 0 to C - 1. Everything is computed in float64. Undefined values, such as the recall
of a class without videos, are NaN, and means leave them out. All functions raise MetricError for other shapes, for NaN,
and for labels outside the classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hf_video.errors import MetricError, check_count
from hf_video.evaluation.video_text_metrics import (  # noqa: F401 - where they were in 0.1.0
    QuestionMetrics,
    RetrievalMetrics,
    answer_accuracy,
    question_answering_metrics,
    retrieval_metrics,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# A probability of 0 for what then happened would make the whole log loss infinite.
SMALLEST = 1e-12


def softmax(scores: ArrayLike) -> np.ndarray:
    """Computes probabilities, float64, from logits (..., C) of any size, -inf included."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise MetricError(f"Logits have shape (..., classes); {scores.shape} came.")
    highest = scores.max(-1, keepdims=True)
    if not np.isfinite(highest).all():
        raise MetricError("Logits hold NaN, inf, or nothing but -inf for a video; they have no probabilities.")
    exponentials = np.exp(scores - highest)
    return exponentials / exponentials.sum(-1, keepdims=True)


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Computes the share of videos whose class is among the `k` highest scores.

    Of equal scores the class with the lower number comes first, so that constant scores are not rewarded.

    Args:
        scores: (N, C), logits or probabilities.
        labels: (N,), the class numbers.
        k: From 1 to C.

    Returns:
        A share from 0 to 1.
    """
    scores, labels = _checked(scores, labels)
    check_count("k", k, MetricError, most=scores.shape[1], hint=" There are no more classes.")
    return float((ranks(scores, labels) < k).mean())


def ranks(scores: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Computes the place of each video's class in the order of its scores. Ties as in `top_k_accuracy`.

    Args:
        scores: (N, C), logits or probabilities.
        labels: (N,), the class numbers.

    Returns:
        (N,), 0 for the highest score.
    """
    scores, labels = _checked(scores, labels)
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)


def confusion_matrix(predicted: ArrayLike, labels: ArrayLike, num_classes: int) -> np.ndarray:
    """Counts the videos of each class that were predicted as each class.

    Args:
        predicted: (N,), the predicted class numbers.
        labels: (N,), the true ones.
        num_classes: C.

    Returns:
        (C, C) int64: row i, column j counts the videos of class i that were taken for class j.
    """
    predicted = _classes("predicted", predicted, num_classes)
    labels = _classes("labels", labels, num_classes)
    if len(predicted) != len(labels):
        raise MetricError(f"{len(predicted)} predictions and {len(labels)} labels came; there must be as many.")
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


@dataclass(frozen=True)
class ClassMetrics:
    """Of each class, (C,): `support` its videos and `predicted` how often it was answered, int64; `recall` (the class's
    accuracy), `precision` and `f1`, float64, NaN where nothing is divided by nothing."""

    support: np.ndarray
    predicted: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray


def class_metrics(confusion: ArrayLike) -> ClassMetrics:
    """Computes recall, precision and F1 of each class.

    Args:
        confusion: (C, C) counts, rows the truth.

    Returns:
        `ClassMetrics`, arrays (C,).

    Raises:
        MetricError: It is no square matrix of whole numbers.
    """
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or confusion.dtype.kind not in "iu":
        raise MetricError(f"A confusion matrix is (C, C) of counts; {confusion.dtype} {confusion.shape} came.")
    right = np.diag(confusion).astype(np.float64)
    support, predicted = confusion.sum(1), confusion.sum(0)
    return ClassMetrics(
        support=support,
        predicted=predicted,
        recall=_ratio(right, support),
        precision=_ratio(right, predicted),
        f1=_ratio(2 * right, support + predicted),
    )


def mean_class_accuracy(confusion: ArrayLike) -> float:
    """Computes the mean recall of the classes that have videos.

    Args:
        confusion: (C, C) counts, rows the truth.

    Returns:
        From 0 to 1.

    Raises:
        MetricError: It is no square matrix of whole numbers.
    """
    return _mean(class_metrics(confusion).recall)


def macro_f1(confusion: ArrayLike) -> float:
    """Computes the mean F1 of the classes that have videos.

    Args:
        confusion: (C, C) counts, rows the truth.

    Returns:
        From 0 to 1.

    Raises:
        MetricError: It is no square matrix of whole numbers.
    """
    metrics = class_metrics(confusion)
    return _mean(metrics.f1[metrics.support > 0])


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Computes the mean of -log p of each video's class.

    Args:
        probabilities: (N, C), clipped at 1e-12.
        labels: (N,), the class numbers.

    Returns:
        Nats, 0 or more.
    """
    probabilities, labels = _checked_probabilities(probabilities, labels)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return float(-np.log(np.clip(own, SMALLEST, 1.0)).mean())


@dataclass(frozen=True)
class Reliability:
    """Videos by how sure the answer was, in bins of equal width: `edges` (B + 1,), and (B,) `counts`, mean `confidence`
    and `accuracy`, NaN in empty bins. `error` is the expected calibration error (Guo et al. 2017, arXiv:1706.04599):
    the mean gap between confidence and accuracy, bins weighted by their counts."""

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        gaps = np.abs(self.confidence - self.accuracy)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> Reliability:
    """Computes how often predictions of a given confidence are right, the data of a reliability diagram.

    Args:
        probabilities: (N, C), rows that sum to 1.
        labels: (N,), the class numbers.
        bins: B, of equal width. A confidence on an edge belongs to the bin below it: (0, 1/B], (1/B, 2/B], …
    """
    probabilities, labels = _checked_probabilities(probabilities, labels)
    check_count("bins", bins, MetricError)
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    # Probabilities are sums of rounded numbers: 0.9999999 + 2e-7 is still the last bin.
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    return Reliability(
        edges=edges,
        counts=counts,
        confidence=_ratio(np.bincount(where, confidence, bins), counts),
        accuracy=_ratio(np.bincount(where, right, bins), counts),
    )


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Computes how far confidence is from accuracy: at 0, 80 % of the predictions made with 80 % confidence are right.

    Args:
        probabilities, labels, bins: As in `reliability`.

    Returns:
        A share from 0 to 1, `reliability(...).error`.
    """
    return reliability(probabilities, labels, bins).error


def average_precision(scores: ArrayLike, targets: ArrayLike) -> float:
    """Computes the area under the precision-recall curve of one class, without interpolation.

    It is the mean, over the positives, of the precision at their scores. Equal scores count as one threshold, so their
    order does not matter.

    Args:
        scores: (N,), of one class.
        targets: (N,), 1 for the videos of the class and 0 for the others.

    Returns:
        A share from 0 to 1, NaN without positives.
    """
    _, found, taken = _thresholds(scores, targets)
    if found[-1] == 0:
        return math.nan
    return float(np.sum(np.diff(found, prepend=0) * found / taken) / found[-1])


def mean_average_precision(scores: ArrayLike, targets: ArrayLike) -> float:
    """Computes the mean `average_precision` of the classes that have positives.

    Args:
        scores: (N, C), for videos that may have several labels.
        targets: (N, C), 0 or 1.

    Returns:
        A share from 0 to 1, NaN where no class has positives.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or scores.shape != targets.shape or 0 in scores.shape:
        raise MetricError(f"scores and targets must both be (N, C); {scores.shape} and {targets.shape} came.")
    return _mean(np.array([average_precision(scores[:, c], targets[:, c]) for c in range(scores.shape[1])]))


def best_threshold(scores: ArrayLike, targets: ArrayLike) -> float:
    """Computes the score from which on a class should be predicted, so that F1 is highest.

    Args:
        scores: (N,), of one class.
        targets: (N,), 1 for the videos of the class and 0 for the others.

    Returns:
        The middle between the lowest score that is taken and the next below it; of equal F1 the highest threshold; NaN
        without positives.
    """
    levels, found, taken = _thresholds(scores, targets)
    if found[-1] == 0:
        return math.nan
    best = int((2 * found / (taken + found[-1])).argmax())
    return float((levels[best] + levels[min(best + 1, len(levels) - 1)]) / 2)


def _thresholds(scores: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores, the highest first, and how many positives and how many videos reach each of them."""
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if scores.ndim != 1 or scores.shape != targets.shape or len(scores) == 0:
        raise MetricError(f"scores and targets must both be (N,); {scores.shape} and {targets.shape} came.")
    _check_numbers(scores)
    if not np.isin(targets, (0, 1)).all():
        raise MetricError("targets of several labels a video are 0 or 1; other values came.")
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(targets[order].astype(np.float64))[last_of_ties]
    return scores[order][last_of_ties], found, (np.arange(len(scores)) + 1)[last_of_ties]


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Computes the confidence interval of an accuracy (Wilson 1927).

    Args:
        right: Right answers.
        total: All answers, at least 1.
        z: Standard deviations of the normal distribution; 1.96 for 95 %.

    Returns:
        The shares between which the accuracy lies.
    """
    if not 0 <= right <= total or total < 1:
        raise MetricError(
            f"{right} right answers of {total} are not a share: it takes 0 <= right <= total and total >= 1."
        )
    share, half = right / total, z * z / total
    middle, width = share + half / 2, z * math.sqrt(share * (1 - share) / total + half / (4 * total))
    return max((middle - width) / (1 + half), 0.0), min((middle + width) / (1 + half), 1.0)


# -- checks ------------------------------------------------------------------------------------------------------------


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(scores)
    if scores.ndim != 2 or 0 in scores.shape:
        raise MetricError(f"scores have shape (videos, classes), at least one of each; {scores.shape} came.")
    _check_numbers(scores)
    labels = _classes("labels", labels, scores.shape[1])
    if len(labels) != len(scores):
        raise MetricError(f"Scores of {len(scores)} videos and {len(labels)} labels came; there must be as many.")
    return scores.astype(np.float64), labels


def _checked_probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = _checked(probabilities, labels)
    sums = probabilities.sum(1)
    if probabilities.min() < 0 or np.abs(sums - 1).max() > 1e-2:  # half precision sums to 1 within a percent
        raise MetricError(
            f"Probabilities are 0 or more and sum to 1; values from {probabilities.min():.4g} to "
            f"{probabilities.max():.4g}, with sums from {sums.min():.4g} to {sums.max():.4g}, came. Of logits take "
            "softmax."
        )
    return probabilities, labels


def _check_numbers(scores: np.ndarray) -> None:
    if scores.dtype.kind not in "fiu":
        raise MetricError(f"scores must be numbers; {scores.dtype} came.")
    if np.isnan(scores).any():
        rows = np.unique(np.nonzero(np.isnan(scores))[0])
        raise MetricError(f"The scores of {len(rows)} of {len(scores)} videos hold NaN, the first in row {rows[0]}.")


def _classes(name: str, values: ArrayLike, num_classes: int) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iu":
        raise MetricError(f"{name} are (N,) whole numbers, at least one; {values.dtype} {values.shape} came.")
    if values.min() < 0 or values.max() >= num_classes:
        raise MetricError(
            f"{name} run from {values.min()} to {values.max()}; {num_classes} classes are numbered 0 to "
            f"{num_classes - 1}."
        )
    return values.astype(np.int64)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
