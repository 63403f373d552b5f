"""What a reader hands out: frames that know which ones they are and when they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np


@dataclass(frozen=True)
class VideoMetadata:
    """What is known of a video before a frame is decoded.

    `num_frames` counts frames that can be presented; `fps` is their average rate in frames per second
    (`num_frames / duration`); `duration` is in seconds, from the first frame's start to the last frame's end;
    `begin` is the presentation time of frame 0 in seconds (0 for most files);
    `height` and `width` are in pixels **after** `rotation` (degrees clockwise: 0, 90, 180, 270) has been applied;
    `sample_aspect_ratio` is how many times as wide as high these pixels are shown (1 where the file doesn't say): a
    player shows width · sample_aspect_ratio by height, and `square_pixels=True` reads it so;
    `codec` is FFmpeg's short name (`"h264"`), or `"images"` / `"array"` for sources that were never encoded.
    """

    num_frames: int
    fps: float
    duration: float
    height: int
    width: int
    begin: float = 0.0
    rotation: int = 0
    codec: str = "array"
    source: str = ""
    sample_aspect_ratio: Fraction = Fraction(1)


@dataclass(frozen=True)
class VideoFrames:
    """Some frames of a video.

    `data` is uint8 RGB of shape (frames, height, width, 3); `indices` (int64) are their numbers in display order and
    `seconds` (float64) their presentation times; both have shape (frames,). With `on_error="skip"` there may be fewer
    frames than were asked for; with `"repeat"`, `repeated` names the indices that show their nearest good neighbour.
    With `snap="keyframe"` indices and seconds are those of the keyframes that were really read.
    """

    data: np.ndarray
    indices: np.ndarray
    seconds: np.ndarray
    repeated: tuple[int, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is None:  # numpy 1 knows no "copy if needed" here
            return np.asarray(self.data, dtype=dtype)
        return np.array(self.data, dtype=dtype, copy=copy)
