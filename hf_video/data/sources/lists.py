"""Labelled lists of videos, with columns of any usual name; official lists of data sets are in `official`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_video.data.rows import ListedVideo, Skipped, SourceListing
from hf_video.data.sources.files import drop_unlabelled, locate, split_name
from hf_video.data.sources.labels import LABEL_COLUMNS, read_label
from hf_video.data.sources.tables import VIDEO_COLUMNS, read_table
from hf_video.errors import DataError
from hf_video.video.frames.part import VideoPart

# (start, end, unit), the clearer first.
_WORDS = ("_timestamp", "_time", "_seconds", "_second", "_sec", "_s", "")
SEGMENT_COLUMNS = (
    *((f"start{word}", f"{last}{word}", "seconds") for word in _WORDS for last in ("end", "stop")),
    ("start_frame", "end_frame", "frames"),
    ("start_frame", "stop_frame", "frames"),
)
Columns = tuple[str | None, str | None, str]
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")


def list_file(
    path: str | os.PathLike[str],
    *,
    video_column: str = "video",
    label_column: str = "label",
    videos: str | os.PathLike[str] | None = None,
    form: str | None = None,
) -> SourceListing:
    """The videos that a list names. Paths are relative to `videos`, by default the list's folder, unless they are
    absolute or URLs.

    The columns are `video_column` (or path, file, file_name, url, ...), `label_column` (or class, category, ...), and
    `split`, `group`, and `start` and `end` of a part of the video (seconds, or `start_frame` and `end_frame`) where
    there are such. `form`: see `spaced_records`. Raises DataError for a file that is no list, or has no column of
    videos.
    """
    path = Path(path)
    table = read_table(path, names=(video_column, label_column), form=form)
    places = [f"{path}, {place}" for place in table.places]
    root = path.parent if videos is None else videos
    return list_records(
        table.records, root=root, owner=str(path), video=video_column, label=label_column, places=places
    )


def list_records(
    records: Iterable[Mapping[str, Any]],
    *,
    root: str | os.PathLike[str],
    owner: str,
    video: str,
    label: str,
    places: list[str] | None = None,
) -> SourceListing:
    """Rows of a table as a listing; see `list_file`."""
    records = list(records)
    places = places or [f"{owner}, entry {number + 1}" for number in range(len(records))]
    columns = list(dict.fromkeys(name for record in records for name in record))
    at = pick_column(columns, video, VIDEO_COLUMNS)
    if at is None:
        names = ", ".join(map(str, columns))
        raise DataError(f"{owner} has the columns {names}, and none of videos: pass video_column=.")
    label_at = pick_column([name for name in columns if name != at], label, LABEL_COLUMNS)
    segment = segment_columns(columns)
    listing = SourceListing(os.fspath(root), numbers=True)
    for record, place in zip(records, places, strict=True):
        _add(listing, record, at, label_at, segment, place)
    if not listing.videos:
        raise DataError(f"{owner} has {len(records)} entries and none of them can be used. {listing.skipped[0]}")
    drop_unlabelled(listing, "its label is empty")
    return listing


def _add(
    listing: SourceListing,
    record: Mapping[str, Any],
    at: str,
    label_at: str | None,
    segment: Columns | None,
    place: str,
) -> None:
    given = record.get(at)
    if given is None or given == "":
        listing.skipped.append(Skipped(place, f"its {at!r} is empty", "format"))
        return
    is_path = isinstance(given, (str, os.PathLike))
    name = os.fspath(given) if is_path else place
    source = locate(listing.root, name) if is_path else given
    if source is None:
        listing.skipped.append(Skipped(name, f"{os.path.join(listing.root, name)} does not exist", "missing"))
        return
    source = part_of(source, record, segment, place)
    listing.videos.append(
        ListedVideo(
            source,
            named_part(name, source),
            read_label(record.get(label_at), place) if label_at else None,
            split_of(record),
            text_of(record.get("group")),
        )
    )


def named_part(name: str, source: Any) -> str:
    """The name of a row: of a part with its start and end behind."""
    return name + str(source).removeprefix(str(source.source)) if isinstance(source, VideoPart) else name


def split_of(record: Mapping[str, Any]) -> str | None:
    given = text_of(record.get("split"))
    return None if given is None else split_name(given) or given


def text_of(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def pick_column(columns: list[str], wanted: str, usual: tuple[str, ...]) -> str | None:
    """The column of that name, whatever its case; else the first of the usual names; else None."""
    lower = {str(name).strip().lower(): name for name in columns}
    return next((lower[name] for name in (wanted.lower(), *usual) if name in lower), None)


# -- parts of videos ---------------------------------------------------------------------------------------------------


def segment_columns(columns: Sequence[str]) -> Columns | None:
    """The columns of starts and ends and their unit, where a list has such. With a start alone a row goes on to the end
    of its video, with an end alone it begins with it."""
    lower = {str(name).strip().lower(): name for name in columns}
    pairs = [(lower.get(start), lower.get(end), unit) for start, end, unit in SEGMENT_COLUMNS]
    known = [pair for pair in pairs if pair[0] or pair[1]]
    return next((pair for pair in known if pair[0] and pair[1]), next(iter(known), None))


def part_of(source: Any, record: Mapping[str, Any], columns: Columns | None, place: str) -> Any:
    """The source, or the stretch of it that an entry names; empty cells mean the whole video. Raises DataError for what
    is no time."""
    if columns is None:
        return source
    *names, unit = columns
    start, end = (None if name is None else _time(record.get(name), name, place) for name in names)
    if start is None and end is None:
        return source
    start = start or 0.0
    if start < 0 or (end is not None and end <= start):
        raise DataError(
            f"{place}: from {start:g} to {end:g} {unit} is no part of a video: the end must follow the start."
        )
    if unit == "frames" and any(one is not None and one != int(one) for one in (start, end)):
        raise DataError(f"{place}: {' and '.join(filter(None, names))} must be whole numbers of frames.")
    return VideoPart(source, start, end, unit)


def _time(value: Any, name: str, place: str) -> float | None:
    """Seconds of 12.5, "12.5" and "00:00:12.5"; None of an empty cell."""
    if value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value):
        return None
    clock = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        if clock is not None:
            hours, minutes, seconds = clock.groups()
            found = int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
        else:
            found = float(value)
        if math.isfinite(found):
            return found
    except (TypeError, ValueError):
        pass
    raise DataError(f"{place}: {name}={value!r} is no time. Write seconds (12.5) or 0:00:12.5.")
