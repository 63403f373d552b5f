"""The learning rate at each optimiser step, as factors of each group's own rate.

Beyond transformers' schedules: a warm-up that starts at a value, a cosine that ends at a value, and steps at epochs.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from hf_video.errors import ConfigError


def warmed_up(after: Callable[[int], float], *, warmup_steps: int, start: float) -> Callable[[int], float]:
    """Linear from `start` at step 0 to 1 at the last warm-up step (numpy's linspace, as BEiT and VideoMAE have it)."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return start + (1 - start) * step / max(warmup_steps - 1, 1)
        return after(step)

    return factor


def cosine(*, warmup_steps: int, total_steps: int, end: float) -> Callable[[int], float]:
    """From 1 at the first step after the warm-up towards `end`, which it would reach at step `total_steps`."""

    def factor(step: int) -> float:
        progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
        return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def multistep(*, milestones: Sequence[int], gamma: float) -> Callable[[int], float]:
    """`gamma` to the number of milestones (step numbers) that are reached."""
    milestones = sorted(milestones)
    return lambda step: gamma ** bisect.bisect_right(milestones, step)


def make_schedule(optimizer: Optimizer, args, *, total_steps: int, steps_per_epoch: float | None) -> LambdaLR:
    """The schedule that `VideoTrainingArguments` describe. `steps_per_epoch` is None for endless data."""
    rate = args.learning_rate or 1.0  # 0 holds all weights: any factor of it is 0
    if args.warmup_epochs is not None:
        warmup_steps = round(args.warmup_epochs * _known(steps_per_epoch, "warmup_epochs", "warmup_steps"))
    else:
        warmup_steps = args.get_warmup_steps(total_steps)
    if args.schedule == "cosine":
        end = args.scaled_min_learning_rate / rate
        after = cosine(warmup_steps=warmup_steps, total_steps=total_steps, end=end)
    else:
        milestones = args.milestone_steps or [
            round(epoch * _known(steps_per_epoch, "milestone_epochs", "milestone_steps"))
            for epoch in args.milestone_epochs
        ]
        after = multistep(milestones=milestones, gamma=args.milestone_factor)
    start = args.scaled_warmup_learning_rate / rate
    return LambdaLR(optimizer, warmed_up(after, warmup_steps=warmup_steps, start=start))


def _known(steps_per_epoch: float | None, given: str, instead: str) -> float:
    if steps_per_epoch is None:
        raise ConfigError(f"{given} needs data of a known length. For a stream give {instead} and max_steps.")
    return steps_per_epoch
