"""Lines of official lists: "path label", "path frames label" for folders of frames, "path label label …" where a video
shows several classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_video.data.sources.files import VIDEO_ENDINGS
from hf_video.errors import DataError

SPACED_FORMS = ("path-labels", "path-frames-labels")
_ENDING = "|".join(re.escape(ending) for ending in VIDEO_ENDINGS)
_VIDEO = re.compile(rf"^(?P<path>.+?(?:{_ENDING}))(?:\s+(?P<rest>\S.*))?$", re.IGNORECASE)
_OTHER = re.compile(r"^(?P<path>.*?\S)(?P<rest>(?:\s+-?\d+)+)$")  # a folder of frames, or an id, and numbers
_NUMBERS = re.compile(r"-?\d+(?:\s+-?\d+)*")


def spaced_records(path: Path, lines: Sequence[tuple[int, str]], form: str | None = None) -> list[dict[str, Any]]:
    """`video` and, where there are any, `label` (a text, or a list of them where videos have several) of each line.

    Numbers are read alike in the whole list. "path-labels": all of them are labels. "path-frames-labels": the first is
    a count of frames. Where `form` names neither: one number is the label; two in every line are frames and label; of
    more, the first is a count of frames after a folder, and after the name of a video only `form` can tell. Raises
    DataError where that is needed, and for a line without what its form asks for.
    """
    found = [_parts(line) for _, line in lines]
    numbers = [rest.split() if rest and _NUMBERS.fullmatch(rest) else None for _, rest, _ in found]
    counted = [len(one) for one in numbers if one]
    if all(one is not None or rest is None for one, (_, rest, _) in zip(numbers, found, strict=True)):
        skip = _frames_first(path, lines, found, counted, form)
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
    skip = form == "path-frames-labels" or (form is None and all(heads))
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


def _frames_first(path: Path, lines: Any, found: Any, counted: list[int], form: str | None) -> int:
    """How many numbers before the labels are counts of frames: 1 or 0."""
    if form is not None:
        return int(form == "path-frames-labels")
    if not counted or min(counted) < 2:
        return 0
    if max(counted) == 2 or not any(is_video for _, _, is_video in found):
        return 1
    number = next(n for (n, _), (_, rest, _) in zip(lines, found, strict=True) if rest and len(rest.split()) > 2)
    raise DataError(
        f"{path}, line {number}: several numbers follow a video, and nothing says whether the first counts its frames. "
        "Say so with the format: path-labels (all are labels) or path-frames-labels."
    )
