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
