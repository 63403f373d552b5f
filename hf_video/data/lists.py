"""Lists of videos: CSV, TSV, JSON, JSONL, and the "path label" lines of official repositories."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hf_video.data.files import VIDEO_ENDINGS
from hf_video.data.folder import Found, Listing, drop_unlabelled, split_name
from hf_video.data.rows import Skipped
from hf_video.errors import DataError

LIST_ENDINGS = (".csv", ".tsv", ".txt", ".list", ".json", ".jsonl", ".ndjson")
VIDEO_COLUMNS = ("video", "path", "file", "file_name", "filename", "video_path", "clip", "url", "mp4", "webm")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "label_idx", "class_index", "cls")
# Official lists have no header: "path label", or "path frames label" for folders of frames.
_ENDING = "|".join(re.escape(ending) for ending in VIDEO_ENDINGS)
_SPACED = (
    re.compile(rf"^(?P<path>.+?(?:{_ENDING}))\s+(?:-?\d+\s+)?(?P<label>\S.*)$", re.IGNORECASE),
    re.compile(r"^(?P<path>.+?)(?:\s+\d+)?\s+(?P<label>\d+)$"),
)


def list_file(path: str | os.PathLike[str], *, video_column: str = "video", label_column: str = "label") -> Listing:
    """The videos that a list names. Paths are relative to the list's folder unless they are absolute or URLs.

    The columns are `video_column` (or path, file, file_name, url, ...), `label_column` (or class, category, ...), and
    `split` and `group` where there are such. Raises DataError for a file that is no list, or has no column of videos.
    """
    path = Path(path)
    records = read_records(path)
    return list_records(records, root=path.parent, owner=str(path), video=video_column, label=label_column)


def read_records(path: Path, *, names: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The entries of a list as they stand there. A first line is a header where it names a usual column of videos, or
    one of `names`. Raises DataError."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as a list of videos: {error}") from None
    is_json = path.suffix.lower() in (".json", ".jsonl", ".ndjson")
    records = _json_records(path, text) if is_json else _lines(text, names)
    if not records:
        raise DataError(f"{path} names no video. Give one a line: a header such as video,label, or `path label`.")
    return records


def list_records(
    records: Iterable[Mapping[str, Any]], *, root: str | os.PathLike[str], owner: str, video: str, label: str
) -> Listing:
    """Rows of a table as a listing; see `list_file`."""
    records = list(records)
    columns = list(dict.fromkeys(name for record in records for name in record))
    at = pick_column(columns, video, VIDEO_COLUMNS)
    if at is None:
        names = ", ".join(map(str, columns))
        raise DataError(f"{owner} has the columns {names}, and none of videos: pass video_column=.")
    label_at = pick_column(columns, label, LABEL_COLUMNS)
    listing = Listing(os.fspath(root), numbers=True)
    for number, record in enumerate(records):
        _add(listing, record, at, label_at, f"{owner}, entry {number + 1}")
    if not listing.videos:
        raise DataError(f"{owner} has {len(records)} entries and none of them can be used. {listing.skipped[0]}")
    drop_unlabelled(listing, "its label is empty")
    return listing


def _add(listing: Listing, record: Mapping[str, Any], at: str, label_at: str | None, owner: str) -> None:
    source = record.get(at)
    if source is None or source == "":
        listing.skipped.append(Skipped(owner, f"its {at!r} is empty", "format"))
        return
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else owner
    if isinstance(source, (str, os.PathLike)) and "://" not in name:
        source = os.path.join(listing.root, name)
        if not os.path.exists(source):
            listing.skipped.append(Skipped(name, f"{source} does not exist", "missing"))
            return
    given = _text(record.get("split"))
    split = None if given is None else split_name(given) or given
    label = _text(record.get(label_at)) if label_at else None
    listing.videos.append(Found(source, name, label, split, _text(record.get("group"))))


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def pick_column(columns: list[str], wanted: str, usual: tuple[str, ...]) -> str | None:
    """The column of that name, whatever its case; else the first of the usual names; else None."""
    lower = {str(name).strip().lower(): name for name in columns}
    return next((lower[name] for name in (wanted.lower(), *usual) if name in lower), None)


# -- formats ----------------------------------------------------------------------------------------------------------


def _json_records(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        given = json.loads(text) if path.suffix.lower() == ".json" else [json.loads(line) for line in text.splitlines()
                                                                         if line.strip()]  # fmt: skip
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if isinstance(given, dict):
        # {"clip.mp4": "label"}, {"clip": {"label": ...}}, or {"train": [...], "test": [...]}
        if all(isinstance(value, list) for value in given.values()):
            given = [{"split": split, **one} for split, rows in given.items() for one in rows]
        else:
            given = [{"video": name, **(value if isinstance(value, dict) else {"label": value})}
                     for name, value in given.items()]  # fmt: skip
    given = [{"video": one} if isinstance(one, str) else one for one in given]
    if not all(isinstance(one, dict) for one in given):
        raise DataError(f'{path} must hold a list of objects such as {{"video": ..., "label": ...}}.')
    return given


def _lines(text: str, names: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return []
    separator = next((mark for mark in ("\t", ",", ";") if mark in lines[0]), None)
    if separator is None:
        return [_spaced(line) for line in lines] if not _is_header([lines[0]], names) else _table(lines, ",")
    first = next(csv.reader([lines[0]], delimiter=separator))
    return _table(lines, separator) if _is_header(first, names) else _headless(lines, separator)


def _is_header(cells: list[str], names: tuple[str, ...]) -> bool:
    known = {*VIDEO_COLUMNS, *(name.lower() for name in names)}
    return any(cell.strip().lower() in known for cell in cells)


def _table(lines: list[str], separator: str) -> list[dict[str, Any]]:
    found = []
    for record in csv.DictReader(lines, delimiter=separator, skipinitialspace=True):
        found.append({key.strip(): (value or "").strip() for key, value in record.items() if key and
                      not isinstance(value, list)})  # fmt: skip
    return found


def _headless(lines: list[str], separator: str) -> list[dict[str, Any]]:
    cells = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    return [{"video": row[0], **({"label": row[-1]} if len(row) > 1 else {})} for row in cells if row]


def _spaced(line: str) -> dict[str, Any]:
    match = next(filter(None, (form.match(line.strip()) for form in _SPACED)), None)
    return {"video": line.strip()} if match is None else {"video": match["path"], "label": match["label"]}
