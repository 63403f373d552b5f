"""The order in which training sees its rows: a function of seed and epoch alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from hf_video.data.datasets.dataset import generator, sample_seed

ORDER = 1000  # the purpose of this draw: one that no sample has


class EpochSampler(torch.utils.data.Sampler[int]):
    """A permutation of `rows` for each epoch, filled up from its start (or cut) to whole optimiser steps.

    Every split of a step over micro-batches and processes then sees the same rows: 8 = 2 x 4 = 4 on each of 2. And an
    epoch's order does not depend on what was drawn before, so that resuming in its middle is exact. transformers' own
    sampler is neither: the last step has another size on one process than on two, and resuming on several processes
    starts the epoch's order anew.
    """

    def __init__(self, rows: int, *, rows_per_step: int, seed: int, drop_last: bool = False):
        steps = rows // rows_per_step if drop_last else -(-rows // rows_per_step)
        self.rows, self.length, self.seed, self.epoch = rows, steps * rows_per_step, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        draw = generator(sample_seed(self.seed, self.epoch, 0, purpose=ORDER))
        order = torch.randperm(self.rows, generator=draw).tolist()
        yield from (order * -(-self.length // max(self.rows, 1)))[: self.length]


# Of a batch with hard negatives, so many captions in a row are like each other: the first, and the nearest to it.
GROUP = 8
# Pairs that are looked through for the nearest ones.
POOL = 1024


class PairSampler(torch.utils.data.Sampler[int]):
    """Whole steps of `rows_per_step` pairs, by seed and epoch alone (see `EpochSampler`).

    **No batch has a video or a caption twice** as long as others are left: the pair would be a negative of itself.

    With `hard_negatives`, a batch is made of groups of GROUP similar captions ("a red ring moving left", "a red ring
    moving up"): first a random pair, then of the next POOL unused pairs those that share most words with it, rare words
    counting more (inverse document frequency). What tells them apart is then what the loss asks for, and details such
    as a direction are learnt in far fewer steps. The price: captions that mean the same in the same words become each
    other's negatives.

    `rows` are the `CaptionRow`s that are sampled.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        *,
        rows_per_step: int,
        seed: int,
        drop_last: bool = False,
        hard_negatives: bool = False,
    ):
        steps = len(rows) // rows_per_step if drop_last else -(-len(rows) // rows_per_step)
        self.length, self.seed, self.epoch = steps * rows_per_step, seed, 0
        self.step, self.hard_negatives = rows_per_step, hard_negatives
        self._videos = _numbers([row.name for row in rows])
        self._captions = _numbers([row.caption.lower() for row in rows])
        if hard_negatives:
            self._words, self._weights = _words([row.caption for row in rows])

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        draw = generator(sample_seed(self.seed, self.epoch, 0, purpose=ORDER))
        left = torch.randperm(len(self._videos), generator=draw).numpy()
        given: list[int] = []
        while len(given) < self.length:
            if not len(left):  # fill the last step from the start of the epoch
                given += given[: self.length - len(given)]
                break
            batch, left = self._batch(left)
            given += batch
        yield from given[: self.length]

    def _batch(self, left: np.ndarray) -> tuple[list[int], np.ndarray]:
        """The next batch, and what is left after it."""
        batch: list[int] = []
        while len(batch) < self.step and len(left):
            pool = np.flatnonzero(self._new(left[: POOL + self.step], batch))[: POOL + 1]
            if not len(pool):  # only repetitions are left
                pool = np.arange(min(len(left), self.step - len(batch)))
                chosen = pool
            elif self.hard_negatives:
                chosen = self._nearest(left, pool)[: self.step - len(batch)]
            else:
                chosen = self._distinct(left, pool)[: self.step - len(batch)]
            batch += left[chosen].tolist()
            left = np.delete(left, chosen)
        return batch, left

    def _new(self, rows: np.ndarray, batch: list[int]) -> np.ndarray:
        """Which of `rows` have neither a video nor a caption of the batch."""
        videos, captions = self._videos[batch], self._captions[batch]
        return ~(np.isin(self._videos[rows], videos) | np.isin(self._captions[rows], captions))

    def _distinct(self, left: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """Of `pool` those that repeat no earlier one, in order."""
        rows = left[pool]
        first = np.zeros(len(pool), dtype=bool)
        seen_videos: set[int] = set()
        seen_captions: set[int] = set()
        for place, row in enumerate(rows):
            video, caption = int(self._videos[row]), int(self._captions[row])
            if video not in seen_videos and caption not in seen_captions:
                first[place] = True
                seen_videos.add(video)
                seen_captions.add(caption)
        return pool[first]

    def _nearest(self, left: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """The first of `pool` and those most like it."""
        words = self._words[left[pool]]
        own = words[0][words[0] >= 0]
        shared = np.where(np.isin(words, own), self._weights[words], 0).sum(1)
        order = np.argsort(-shared[1:], kind="stable") + 1
        return self._distinct(left, pool[np.concatenate([[0], order])])[:GROUP]


def _numbers(names: list[str]) -> np.ndarray:
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)


def _words(captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The different words of each caption as numbers (N, most), -1 where there are fewer; and each word's weight."""
    split = [sorted(set(re.findall(r"\w+", caption.lower()))) for caption in captions]
    number: dict[str, int] = {}
    counts: Counter[int] = Counter()
    table = np.full((len(captions), max(map(len, split), default=1) or 1), -1, dtype=np.int64)
    for row, words in enumerate(split):
        ids = [number.setdefault(word, len(number)) for word in words]
        counts.update(ids)
        table[row, : len(ids)] = ids
    frequency = np.array([counts[i] for i in range(len(number))] + [len(captions)], dtype=np.float64)
    return table, np.log(max(len(captions), 1) / frequency)  # the last is what -1 finds: 0
