"""Frame-level metrics of anomaly detection. Papers' numbers are of two kinds, which differ by a lot: *micro*, all
frames of all videos together (UCF-Crime, ShanghaiTech), and *macro*, the mean over videos (Avenue, UBnormal)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hf_video.errors import MetricError


@dataclass(frozen=True)
class AnomalyMetrics:
    """What `anomaly_metrics` computes; NaN where a number is not defined.

    Args:
        micro_auc: area under the ROC curve of all frames together.
        macro_auc: mean of `auc_by_video`.
        auc_by_video: of each video, with one normal frame of score 0 put before it and one abnormal frame of score 1
            behind it, so that videos of one kind count too (UBnormal). This lifts constant scores above .5.
        abnormal_auc: micro, of the videos that hold an anomaly.
        average_precision: of all frames together (XD-Violence).
        pr_auc: area under their precision-recall curve by trapezoids (RTFM), not the same number.
        equal_error_rate: where the rates of false alarms and of missed frames meet, all frames together.
    """

    micro_auc: float
    macro_auc: float
    auc_by_video: dict[str, float]
    abnormal_auc: float
    average_precision: float
    pr_auc: float
    equal_error_rate: float


def anomaly_metrics(
    scores: Mapping[str, Sequence[float] | np.ndarray],
    segments: Mapping[str, Sequence[tuple[int, int]]],
    frames: Mapping[str, int],
    *,
    repeat: int = 1,
    gaussian_sigma: float | None = None,
) -> AnomalyMetrics:
    """Compares scores with abnormal stretches, frame by frame.

    Args:
        scores: for each video one number for every `repeat` frames, the higher the more abnormal; the last one goes on
            to the end of the video.
        segments: for each video its abnormal stretches, [first, last) in frames.
        frames: number of frames of each video.
        repeat: frames that a score stands for.
        gaussian_sigma: smooth each video's frame scores with this deviation, in frames; part of many papers' numbers.

    Returns:
        `AnomalyMetrics`.

    Raises:
        MetricError: a video without scores or frames, or scores that are not finite.
    """
    found, truth = {}, {}
    for video, count in frames.items():
        values = np.asarray(scores.get(video, ()), dtype=np.float64)
        if not len(values) or count < 1 or not np.isfinite(values).all():
            raise MetricError(
                f"{video!r} has {len(values)} scores for {count} frames; finite scores and frames are needed."
            )
        line = np.repeat(values, repeat)[:count]
        line = np.pad(line, (0, count - len(line)), mode="edge")
        found[video] = line if gaussian_sigma is None else smooth(line, gaussian_sigma)
        truth[video] = np.zeros(count, dtype=bool)
        for first, last in segments.get(video, ()):
            truth[video][first:last] = True
    if not found:
        raise MetricError("No video came: there is nothing to measure.")
    every, right = (np.concatenate(list(one.values())) for one in (found, truth))
    abnormal = [video for video, mask in truth.items() if mask.any()]
    by_video = {
        video: roc_auc(np.concatenate(([0.0], found[video], [1.0])), np.concatenate(([False], truth[video], [True])))
        for video in found
    }
    false_alarms, hits = roc_curve(every, right)
    precision, recall = _precision_recall(every, right)
    crossing = np.nanargmin(np.abs(1 - hits - false_alarms))
    return AnomalyMetrics(
        micro_auc=roc_auc(every, right),
        macro_auc=float(np.mean(list(by_video.values()))),
        auc_by_video=by_video,
        abnormal_auc=roc_auc(*(np.concatenate([one[v] for v in abnormal]) for one in (found, truth)))
        if abnormal
        else np.nan,
        average_precision=float((np.diff(recall, prepend=0.0) * precision).sum()),
        pr_auc=_area(np.append(1.0, precision), np.append(0.0, recall)),
        equal_error_rate=float((false_alarms[crossing] + 1 - hits[crossing]) / 2),
    )


def smooth(line: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing with zeros outside, cut at four deviations (scipy's `gaussian_filter1d`, mode "constant")."""
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.convolve(np.pad(line, radius), kernel / kernel.sum(), mode="valid")


def _counts(scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits and false alarms above each distinct score, highest first."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = right[order].cumsum()[last]
    return hits, last + 1 - hits


def roc_curve(scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rates of false alarms and of hits, from (0, 0) on; NaN where one kind of frame is missing."""
    hits, false_alarms = _counts(scores, right)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.append(0.0, false_alarms / false_alarms[-1]), np.append(0.0, hits / hits[-1])


def roc_auc(scores: np.ndarray, right: np.ndarray) -> float:
    """Area under the ROC curve; NaN where one kind of frame is missing."""
    false_alarms, hits = roc_curve(scores, right)
    return _area(hits, false_alarms)


def _area(heights: np.ndarray, places: np.ndarray) -> float:
    """Area under a line of straight pieces."""
    return float((np.diff(places) * (heights[1:] + heights[:-1]) / 2).sum())


def _precision_recall(scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hits, false_alarms = _counts(scores, right)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits / (hits + false_alarms), hits / hits[-1]
