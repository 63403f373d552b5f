"""From seconds to frames: which frame is on screen at a time, for times that were computed, stored or rounded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.errors import FrameIndexError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Timestamps are fractions; a time that was computed in double precision may fall this much short of one.
TOLERANCE = 1e-6
# Decimals that times are rounded to, in text and tables. With fewer, a round time is meant as it is.
DECIMALS = (2, 3, 4, 5)
BFLOAT16_SPACING = 1 / 128  # of a number between 1 and 2; its values arrive here as float32


def frames_at(timestamps: np.ndarray, times: ArrayLike, tolerance: ArrayLike = TOLERANCE) -> np.ndarray:
    """Index of the frame that is on screen at each time: the last one that started by then.

    Args:
        timestamps: Start of each frame in seconds, float64 (frames,), growing.
        times: Seconds, of any shape. One before the first frame shows frame 0.
        tolerance: Seconds by which a time may fall short of the frame that it means, a number or one for each time;
            never more than half of the way from the frame before.

    Returns:
        int64 indices of the shape of `times`.
    """
    times = np.asarray(times, np.float64)
    shown = np.maximum(np.searchsorted(timestamps, times, side="right") - 1, 0)
    after = np.minimum(shown + 1, len(timestamps) - 1)
    missing = timestamps[after] - times
    # Where double precision is coarser than frames, nothing is: the half is of the frames' own distance.
    close = (missing > 0) & (missing <= np.minimum(tolerance, (timestamps[after] - timestamps[shown]) / 2))
    return np.where(close, after, shown)


def frames_during(timestamps: np.ndarray, start: float, end: float) -> tuple[int, int]:
    """First and last frame (the last not included) of those that are on screen from `start` to `end` seconds; at least
    one, and the first may have started a little earlier."""
    first = int(frames_at(timestamps, start))
    return first, max(int(np.searchsorted(timestamps, end - TOLERANCE, side="left")), first + 1)


def plain_seconds(seconds: Any) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, tolerance), both float64 (times,): numbers of any kind, and how exactly they can say what they mean.

    The tolerance is the distance to the next number that the given type has (float16, bfloat16, float32, float64), or
    half of the last decimal where all are rounded to two to five decimals. Raises `FrameIndexError`.
    """
    spacing = None
    if str(getattr(seconds, "dtype", "")) == "torch.bfloat16":
        seconds, spacing = seconds.float(), BFLOAT16_SPACING
    if isinstance(seconds, Iterable) and not hasattr(seconds, "__array__"):
        seconds = list(seconds)
    try:
        numbers = np.atleast_1d(np.asarray(seconds))
    except (TypeError, ValueError):
        numbers = np.empty(0, object)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        raise FrameIndexError(f"seconds must be numbers in one dimension, got {seconds!r:.100}")
    times = numbers.astype(np.float64)
    if numbers.dtype.kind != "f" or not np.isfinite(times).all():
        return times, np.full(times.shape, TOLERANCE)
    if spacing is None:
        unit = np.spacing(np.abs(numbers)).astype(np.float64)
    else:
        unit = spacing * np.exp2(np.floor(np.log2(np.maximum(np.abs(times), 1e-30))))
    # The fewest decimals that all times are rounded to.
    places = range(DECIMALS[-1] + 1)
    rounded = next((p for p in places if np.all(np.abs(np.round(times, p) - times) <= unit)), 0)
    rounding = 0.5 * 10.0**-rounded if rounded in DECIMALS else 0.0
    return times, np.maximum(unit, TOLERANCE) + rounding
