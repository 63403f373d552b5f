"""Rows that are a stretch of a video: columns of a start and an end, in seconds, clock times or frames."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

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
