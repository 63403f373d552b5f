"""What a source says of its videos: annotations of every kind, and labels as they are written, to classes with numbers:
one spelling, several labels a video, numbers or names."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_video.data.rows import ListedVideo, Skipped, SourceListing
from hf_video.data.sources.files import list_folder
from hf_video.data.sources.tables import Table, pick_column
from hf_video.errors import DataError, did_you_mean, is_number
from hf_video.video.frames.addresses import natural_key

LABEL_COLUMNS = (
    "label", "labels", "class", "classes", "class_name", "category", "target", "label_idx", "class_index", "cls",
)  # fmt: skip
_NUMBERS = re.compile(r"\d+(?:\s*[,;\s]\s*\d+)+")
# Takes a record and its place in the list, for messages. Gives what the record says of its video, or why it says
# nothing.
RecordReader = Callable[[Mapping[str, Any], str], "list[Any] | str"]


class AnnotationReader:
    """What a source says of its videos, and how that is read; subclasses read labels, captions and questions.

    `noun` names it in messages. With `grouped` the records of one video in one split are one listed video with several
    `annotations`, otherwise each record is a video with a `label`. `header_names` are columns that make the first line
    of a table a header, besides those of videos.
    """

    noun: str
    grouped = True

    def __init__(self, video_column: str, *header_names: str):
        self.video_column = video_column
        self.header_names = header_names

    def bind(self, columns: list[str], owner: str) -> tuple[list[str], RecordReader]:
        """The columns that are read, of those of `owner` without that of videos, and the reader of their records.
        Raises DataError where one is missing."""
        raise NotImplementedError

    def read_file(self, path: Path) -> Table | None:
        """The records of a list in a form of its own, None for all others."""
        return None

    def find_list(self, root: Path) -> Path | dict[str, Path] | None:
        """The list that lies in a folder of videos, or one for each split."""
        return None

    def list_folder(self, root: Path) -> SourceListing:
        """The videos of a folder without a list. Raises DataError where there are none."""
        raise NotImplementedError


class ClassName(str):
    """The name of a class, which may hold anything: it is not read as a list of labels."""


class LabelReader(AnnotationReader):
    """Labels of videos: a column of them, or the folders that videos lie in."""

    noun = "labels"
    grouped = False

    def __init__(self, video_column: str = "video", label_column: str = "label"):
        super().__init__(video_column, label_column)
        self.label_column = label_column

    def bind(self, columns: list[str], owner: str) -> tuple[list[str], RecordReader]:
        at = pick_column(columns, self.label_column, LABEL_COLUMNS, owner)
        if at is None:
            return [], lambda record, place: [None]
        return [at], lambda record, place: [read_label(record.get(at), place)]

    def list_folder(self, root: Path) -> SourceListing:
        return list_folder(root)


def read_label(value: Any, place: str) -> str | tuple[str, ...] | None:
    """A label as text, None where there is none; a tuple of them where a video has several: a list, "[1, 3]", "1|3",
    "run|jump", and numbers with blanks, commas or semicolons between them. Raises DataError for what is no label."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, ClassName):
        return str(value)
    if hasattr(value, "tolist"):
        value = value.tolist()  # NumPy's numbers and arrays
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("[") and text.endswith("]"):
            several = _list_in(text)
            return text if several is None else _several(several, place)
        if "|" in text:
            return _several([part for part in text.split("|") if part.strip()], place)
        if _NUMBERS.fullmatch(text):
            return _several(re.findall(r"\d+", text), place)
        return text or None
    if isinstance(value, (list, tuple, set)):
        return _several(list(value), place)
    if not is_number(value):
        raise DataError(
            f"{place}: {value!r} is no label. Give a text, a number, or a list of these for a video of several classes."
        )
    return str(int(value)) if value == int(value) else str(value)


