"""Retrieval and question answering: numbers worked out by hand, and all orders of ties tried one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hf_video.errors import MetricError
from hf_video.evaluation.metrics import answer_accuracy, question_answering_metrics, retrieval_metrics


def test_ranks_by_hand():
    # Text 0: its video is best; text 1: second; text 2: third. Videos: ranks of their texts down the columns 1, 1, 2.
    scores = [[0.9, 0.1, 0.2], [0.5, 0.4, 0.1], [0.6, 0.3, 0.15]]
    found = retrieval_metrics(scores, at=(1, 2))
    to_video, to_text = found["text_to_video"], found["video_to_text"]
    assert to_video.recall == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3)}
    assert (to_video.median_rank, to_video.mean_rank, to_video.queries) == (2, 2, 3)
    assert to_text.recall == {1: pytest.approx(2 / 3), 2: 1}
    assert (to_text.median_rank, to_text.mean_rank) == (1, pytest.approx(4 / 3))


def test_several_captions_of_a_video():
    # Videos 0 and 1 have two captions each, video 2 none: it distracts, and asks nothing itself.
    scores = [[5, 1, 9], [4, 6, 3], [7, 2, 1], [1, 8, 2]]
    found = retrieval_metrics(scores, [0, 0, 1, 1], at=(1, 2))
    assert found["text_to_video"].recall == {1: 0.25, 2: 1}  # ranks 2, 2, 2, 1
    assert found["text_to_video"].mean_rank == 1.75
    # Video 0's captions have 5 and 4, a wrong one 7: rank 2. Video 1's have 2 and 8: rank 1.
    assert found["video_to_text"].queries == 2
    assert found["video_to_text"].recall == {1: 0.5, 2: 1}
    assert found["video_to_text"].mean_rank == 1.5


def test_one_score_for_everything_gains_what_chance_gives():
    found = retrieval_metrics(np.zeros((20, 20)))
    for direction in found.values():
        assert direction.recall == {1: pytest.approx(1 / 20), 5: pytest.approx(1 / 4), 10: pytest.approx(1 / 2)}
        assert direction.mean_rank == direction.median_rank == 10.5


def test_ties_are_the_mean_over_all_orders():
    random = np.random.default_rng(0)
    for _ in range(30):
        texts, videos = random.integers(1, 6, 2)
        scores = random.integers(0, 3, (texts, videos))
        own = random.integers(0, videos, texts)
        found = retrieval_metrics(scores, own, at=(1, 2))["video_to_text"]
        ranks, recall = [], {1: [], 2: []}
        for video in np.unique(own):
            first = []
            for order in itertools.permutations(range(texts)):  # a stable sort after any shuffle
                ranked = sorted(order, key=lambda text: -scores[text, video])
                first.append(1 + next(place for place, text in enumerate(ranked) if own[text] == video))
            ranks.append(np.mean(first))
            for k, values in recall.items():
                values.append(np.mean([rank <= k for rank in first]))
        assert found.mean_rank == pytest.approx(np.mean(ranks))
        assert found.median_rank == pytest.approx(np.median(ranks))
        assert found.recall == {k: pytest.approx(np.mean(values)) for k, values in recall.items()}


@pytest.mark.parametrize(
    ("scores", "own", "message"),
    [
        (np.zeros((2, 3)), None, "video_of_text"),
        (np.zeros((2, 3)), [0, 3], "0 to 2"),
        (np.zeros((2, 3)), [0], r"each of the 2 texts; \[0\] came"),
        (np.full((2, 2), np.nan), None, "NaN"),
        (np.zeros(3), None, "texts, videos"),
        (np.zeros((0, 3)), [], "texts, videos"),
    ],
)
def test_what_does_not_fit(scores, own, message):
    with pytest.raises(MetricError, match=message):
        retrieval_metrics(scores, own)
    with pytest.raises(MetricError, match="at="):
        retrieval_metrics(np.zeros((2, 2)), at=(0,))


def test_answers():
    assert answer_accuracy(["Left", " up", "down", "two"], ["left", "up", "up", ["2", "two"]]) == 0.75
    assert answer_accuracy([1, 2], [1, 3]) == 0.5
    for answers, truths in (([], []), (["a"], ["a", "b"])):
        with pytest.raises(MetricError, match="answers"):
            answer_accuracy(answers, truths)


def test_question_answering_metrics():
    answers = [["left", "up"], ["Ring"], ["a", "b", "c", "d", "e", "f"], ["x", "y"]]
    asked = ["Where does it go?", "what moves?", "what is it?", "where?"]
    found = question_answering_metrics(answers, ["up", "ring", "f", "X"], asked)
    assert (found.questions, found.accuracy, found.top5) == (4, 0.5, 0.75)
    assert list(found.by_kind.items()) == [("what", (2, 0.5)), ("where", (2, 0.5))]
    assert question_answering_metrics(answers, ["up"] * 4, asked, top5=False).top5 is None
    for wrong in ((answers, ["up"], asked), ([[], *answers[1:]], ["up"] * 4, asked), ([], [], [])):
        with pytest.raises(MetricError):
            question_answering_metrics(*wrong)
