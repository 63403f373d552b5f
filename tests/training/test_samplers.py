"""Batches of pairs: none twice, similar ones together, the same for every process and after resuming."""

from __future__ import annotations

from itertools import product

import pytest

from hf_video.data.datasets.captions import CaptionRow
from hf_video.training.samplers import GROUP, PairSampler

CAPTIONS = [
    f"a {color} {shape} moving {way}"
    for color, shape, way in product(
        ("red", "green", "blue", "pink"), ("disc", "ring", "cross"), ("left", "right", "up", "down")
    )
]


def rows(captions, clips=2):
    return [
        CaptionRow(f"{i}-{c}", None, f"{i}-{c}", None, caption)
        for c in range(clips)
        for i, caption in enumerate(captions)
    ]


def batches(order, size):
    numbers = list(order)
    assert len(numbers) == len(order)
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


@pytest.mark.parametrize("hard", [False, True])
def test_a_caption_is_once_in_a_batch_and_every_pair_once_in_an_epoch(hard):
    given = rows(CAPTIONS)  # 96 pairs of 48 captions
    order = PairSampler(given, rows_per_step=16, seed=0, hard_negatives=hard)
    made = batches(order, 16)
    flat = [number for batch in made for number in batch]
    assert sorted(flat) == list(range(96))
    for batch in made[:-2]:  # at the end there may be nothing else left
        assert len({given[i].caption for i in batch}) == 16
    assert list(order) == flat
    order.set_epoch(1)
    assert list(order) != flat
    other = PairSampler(given, rows_per_step=16, seed=0, hard_negatives=hard)
    other.set_epoch(1)
    assert list(other) == list(order)


def test_captions_of_one_video_are_no_negatives():
    given = [CaptionRow(f"v{i}", None, f"v{i}", None, f"caption {i} {j}") for i in range(20) for j in range(5)]
    for batch in batches(PairSampler(given, rows_per_step=10, seed=3), 10)[:-2]:
        assert len({given[i].name for i in batch}) == 10


def test_hard_batches_hold_captions_that_differ_in_a_word():
    def shared(size, hard):
        """The mean over all pairs of the words that they share with the nearest other one of their batch."""
        given, nearest = rows(CAPTIONS, clips=4), []
        for batch in batches(PairSampler(given, rows_per_step=size, seed=0, hard_negatives=hard), size)[:-3]:
            words = [set(given[i].caption.split()) for i in batch]
            nearest += [max(len(a & b) for j, b in enumerate(words) if j != i) for i, a in enumerate(words)]
        return sum(nearest) / len(nearest)

    assert shared(GROUP, hard=True) > 3.95  # four of five words
    assert shared(GROUP, hard=False) < 3.8


def test_last_steps():
    given = rows(CAPTIONS, clips=1)[:21]
    assert len(PairSampler(given, rows_per_step=8, seed=0, drop_last=True)) == 16
    whole = list(PairSampler(given, rows_per_step=8, seed=0))
    assert len(whole) == 24
    assert set(whole) == set(range(21))
    assert whole[21:] == whole[:3]
    same = rows(["one caption"], clips=6)
    assert sorted(PairSampler(same, rows_per_step=3, seed=0, hard_negatives=True)) == list(range(6))


def test_it_is_quick_on_many_pairs():
    import time

    given = [
        CaptionRow(f"v{i % 3000}", None, f"v{i % 3000}", None, f"word{i % 977} is near word{i % 1013}")
        for i in range(10000)
    ]
    order = PairSampler(given, rows_per_step=128, seed=0, drop_last=True, hard_negatives=True)
    begin = time.process_time()
    assert len(set(order)) == len(order)
    assert time.process_time() - begin < 5