def _list_in(text: str) -> list[Any] | None:
    """A list that was written into a cell by JSON or Python; None for a name in brackets."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError):
            continue
        return found if isinstance(found, list) else None
    return None


def _several(values: list[Any], place: str) -> tuple[str, ...]:
    found = [read_label(value, place) for value in values]
    if not all(isinstance(one, str) for one in found):
        raise DataError(f"{place}: {values!r} is no list of labels.")
    return tuple(dict.fromkeys(found))


def normalize_labels(listing: SourceListing) -> None:
    """One spelling for labels that look the same: Unicode's NFC, no blanks around, "3.0" as "3" where all are numbers.
    Where this joins what were two classes it is said in `skipped`, and so are classes that differ only by case or
    blanks, which stay two. Where some videos have several labels, all get a tuple; "-1" everywhere means none."""
    listing.labels = None if listing.labels is None else [_normal(name) for name in listing.labels]
    written: dict[str, dict[str, None]] = {}
    for video in listing.videos:
        for label in _each(video):
            written.setdefault(_normal(label), {})[label] = None
    for name, forms in written.items():
        if len({form.strip() for form in forms}) > 1:
            reason = f"is written in {len(forms)} Unicode forms (NFC, NFD), which are one class here"
            listing.skipped.append(Skipped(name, reason, "label", used=True))
    alike: dict[str, list[str]] = {}
    for name in written:
        alike.setdefault(re.sub(r"[\s_]+", " ", name).casefold(), []).append(name)
    for first, *others in alike.values():
        for other in others:
            reason = f"differs from {first!r} only by case, blanks or underscores, and is another class"
            listing.skipped.append(Skipped(other, reason, "label", used=True))
    whole = bool(written) and listing.numbers and all(re.fullmatch(r"\d+(\.0+)?", name) for name in written)
    several = any(isinstance(video.label, tuple) for video in listing.videos)
    unknown = set(written) == {"-1"}
    for video in listing.videos:
        if video.label is None:
            continue
        names = dict.fromkeys(name.partition(".")[0] if whole else name for name in map(_normal, _each(video)))
        video.label = None if unknown else tuple(names) if several else next(iter(names))


def _each(video: ListedVideo) -> tuple[str, ...]:
    return () if video.label is None else (video.label,) if isinstance(video.label, str) else video.label


def _normal(label: str) -> str:
    return unicodedata.normalize("NFC", label).strip()


def class_names(listing: SourceListing, labels: Sequence[str] | None) -> list[str]:
    """Class names in the order of their numbers.

    In lists and tables, labels that are numbers keep them: class k is number k, also where one of them has no video
    here. Only those that run from 1 to N without a gap are counted from 1.
    """
    if labels is not None or listing.labels is not None:
        return list(labels if labels is not None else listing.labels)
    found = {label for video in listing.videos for label in _each(video)}
    if listing.numbers and found and all(label.isdecimal() for label in found):
        for video in listing.videos:
            if video.label is not None:
                plain = tuple(dict.fromkeys(str(int(label)) for label in _each(video)))
                video.label = plain[0] if isinstance(video.label, str) else plain
        numbers = {int(label) for label in found}
        first = 1 if numbers == set(range(1, max(numbers) + 1)) else 0
        return [str(number) for number in range(first, max(numbers) + 1)]
    return sorted(found, key=natural_key)


def class_number(video: ListedVideo, names: Sequence[str], number: dict[str, int]) -> int | tuple[int, ...] | None:
    """Of a video's label, or of each of them. `number` holds the names in NFC. Raises DataError for unknown ones."""
    if video.label is None:
        return None
    found = tuple(sorted({_number(video.name, label, names, number) for label in _each(video)}))
    return found[0] if isinstance(video.label, str) else found


def class_ids(names: Sequence[str]) -> dict[str, int]:
    return {_normal(name): i for i, name in enumerate(names)}


def _number(video: str, label: str, names: Sequence[str], number: dict[str, int]) -> int:
    if label in number:
        return number[label]
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    hint = did_you_mean(label, names)
    raise DataError(
        f"{video} has the label {label!r}, which is none of the {len(names)} classes.{hint} Rename it, or leave "
        "labels= out to take the classes that are there."
    )
