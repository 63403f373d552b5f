"""The order in which training sees its rows: a function of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from hf_video.data.seeds import generator, sample_seed

ORDER = 1000  # the purpose of this draw: one that no sample has


class EpochOrder(torch.utils.data.Sampler[int]):
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
