"""What was found in a video, and when: one type for every task that finds events, and the files it is written to."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.base.written_files import EVENT_FILES, SUBTITLES, atomic_write
from hf_video.errors import DataError, OutputError, VideoOptionError, check_count, check_number

if TYPE_CHECKING:
    import pandas


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
    *,
    made_with: Mapping[str, Any] | None = None,
) -> None:
    """Writes the events of videos, in the form that the suffix names.

    Args:
        path: `.json`, ActivityNet's results ("results": {video: [{"label", "score", "segment"}]}), which evaluators of
            temporal detection read; `.csv`, one row for each event; `.vtt`, chapters of one video for web players;
            `.srt`, subtitles of one video.
        detections: for each video its events.
        durations: of the videos in seconds; JSON holds them where they are given.
        made_with: model and options, as plain JSON values; JSON holds them as its "external_data".

    Raises:
        VideoOptionError: another suffix, or several videos for `.vtt` or `.srt`.
        OutputError: the file can't be written.
    """
    path = Path(path)
    if path.suffix not in EVENT_FILES:
        raise VideoOptionError(f"{str(path)!r} must end in one of {', '.join(EVENT_FILES)}.")
    if path.suffix in SUBTITLES and len(detections) != 1:
        raise VideoOptionError(f"{str(path)!r} holds the events of one video; {len(detections)} came.")
    if path.suffix == ".json":
        text = _json(detections, durations or {}, made_with or {})
    elif path.suffix == ".csv":
        text = _csv(detections)
    else:
        text = (subrip if path.suffix == ".srt" else webvtt)(next(iter(detections.values())))
    try:
        with atomic_write(path) as draft:
            draft.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"{str(path)!r} can't be written: {error.strerror or error}.") from error


def read_detections(path: str | os.PathLike[str]) -> tuple[dict[str, list[Detection]], dict[str, Any]]:
    """Reads what `write_detections` wrote as JSON: the events of each video, and what they were made with.

    Raises DataError for another file, or a damaged one.
    """
    try:
        about = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {
            video: [
                Detection(
                    one["label"],
                    one["score"],
                    *one["segment"],
                    boxes=tuple(map(tuple, one["boxes"])) if "boxes" in one else None,
                )
                for one in events
            ]
            for video, events in about["results"].items()
        }
        return found, dict(about.get("external_data") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{os.fspath(path)} holds no events, or is damaged: {error!r}.") from error


def _json(
    detections: Mapping[str, Sequence[Detection]], durations: Mapping[str, float], made_with: Mapping[str, Any]
) -> str:
    results = {
        video: [
            {"label": one.label, "score": one.score, "segment": [one.start, one.end]}
            | ({} if one.boxes is None else {"boxes": one.boxes})
            for one in found
        ]
        for video, found in detections.items()
    }
    about = {"version": "1.0", "results": results, "external_data": dict(made_with)}
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
    escaped = (
        (times, text.replace("&", "&amp;").replace("<", "&lt;")) for times, text in _cues(detections, decimal=".")
    )
    return "\n".join(("WEBVTT\n", *(f"{times}\n{text}\n" for times, text in escaped)))


def subrip(detections: Sequence[Detection]) -> str:
    """Subtitles in the order of time, as SubRip (.srt): one for each event, its label the text."""
    return "\n".join(f"{n}\n{times}\n{text}\n" for n, (times, text) in enumerate(_cues(detections, decimal=","), 1))


def _cues(detections: Sequence[Detection], decimal: str) -> list[tuple[str, str]]:
    """The times and the text, in one line, of each event. Where an empty line stood for a text the cue would end, so
    that one without words shows a dash."""
    return [
        (
            f"{_clock(one.start, decimal)} --> {_clock(one.end, decimal)}",
            " ".join(one.label.split()).replace("-->", "->") or "-",
        )
        for one in sorted(detections, key=lambda one: (one.start, one.end))
    ]


def _clock(seconds: float, decimal: str) -> str:
    milliseconds = round(max(seconds, 0.0) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{decimal}{milliseconds % 1000:03d}"


def detection_frame(detections: Mapping[str, Sequence[Detection]]) -> pandas.DataFrame:
    """The events as a pandas table with the columns video, label, score, start, end (seconds) and boxes."""
    import pandas

    rows: list[dict[str, Any]] = [
        {"video": video, **asdict(one)} for video, found in detections.items() for one in found
    ]
    return pandas.DataFrame(rows, columns=["video", "label", "score", "start", "end", "boxes"])


class Hysteresis:
    """Scores of windows to events, one window after the other: an event of a class begins where its score reaches `on`
    and goes on until it falls below `off`. It reaches half-way to the windows beside it, and its score is its highest.

    Args:
        labels: (C,) names.
        on, off: thresholds, one number or one for each class; `off` is 0.7 · `on` unless given.
        min_length: seconds; shorter events are left out.
        smoothing: windows whose mean score counts for the one in their middle, an odd number; at the ends of a video
            there are fewer. 1 takes scores as they are.
        begin: of the video in seconds, to which the first window reaches; without it, to its own middle.

    Raises:
        VideoOptionError: thresholds that are not 0 < off <= on, or another option that has no meaning.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        on: float | np.ndarray = 0.5,
        off: float | np.ndarray | None = None,
        min_length: float = 0.0,
        smoothing: int = 1,
        begin: float | None = None,
    ):
        self.labels = list(labels)
        self.on = np.broadcast_to(np.asarray(on, dtype=np.float64), (len(self.labels),))
        self.off = 0.7 * self.on if off is None else np.broadcast_to(np.asarray(off, np.float64), self.on.shape)
        if not ((self.off > 0) & (self.off <= self.on)).all():
            raise VideoOptionError(
                f"An event begins at a score of {on!r} and ends below {self.off.tolist() if off is None else off!r}: "
                "both must be above 0, and the end at most the beginning."
            )
        check_number("min_length", min_length, least=0)
        if check_count("smoothing", smoothing) % 2 == 0:
            raise VideoOptionError(f"smoothing={smoothing} must be odd: a window, and as many on each side of it.")
        self.min_length = min_length
        self.begin = begin
        self._recent: deque[tuple[np.ndarray, float]] = deque(maxlen=smoothing)
        self._half = smoothing // 2
        self._seen = 0
        self._last: float | None = None  # middle of the last window that was judged
        self._edge = 0.0  # where it ends
        self._starts = np.full(len(self.labels), np.nan)  # of the events under way
        self._best = np.zeros(len(self.labels))

    def update(self, scores: np.ndarray, middle: float) -> list[Detection]:
        """Takes the scores (C,) of the next window, whose middle is `middle` seconds. Returns the events that end."""
        self._recent.append((np.asarray(scores, dtype=np.float64), middle))
        self._seen += 1
        return self._judge(1 + self._half) if self._seen > self._half else []

    def close(self, end: float | None = None) -> list[Detection]:
        """Ends the video and the events under way, at `end` seconds or at the middle of the last window. Returns what
        is left of the events."""
        ended = [event for back in range(min(self._half, self._seen), 0, -1) for event in self._judge(back)]
        if self._last is not None:
            ended += self._end(~np.isnan(self._starts), self._last if end is None else end)
        return ended

    @property
    def under_way(self) -> list[Detection]:
        """The events that have begun and not ended, up to the middle of the last window that was judged."""
        return [self._event(number, self._last) for number in np.flatnonzero(~np.isnan(self._starts))]

    def _judge(self, back: int) -> list[Detection]:
        """Takes the window that is `back` from the end of those that came, with its neighbours' scores."""
        rows = list(self._recent)[-(back + self._half) :]
        scores, middle = np.mean([row for row, _ in rows], axis=0), rows[-back][1]
        if self._last is None:
            self._edge = middle if self.begin is None else self.begin
        else:
            self._edge = (self._last + middle) / 2
        self._last = middle
        ended = self._end((scores < self.off) & ~np.isnan(self._starts), self._edge)
        begins = (scores >= self.on) & np.isnan(self._starts)
        self._starts[begins], self._best[begins] = self._edge, -np.inf
        np.maximum(self._best, scores, out=self._best)
        return ended

    def _end(self, classes: np.ndarray, end: float) -> list[Detection]:
        events = [self._event(number, end) for number in np.flatnonzero(classes)]
        self._starts[classes] = np.nan
        return [one for one in events if one.end - one.start >= self.min_length]

    def _event(self, number: int, end: float) -> Detection:
        return Detection(self.labels[number], float(self._best[number]), float(self._starts[number]), float(end))


