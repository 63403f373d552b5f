"""Why a detector of events is as good as it is: DETAD's diagnosis (Alwassel et al., ECCV 2018, arXiv:1807.10706).

Of each class the best 10 n detections are looked at, n being its events. One that finds no event is a

- "double detection" or "wrong label" where it overlaps an event by the threshold or more, of its own or another label,
- "localization" or "confusion" where it overlaps one by a tenth or more,
- "background" else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hf_video.errors import MetricError
from hf_video.evaluation.detection.temporal import (
    Event,
    Row,
    interpolated_ap,
    match_detections,
    rows_by_class,
    temporal_iou,
)

KINDS = ("double detection", "wrong label", "localization", "confusion", "background")
LIMIT = 10  # detections looked at, for each event of a class
NEAR = 0.1  # overlap from which on a detection means an event
LENGTHS = ("XS", "S", "M", "L", "XL")
BOUNDS = (30.0, 60.0, 120.0, 180.0)  # DETAD's, in seconds, for ActivityNet


@dataclass(frozen=True)
class LengthGroup:
    """Events of similar length.

    Args:
        name: "XS" to "XL".
        seconds: (above, up to).
        events: how many.
        ap: normalised average precision, mean over classes and thresholds; NaN without events.
        found: share of the events that some detection finds, at the first threshold.
    """

    name: str
    seconds: tuple[float, float]
    events: int
    ap: float
    found: float


@dataclass(frozen=True)
class Diagnosis:
    """What goes wrong.

    Args:
        thresholds: (T,) tIoU.
        counts: for each kind of false positive, and "true positive", how many of the detections looked at, (T,).
        gains: for each kind by how much the average mAP would rise if there were no such detections.
        normalized: average mAP with every class counted as if it had the mean number of events, which is what
            the `ap` of groups is compared with.
        lengths: groups of events by length.
        sensitivity: the highest less the lowest `ap` of the groups.
    """

    thresholds: np.ndarray
    counts: dict[str, np.ndarray]
    gains: dict[str, float]
    normalized: float
    lengths: list[LengthGroup]

    @property
    def sensitivity(self) -> float:
        values = [group.ap for group in self.lengths if group.events]
        return max(values) - min(values) if values else float("nan")


def diagnose(
    ground_truth: Mapping[str, Sequence[Event]],
    detections: Mapping[str, Sequence[Event]],
    *,
    thresholds: Sequence[float] | np.ndarray,
    bounds: Sequence[float] | None = None,
) -> Diagnosis:
    """Looks at false positives by kind, and at events by length.

    Args:
        ground_truth, detections: as in `temporal_map`. Events without length are left out, as DETAD does.
        thresholds: tIoU values.
        bounds: four lengths in seconds that divide XS, S, M, L and XL; default: fifths of the events, or `BOUNDS` for
            DETAD's own.

    Raises:
        MetricError: no event with a length, or bounds that don't ascend.
    """
    limits = np.asarray(thresholds, dtype=np.float64)
    truth = {
        label: kept
        for label, rows in rows_by_class(ground_truth).items()
        if (kept := [row for row in rows if row[1] < row[2]])
    }
    if not truth:
        raise MetricError("The ground truth holds no event with a length: there is nothing to diagnose.")
    every = rows_by_class(detections)
    mean_events = sum(map(len, truth.values())) / len(truth)
    lengths = np.array([end - start for rows in truth.values() for _, start, end, _ in rows])
    edges = np.quantile(lengths, (0.2, 0.4, 0.6, 0.8)) if bounds is None else np.asarray(bounds, dtype=np.float64)
    if edges.shape != (4,) or not (np.diff(edges) >= 0).all():
        raise MetricError(f"bounds={bounds!r} must be four ascending lengths in seconds.")
    labelled: dict[str, list[tuple[float, float, str]]] = {}
    for label, rows in truth.items():
        for video, start, end, _ in rows:
            labelled.setdefault(video, []).append((start, end, label))
    counts = {kind: np.zeros(len(limits), dtype=int) for kind in ("true positive", *KINDS)}
    plain, normal, without = [], [], {kind: [] for kind in KINDS}
    grouped: list[list[float]] = [[] for _ in LENGTHS]
    hit = np.zeros(len(LENGTHS), dtype=int)
    sizes = np.bincount(np.searchsorted(edges, lengths), minlength=len(LENGTHS))
    for label, rows in truth.items():
        found = sorted(every.get(label, []), key=lambda row: -row[3])[: LIMIT * len(rows)]
        order, matched = match_detections(rows, found, limits)
        right = matched >= 0
        kinds = _kinds([found[number] for number in order], label, labelled, limits)
        counts["true positive"] += right.sum(1)
        for number, kind in enumerate(KINDS):
            wrong = ~right & (kinds == number)
            counts[kind] += wrong.sum(1)
            kept = zip(right, wrong, strict=True)
            without[kind].append(np.mean([_ap(one[~gone], len(rows), len(rows)) for one, gone in kept]))
        plain.append(np.mean([_ap(one, len(rows), len(rows)) for one in right]))
        normal.append(np.mean([_ap(one, len(rows), mean_events) for one in right]))
        group_of = np.searchsorted(edges, [end - start for _, start, end, _ in rows])
        for group in np.unique(group_of):
            inside = np.flatnonzero(group_of == group)
            # What finds an event of another length is neither right nor wrong here.
            mine = [one[(one < 0) | np.isin(one, inside)] >= 0 for one in matched]
            grouped[group].append(float(np.mean([_ap(one, len(inside), mean_events) for one in mine])))
            hit[group] += np.isin(inside, matched[0]).sum()
    reach = (0.0, *edges.tolist(), float(lengths.max()))
    return Diagnosis(
        thresholds=limits,
        counts=counts,
        gains={kind: float(np.mean(values) - np.mean(plain)) for kind, values in without.items()},
        normalized=float(np.mean(normal)),
        lengths=[
            LengthGroup(
                name,
                (reach[i], max(reach[i + 1], reach[i])),
                int(sizes[i]),
                float(np.mean(grouped[i])) if grouped[i] else float("nan"),
                float(hit[i] / sizes[i]) if sizes[i] else float("nan"),
            )
            for i, name in enumerate(LENGTHS)
        ],
    )


def _kinds(
    found: Sequence[Row], label: str, truth: Mapping[str, Sequence[tuple[float, float, str]]], limits: np.ndarray
) -> np.ndarray:
    """(T, N) number in `KINDS` of what each detection is if it finds nothing."""
    kinds = np.full((len(limits), len(found)), KINDS.index("background"))
    for place, (video, start, end, _) in enumerate(found):
        if video not in truth:
            continue
        overlaps = temporal_iou(np.array((start, end)), np.array([event[:2] for event in truth[video]]))
        best = int(overlaps.argmax())
        own = truth[video][best][2] == label
        if overlaps[best] >= NEAR:
            kinds[:, place] = KINDS.index("localization" if own else "confusion")
        kinds[overlaps[best] >= limits, place] = KINDS.index("double detection" if own else "wrong label")
    return kinds


def _ap(right: np.ndarray, events: int, counted: float) -> float:
    """Average precision of detections in order, right or wrong, with precision as if there were `counted` events."""
    hits = right.cumsum()
    recall = hits / events
    precision = recall * counted / np.maximum(recall * counted + (~right).cumsum(), 1e-12)
    return interpolated_ap(precision, recall)


def precision_recall(truth: Sequence[Row], found: Sequence[Row], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall (N,) of one class after each detection, the best first."""
    right = match_detections(truth, found, np.array([threshold]))[1][0] >= 0
    hits = right.cumsum()
    return hits / np.arange(1, len(right) + 1), hits / max(len(truth), 1)
