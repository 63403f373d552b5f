"""How good predictions are, in NumPy.

`scores` are (N, C): N videos, C classes, the higher the likelier (logits, or probabilities where a function says so);
`labels` are (N,) whole numbers from 0 to C - 1. Everything is computed in float64. Where a number has no meaning (the
recall of a class without videos) it is NaN, and means leave it out. All functions raise MetricError for other shapes,
for NaN, and for labels outside the classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_video.errors import MetricError

# A probability of 0 for what then happened would make the whole log loss infinite.
SMALLEST = 1e-12


def softmax(scores: Any) -> np.ndarray:
    """Logits (..., C) to probabilities, float64; logits of any size and -inf are fine."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise MetricError(f"Logits have shape (..., classes); {scores.shape} came.")
    highest = scores.max(-1, keepdims=True)
    if not np.isfinite(highest).all():
        raise MetricError("Logits hold NaN, inf, or nothing but -inf for a video; they have no probabilities.")
    exponentials = np.exp(scores - highest)
    return exponentials / exponentials.sum(-1, keepdims=True)


def top_k_accuracy(scores: Any, labels: Any, k: int = 1) -> float:
    """The share of videos whose class is among the `k` highest scores (N, C); of equal scores the class with the lower
    number comes first, so a model that says nothing gains nothing. Raises MetricError for k above C."""
    scores, labels = _checked(scores, labels)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= scores.shape[1]:
        raise MetricError(f"k={k!r} must be a whole number from 1 to the number of classes, {scores.shape[1]}.")
    return float((ranks(scores, labels) < k).mean())


def ranks(scores: Any, labels: Any) -> np.ndarray:
    """(N,) place of each video's class in the order of its scores (N, C), 0 for the highest. Ties as in
    `top_k_accuracy`."""
    scores, labels = _checked(scores, labels)
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)


def confusion_matrix(predicted: Any, labels: Any, num_classes: int) -> np.ndarray:
    """(C, C) int64: row i, column j counts the videos of class i that were taken for class j. `predicted` and `labels`
    are (N,) class numbers."""
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


def class_metrics(confusion: Any) -> ClassMetrics:
    """Accuracy, precision and F1 of each class from a confusion matrix (C, C), rows the truth."""
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


def mean_class_accuracy(confusion: Any) -> float:
    """The mean of the classes' accuracies; every class weighs the same, those without videos nothing."""
    return _mean(class_metrics(confusion).recall)


def macro_f1(confusion: Any) -> float:
    """The mean F1 of the classes that have videos."""
    metrics = class_metrics(confusion)
    return _mean(metrics.f1[metrics.support > 0])


def log_loss(probabilities: Any, labels: Any) -> float:
    """The mean of -log p of each video's class, in nats; `probabilities` (N, C). Below 1e-12 p counts as that."""
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


def reliability(probabilities: Any, labels: Any, bins: int = 15) -> Reliability:
    """How often answers of a given confidence are right; `probabilities` (N, C). A confidence on an edge belongs to the
    bin below it, as in the paper: (0, 1/B], (1/B, 2/B], …"""
    probabilities, labels = _checked_probabilities(probabilities, labels)
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise MetricError(f"bins={bins!r} must be a whole number of 1 or more.")
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