def merge_windows(
    scores: np.ndarray,
    times: np.ndarray,
    labels: Sequence[str],
    *,
    on: float | np.ndarray = 0.5,
    off: float | np.ndarray | None = None,
    min_length: float = 0.0,
    smoothing: int = 1,
    bounds: tuple[float, float] | None = None,
) -> list[Detection]:
    """Scores of windows to events, by hysteresis: an event of a class begins where its score reaches `on` and goes on
    until it falls below `off`.

    Args:
        scores: (W, C), of consecutive windows.
        times: (W,), the windows' middles in seconds, ascending.
        labels: (C,) names.
        on, off: thresholds, one number or one for each class; `off` is 0.7 · `on` unless given.
        min_length, smoothing: see `Hysteresis`.
        bounds: of the video in seconds; the first and last windows reach to them. Default: half a step around them.

    Returns:
        Events by start. An event reaches half-way to the windows beside it; its score is its highest.

    Raises:
        VideoOptionError: thresholds that are not 0 < off <= on.
    """
    scores, times = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(times, dtype=np.float64)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    first, last = bounds or ((max(times[0] - step / 2, 0.0), times[-1] + step / 2) if len(times) else (None, None))
    merged = Hysteresis(labels, on=on, off=off, min_length=min_length, smoothing=smoothing, begin=first)
    found = [event for row, time in zip(scores, times.tolist(), strict=True) for event in merged.update(row, time)]
    return sorted(found + merged.close(last), key=lambda one: (one.start, one.end, one.label))
