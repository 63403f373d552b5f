"""How well repetitions are counted: the metrics of RepNet and TransRAC (Hu et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hf_video.errors import MetricError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class CountMetrics:
    """Args:
    mae: mean over videos of |found - true| / (true + 0.1), which is relative to the number; lower is better.
    obo: share of videos that are off by at most one, from 0 to 1; higher is better.
    """

    mae: float
    obo: float


def count_metrics(found: ArrayLike, true: ArrayLike) -> CountMetrics:
    """Compares counts of repetitions.

    Args:
        found: (N,) counted in each video, rounded to whole numbers here (a half to the even one, as NumPy does).
        true: (N,) true counts, 0 or more.

    Raises:
        MetricError: The shapes differ, there is no video, or a number is negative or not finite.
    """
    numbers, truth = np.asarray(found, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if numbers.ndim != 1 or numbers.shape != truth.shape or not len(numbers):
        raise MetricError(f"Counts are (videos,), alike on both sides; {numbers.shape} and {truth.shape} came.")
    both = np.stack([numbers, truth])
    if not np.isfinite(both).all() or (both < 0).any():
        raise MetricError(f"Counts must be finite and not negative; {both.min()} to {both.max()} came.")
    off = np.abs(numbers.round() - truth)
    return CountMetrics(float((off / (truth + 0.1)).mean()), float((off <= 1).mean()))
