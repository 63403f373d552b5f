"""Mean average precision of labelled boxes in frames (AVA): three published evaluators that give different numbers.

All match boxes at an IoU of .5, each detection with the ground truth that it overlaps most, and no second choice. They
differ in the detections that they take:

| | "activitynet" (official) | "slowfast" | "mmaction2" |
|---|---|---|---|
| boxes of a frame | the best 50, all classes together | all | all |
| who takes a box first | the better score | the earlier row | the better score |
| frames without ground truth | left out, unless listed | wrong | left out |
| class without detections | average precision 0 | average precision 0 | left out of the mean |
| excluded frames | both sides leave them out | both sides | detections only |
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_video.base.detection.tubes import box_iou
from hf_video.errors import MetricError, check_choice, check_number
from hf_video.evaluation.detection.temporal import interpolated_ap

PROTOCOLS = ("activitynet", "slowfast", "mmaction2")
MOST_BOXES = 50  # of a frame, in the official evaluation

Frame = tuple[str, float]  # video and second
Row = Sequence[Any]  # video, second, x1, y1, x2, y2, class number, and person or score; or a video and second alone


@dataclass(frozen=True)
class FrameMAP:
    """Average precision of boxes at IoU .5: `ap` for each class with ground truth, by its name."""

    ap: dict[str, float]
    protocol: str

    @property
    def mean(self) -> float:
        """Mean over classes; NaN where none counts."""
        return float(np.mean(list(self.ap.values()))) if self.ap else float("nan")


def frame_map(
    ground_truth: Iterable[Row],
    detections: Iterable[Row],
    classes: Mapping[int, str],
    *,
    excluded: Collection[Frame] = (),
    protocol: str = "activitynet",
) -> FrameMAP:
    """Compares boxes with the ground truth, frame by frame.

    Args:
        ground_truth: rows of AVA's CSV: video, second, x1, y1, x2, y2 (0 to 1), class number, person; a row of video
            and second alone is a frame with nothing in it.
        detections: the same rows with a score in the last place.
        classes: numbers and names of the classes that count.
        excluded: frames (video, second) that are not evaluated.
        protocol: "activitynet", "slowfast" or "mmaction2"; see the table above.

    Returns:
        `FrameMAP`.

    Raises:
        MetricError: an unknown protocol, or a row of another length.
    """
    check_choice("protocol", protocol, PROTOCOLS, MetricError)
    left_out = {(str(video), float(second)) for video, second in excluded}
    truth = _by_frame(ground_truth, classes, scored=False)
    found = _by_frame(detections, classes, scored=True)
    if protocol == "mmaction2":
        truth = {frame: boxes for frame, boxes in truth.items() if len(boxes)}
    listed = {frame for frame in truth if frame not in left_out}
    counted = truth if protocol == "mmaction2" else {frame: truth[frame] for frame in listed}
    totals = {number: sum((boxes[:, 5] == number).sum() for boxes in counted.values()) for number in classes}
    scores: dict[int, list[float]] = {number: [] for number in classes}
    hits: dict[int, list[bool]] = {number: [] for number in classes}
    for frame in list(truth) if protocol == "mmaction2" else found:
        boxes = found.get(frame)
        if boxes is None or frame in left_out or (protocol != "slowfast" and frame not in listed):
            continue
        if protocol == "activitynet":
            boxes = _best(boxes)
        elif protocol == "mmaction2":
            boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")].astype(np.float32)
        boxes = boxes[(boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])]
        mine = truth.get(frame, np.zeros((0, 6))) if frame in listed else np.zeros((0, 6))
        for number in classes:
            one = boxes[boxes[:, 5] == number]
            if len(one):
                scores[number].extend(one[:, 4])
                hits[number].extend(_match(one, mine[mine[:, 5] == number].astype(one.dtype)))
    ap = {}
    for number, name in classes.items():
        if totals[number] and (scores[number] or protocol != "mmaction2"):
            ap[name] = _average_precision(np.array(scores[number]), np.array(hits[number]), totals[number])
    return FrameMAP(ap, protocol)


def _by_frame(rows: Iterable[Row], classes: Mapping[int, str], *, scored: bool) -> dict[Frame, np.ndarray]:
    """(N, 6) for each frame, in the order of the rows: x1, y1, x2, y2, score, class number."""
    frames: dict[Frame, list[list[float]]] = {}
    for row in rows:
        if len(row) not in (2, 7, 8):
            raise MetricError(
                f"A row has 2, 7 or 8 columns (video, second, x1, y1, x2, y2, class, person or score); {row!r}."
            )
        boxes = frames.setdefault((str(row[0]), float(row[1])), [])
        if len(row) > 2 and int(row[6]) in classes:
            score = float(row[7]) if scored and len(row) == 8 else 1.0
            boxes.append([*(float(value) for value in row[2:6]), score, int(row[6])])
    return {frame: np.array(boxes).reshape(-1, 6) for frame, boxes in frames.items()}


def _best(boxes: np.ndarray) -> np.ndarray:
    """The `MOST_BOXES` best rows, best first; equal scores in the order of the official heap."""
    heap: list[tuple[float, ...]] = []
    for x1, y1, x2, y2, score, number in boxes.tolist():
        entry = (score, number, y1, x1, y2, x2)
        if len(heap) < MOST_BOXES:
            heapq.heappush(heap, entry)
        elif score > heap[0][0]:
            heapq.heapreplace(heap, entry)
    ranked = sorted(heap, key=lambda entry: -entry[0])
    return np.array([[x1, y1, x2, y2, score, number] for score, number, y1, x1, y2, x2 in ranked]).reshape(-1, 6)


def _match(boxes: np.ndarray, truth: np.ndarray) -> list[bool]:
    """Whether each of one frame's and class's detections is right, in their order."""
    if not len(truth):
        return [False] * len(boxes)
    overlaps = box_iou(boxes[:, :4], truth[:, :4])
    taken, right = set(), []
    for place, overlap in zip(overlaps.argmax(1).tolist(), overlaps.max(1), strict=True):
        right.append(bool(overlap >= 0.5 and place not in taken))
        if right[-1]:
            taken.add(place)
    return right


def _average_precision(scores: np.ndarray, right: np.ndarray, total: int) -> float:
    if not len(scores):
        return 0.0
    hits = right[np.argsort(scores, kind="stable")[::-1]].cumsum()
    return interpolated_ap(hits / np.arange(1, len(hits) + 1), hits / total)


# -- tubes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoMAP:
    """Average precision of tubes: `ap` (thresholds,) for each class with ground truth."""

    thresholds: np.ndarray
    ap: dict[str, np.ndarray]

    @property
    def mean(self) -> np.ndarray:
        """(thresholds,) mean over classes; NaN where there are none."""
        return np.mean(list(self.ap.values()), axis=0) if self.ap else np.full(len(self.thresholds), np.nan)


def tube_iou(first: np.ndarray, second: np.ndarray) -> float:
    """3-D intersection over union of two tubes: the share of the seconds of either at which both have a box, times the
    mean overlap of the boxes there (as for UCF101-24 and MultiSports).

    Args:
        first, second: (N, 5) and (M, 5): second, x1, y1, x2, y2, on the same seconds where they go on together.

    Returns:
        0 to 1.
    """
    boxes = [{round(float(row[0]), 4): row[1:] for row in tube} for tube in (first, second)]
    shared = sorted(boxes[0].keys() & boxes[1].keys())
    if not shared:
        return 0.0
    overlaps = [float(box_iou(boxes[0][one][None], boxes[1][one][None])[0, 0]) for one in shared]
    return len(shared) / len(boxes[0].keys() | boxes[1].keys()) * float(np.mean(overlaps))


def video_map(
    ground_truth: Mapping[str, Sequence[Any]],
    detections: Mapping[str, Sequence[Any]],
    *,
    thresholds: Sequence[float] | np.ndarray = (0.2, 0.5, 0.75),
) -> VideoMAP:
    """Compares tubes by 3-D IoU: in each class the detections, best first, take the free tube of the same video that
    they overlap most, if by the threshold; one detection for each.

    Args:
        ground_truth: For each video its tubes, each a `Detection` with `boxes`.
        detections: The same with scores, as the pipeline gives them.
        thresholds: 3-D IoU from which on a detection counts.

    Returns:
        `VideoMAP`; classes without ground truth do not count.

    Raises:
        MetricError: A tube has no boxes, or a threshold is none.
    """
    limits = np.array([check_number("a threshold", float(one), MetricError, above=0, most=1) for one in thresholds])
    for video, events in [*ground_truth.items(), *detections.items()]:
        if any(not event.boxes for event in events):
            raise MetricError(f"An event of {video!r} has no boxes; tubes need them.")
    labels = dict.fromkeys(event.label for events in ground_truth.values() for event in events)
    ap = {}
    for label in labels:
        truth = {v: [np.array(e.boxes) for e in events if e.label == label] for v, events in ground_truth.items()}
        found = [
            (e.score, v, np.array(e.boxes)) for v, events in detections.items() for e in events if e.label == label
        ]
        found.sort(key=lambda one: -one[0])
        hits = np.zeros((len(limits), len(found)), dtype=bool)
        taken: list[set[tuple[str, int]]] = [set() for _ in limits]
        for number, (_, video, tube) in enumerate(found):
            overlaps = np.array([tube_iou(tube, one) for one in truth.get(video, [])])
            for row, limit in enumerate(limits):
                free = [place for place in range(len(overlaps)) if (video, place) not in taken[row]]
                best = max(free, key=overlaps.__getitem__, default=None)
                if best is not None and overlaps[best] >= limit:
                    hits[row, number] = True
                    taken[row].add((video, best))
        total = sum(map(len, truth.values()))
        counts = np.arange(1, len(found) + 1)
        ap[label] = np.array(
            [interpolated_ap(row.cumsum() / counts, row.cumsum() / total) if len(found) else 0.0 for row in hits]
        )
    return VideoMAP(limits, ap)
