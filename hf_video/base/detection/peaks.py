"""Moments out of a line of scores, without training: each peak with the stretch around it that stands out."""

from __future__ import annotations

import numpy as np

from hf_video.base.detection.types import Detection
from hf_video.errors import check_count, check_number


def find_peaks(
    scores: np.ndarray,
    times: np.ndarray,
    label: str,
    *,
    bounds: tuple[float, float],
    level: float = 0.5,
    least: float = 0.5,
    smoothing: float = 1.0,
    top_k: int | None = None,
) -> list[Detection]:
    """Finds the moments of a line of scores: a watershed, in the line's own units, so that scaling and shifting all
    scores changes nothing but the moments' scores.

    Otsu's threshold parts the line into two groups that differ most; the ground is the mean of the lower one. From the
    highest peak on, each peak's moment goes as far to both sides as the line stays above ground + `level` · (peak -
    ground), and not into the moment of a higher peak; for that the peak counts at most as high as three tenths of the
    upper group, or chance would cut a long moment into pieces. A clip half of which shows the moment scores half-way
    between, which makes `level` 0.5 the place of the boundary; it is found between two clips on a straight line.

    Args:
        scores: (T,), of clips in the order of time, with the sentence, say.
        times: (T,), the clips' middles in seconds, ascending.
        label: of the moments.
        bounds: start and end of the video in seconds; a moment that holds the first or last clip reaches to them.
        level: from 0 to 1, how far down from the peak a moment goes.
        least: from 0 to 1, peaks of less than this part of the highest one's height over the ground are left out.
        smoothing: standard deviation in clips of the Gaussian that the line is smoothed with before; 0 for none.
        top_k: at most so many, the best; None for all.

    Returns:
        Moments, best first; the score is the mean of `scores` over the moment's clips. A line without differences, as
        that of a single clip, is one moment from end to end.

    Raises:
        VideoOptionError: for options.
    """
    check_number("level", level, above=0, below=1)
    check_number("least", least, least=0, most=1)
    check_number("smoothing", smoothing, least=0)
    check_count("top_k", top_k, optional=True)
    scores, times = np.asarray(scores, dtype=np.float64), np.asarray(times, dtype=np.float64)
    line = _smooth(scores, smoothing)
    ground, usual = _groups(line)
    heights = line - ground
    free = np.ones(len(line), dtype=bool)
    found: list[Detection] = []
    for top in np.argsort(-heights, kind="stable"):
        flat = not found and np.ptp(line) <= 1e-9 * max(np.abs(line).max(), 1e-30)
        if not flat and heights[top] < max(least * heights.max(), 1e-30):
            break
        if not free[top]:
            continue
        height = -np.inf if flat else level * min(heights[top], usual - ground)
        first, last = top, top
        while first > 0 and free[first - 1] and heights[first - 1] > height:
            first -= 1
        while last + 1 < len(line) and free[last + 1] and heights[last + 1] > height:
            last += 1
        # What lies beside a higher moment is its slope, not a peak of its own.
        slope = any(0 <= place < len(line) and not free[place] for place in (top - 1, top + 1))
        free[first : last + 1] = False
        if slope:
            continue
        start = _crossing(heights, times, first, first - 1, height, bounds[0])
        end = _crossing(heights, times, last, last + 1, height, bounds[1])
        found.append(Detection(label, float(scores[first : last + 1].mean()), start, end))
    return sorted(found, key=lambda one: -one.score)[:top_k]


def _smooth(line: np.ndarray, deviation: float) -> np.ndarray:
    """A Gaussian mean of the neighbours that there are."""
    reach = min(int(np.ceil(3 * deviation)), len(line) - 1)
    if reach < 1:
        return line
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    total = np.convolve(np.ones(len(line)), weights)[reach : reach + len(line)]
    return np.convolve(line, weights)[reach : reach + len(line)] / total


def _groups(line: np.ndarray) -> tuple[float, float]:
    """The line in two groups between which its variance is largest (Otsu, 1979): the mean of the lower one, and the
    value that three tenths of the upper one exceed."""
    ordered = np.sort(line)
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        return float(ordered[0]), float(ordered[0])
    counts = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    low, high = sums / counts, (ordered.sum() - sums) / (len(ordered) - counts)
    best = np.argmax(counts * (len(ordered) - counts) * (high - low) ** 2)
    return float(low[best]), float(np.quantile(ordered[best + 1 :], 0.7))


def _crossing(heights: np.ndarray, times: np.ndarray, inside: int, outside: int, height: float, bound: float) -> float:
    """Seconds at which the line goes through `height` between a clip inside a moment and the one outside."""
    if not 0 <= outside < len(heights):
        return float(bound)
    part = (heights[inside] - height) / max(heights[inside] - heights[outside], 1e-30)
    return float(times[inside] + min(part, 1.0) * (times[outside] - times[inside]))
