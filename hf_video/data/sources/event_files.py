"""Files of events in videos: annotations (label, start, end) and detections (with a score as well), in ActivityNet's
JSON or as a table.

    {"version": …, "database": {"v1": {"subset": "training", "duration": 92.5, "fps": 30,
        "annotations": [{"label": "jump", "label_id": 3, "segment": [4.5, 7.25]}]}}}

    video,start,end,label,subset
    v1,4.5,7.25,jump,training

Times are seconds, in tables also clock times (00:01:04.5). A table has a row with an empty label, start and end for a
video in which nothing happens.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_video.base.detection.types import Detection
from hf_video.data.rows import Skipped
from hf_video.data.sources.files import is_video, split_name
from hf_video.data.sources.lists import ID_COLUMNS, find_video_column, parse_time, text_of
from hf_video.data.sources.tables import pick_column, read_table, read_text
from hf_video.errors import DataError, did_you_mean, is_number, near_path, unknown_name
from hf_video.video.frames.addresses import natural_key

START_COLUMNS = ("start", "start_seconds", "start_timestamp", "t-start", "t_start", "begin")
END_COLUMNS = ("end", "end_seconds", "stop_timestamp", "end_timestamp", "t-end", "t_end", "stop")
LABEL_COLUMNS = ("label", "class", "action", "category")
# What official code leaves out as copies, and what it takes for no length at all.
SAME = 1e-3
# Ends that lie this far behind the end of a video are rounding: of tables, and of durations that containers state.
ROUNDING = 0.1


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens from `start` to `end` (seconds); `place` is where a file says so."""

    label: str
    start: float
    end: float
    place: str = ""


@dataclass(frozen=True, slots=True)
class ScoredEvent(Event):
    """An event that was found, as a file says so: its end may lie before its start, which a `Detection`'s can't."""

    score: float = 1.0
    boxes: None = None


@dataclass
class AnnotatedVideo:
    """A video of an annotation file: its events as they stand there, and what the file says about it; None where it
    says nothing."""

    name: str
    events: list[Event] = field(default_factory=list)
    subset: str | None = None
    duration: float | None = None
    fps: float | None = None


@dataclass
class EventFile:
    """What a file of annotations holds.

    Args:
        path: the file.
        videos: by name, in the file's order.
        labels: names of all classes: by `label_id` where the file has such, else in natural order.
        faults: events and videos that can't be what was meant, each with its place: of the kinds "value" (no numbers),
            "order" (the end before the start), "negative", "zero length", "beyond" (the end of the video), "duplicate",
            "label", "subset".
    """

    path: str
    videos: dict[str, AnnotatedVideo] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    faults: list[Skipped] = field(default_factory=list)

    def subsets(self) -> dict[str, list[str]]:
        """Names of the videos of each subset, under the names that the file gives them; "" for none."""
        found: dict[str, list[str]] = defaultdict(list)
        for name, video in self.videos.items():
            found[video.subset or ""].append(name)
        return dict(found)

    def split_names(self) -> dict[str, str]:
        """Subset -> "train", "validation" or "test". Where no subset is for training, "validation" trains (THUMOS14,
        whose training set is trimmed clips). Unknown names are left out."""
        found = {subset: split_name(subset) for subset in self.subsets() if subset}
        known = {subset: split for subset, split in found.items() if split is not None}
        if known and "train" not in known.values():
            known = {subset: "train" if split == "validation" else split for subset, split in known.items()}
        return known

    def choose_subset(self, subset: str) -> list[str]:
        """Names of the videos of a subset, by the file's name of it or by a usual one ("test" for "testing"). Raises
        DataError for one that isn't there."""
        subsets = self.subsets()
        wanted = [name for name in subsets if name == subset] or [
            name for name in subsets if name and split_name(name) == (split_name(subset) or subset)
        ]
        if not wanted:
            raise DataError(unknown_name(f"{self.path} has no subset", subset, filter(None, subsets)))
        return [video for name in wanted for video in subsets[name]]


