"""Labelled lists of videos, with columns of any usual name; official lists of data sets are in `official`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hf_video.data.rows import Skipped
from hf_video.data.sources.files import locate
from hf_video.data.sources.folder import Found, Listing, drop_unlabelled, split_name
from hf_video.data.sources.labels import LABEL_COLUMNS, read_label
from hf_video.data.sources.segments import Columns, part_of, segment_columns
from hf_video.data.sources.tables import VIDEO_COLUMNS, read_table
from hf_video.errors import DataError
from hf_video.video.frames.part import VideoPart


def list_file(
    path: str | os.PathLike[str],
    *,
    video_column: str = "video",
    label_column: str = "label",
    videos: str | os.PathLike[str] | None = None,
    form: str | None = None,
) -> Listing:
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
) -> Listing:
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
    listing = Listing(os.fspath(root), numbers=True)
    for record, place in zip(records, places, strict=True):
        _add(listing, record, at, label_at, segment, place)
    if not listing.videos:
        raise DataError(f"{owner} has {len(records)} entries and none of them can be used. {listing.skipped[0]}")
    drop_unlabelled(listing, "its label is empty")
    return listing


def _add(
    listing: Listing,
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
        Found(
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
