"""What was found in a video, and when: one type for every task that finds events, and the files it is written to."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.errors import DataError, OutputError, VideoOptionError

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".json", ".csv", ".vtt")


@dataclass(frozen=True)
class Detection:
    """An event of a video.

    Args:
        label: what happens.
        score: how sure that is, the higher the surer.
        start, end: when, in seconds from the reader's time stamps.
        boxes: where, for events in space and time: (second, x1, y1, x2, y2) of each frame that was looked at, in pixels
            of the frame; None for events in time alone.
    """

    label: str
    score: float
    start: float
    end: float
    boxes: tuple[tuple[float, float, float, float, float], ...] | None = None

    def __post_init__(self) -> None:
        if not np.isfinite([self.score, self.start, self.end]).all() or self.end < self.start:
            raise DataError(
                f"A detection of {self.label!r} goes from {self.start} to {self.end} seconds with score {self.score}; "
                "its end must not lie before its start, and all three must be finite."
            )


def write_detections(
    path: str | os.PathLike[str],
    detections: Mapping[str, Sequence[Detection]],
    durations: Mapping[str, float] | None = None,
) -> None:
    """Writes the events of videos, in the form that the suffix names.

    Args:
        path: `.json`, ActivityNet's results ("results": {video: [{"label", "score", "segment"}]}), which evaluators of
            temporal detection read; `.csv`, one row for each event; `.vtt`, chapters of one video for web players.
        detections: for each video its events.
        durations: of the videos in seconds; JSON holds them where they are given.

    Raises:
        VideoOptionError: another suffix, or several videos for `.vtt`.
        OutputError: the file can't be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise VideoOptionError(f"{str(path)!r} must end in one of {', '.join(SUFFIXES)}.")
    if path.suffix == ".vtt" and len(detections) != 1:
        raise VideoOptionError(f"{str(path)!r} holds the chapters of one video; {len(detections)} came.")
    if path.suffix == ".json":
        text = _json(detections, durations or {})
    else:
        text = _csv(detections) if path.suffix == ".csv" else webvtt(next(iter(detections.values())))
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"{str(path)!r} can't be written: {error.strerror or error}.") from error


def _json(detections: Mapping[str, Sequence[Detection]], durations: Mapping[str, float]) -> str:
    results = {
        video: [
            {"label": one.label, "score": one.score, "segment": [one.start, one.end]}
            | ({} if one.boxes is None else {"boxes": one.boxes})
            for one in found
        ]
        for video, found in detections.items()
    }
    about = {"version": "1.0", "results": results, "external_data": {}}
    return (
        json.dumps(about | ({"durations": dict(durations)} if durations else {}), indent=1, ensure_ascii=False) + "\n"
    )


def _csv(detections: Mapping[str, Sequence[Detection]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("video", "start", "end", "label", "score"))
    for video, found in detections.items():
        writer.writerows((video, one.start, one.end, one.label, one.score) for one in found)
    return text.getvalue()


def webvtt(detections: Sequence[Detection]) -> str:
    """Chapters in the order of time, as WebVTT: one cue for each event, its label the text."""
    cues = (
        f"{_clock(one.start)} --> {_clock(one.end)}\n{' '.join(one.label.split()).replace('-->', '->')}\n"
        for one in sorted(detections, key=lambda one: (one.start, one.end))
    )
    return "\n".join(("WEBVTT\n", *cues))


def _clock(seconds: float) -> str:
    milliseconds = round(max(seconds, 0.0) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def detection_frame(detections: Mapping[str, Sequence[Detection]]) -> pandas.DataFrame:
    """The events as a pandas table with the columns video, label, score, start, end (seconds) and boxes."""
    import pandas

    rows: list[dict[str, Any]] = [
        {"video": video, **asdict(one)} for video, found in detections.items() for one in found
    ]
    return pandas.DataFrame(rows, columns=["video", "label", "score", "start", "end", "boxes"])


def merge_windows(
    scores: np.ndarray,
    times: np.ndarray,
    labels: Sequence[str],
    *,
    on: float | np.ndarray = 0.5,
    off: float | np.ndarray | None = None,
    min_length: float = 0.0,
    bounds: tuple[float, float] | None = None,
) -> list[Detection]:
    """Scores of windows to events, by hysteresis: an event of a class begins where its score reaches `on` and goes on
    until it falls below `off`.

    Args:
        scores: (W, C), of consecutive windows.
        times: (W,), the windows' middles in seconds, ascending.
        labels: (C,) names.
        on, off: thresholds, one number or one for each class; `off` is 0.7 · `on` unless given.
        min_length: seconds; shorter events are left out.
        bounds: of the video in seconds; the first and last windows reach to them. Default: half a step around them.

    Returns:
        Events by start. An event reaches half-way to the windows beside it; its score is its highest.

    Raises:
        VideoOptionError: thresholds that are not 0 < off <= on.
    """
    scores, times = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(times, dtype=np.float64)
    upper = np.broadcast_to(np.asarray(on, dtype=np.float64), scores.shape[1:])
    lower = 0.7 * upper if off is None else np.broadcast_to(np.asarray(off, dtype=np.float64), scores.shape[1:])
    if not ((lower > 0) & (lower <= upper)).all():
        raise VideoOptionError(f"on={on!r} and off={off!r} must be above 0, and off at most on.")
    if not len(times):
        return []
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    first, last = bounds or (max(times[0] - step / 2, 0.0), times[-1] + step / 2)
    edges = np.concatenate(([first], (times[1:] + times[:-1]) / 2, [last]))
    found = []
    for number, label in enumerate(labels):
        line, above = scores[:, number], scores[:, number] >= lower[number]
        # Stretches above `off`, kept where they somewhere reach `on`; an event begins at that place.
        changes = np.flatnonzero(np.diff(np.concatenate(([0], above.astype(np.int8), [0]))))
        for begin, end in changes.reshape(-1, 2):
            reached = np.flatnonzero(line[begin:end] >= upper[number])
            if len(reached):
                start, stop = edges[begin + reached[0]], edges[end]
                if stop - start >= min_length:
                    found.append(Detection(label, float(line[begin:end].max()), float(start), float(stop)))
    return sorted(found, key=lambda one: (one.start, one.end, one.label))