def read_events(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    label_column: str = "label",
    video_column: str = "video",
    ignore_labels: Sequence[str] = (),
) -> EventFile:
    """Annotations of events in a `.json` of ActivityNet's form, or a table (CSV, TSV, JSON lines, Parquet).

    Args:
        path: the file.
        labels: the classes that are allowed; default: those of the file.
        label_column, video_column: of a table; EPIC-Kitchens has "verb" and "noun".
        ignore_labels: labels that are passed over ("Ambiguous" of THUMOS14).

    Returns:
        `EventFile`. Every event that can be read is in it, those that are named in `faults` too.

    Raises:
        DataError: the file can't be read, or holds no annotations.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file of annotations {path}.{near_path(path)}")
    found = EventFile(str(path))
    identities: dict[str, Any] = {}
    given = _database(path)
    entries = _table_entries(path, found, label_column, video_column) if given is None else _entries(given, found)
    for video, label, start, end, place, identity in entries:
        if label in ignore_labels:
            continue
        event = _event(found, label, start, end, place)
        if event is not None:
            video.events.append(event)
            if is_number(identity):
                identities.setdefault(event.label, identity)
    if not found.videos:
        raise DataError(f"{path} annotates no video.")
    present = {event.label for video in found.videos.values() for event in video.events}
    by_name = sorted(present, key=natural_key)
    found.labels = sorted(by_name, key=lambda name: identities[name]) if present <= identities.keys() else by_name
    if labels is not None:
        found.labels = list(labels)
    for video in found.videos.values():
        found.faults += _faults(video, found.labels)
    for subset, names in found.subsets().items():
        if subset and split_name(subset) is None:
            hint = did_you_mean(subset, ("training", "validation", "testing"))
            reason = f"the subset {subset!r} of {len(names)} videos is none of training, validation and testing.{hint}"
            found.faults.append(Skipped(names[0], reason, "subset"))
    return found


Entry = tuple[AnnotatedVideo, Any, Any, Any, str, Any]  # video, label, start, end, place, number of the label


def _database(path: Path) -> dict[str, Any] | None:
    """The videos of a JSON in ActivityNet's form; None for a table."""
    if path.suffix.lower() != ".json":
        return None
    try:
        given = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if isinstance(given, dict) and isinstance(given.get("database"), dict):
        return given["database"]
    if (
        isinstance(given, dict)
        and given
        and all(isinstance(one, dict) and "annotations" in one for one in given.values())
    ):
        return given
    if isinstance(given, dict):
        raise DataError(f'{path} has no "database" of videos with "annotations"; its keys are {list(given)[:5]}.')
    return None


def _entries(database: Mapping[str, Any], found: EventFile) -> Iterator[Entry]:
    for name, about in database.items():
        events = about.get("annotations") if isinstance(about, dict) else None
        if not isinstance(events, list):
            raise DataError(f'{found.path}: the video {name!r} has no list of "annotations".')
        facts = {key: about.get(key) for key in ("duration", "fps")}
        video = found.videos[name] = AnnotatedVideo(name, [], text_of(about.get("subset")))
        for key, value in facts.items():
            if value is None or (is_number(value) and value > 0):
                setattr(video, key, value)
            else:
                found.faults.append(Skipped(name, f"{key} is {value!r}, and must be a number above 0", "value"))
        for number, one in enumerate(events):
            place, one = f"{name}, annotation {number + 1}", one if isinstance(one, dict) else {}
            segment = one.get("segment")
            pair = segment if isinstance(segment, (list, tuple)) and len(segment) == 2 else (segment, None)
            yield video, one.get("label"), *pair, place, one.get("label_id")


def _table_entries(path: Path, found: EventFile, label_column: str, video_column: str) -> Iterator[Entry]:
    table = read_table(path, names=(video_column, label_column, *ID_COLUMNS))
    columns = [
        find_video_column(table.columns, video_column, str(path)),
        pick_column(table.columns, "start", START_COLUMNS),
        pick_column(table.columns, "end", END_COLUMNS),
        pick_column(table.columns, label_column, LABEL_COLUMNS, str(path)),
    ]
    if None in columns:
        missing = ("video", "start", "end", label_column)[columns.index(None)]
        raise DataError(unknown_name(f"{path} has no column", missing, map(str, table.columns)))
    subset = pick_column(table.columns, "subset", ("split", "set"))
    numbers = pick_column(table.columns, "label_id", (f"{label_column}_class",))
    for record, place in zip(table.records, table.places, strict=True):
        name, start, end, label = (record.get(column) for column in columns)
        key = str(name)
        video = found.videos.setdefault(key, AnnotatedVideo(key))
        of_row = text_of(record.get(subset)) if subset else None
        if video.subset not in (None, of_row) and of_row is not None:
            reason = f"{place} puts it into {of_row!r}, and an earlier one into {video.subset!r}"
            found.faults.append(Skipped(key, reason, "subset"))
        video.subset = video.subset or of_row
        for fact in ("duration", "fps"):
            if text_of(record.get(fact)) is not None:
                value = parse_time(record[fact], fact, f"{found.path}, {place}")
                setattr(video, fact, value)
        if text_of(start) is None and text_of(end) is None and text_of(label) is None:
            continue  # a video in which nothing happens
        number = record.get(numbers) if numbers else None
        number = int(number) if isinstance(number, str) and number.isdecimal() else number
        yield video, label, start, end, f"{place} ({name})", number


def _event(found: EventFile, label: Any, start: Any, end: Any, place: str) -> Event | None:
    """The event, or None where it has no label or times, which is then a fault."""
    try:
        times = [parse_time(value, name, place) for value, name in ((start, "start"), (end, "end"))]
    except DataError as error:
        found.faults.append(Skipped(place, str(error).removeprefix(f"{place}: "), "value"))
        return None
    if text_of(label) is None or None in times:
        missing = "label" if text_of(label) is None else "start or end"
        found.faults.append(Skipped(place, f"has no {missing}", "value"))
        return None
    return Event(str(label), float(times[0]), float(times[1]), place)


