"""Distances of moments to the nearest ones of an index, and what distance is unusual among normal videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hf_video.base.detection.curve import smooth_over_time
from hf_video.errors import DataError, VideoOptionError
from hf_video.retrieval.approximate import exact_search, gather_vectors
from hf_video.retrieval.index import VideoIndex
from hf_video.retrieval.store import IndexedVideo, IndexSegment

DEVIATIONS = 2.0  # of normal videos' peaks, from their mean to the threshold
CALIBRATED = 20_000  # moments of normal videos that are compared with all others, at most
_QUERIES = 256  # moments that are compared at once


@dataclass(frozen=True)
class Threshold:
    """What is unusual.

    Args:
        value: The score from which on a moment is an anomaly; None where it is not known.
        usual: The median score of normal videos, each without itself; None for a single one.
        rule: How `value` was found: "auto", a quantile such as "99%", or the number itself.
        peaks: The highest score of each normal video that was looked at.
    """

    value: float | None
    usual: float | None
    rule: str
    peaks: dict[str, float]


def parse_threshold(threshold: float | str) -> float | str:
    """A number, "auto", or a quantile such as "99.5%". Raises VideoOptionError for anything else."""
    if isinstance(threshold, str):
        text = threshold.strip()
        number = text.removesuffix("%")
        if text == "auto":
            return text
        try:
            value = float(number)
        except ValueError:
            value = np.nan
        if text.endswith("%") and 0 < value < 100:
            return f"{value:g}%"
        threshold = np.nan if text.endswith("%") else value
    if not (np.isfinite(threshold) and threshold > 0):
        raise VideoOptionError(
            f'threshold={threshold!r} must be "auto", a number above 0, or a quantile of the scores of normal videos '
            'such as "99.5%".'
        )
    return float(threshold)


def learn_threshold(index: VideoIndex, *, k: int, smooth: float, rule: float | str) -> Threshold:
    """Scores of normal videos, each compared with all the others, and the threshold that `rule` makes of them.

    Raises DataError where a rule needs scores and there are not two videos to compare, or too few moments.
    """
    videos = list(_different_videos(index.segments))
    if len(videos) < 2:
        if isinstance(rule, float):
            return Threshold(rule, None, f"{rule:g}", {})
        raise DataError(
            f"A threshold is learnt by comparing each normal video with the others, and there is {len(videos)} that "
            "can be read (copies of one count once). Add normal videos, cut a long one into several files, or give the "
            "threshold as a number."
        )
    chosen, moments = [], 0
    for number in np.random.default_rng(0).permutation(len(videos)):
        if len(chosen) >= 2 and moments + len(videos[number].vectors) > CALIBRATED:
            break
        chosen.append(videos[number])
        moments += len(videos[number].vectors)
    curves = {}
    for video in chosen:
        distances = nearest_distances(without(index.segments, video.record.digest), video.vectors, k)
        curves[video.record.path] = smooth_over_time(distances, video.seconds.mean(1), smooth)
    peaks = {path: float(curve.max()) for path, curve in sorted(curves.items())}
    scores, highest = np.concatenate(list(curves.values())), np.array(list(peaks.values()))
    if isinstance(rule, float):
        value = rule
    elif rule == "auto":
        value = max(float(highest.max()), float(highest.mean() + DEVIATIONS * highest.std(ddof=1)))
    else:
        value = float(np.quantile(scores, float(rule.removesuffix("%")) / 100))
    value = max(value, float(np.finfo(np.float32).tiny))  # normal videos that are all the same have no distances
    return Threshold(value, float(np.median(scores)), rule if isinstance(rule, str) else f"{rule:g}", peaks)


def _different_videos(segments: Sequence[IndexSegment]) -> Iterator[IndexedVideo]:
    """The videos that have moments, copies once."""
    seen = set()
    for segment in segments:
        for video in segment.entries():
            if video.record.moments and video.record.digest not in seen:
                seen.add(video.record.digest)
                yield video


def without(segments: Sequence[IndexSegment], digest: str | None) -> list[IndexSegment]:
    """The segments of an index without the moments of a video and its copies."""
    found = []
    for segment in segments:
        own = [number for number, file in enumerate(segment.files) if file.digest == digest]
        found.append(replace(segment, live=segment.live & ~np.isin(segment.owner, own)) if own else segment)
    return found


def nearest_distances(segments: Sequence[IndexSegment], vectors: np.ndarray, k: int) -> np.ndarray:
    """Distances (T,) of vectors (T, D) of length 1 to the k-th nearest live moments, float64.

    Raises DataError where there are fewer than `k`.
    """
    there = sum(int(segment.live.sum()) for segment in segments)
    if there < k:
        raise DataError(f"There are {there} normal moments to compare with, and k={k}: add normal videos or lower k.")
    distances = np.empty(len(vectors))
    for first in range(0, len(vectors), _QUERIES):
        part = vectors[first : first + _QUERIES]
        rows, _ = exact_search(segments, np.asarray(part), k)
        found = gather_vectors(segments, rows[:, :k].ravel()).reshape(len(part), k, -1)
        # Products of neighbours are near 1, where float32 loses small distances.
        exact = np.linalg.norm(found.astype(np.float64) - part[:, None].astype(np.float64), axis=2)
        distances[first : first + _QUERIES] = exact.max(1)
    return distances
