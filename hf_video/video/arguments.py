"""Checks of what a caller passes to `VideoReader`: early, with what is allowed in the message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from hf_video.errors import FrameIndexError, VideoOptionError, check_choice, check_count, check_number

ON_ERROR = ("raise", "skip", "repeat")
BACKENDS = ("auto", "pyav", "torchcodec")
SCALERS = ("exact", "swscale")


def check_options(
    *,
    on_error: str,
    snap: str | None,
    backend: str,
    scaler: str,
    num_threads: int,
    fps: float | None,
    stream: int | None,
) -> None:
    for name, value, allowed in (
        ("on_error", on_error, ON_ERROR),
        ("snap", snap, (None, "keyframe")),
        ("backend", backend, BACKENDS),
        ("scaler", scaler, SCALERS),
    ):
        check_choice(name, value, allowed)
    check_count("num_threads", num_threads, least=0, hint=" With 0 FFmpeg chooses.")
    check_count("stream", stream, least=0, optional=True, hint=" It is the number of a stream.")
    check_number("fps", fps, above=0, optional=True, hint=" It is in frames per second.")


def checked_size(size: tuple[int, int] | None, shortest_edge: int | None) -> tuple[int, int] | None:
    if size is not None and shortest_edge is not None:
        raise VideoOptionError("give size or shortest_edge, not both")
    numbers = [] if size is None else list(size) if isinstance(size, Iterable) else [size]
    if size is not None and len(numbers) != 2:
        raise VideoOptionError(f"size must be (height, width) in pixels, got {size!r}")
    for number in numbers:
        check_count("size", number, unit="pixels")
    check_count("shortest_edge", shortest_edge, unit="pixels", optional=True)
    return (int(numbers[0]), int(numbers[1])) if numbers else None


def whole_numbers(indices: Any, count: int, label: str) -> np.ndarray:
    """`indices` as non-negative int64 array, or `FrameIndexError`."""
    if isinstance(indices, slice):
        return np.arange(*indices.indices(count), dtype=np.int64)
    if isinstance(indices, Iterable) and not hasattr(indices, "__array__"):
        indices = list(indices)
    try:
        numbers = np.atleast_1d(np.asarray(indices))
    except (TypeError, ValueError):
        numbers = np.empty(0, object)
    if numbers.size == 0 and numbers.dtype != object:
        return np.empty(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise FrameIndexError(f"frame indices must be whole numbers in one dimension, got {indices!r:.100}")
    numbers = numbers.astype(np.int64)
    wrong = (numbers < -count) | (numbers >= count)
    if wrong.any():
        raise FrameIndexError(
            f"{label} has {count} frames: index {numbers[wrong][0]} is out of range, "
            f"allowed are {-count} to {count - 1}"
        )
    return np.where(numbers < 0, numbers + count, numbers)
