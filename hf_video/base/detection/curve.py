"""How unusual a video is, over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_video.base.detection.types import Detection


@dataclass(frozen=True)
class AnomalyCurve:
    """How unusual a video is, over time.

    Args:
        seconds: (T, 2), start and end of each moment.
        distances: (T,), to the k-th nearest normal moment, from 0 to 2.
        scores: (T,), the distances smoothed over time.
        frame_seconds: (N,), when each frame of the video is shown.
        end: seconds at which the video ends.
        events: the anomalies by start; none without a threshold.
        threshold: the score from which on a moment is one.
    """

    seconds: np.ndarray
    distances: np.ndarray
    scores: np.ndarray
    frame_seconds: np.ndarray
    end: float
    events: tuple[Detection, ...]
    threshold: float | None

    def frame_scores(self) -> np.ndarray:
        """(N,), a score for each frame: on straight lines between the middles of the moments."""
        lasts = np.append(self.frame_seconds[1:], self.end)
        return np.interp((self.frame_seconds + lasts) / 2, self.seconds.mean(1), self.scores)


def smooth_over_time(values: np.ndarray, times: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian means of values (T,) at ascending `times` (T,), weights cut at four deviations; near the ends of those
    values that there are."""
    if not deviation or len(values) < 2:
        return values.copy()
    reach = np.searchsorted(times, times + 4 * deviation, side="right") - np.arange(len(times))
    total, weights = np.zeros(len(values)), np.zeros(len(values))
    for step in range(-int(reach.max()) + 1, int(reach.max())):
        mine = slice(max(-step, 0), len(values) - max(step, 0))
        other = slice(max(step, 0), len(values) - max(-step, 0))
        apart = (times[other] - times[mine]) / deviation
        weight = np.where(np.abs(apart) <= 4, np.exp(-0.5 * apart**2), 0.0)
        total[mine] += weight * values[other]
        weights[mine] += weight
    return total / weights
