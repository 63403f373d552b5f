"""Annotated lists: the records of a table, a file or a `datasets` data set to a listing of videos.

What a record says of its video (a label, captions, a question) is read by an `AnnotationReader`. Everything else is the
same for all of them: columns of videos, parts, splits and groups, missing files, and several records of one video.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_video.data.rows import ListedVideo, Skipped, SourceListing
from hf_video.data.sources.files import canonical_path, locate, split_name
from hf_video.data.sources.labels import AnnotationReader
from hf_video.data.sources.tables import VIDEO_COLUMNS, pick_column, read_table
from hf_video.errors import DataError, pluralize
from hf_video.video.frames.part import VideoPart

if TYPE_CHECKING:
    from hf_video.data.types import VideoSource

ID_COLUMNS = ("video_id", "videoid", "vid", "gif_name", "id", "key")  # names of files without their ending
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
    path: Path,
    annotations: AnnotationReader,
    videos: str | os.PathLike[str] | None = None,
    line_format: str | None = None,
) -> SourceListing:
    """The videos that a list names. Paths are relative to `videos`, by default the list's folder, unless they are
    absolute or URLs.

    The column of videos is the reader's `video_column` (or path, file, file_name, url, ..., or an id that is a file's
    name), and `split`, `group`, and `start` and `end` of a part of the video (seconds, or `start_frame` and
    `end_frame`) are read where there are such. `line_format`: see `path_label_records`. Raises DataError for a file
    that is no list, or has no column of videos.
    """
    names = (annotations.video_column, *ID_COLUMNS, *annotations.header_names)
    table = annotations.read_file(path) or read_table(path, names=names, line_format=line_format)
    columns = table.columns
    video_column = find_video_column(columns, annotations.video_column, str(path))
    listing = SourceListing(os.fspath(path.parent if videos is None else videos), numbers=True)
    collector = RecordCollector(listing, annotations, columns, video_column, str(path))
    located: dict[str, str | None] = {}
    for record, place in zip(table.records, table.places, strict=True):
        given, place = record.get(video_column), f"{path}, {place}"
        if given is None or given == "" or given != given:
            listing.skipped.append(Skipped(place, f"its {video_column!r} is empty", "format"))
        elif isinstance(given, (str, os.PathLike, int, float)):
            name = str(int(given) if isinstance(given, float) and given.is_integer() else given)
            if name not in located:
                located[name] = locate(listing.root, name)
            collector.add(record, name, located[name] or Missing(os.path.join(listing.root, name)), place)
        else:
            collector.add(record, place, given, place)
    check_usable(listing, str(path), len(table.records))
    return listing


def check_usable(listing: SourceListing, owner: str, records: int) -> None:
    """Raises DataError for a list of which not one record can be used, and leaves out the videos without a label in
    splits that have labels."""
    if not listing.videos:
        why = f" {listing.skipped[0]}" if listing.skipped else ""
        entries = pluralize(records, "entry", "entries")
        raise DataError(f"{owner} has {entries} and none of them can be used.{why}")
    listing.drop_unlabelled("its label is empty")


class Missing(str):
    """The path of a video that is not there."""


class RecordCollector:
    """Records, one after the other, to the videos of a listing."""

    def __init__(
        self,
        listing: SourceListing,
        annotations: AnnotationReader,
        columns: list[str],
        video_column: str,
        owner: str,
    ):
        self._listing = listing
        self._grouped = annotations.grouped
        self.annotation_columns, self._read = annotations.bind([c for c in columns if c != video_column], owner)
        self._part_columns = segment_columns(columns)
        self._videos: dict[Any, ListedVideo | None] = {}
        parts = self._part_columns[:2] if self._part_columns else ()
        used = [*self.annotation_columns, *filter(None, parts), "split", "group"]
        self.columns = [name for name in dict.fromkeys(used) if name in columns]

    def add(
        self, record: Mapping[str, Any], name: str, source: VideoSource, place: str, split: str | None = None
    ) -> None:
        """One record of the video `source` (`Missing` for one that is not there), which is called `name`; its `split`
        is the record's own where None. Raises DataError for a label or a time that is none."""
        said = self._read(record, place)
        if isinstance(said, str):
            entry = name if name == place else f"{name} ({place})"
            self._listing.skipped.append(Skipped(entry, said, "unlabelled"))
            return
        split = split or split_of(record)
        part = part_of(source, record, self._part_columns, place)
        name = named_part(name, part)
        key = (_identity(part, name), split)
        video = self._videos.get(key) if self._grouped else None
        if isinstance(source, Missing):
            if not self._grouped or key not in self._videos:
                self._listing.skipped.append(Skipped(name, f"{source} does not exist", "missing"))
            self._videos[key] = None
            return
        if video is None:
            group = text_of(record.get("group"))
            video = ListedVideo(part, name, None if self._grouped else said[0], split, group)
            self._videos[key] = video
            self._listing.videos.append(video)
        if self._grouped:
            video.annotations += said


def _identity(source: VideoSource, name: str) -> Any:
    """What two records of one video have in common: the file, whatever its spelling, or the name of what is none."""
    if isinstance(source, VideoPart):
        return replace(source, source=_identity(source.source, name))
    return canonical_path(source) if isinstance(source, str) else name


def named_part(name: str, source: VideoSource) -> str:
    """The name of a row: of a part with its start and end behind."""
    return name + str(source).removeprefix(str(source.source)) if isinstance(source, VideoPart) else name


def split_of(record: Mapping[str, Any]) -> str | None:
    given = text_of(record.get("split"))
    return None if given is None else split_name(given) or given


def text_of(value: object) -> str | None:
    """A cell as text, None for an empty one."""
    return None if value is None or value == "" else str(value)


# -- columns ----------------------------------------------------------------------------------------------------------


def find_video_column(columns: list[str], wanted: str, owner: str) -> str:
    """The column of videos. Raises DataError where there is none."""
    found = pick_column(columns, wanted, (*VIDEO_COLUMNS, *ID_COLUMNS), owner)
    if found is None:
        raise DataError(
            f"{owner} has the columns {', '.join(map(str, columns))}, and none of videos: pass video_column=."
        )
    return found


# -- parts of videos ---------------------------------------------------------------------------------------------------


def segment_columns(columns: Sequence[str]) -> Columns | None:
    """The columns of starts and ends and their unit, where a list has such. With a start alone a row goes on to the end
    of its video, with an end alone it begins with it."""
    lower = {str(name).strip().lower(): name for name in columns}
    pairs = [(lower.get(start), lower.get(end), unit) for start, end, unit in SEGMENT_COLUMNS]
    known = [pair for pair in pairs if pair[0] or pair[1]]
    return next((pair for pair in known if pair[0] and pair[1]), next(iter(known), None))


def part_of(source: VideoSource, record: Mapping[str, Any], columns: Columns | None, place: str) -> Any:
    """The source, or the stretch of it that an entry names; empty cells mean the whole video. Raises DataError for what
    is no time."""
    if columns is None:
        return source
    *names, unit = columns
    start, end = (None if name is None else parse_time(record.get(name), name, place) for name in names)
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


def parse_time(value: object, name: str, place: str) -> float | None:
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
