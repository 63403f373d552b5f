"""Metrics of text-video retrieval and of question answering, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hf_video.errors import MetricError, check_count

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Answer = str | int


@dataclass(frozen=True)
class RetrievalMetrics:
    """Retrieval in one direction: `recall` at k, {k: share of queries with a right result among the first k},
    `median_rank` and `mean_rank` of the first right result (1 is the best), and the number of `queries`."""

    recall: dict[int, float]
    median_rank: float
    mean_rank: float
    queries: int


def retrieval_metrics(
    scores: ArrayLike, video_of_text: ArrayLike | None = None, *, at: tuple[int, ...] = (1, 5, 10)
) -> dict[str, RetrievalMetrics]:
    """Computes recall and ranks of text-to-video and video-to-text retrieval.

    The rank of a video is that of the best of its texts. Videos without a text are wrong answers for texts, and are not
    queries. Equal scores have no order, so a query counts with its mean over all orders of them: constant scores give a
    recall at 1 of 1/V and ranks in the middle. (CLIP4Clip's code counts a tie once for each of its places.)

    Args:
        scores: (N texts, V videos), the higher the nearer.
        video_of_text: (N,), the number of each text's video; several texts may have one. Default: text i is that of
            video i.
        at: The k of recall at k.

    Returns:
        The metrics under "text_to_video" and "video_to_text".
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or 0 in scores.shape:
        raise MetricError(f"scores have shape (texts, videos), at least one of each; {scores.shape} came.")
    if scores.dtype.kind not in "fiu" or np.isnan(scores).any():
        raise MetricError(f"scores must be numbers without NaN; {scores.dtype} came.")
    for k in at:
        check_count("at", k, MetricError)
    texts, videos = scores.shape
    if video_of_text is None and texts != videos:
        raise MetricError(f"{texts} texts and {videos} videos came: say with video_of_text which belong together.")
    own = np.arange(texts) if video_of_text is None else np.asarray(video_of_text)
    if own.shape != (texts,) or own.dtype.kind not in "iu" or own.min() < 0 or own.max() >= videos:
        raise MetricError(
            f"video_of_text must hold the number of the video, from 0 to {videos - 1}, of each of the {texts} texts; "
            f"{own.tolist()!r:.60} came."
        )
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
    """The probability that one of `own` stands among the first `places` of all `equal` and `own` in any order."""
    if places <= 0:
        return 0.0
    if places > equal:
        return 1.0
    return 1.0 - math.comb(int(equal), int(places)) / math.comb(int(equal + own), int(places))


def answer_accuracy(answers: Iterable[Answer], truths: Iterable[Answer | Iterable[Answer]]) -> float:
    """Computes the share of questions that were answered correctly.

    Args:
        answers: N texts or class numbers. Texts are compared without regard to case and to spaces around them.
        truths: N right answers; one may be a list, of which each counts.
    """
    answers, truths = list(answers), list(truths)
    if not answers or len(answers) != len(truths):
        raise MetricError(
            f"{len(answers)} answers and {len(truths)} truths came; there must be as many, and one at least."
        )
    return float(np.mean([_is_right(answer, truth) for answer, truth in zip(answers, truths, strict=True)]))


def _is_right(answer: Answer, truth: Answer | Iterable[Answer]) -> bool:
    allowed = truth if isinstance(truth, (list, tuple, set)) else [truth]
    folded = [one.strip().lower() if isinstance(one, str) else one for one in (answer, *allowed)]
    return folded[0] in folded[1:]


@dataclass(frozen=True)
class QuestionMetrics:
    """Question answering: the number of `questions`, `accuracy` of the first answer, `top5` of the first five (None
    where there are at most five to choose from), and `by_kind`: for the first word of a question (questions, accuracy),
    the most frequent word first."""

    questions: int
    accuracy: float
    top5: float | None
    by_kind: dict[str, tuple[int, float]]


def question_answering_metrics(
    answers: Iterable[Sequence[Answer]],
    truths: Iterable[Answer | Iterable[Answer]],
    questions: Iterable[str],
    *,
    top5: bool = True,
) -> QuestionMetrics:
    """Computes the accuracy of ranked answers, overall and by kind of question.

    Args:
        answers: N lists, each question's answers with the best first.
        truths: N right answers, compared as in `answer_accuracy`.
        questions: N texts.
        top5: Whether one of the first five answers is looked for.
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
    among = [any(_is_right(one, truth) for one in some[:5]) for some, truth in zip(answers, truths, strict=True)]
    kinds: dict[str, list[bool]] = {}
    for question, some, truth in zip(questions, answers, truths, strict=True):
        kind = (str(question).lower().split() or [""])[0].strip("?,.:")
        kinds.setdefault(kind, []).append(_is_right(some[0], truth))
    ordered = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))
    by_kind = {kind: (len(kinds[kind]), float(np.mean(kinds[kind]))) for kind in ordered}
    return QuestionMetrics(len(answers), accuracy, float(np.mean(among)) if top5 else None, by_kind)