def expected_calibration_error(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """See `Reliability`. 0: of answers given with 80 % confidence, 80 % are right."""
    return reliability(probabilities, labels, bins).error


def average_precision(scores: Any, targets: Any) -> float:
    """The area under precision over recall of one class, without interpolation: the mean, over the positives, of the
    precision at their scores. `scores` and `targets` (0 or 1) are (N,). Equal scores count as one threshold, so their
    order does not matter. NaN without positives."""
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if scores.ndim != 1 or scores.shape != targets.shape or len(scores) == 0:
        raise MetricError(f"scores and targets must both be (N,); {scores.shape} and {targets.shape} came.")
    _check_numbers(scores)
    if not np.isin(targets, (0, 1)).all():
        raise MetricError("targets of several labels a video are 0 or 1; other values came.")
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    positives = np.cumsum(targets[order].astype(np.float64))
    found, taken = positives[last_of_ties], (np.arange(len(scores)) + 1)[last_of_ties]
    if positives[-1] == 0:
        return math.nan
    return float(np.sum(np.diff(found, prepend=0) * found / taken) / positives[-1])


def mean_average_precision(scores: Any, targets: Any) -> float:
    """The mean `average_precision` of the classes that have positives, for videos of several labels: `scores` and
    `targets` (0 or 1) are (N, C). NaN where no class has one."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or scores.shape != targets.shape or 0 in scores.shape:
        raise MetricError(f"scores and targets must both be (N, C); {scores.shape} and {targets.shape} came.")
    return _mean(np.array([average_precision(scores[:, c], targets[:, c]) for c in range(scores.shape[1])]))


def best_threshold(scores: Any, targets: Any) -> float:
    """The score from which on a class counts as shown, so that F1 is highest on `scores` and `targets` (0 or 1), (N,):
    half-way between the lowest score that is taken and the next below it. Of equal F1 the highest threshold; NaN
    without positives."""
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets).astype(bool)
    if scores.ndim != 1 or scores.shape != targets.shape or len(scores) == 0:
        raise MetricError(f"scores and targets must both be (N,); {scores.shape} and {targets.shape} came.")
    _check_numbers(scores)
    if not targets.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    found, taken = np.cumsum(targets[order])[last_of_ties], (np.arange(len(scores)) + 1)[last_of_ties]
    levels = scores[order][last_of_ties]
    best = int((2 * found / (taken + targets.sum())).argmax())
    return float((levels[best] + levels[min(best + 1, len(levels) - 1)]) / 2)


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Between which two shares the true accuracy lies with 95 % confidence, after `right` of `total` answers (Wilson
    1927): on few videos a top-1 says little."""
    if not 0 <= right <= total or total < 1:
        raise MetricError(f"{right} right answers of {total} are no share.")
    share, half = right / total, z * z / total
    middle, width = share + half / 2, z * math.sqrt(share * (1 - share) / total + half / (4 * total))
    return max((middle - width) / (1 + half), 0.0), min((middle + width) / (1 + half), 1.0)


# -- retrieval and questions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RetrievalMetrics:
    """Of one direction, over its queries: `recall` at k, {k: share of queries with a right answer among the first k},
    `median_rank` and `mean_rank` of the first right answer, 1 the best."""

    recall: dict[int, float]
    median_rank: float
    mean_rank: float
    queries: int


def retrieval_metrics(
    scores: Any, video_of_text: Any = None, *, at: tuple[int, ...] = (1, 5, 10)
) -> dict[str, RetrievalMetrics]:
    """`text_to_video` and `video_to_text` of scores (N texts, V videos), the higher the nearer.

    `video_of_text` (N,) is the number of each text's video; several texts may have one, as MSVD's captions do. Default:
    text i is that of video i. A video's rank is that of the best of its texts; videos without a text are wrong answers
    for texts and no queries themselves.

    **Equal scores** stand in no order, so a query counts with what it would have on average over all orders of them: a
    model that gives everything one score gets a recall at 1 of 1/V, not of 1 and not of 0, and ranks in the middle.
    (CLIP4Clip's code counts a tie once for each of its places, and so may count a query several times.)
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or 0 in scores.shape:
        raise MetricError(f"scores have shape (texts, videos), at least one of each; {scores.shape} came.")
    if scores.dtype.kind not in "fiu" or np.isnan(scores).any():
        raise MetricError(f"scores must be numbers without NaN; {scores.dtype} came.")
    if any(isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1 for k in at):
        raise MetricError(f"at={at!r} must be whole numbers of 1 or more.")
    texts, videos = scores.shape
    if video_of_text is None and texts != videos:
        raise MetricError(f"{texts} texts and {videos} videos came: say with video_of_text which belong together.")
    own = _classes("video_of_text", np.arange(texts) if video_of_text is None else video_of_text, videos)
    if len(own) != texts:
        raise MetricError(f"video_of_text names the videos of {len(own)} texts, and scores are of {texts}.")
    right = own[:, None] == np.arange(videos)
    has_text = right.any(0)
    return {
        "text_to_video": _retrieval(scores.astype(np.float64), right, at),
        "video_to_text": _retrieval(scores.T[has_text].astype(np.float64), right.T[has_text], at),
    }


def _retrieval(scores: np.ndarray, right: np.ndarray, at: tuple[int, ...]) -> RetrievalMetrics:
    """Rows are queries. Of a query's best right answer: `above` wrong answers are better, `equal` wrong ones are as
    good, and so are `own` right ones. The first of these right ones then stands, on average over all orders, at
    above + (equal + own + 1) / (own + 1)."""
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    above = ((scores > best) & ~right).sum(1)
    equal = ((scores == best) & ~right).sum(1)
    own = ((scores == best) & right).sum(1)
    rank = above + (equal + own + 1) / (own + 1)
    recall = {
        int(k): float(np.mean([_within(k - a, e, o) for a, e, o in zip(above, equal, own, strict=True)])) for k in at
    }
    return RetrievalMetrics(recall, float(np.median(rank)), float(rank.mean()), len(scores))


def _within(places: int, equal: int, own: int) -> float:
    """How probable it is that one of `own` stands among the first `places` of all `equal` and `own` in any order."""
    if places <= 0:
        return 0.0
    if places > equal:
        return 1.0
    return 1.0 - math.comb(int(equal), int(places)) / math.comb(int(equal + own), int(places))


def answer_accuracy(answers: Any, truths: Any) -> float:
    """The share of questions that were answered rightly. `answers` (N,) are texts or numbers; a truth is one such, or a
    list of those that count. Texts are compared without regard to case and to spaces around them."""
    answers, truths = list(answers), list(truths)
    if not answers or len(answers) != len(truths):
        raise MetricError(
            f"{len(answers)} answers and {len(truths)} truths came; there must be as many, and one at least."
        )
    allowed = [truth if isinstance(truth, (list, tuple, set)) else [truth] for truth in truths]
    right = [_plain(answer) in map(_plain, some) for answer, some in zip(answers, allowed, strict=True)]
    return float(np.mean(right))


@dataclass(frozen=True)
class QuestionMetrics:
    """Of the answers to `questions` questions: `accuracy`, the share where the first was right; `top5`, where one of
    the first five was, None where never more than five were to choose from; `by_kind`: for each kind of question, its
    first word, (questions, accuracy), the most frequent kind first."""

    questions: int
    accuracy: float
    top5: float | None
    by_kind: dict[str, tuple[int, float]]


def question_answering_metrics(answers: Any, truths: Any, questions: Any, *, top5: bool = True) -> QuestionMetrics:
    """`answers` (N,) are lists, each question's answers with the best first; truths and comparison as in
    `answer_accuracy`; `questions` (N,) are texts. Without `top5` it is None: of five choices or fewer it says nothing.
    """
    answers, truths, questions = list(answers), list(truths), list(questions)
    if not len(answers) == len(truths) == len(questions):
        raise MetricError(
            f"{len(answers)} lists of answers, {len(truths)} truths and {len(questions)} questions came; there must be "
            "as many."
        )
    if not all(isinstance(some, (list, tuple)) and some for some in answers):
        raise MetricError("Each question's answers are a list, best first, of one at least.")
    accuracy = answer_accuracy([some[0] for some in answers], truths)
    right = [answer_accuracy([some[0]], [truth]) for some, truth in zip(answers, truths, strict=True)]
    among = [
        max(answer_accuracy([one], [truth]) for one in some[:5]) for some, truth in zip(answers, truths, strict=True)
    ]
    kinds: dict[str, list[float]] = {}
    for question, found in zip(questions, right, strict=True):
        kinds.setdefault((str(question).lower().split() or [""])[0].strip("?,.:"), []).append(found)
    ordered = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))
    by_kind = {kind: (len(kinds[kind]), float(np.mean(kinds[kind]))) for kind in ordered}
    return QuestionMetrics(len(answers), accuracy, float(np.mean(among)) if top5 else None, by_kind)


def _plain(answer: Any) -> Any:
    return answer.strip().lower() if isinstance(answer, str) else answer


# -- checks ------------------------------------------------------------------------------------------------------------


def _checked(scores: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(scores)
    if scores.ndim != 2 or 0 in scores.shape:
        raise MetricError(f"scores have shape (videos, classes), at least one of each; {scores.shape} came.")
    _check_numbers(scores)
    labels = _classes("labels", labels, scores.shape[1])
    if len(labels) != len(scores):
        raise MetricError(f"Scores of {len(scores)} videos and {len(labels)} labels came; there must be as many.")
    return scores.astype(np.float64), labels


def _checked_probabilities(probabilities: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
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


def _classes(name: str, values: Any, num_classes: int) -> np.ndarray:
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
