"""Annotated lists as records, for labels, captions and questions alike: CSV, TSV, JSON, JSON lines, Parquet, and the
lines of official repositories: "path label", "path frames label" for folders of frames, "path label label …" where a
video shows several classes.

Every row becomes a record, or the list is refused with the number of the line. Left out are only empty lines and
comments, which are lines that begin with "#" followed by a blank, in lists of "path label" lines and above the header
of a table; a table has none below it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_video.data.sources.files import VIDEO_ENDINGS, is_video, split_name
from hf_video.errors import DataError, unknown_name

LIST_ENDINGS = (".csv", ".tsv", ".txt", ".list", ".json", ".jsonl", ".ndjson", ".parquet")
VIDEO_COLUMNS = ("video", "path", "file", "file_name", "filename", "video_path", "clip", "url", "mp4", "webm")
SEPARATORS = ("\t", ",", ";")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_COMMENT = re.compile(r"#\s")
_NEWLINE = re.compile(r"\r\n|\r|\n")
LINE_FORMATS = ("path-labels", "path-frames-labels")
_ENDING = "|".join(re.escape(ending) for ending in VIDEO_ENDINGS)
_VIDEO = re.compile(rf"^(?P<path>.+?(?:{_ENDING}))(?:\s+(?P<rest>\S.*))?$", re.IGNORECASE)
_OTHER = re.compile(r"^(?P<path>.*?\S)(?P<rest>(?:\s+-?\d+)+)$")  # a folder of frames, or an id, and numbers
_NUMBERS = re.compile(r"-?\d+(?:\s+-?\d+)*")
csv.field_size_limit(1 << 27)  # a list of choices or captions in one cell


@dataclass
class Table:
    """The `records` of a list, each with its `place` ("line 3", "entry 3") for messages."""

    records: list[dict[str, Any]]
    places: list[str]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for record in self.records for name in record))


def read_table(path: Path, *, names: Iterable[str] = (), line_format: str | None = None) -> Table:
    """The entries of a list as they stand there. A first line is a header where it names a usual column of videos, or
    one of `names`. `line_format` tells how lines of several numbers are meant, see `path_label_records`. Raises
    DataError."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        table = _from_parquet(path)
    elif ending in (".json", ".jsonl", ".ndjson"):
        table = _from_json(path, read_text(path))
    else:
        table = _from_lines(path, read_text(path), {*VIDEO_COLUMNS, *(name.lower() for name in names)}, line_format)
    if not table.records:
        raise DataError(f"{path} names no video. Give one a line: a header such as video,label, or `path label`.")
    return table