def _faults(video: AnnotatedVideo, labels: Sequence[str]) -> Iterator[Skipped]:
    known, seen = set(labels), defaultdict(list)
    for event in video.events:
        yield from event_faults(event, video.duration)
        if event.label not in known:
            hint = did_you_mean(event.label, labels)
            yield Skipped(event.place, f"the label {event.label!r} is none of the {len(labels)} known.{hint}", "label")
        copy = next((one for one in seen[event.label] if same_event(one, event)), None)
        if copy is not None:
            yield Skipped(event.place, f"{event.label!r} at the same time as in {copy.place}", "duplicate")
        seen[event.label].append(event)


def event_faults(event: Event, duration: float | None) -> Iterator[Skipped]:
    """What is wrong with the times of an event in a video of `duration` seconds."""
    span = f"{event.label!r} goes from {event.start:g} to {event.end:g} s"
    if event.end < event.start:
        yield Skipped(event.place, f"{span}: its end lies before its start", "order")
    elif event.end - event.start < SAME:
        yield Skipped(event.place, f"{span}: it has no length", "zero length")
    if event.start < 0:
        yield Skipped(event.place, f"{span}: its start is negative", "negative")
    if duration is not None and event.end > duration + ROUNDING:
        yield Skipped(event.place, f"{span}, and the video ends at {duration:g} s", "beyond")


def same_event(first: Event, second: Event) -> bool:
    """Whether the label is the same and the times are, to a millisecond."""
    near = abs(first.start - second.start) <= SAME and abs(first.end - second.end) <= SAME
    return first.label == second.label and near


# -- detections -------------------------------------------------------------------------------------------------------


def read_detections(path: str | os.PathLike[str]) -> dict[str, list[Detection]]:
    """Events with scores, as `write_detections` and ActivityNet's results have them (`.json`), or a table (video,
    start, end, label, score).

    Raises:
        DataError: the file can't be read, or an entry has no label, times in order or score, with its place.
    """
    found: dict[str, list[Detection]] = {}
    for video, events in read_scored_events(path).items():
        found[video] = []
        for one in events:
            try:
                found[video].append(Detection(one.label, one.score, one.start, one.end))
            except DataError as error:
                raise DataError(f"{one.place}: {error}") from None
    return found


def read_scored_events(path: str | os.PathLike[str]) -> dict[str, list[ScoredEvent]]:
    """What `read_detections` reads, with ends before starts as they stand there: evaluators count such entries as
    wrong."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file of detections {path}.{near_path(path)}")
    found: dict[str, list[ScoredEvent]] = {}
    if path.suffix.lower() == ".json":
        for name, entries in _results(path).items():
            found[name] = []
            for number, one in enumerate(entries):
                segment = one.get("segment") if isinstance(one, dict) else None
                pair = segment if isinstance(segment, (list, tuple)) and len(segment) == 2 else (None, None)
                place = f"{path}: {name}, entry {number + 1}"
                found[name].append(_scored(place, one if isinstance(one, dict) else {}, *pair))
        return found
    table = read_table(path, names=ID_COLUMNS)
    video = find_video_column(table.columns, "video", str(path))
    start, end = (pick_column(table.columns, names[0], names) for names in (START_COLUMNS, END_COLUMNS))
    for record, place in zip(table.records, table.places, strict=True):
        one = _scored(f"{path}, {place}", record, record.get(start), record.get(end))
        found.setdefault(str(record.get(video)), []).append(one)
    return found


def _results(path: Path) -> dict[str, list[Any]]:
    try:
        given = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    results = given.get("results", given) if isinstance(given, dict) else None
    if not isinstance(results, dict) or not all(isinstance(one, list) for one in results.values()):
        raise DataError(f'{path} holds no "results" ({{video: [{{"label", "score", "segment"}}]}}).')
    return results


def _scored(place: str, one: Mapping[str, Any], start: Any, end: Any) -> ScoredEvent:
    times = [parse_time(value, name, place) for value, name in ((start, "start"), (end, "end"))]
    score = one.get("score")
    try:
        score = float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        score = math.nan
    if text_of(one.get("label")) is None or None in times or not math.isfinite(score):
        raise DataError(f"{place}: a detection needs a label, a start, an end and a score; {dict(one)!r} came.")
    return ScoredEvent(str(one["label"]), float(times[0]), float(times[1]), place, score)


def video_key(name: str, known: Mapping[str, Any]) -> str:
    """The name among `known` that a video's name or path stands for: itself, without folders, without its ending, or
    without the "v_" of ActivityNet's files; `name` where it is none of them."""
    last = name.replace("\\", "/").rpartition("/")[2]
    forms = [name, last]
    forms += [
        os.path.splitext(one)[0] for one in (name, last) if is_video(one) or one.endswith((".npy", ".safetensors"))
    ]
    forms += [one.removeprefix("v_") for one in forms if one.startswith("v_")]
    return next((one for one in forms if one in known), name)
