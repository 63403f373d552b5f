"""Boxes of frames linked to tracks of people, and tracks with scores to events in space and time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hf_video.base.detection.types import Detection
from hf_video.errors import VideoOptionError, check_number

# Boxes (N, 4) and their scores (N,) of one frame -> a number for each box, the same for the same person.
Tracker = Callable[[np.ndarray, np.ndarray], Sequence[int]]


@dataclass(frozen=True)
class KeyFrameBoxes:
    """People in one frame.

    Args:
        second: When.
        boxes: (N, 4), x1, y1, x2, y2 in pixels of the frame.
        person_scores: (N,), how sure it is that a box holds a person.
        scores: (N, classes), of what they do, 0 to 1.
        size: (rows, columns) of the frame, in pixels.
    """

    second: float
    boxes: np.ndarray
    person_scores: np.ndarray
    scores: np.ndarray
    size: tuple[int, int]


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of boxes (N, 4) and (M, 4), x1, y1, x2, y2 -> (N, M)."""
    corner = np.maximum(first[:, None, :2], second[:, :2])
    size = (np.minimum(first[:, None, 2:], second[:, 2:]) - corner).clip(0)
    shared = size.prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1] - shared)


class IoULinker:
    """Gives the boxes of one frame after the other numbers of people: the best box first takes the track whose last box
    it overlaps most, and a new one where it overlaps none by `iou`.

    Args:
        iou: Least overlap of a box and a track's last one.
        gap: Frames that a track may miss.
    """

    def __init__(self, iou: float = 0.3, gap: int = 1):
        self.iou, self.gap = check_number("iou", iou, above=0, most=1), gap
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks: another video begins."""
        self.tracks: dict[int, tuple[int, np.ndarray]] = {}  # number -> last frame and box
        self.frame, self.count = 0, 0

    def __call__(self, boxes: np.ndarray, scores: np.ndarray) -> list[int]:
        alive = {number: box for number, (seen, box) in self.tracks.items() if self.frame - seen <= self.gap + 1}
        numbers = [-1] * len(boxes)
        for place in np.argsort(-np.asarray(scores), kind="stable").tolist():
            free = [number for number in alive if number not in numbers]
            overlaps = box_iou(boxes[place : place + 1], np.array([alive[number] for number in free]).reshape(-1, 4))[0]
            if len(free) and overlaps.max() >= self.iou:
                numbers[place] = free[int(overlaps.argmax())]
            else:
                numbers[place] = self.count
                self.count += 1
            self.tracks[numbers[place]] = (self.frame, boxes[place])
        self.frame += 1
        return numbers


def link_tubes(
    frames: Sequence[KeyFrameBoxes],
    labels: Mapping[int, str],
    *,
    threshold: float | Sequence[float] = 0.5,
    gap: int = 1,
    bounds: tuple[float, float] | None = None,
    tracker: Tracker | None = None,
) -> list[Detection]:
    """Events in space and time: for every person and class, runs of key frames in which the class reaches `threshold`.

    Args:
        frames: Of one video, in order.
        labels: Names of the classes.
        threshold: Score from which on a class counts, one number or one for each class.
        gap: Key frames that may lie unseen or below the threshold inside an event.
        bounds: Start and end of the video in seconds.
        tracker: See `Tracker`; it is called frame by frame, and its method `reset`, where it has one, before the first.
            A number below 0 is a person who is in that frame alone. Default: `IoULinker(gap=gap)`.

    Returns:
        Events by start. One reaches half-way to the key frames before and after it; its score is the mean of its
        frames', and `boxes` holds (second, x1, y1, x2, y2) of each.

    Raises:
        VideoOptionError: The tracker gives another number of numbers.
    """
    if not frames:
        return []
    tracker = IoULinker(gap=gap) if tracker is None else tracker
    if hasattr(tracker, "reset"):
        tracker.reset()
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), (frames[0].scores.shape[1],))
    seen: dict[tuple[int, int], list[tuple[int, int]]] = {}  # person and class -> frames and places in them
    alone = -1
    for number, frame in enumerate(frames):
        people = [int(one) for one in tracker(frame.boxes, frame.person_scores)]
        if len(people) != len(frame.boxes):
            raise VideoOptionError(
                f"The tracker gave {len(people)} numbers for {len(frame.boxes)} boxes; it must give one for each."
            )
        for place, person in enumerate(people):
            alone, person = (alone - 1, alone - 1) if person < 0 else (alone, person)
            for label in np.flatnonzero(frame.scores[place] >= limits).tolist():
                seen.setdefault((person, label), []).append((number, place))
    edges = _edges([frame.second for frame in frames], bounds)
    events = []
    for (_, label), places in seen.items():
        cuts = [0, *(i + 1 for i in range(len(places) - 1) if places[i + 1][0] - places[i][0] > gap + 1), len(places)]
        for first, last in pairwise(cuts):
            run = places[first:last]
            boxes = tuple((frames[n].second, *map(float, frames[n].boxes[p])) for n, p in run)
            score = float(np.mean([frames[n].scores[p, label] for n, p in run]))
            name = labels.get(label, f"LABEL_{label}")
            events.append(Detection(name, score, edges[run[0][0]], edges[run[-1][0] + 1], boxes))
    return sorted(events, key=lambda one: (one.start, one.end, -one.score))


def _edges(seconds: Sequence[float], bounds: tuple[float, float] | None) -> list[float]:
    """Half-way between key frames; the first and the last reach as far outwards, within `bounds`."""
    times = np.asarray(seconds, dtype=np.float64)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    first, last = times[0] - step / 2, times[-1] + step / 2
    if bounds is not None:
        first, last = max(first, bounds[0]), min(last, bounds[1])
    middles = (times[1:] + times[:-1]) / 2
    return [float(min(first, times[0])), *middles.tolist(), float(max(last, times[-1]))]