def read_text(path: Path) -> str:
    """A text in UTF-8, or UTF-16 or UTF-32 with its byte order mark. Raises DataError for any other file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error}") from None
    mark, encoding = next((one for one in _MARKS if data.startswith(one[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, len(mark) + error.start) + 1
        raise DataError(f"{path}, line {line}: this is no {encoding.upper()}. Save the list as UTF-8.") from None
    if "\0" in text:
        raise DataError(
            f"{path} holds zero bytes: it is UTF-16 without a byte order mark, or no text. Save it as UTF-8."
        )
    return text


def text_lines(text: str) -> list[str]:
    """Cut at line ends of Unix, Windows and old Macs alone: `str.splitlines` also cuts at U+2028, form feeds, …"""
    return _NEWLINE.split(text)


def _from_parquet(path: Path) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path} needs the package pyarrow: pip install 'hf_video[train]'.") from None
    try:
        records = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} can't be read as Parquet: {error}") from None
    return Table(records, [f"row {number}" for number in range(1, len(records) + 1)])


def pick_column(columns: Iterable[str], wanted: str, usual: tuple[str, ...], owner: str | None = None) -> str | None:
    """The column of that name, whatever its case; else the first of the usual names; else None. Where an `owner` is
    named, raises DataError for a `wanted` column that is none of the usual ones and is not there."""
    lower = {str(name).strip().lower(): name for name in columns}
    key = wanted.strip().lower()
    if owner is not None and key not in lower and key not in usual:
        raise DataError(unknown_name(f"{owner} has no column", wanted, map(str, columns)))
    return next((lower[name] for name in (key, *usual) if name in lower), None)


# -- JSON -------------------------------------------------------------------------------------------------------------


def _from_json(path: Path, text: str) -> Table:
    try:
        given = json.loads(text, object_pairs_hook=_unique) if path.suffix.lower() == ".json" else None
    except ValueError as error:
        try:  # JSON lines are often called .json
            return _json_lines(path, text)
        except DataError:
            raise DataError(f"{path} is not valid JSON: {error}") from None
    if given is None:
        return _json_lines(path, text)
    entries = given if isinstance(given, list) else _entries(path, given)
    records = [{"video": one} if isinstance(one, str) else one for one in entries]
    return _checked(path, Table(records, [f"entry {number}" for number in range(1, len(records) + 1)]))


def _json_lines(path: Path, text: str) -> Table:
    records, places = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            one = json.loads(line, object_pairs_hook=_unique)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not valid JSON: {error}") from None
        records.append({"video": one} if isinstance(one, str) else one)
        places.append(f"line {number}")
    return _checked(path, Table(records, places))


def _checked(path: Path, table: Table) -> Table:
    for record, place in zip(table.records, table.places, strict=True):
        if not isinstance(record, dict):
            raise DataError(
                f'{path}, {place}: a {type(record).__name__} came, and a list holds objects such as {{"video": ..., '
                '"label": ...}.'
            )
    return table


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object, and all but its last value would be lost")
    return found


def _entries(path: Path, given: Any) -> list[Any]:
    """The entries of {"clip.mp4": "label"}, {"clip.mp4": ["a", "b"]}, {"clip": {"label": ...}}, {"train": [{...}]} or
    {"label": ["clip.mp4"]}."""
    if not isinstance(given, dict):
        raise DataError(f'{path} must hold a list of objects such as {{"video": ..., "label": ...}}.')
    lists = given and all(isinstance(value, list) for value in given.values())
    inside = [one for value in given.values() for one in value] if lists else []
    if lists and (all(isinstance(one, dict) for one in inside) or all(map(split_name, given))):
        wrapped = len(given) == 1 and not split_name(next(iter(given)))  # {"annotations": [...]}
        return [
            {**({} if wrapped else {"split": split}), **({"video": one} if isinstance(one, str) else one)}
            for split, value in given.items()
            for one in value
        ]
    if inside and all(isinstance(one, str) and is_video(one) for one in inside):
        return [{"video": one, "label": label} for label, value in given.items() for one in value]
    return [
        {"video": name, **(value if isinstance(value, dict) else {"label": value})} for name, value in given.items()
    ]


# -- lines ------------------------------------------------------------------------------------------------------------


def _from_lines(path: Path, text: str, known: set[str], line_format: str | None) -> Table:
    numbered = [(number, line) for number, line in enumerate(text_lines(text), start=1) if line.strip()]
    above = next((i for i, (_, line) in enumerate(numbered) if not _COMMENT.match(line)), len(numbered))
    if above == len(numbered):
        return Table([], [])
    first = numbered[above][1]
    separator = _header_separator(first, known)
    if separator is not None:
        begin = numbered[above][0]
        rows = list(_rows(path, text, separator, begin))
        return _headed(path, rows)
    separator = _separator(first)
    if line_format is None and separator is not None:
        return _headless(path, list(_rows(path, text, separator, 1)))
    lines = [(number, line.strip()) for number, line in numbered if not _COMMENT.match(line)]
    return Table(path_label_records(path, lines, line_format), [f"line {number}" for number, _ in lines])


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]


def _header_separator(line: str, known: set[str]) -> str | None:
    """The separator by which a line is a header: that of which most cells come out, one being a column of videos
    and none the name of one."""
    found = []
    for separator in SEPARATORS:
        cells = _cells(line, separator)
        if any(cell.lower() in known for cell in cells) and not any(map(is_video, cells)):
            found.append((len(cells), separator))
    return max(found, key=lambda one: one[0])[1] if found else None


def _separator(line: str) -> str | None:
    """That of a table without a header: what follows the name of a video, or, if no cell looks like one, whatever is
    there; None for lines of "path label"."""
    there = [separator for separator in SEPARATORS if len(_cells(line, separator)) > 1]
    after_video = [separator for separator in there if is_video(_cells(line, separator)[0])]
    if not after_video and re.search(r"\.\w{2,4}\s+\S", line) and "\t" not in line:
        return None
    return next(iter(after_video or there), None)


def _rows(path: Path, text: str, separator: str, begin: int) -> Iterator[tuple[int, list[str]]]:
    """Rows from line `begin` on with the line each begins at; quoted cells may hold separators and line ends."""
    stream = io.StringIO(text, newline="")
    for _ in range(begin - 1):
        stream.readline()
    # In files with tabs quotes are often mere letters; where they are no good CSV they are taken for these.
    quoting = csv.QUOTE_MINIMAL
    if separator == "\t" and not _well_quoted(stream.getvalue(), separator):
        quoting = csv.QUOTE_NONE
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True, quoting=quoting)
    while True:
        line = begin + reader.line_num
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{path}, line {line}: {error}. A cell that holds {separator!r}, a quote or a line end stands in "
                'double quotes, with each quote inside doubled: "She said ""go"", and went".'
            ) from None
        if row is None:
            return
        if any(cell.strip() for cell in row):
            yield line, [cell.strip() for cell in row]


def _well_quoted(text: str, separator: str) -> bool:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error:
        return False
    return len({len(row) for row in rows if row}) < 2


def _headed(path: Path, rows: Sequence[tuple[int, list[str]]]) -> Table:
    (_, header), *rest = rows
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has two columns called {twice!r}: rename one.")
    records, places = [], []
    for line, row in rest:
        if len(row) < len(header) or any(row[len(header) :]):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells came and the header has {len(header)} ({', '.join(header)}). "
                "A cell that holds the separator must stand in double quotes."
            )
        records.append({name: cell for name, cell in zip(header, row, strict=False) if name})
        places.append(f"line {line}")
    return Table(records, places)


def _headless(path: Path, rows: Sequence[tuple[int, list[str]]]) -> Table:
    """Video and label; a video alone where no row has more."""
    for line, row in rows:
        if len(row) > 2 and any(row[2:]):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells came and there is no header to say what they are. Begin the "
                "list with one, such as video,label; several labels of a video stand in one cell, as 1|3|5."
            )
    names = ("video", "label")
    records = [dict(zip(names, row, strict=False)) for _, row in rows]
    return Table(records, [f"line {line}" for line, _ in rows])


# -- lines of a path and numbers ---------------------------------------------------------------------------------------


def path_label_records(
    path: Path, lines: Sequence[tuple[int, str]], line_format: str | None = None
) -> list[dict[str, Any]]:
    """`video` and, where there are any, `label` (a text, or a list of them where videos have several) of each line.

    Numbers are read alike in the whole list. "path-labels": all of them are labels. "path-frames-labels": the first is
    a count of frames. Where `line_format` names neither: one number is the label; two in every line are frames and
    label; of more, the first is a count of frames after a folder, and after the name of a video only `line_format` can
    tell. Raises DataError where that is needed, and for a line without what its format asks for.
    """
    found = [_parts(line) for _, line in lines]
    numbers = [rest.split() if rest and _NUMBERS.fullmatch(rest) else None for _, rest, _ in found]
    counted = [len(one) for one in numbers if one]
    if all(one is not None or rest is None for one, (_, rest, _) in zip(numbers, found, strict=True)):
        skip = _frames_first(path, lines, found, counted, line_format)
        several = bool(counted) and max(counted) - skip > 1
        records = []
        for (number, _), (name, _, _), given in zip(lines, found, numbers, strict=True):
            labels = (given or [])[skip:]
            if given and not labels:
                raise DataError(
                    f"{path}, line {number}: one number came, and a count of frames and a label are needed."
                )
            records.append({"video": name, **({"label": labels if several else labels[0]} if labels else {})})
        return records
    # Names of classes; a number before each of them is a count of frames.
    heads = [re.match(r"-?\d+\s+(?=\S)", rest or "") for _, rest, _ in found]
    skip = line_format == "path-frames-labels" or (line_format is None and all(heads))
    return [
        {"video": name, **({"label": rest[head.end() :] if skip and head else rest} if rest else {})}
        for (name, rest, _), head in zip(found, heads, strict=True)
    ]


def _parts(line: str) -> tuple[str, str | None, bool]:
    """The video, what follows it, and whether it is a video by its name."""
    match = _VIDEO.match(line)
    if match is not None:
        return match["path"], match["rest"], True
    match = _OTHER.match(line)
    return (line, None, False) if match is None else (match["path"], match["rest"].strip(), False)


def _frames_first(
    path: Path,
    lines: Sequence[tuple[int, str]],
    found: Sequence[tuple[str, str | None, bool]],
    counted: list[int],
    line_format: str | None,
) -> int:
    """How many numbers before the labels are counts of frames: 1 or 0."""
    if line_format is not None:
        return int(line_format == "path-frames-labels")
    if not counted or min(counted) < 2:
        return 0
    if max(counted) == 2 or not any(is_video for _, _, is_video in found):
        return 1
    number = next(n for (n, _), (_, rest, _) in zip(lines, found, strict=True) if rest and len(rest.split()) > 2)
    raise DataError(
        f"{path}, line {number}: several numbers follow a video, and nothing says whether the first counts its frames. "
        "Say so with the format: path-labels (all are labels) or path-frames-labels."
    )
