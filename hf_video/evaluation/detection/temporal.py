"""Mean average precision of temporal detections: ActivityNet's evaluation, and ActionFormer's variant of it.

The two differ in the ground truth: ActionFormer (as OpenTAD) leaves out segments shorter than 1 ms and copies of the
same label within 1 ms; ActivityNet counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_video.errors import MetricError

PROTOCOLS = ("activitynet", "actionformer")
SHORTEST = 1e-3  # seconds
# tIoU thresholds of the data sets' papers.
THRESHOLDS = {
    "activitynet": np.linspace(0.5, 0.95, 10),
    "thumos": np.linspace(0.3, 0.7, 5),
    "epic": np.linspace(0.1, 0.5, 5),
}

Event = Mapping[str, Any]  # "segment": (start, end) in seconds, "label", and "score" where it is a detection


@dataclass(frozen=True)
class TemporalMAP:
    """Average precision of temporal detections.

    Args:
        thresholds: (T,) tIoU from which on a detection counts.
        ap: (T,) for each class of the ground truth.
        recall: (T,) for each k: the share of ground truth found among the best k · n detections of a video and class,
            n being its segments (ActionFormer's recall@kx), averaged over classes.
        unknown: detections whose label has no ground truth; they count nowhere.
    """

    thresholds: np.ndarray
    ap: dict[str, np.ndarray]
    recall: dict[int, np.ndarray] = field(default_factory=dict)
    unknown: int = 0

    @property
    def mean(self) -> np.ndarray:
        """(T,) mean over classes."""
        return np.mean(list(self.ap.values()), axis=0)

    @property
    def average(self) -> float:
        """Mean over classes and thresholds."""
        return float(self.mean.mean())


def temporal_map(
    ground_truth: Mapping[str, Sequence[Event]],
    detections: Mapping[str, Sequence[Event]],
    *,
    thresholds: Sequence[float] | np.ndarray | str = "activitynet",
    protocol: str = "activitynet",
    top_k: Sequence[int] = (1, 5),
) -> TemporalMAP:
    """Compares detections with the ground truth of a set of videos.

    Args:
        ground_truth: for each video its events, `{"segment": (start, end), "label": name}` in seconds.
        detections: for each video what was found, with a "score" as well. Videos without ground truth may be there:
            what is found in them is wrong.
        thresholds: tIoU values, or a name of `THRESHOLDS`.
        protocol: "activitynet" or "actionformer" (see the top of this file).
        top_k: the k of `TemporalMAP.recall`.

    Returns:
        `TemporalMAP`, with the classes of the ground truth.

    Raises:
        MetricError: an unknown protocol or name of thresholds, no ground truth, or numbers that are NaN.
    """
    if protocol not in PROTOCOLS:
        raise MetricError(f"protocol={protocol!r} must be one of {', '.join(map(repr, PROTOCOLS))}.")
    if isinstance(thresholds, str) and thresholds not in THRESHOLDS:
        raise MetricError(f"thresholds={thresholds!r} must be numbers or one of {', '.join(map(repr, THRESHOLDS))}.")
    limits = np.asarray(THRESHOLDS[thresholds] if isinstance(thresholds, str) else thresholds, dtype=np.float64)
    truth = {
        video: without_copies(events) if protocol == "actionformer" else events
        for video, events in ground_truth.items()
    }
    true_by_class, found_by_class = rows_by_class(truth), rows_by_class(detections)
    if not true_by_class:
        raise MetricError("The ground truth holds no event: there is nothing to compare with.")
    recalls = [_recall(events, found_by_class.get(label, []), limits, top_k) for label, events in true_by_class.items()]
    return TemporalMAP(
        thresholds=limits,
        ap={
            label: average_precisions(events, found_by_class.get(label, []), limits)
            for label, events in true_by_class.items()
        },
        recall={k: np.mean([recall[place] for recall in recalls], axis=0) for place, k in enumerate(top_k)},
        unknown=sum(len(found) for label, found in found_by_class.items() if label not in true_by_class),
    )


Row = tuple[str, float, float, float]  # video, start, end, score


def rows_by_class(events: Mapping[str, Sequence[Event]]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    for video, found in events.items():
        for event in found:
            start, end = (float(time) for time in event["segment"])
            score = float(event.get("score", 1.0))
            if not np.isfinite([start, end, score]).all():
                raise MetricError(
                    f"An event of {video!r} has segment {event['segment']!r} and score {score!r}; finite numbers are "
                    "needed."
                )
            rows.setdefault(str(event["label"]), []).append((video, start, end, score))
    return rows


def without_copies(events: Sequence[Event]) -> list[Event]:
    kept: list[Event] = []
    for event in events:
        start, end = event["segment"]
        copy = any(
            abs(start - other["segment"][0]) <= SHORTEST
            and abs(end - other["segment"][1]) <= SHORTEST
            and event["label"] == other["label"]
            for other in kept
        )
        if end - start >= SHORTEST and not copy:
            kept.append(event)
    return kept


def temporal_iou(segment: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of (start, end) with each of (N, 2), float64. Two segments without length give NaN."""
    shared = np.minimum(segment[1], others[:, 1]) - np.maximum(segment[0], others[:, 0])
    shared = shared.clip(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / (others[:, 1] - others[:, 0] + segment[1] - segment[0] - shared)


def match_detections(
    truth: Sequence[Row], found: Sequence[Row], thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which ground truth each detection of one class finds.

    Detections are taken by score, of equal ones the later first. Each takes the ground truth that it overlaps most and
    that nobody has taken, if the overlap is at least the threshold.

    Returns:
        Numbers of the detections in that order (N,), and for each threshold and place in it the number of the ground
        truth, -1 for none, (T, N).
    """
    places: dict[str, list[int]] = {}
    for place, (video, *_) in enumerate(truth):
        places.setdefault(video, []).append(place)
    spans = np.array([row[1:3] for row in truth]).reshape(-1, 2)
    order = np.argsort([row[3] for row in found], kind="stable")[::-1]
    taken = np.zeros((len(thresholds), len(truth)), dtype=bool)
    matched = np.full((len(thresholds), len(found)), -1)
    for rank, number in enumerate(order):
        video, start, end, _ = found[number]
        mine = places.get(video)
        if mine is None:
            continue
        overlaps = temporal_iou(np.array((start, end)), spans[mine])
        waiting = np.ones(len(thresholds), dtype=bool)
        for one in np.argsort(overlaps, kind="stable")[::-1]:
            # Not `>=`: the official code lets NaN, of two segments without length, pass.
            waiting &= ~(overlaps[one] < thresholds)
            hit = waiting & ~taken[:, mine[one]]
            taken[hit, mine[one]], matched[hit, rank] = True, mine[one]
            waiting &= ~hit
            if not waiting.any():
                break
    return order, matched


def average_precisions(truth: Sequence[Row], found: Sequence[Row], thresholds: np.ndarray) -> np.ndarray:
    """(T,) average precision of one class; see `match_detections`."""
    if not found:
        return np.zeros(len(thresholds))
    hits = (match_detections(truth, found, thresholds)[1] >= 0).cumsum(1)
    precision, recall = hits / np.arange(1, len(found) + 1), hits / len(truth)
    return np.array([interpolated_ap(p, r) for p, r in zip(precision, recall, strict=True)])


def interpolated_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under the curve of the highest precision from each recall on (PASCAL VOC 2011)."""
    hull = np.maximum.accumulate(np.concatenate(([0.0], precision, [0.0]))[::-1])[::-1]
    recall = np.concatenate(([0.0], recall, [1.0]))
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * hull[steps]).sum())


def _recall(truth: Sequence[Row], found: Sequence[Row], thresholds: np.ndarray, top_k: Sequence[int]) -> np.ndarray:
    """(len(top_k), T): ground truth that one of a video's first k · n detections overlaps enough."""
    hits = np.zeros((len(top_k), len(thresholds)))
    by_video: dict[str, list[Row]] = {}
    for row in found:
        by_video.setdefault(row[0], []).append(row)
    segments: dict[str, list[tuple[float, float]]] = {}
    for video, start, end, _ in truth:
        segments.setdefault(video, []).append((start, end))
    for video, spans in segments.items():
        mine = by_video.get(video)
        if not mine:
            continue
        order = np.argsort([row[3] for row in mine], kind="stable")[::-1]
        overlaps = np.stack([temporal_iou(np.array(mine[n][1:3]), np.array(spans)) for n in order])
        for place, k in enumerate(top_k):
            enough = overlaps[: k * len(spans), :, None] >= thresholds
            hits[place] += enough.any(0).sum(0)
    return hits / len(truth)
