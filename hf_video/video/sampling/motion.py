"""How much moves when: the signal that adaptive sampling follows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hf_video.errors import check_count
from hf_video.video.frames.types import VideoSource

_CHUNK = 64  # frames in memory at once; at 32 pixels they are a few hundred kilobytes
_ENOUGH = 512  # differences that are plenty to place a few dozen frames


def motion_energy(source: VideoSource, *, shortest_edge: int = 32, every: int | None = None) -> np.ndarray:
    """Measures how much changes from frame to frame, in one pass over a video at thumbnail size.

    Args:
        source: A `VideoReader` (it is opened a second time, small) or whatever one takes.
        shortest_edge: Height or width, whichever is smaller, of the frames that are compared, in pixels. Small frames
            don't see noise.
        every: Distance in frames of those that are compared; a value stands for all frames in between. None compares
            all frames of up to 1023, and fewer of longer videos, so that about 512 to 1023 differences are taken.

    Returns:
        (N,) float64: the mean absolute difference from the frame before, per frame, in units of the full range (0 to
        1). Frame 0, which has none before it, gets the value of frame 1. A hard cut is a single high value. Frames that
        can't be decoded count as still.

    Raises:
        VideoOptionError: `every` is below 1.
        VideoError: The video can't be read; see `VideoReader`.
    """
    from hf_video.video.reader import VideoReader

    with VideoReader(source, shortest_edge=shortest_edge, scaler="swscale", on_error="repeat") as reader:
        total = reader.metadata.num_frames
        step = max(total // _ENOUGH, 1) if every is None else every
        step = check_count("every", step, unit="frames")
        if step == 1:
            chunks = reader.chunks(_CHUNK)
        else:
            indices = np.arange(0, total, step)
            chunks = (reader.get_frames(indices[i : i + _CHUNK]) for i in range(0, len(indices), _CHUNK))
        return _energy((frames.data for frames in chunks), total, step)


def _energy(chunks: Iterator[np.ndarray], total: int, step: int) -> np.ndarray:
    differences, last = [], None
    for chunk in chunks:
        small = chunk.astype(np.int16)
        if last is not None:
            small = np.concatenate([last, small])
        differences.append(np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3)))
        last = small[-1:]
    difference = np.concatenate(differences) / (255 * step)
    if len(difference) == 0:
        return np.zeros(total)
    # difference j lies between frames j·step and (j+1)·step: it belongs to the frames after the first, up to the second
    owner = np.clip((np.arange(total) - 1) // step, 0, len(difference) - 1)
    return difference[owner]
