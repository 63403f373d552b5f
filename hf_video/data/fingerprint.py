"""The same video found again by what it shows: after another encoder, at another size or frame rate.

A print is eight frames, spread over the video, of 16x16 pixels of brightness. Two videos are taken for the same where
their prints agree in appearance (correlation of all pixels) and in motion (of what changes from frame to frame).

Measured on 12 real clips: copies at 112 pixels with crf 38, and with half the frames as VP9, correlate by at least
0.98 in appearance and 0.96 in motion; two halves of one recording, which show the same scene, by at most 0.86 and 0.01.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hf_video.errors import HFVideoError
from hf_video.video.reader import VideoReader

FRAMES, SIDE = 8, 16
APPEARANCE, MOTION = 0.97, 0.9
STILL_APPEARANCE = 0.995  # where nothing moves there is only the picture to go by
STILL_LEVELS = 2.0  # root mean square of what changes, in grey levels, below which it may be noise
FLAT_LEVELS = 3.0  # contrast below which there is no picture to compare
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BLOCK = 512


def fingerprint(source: Any) -> np.ndarray | None:
    """Brightness, float32 (8, 16, 16) from 0 to 255, of frames in the middle of eight equal parts; None where the video
    can't be read. Damaged frames are replaced by their neighbours."""
    try:
        with VideoReader(source, size=(SIDE, SIDE), on_error="repeat") as reader:
            indices = (2 * np.arange(FRAMES) + 1) * len(reader) // (2 * FRAMES)
            return reader.get_frames(indices).data.astype(np.float32) @ _LUMA
    except (HFVideoError, OSError):
        return None


def same_content(prints: Sequence[np.ndarray | None]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of prints that show the same video. Prints that are None, or nearly one grey, match none.

    All pairs are first compared by 4x4 pixels a frame, as products of matrices; what comes near is compared whole.
    """
    known = [i for i, one in enumerate(prints) if one is not None]
    if len(known) < 2:
        return []
    stack = np.stack([prints[i] for i in known])
    usable = stack.std(axis=(1, 2, 3)) > FLAT_LEVELS
    stack, numbers = stack[usable], np.array(known)[usable]
    pairs = [pair for pair in _near(_coarse(stack)) if len(pair)]
    if not pairs:
        return []
    found = np.concatenate([pair[_same(stack[pair[:, 0]], stack[pair[:, 1]])] for pair in pairs])
    return [(int(numbers[i]), int(numbers[j])) for i, j in found]


def _coarse(stack: np.ndarray) -> np.ndarray:
    """(N, 128) unit vectors: each frame in 4x4 pixels, without the mean."""
    step = SIDE // 4
    small = stack.reshape(len(stack), FRAMES, 4, step, 4, step).mean(axis=(3, 5)).reshape(len(stack), -1)
    return _unit(small - small.mean(1, keepdims=True))


def _near(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs (n, 2), first below second, whose coarse vectors nearly agree; a block of rows at a time."""
    for start in range(0, len(vectors), _BLOCK):
        likeness = vectors[start : start + _BLOCK] @ vectors[start:].T
        first, second = np.nonzero(np.triu(likeness > APPEARANCE - 0.03, k=1))
        for part in range(0, len(first), 4096):  # of clips that are all alike there are very many pairs
            chosen = slice(part, part + 4096)
            yield np.stack([first[chosen] + start, second[chosen] + start], axis=1)


def _same(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) bool for prints (n, 8, 16, 16) against prints."""
    flat = [_centred(prints, (1, 2, 3)) for prints in (first, second)]
    moving = [_centred(prints, 1) for prints in (first, second)]
    appearance = _correlation(*flat)
    still = np.maximum(*(np.sqrt((m**2).mean(axis=(1, 2, 3))) for m in moving)) < STILL_LEVELS
    return np.where(still, appearance > STILL_APPEARANCE, (appearance > APPEARANCE) & (_correlation(*moving) > MOTION))


def _centred(prints: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    return prints - prints.mean(axis=axis, keepdims=True)


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (_unit(first.reshape(len(first), -1)) * _unit(second.reshape(len(second), -1))).sum(1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
