"""Events of a stream by a detector of features: vectors of clips come in, events in seconds go out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hf_video.features.events import to_detections

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hf_video.base.detection.modeling import Segments
    from hf_video.base.detection.types import Detection
    from hf_video.clips.grid import FeatureGrid
    from hf_video.features.feature_windows import FeatureWindows


class FeatureEvents:
    """`FeatureWindows` over the clips of a stream, called as `Hysteresis` is.

    Args:
        windows: Of the detector.
        grid: Of the clips.
    """

    def __init__(self, windows: FeatureWindows, grid: FeatureGrid) -> None:
        self.windows, self.grid = windows, grid
        self.begin: float | None = None
        self._times: list[float] = []  # of frames, from number `_dropped` on
        self._dropped = 0

    @property
    def under_way(self) -> list[Detection]:
        """None: a detector says of an event where it begins and ends at once."""
        return []

    def see(self, time: float) -> None:
        """Takes the second at which the next frame is shown; for grids that count the stream's own frames."""
        if self.grid.fps is None:
            self._times.append(time)

    def update(self, vector: np.ndarray, middle: float) -> list[Detection]:
        """Takes the vector (D,) of the next clip. Returns the events that are known now."""
        return self._in_seconds(self.windows.push(vector[None]))

    def close(self, end: float) -> list[Detection]:
        """Ends the stream at `end` seconds. Returns the events that are left."""
        self._times.append(end)
        return self._in_seconds(self.windows.close(), end)

    def _in_seconds(self, found: Segments, end: float = np.inf) -> list[Detection]:
        seconds = self._to_seconds(found.segments, end)
        # Two windows back, no segment that is open begins.
        first = max(int((self.windows.start - 2 * self.windows.steps) * self.grid.stride) - self._dropped, 0)
        del self._times[:first]
        self._dropped += first
        return to_detections(found, seconds, self.windows.config.id2label)

    def _to_seconds(self, positions: ArrayLike, end: float) -> np.ndarray:
        """As `FeatureSequence.to_seconds`, with what is known of the frames' times so far."""
        frames = np.asarray(positions, dtype=np.float64) * self.grid.stride + 0.5 * self.grid.num_frames
        if self.grid.fps is not None:
            return np.clip(self.begin + frames / self.grid.fps, self.begin, end)
        return np.interp(frames, self._dropped + np.arange(len(self._times)), self._times)
