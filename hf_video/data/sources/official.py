"""The annotation files of well-known data sets, read as they are published.

- `kinetics`: CSV with label, youtube_id, time_start, time_end, split. Videos `<id>_000010_000020.mp4`, or `<id>.mp4`,
  of which the clip is a part where it is that long.
- `something-something`: version 2's JSON (id, template), with labels.json beside. Videos `<id>.webm`.
- `ucf101`, `ucf101:2`: trainlist01.txt, testlist01.txt, classInd.txt. Videos `<class>/<name>.avi`.
- `hmdb51`, `hmdb51:2`: `<class>_test_split1.txt` with 0 (unused), 1 (train) and 2 (test). Videos `<class>/<name>.avi`.
- `diving48`: JSON with vid_name, label, start_frame, end_frame, with the vocabulary beside. Videos `<vid_name>.mp4`.
- `charades`: CSV with actions, `c092 11.90 21.20;…`, with Charades_v1_classes.txt beside. Videos `<id>.mp4`, which have
  several classes each.
- `epic-kitchens`: CSV with video_id, start_timestamp, stop_timestamp, verb_class, noun_class, with the lists of classes
  beside. Rows are parts of `<video_id>.MP4`.

`epic-kitchens` gives verbs, `:noun` nouns and `:action` pairs. The source is one file, or the folder that holds all of
them. Videos are looked for by their names, at any depth below `videos` (default: the folder of the lists). Lists of
classes that lie beside give the classes their names and numbers. Formats: github.com/cvdfoundation/kinetics-dataset,
developer.qualcomm.com (Something-Something v2), crcv.ucf.edu, serre-lab.clps.brown.edu (HMDB51), svcl.ucsd.edu
(Diving48), prior.allenai.org (Charades), github.com/epic-kitchens/epic-kitchens-100-annotations.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_video.data.rows import ListedVideo, Skipped, SourceListing
from hf_video.data.sources.files import is_video, locate, split_name, walk_files
from hf_video.data.sources.lists import named_part, part_of, split_of
from hf_video.data.sources.tables import read_table, read_text, text_lines
from hf_video.errors import DataError, HFVideoError
from hf_video.video.frames.part import VideoPart
from hf_video.video.reader import VideoReader

Label = str | tuple[str, ...] | None


@dataclass
class Entry:
    """A line of a list: the video's `names`, the likelier first, and what is said of it. `segment` makes a part of the
    video's path, or None where the file can't be the video that is meant. `unused` is the reason for which the list
    itself leaves a video out."""

    names: tuple[str, ...]
    label: Label
    split: str | None = None
    segment: Callable[[str], Any] = lambda path: path
    group: str | None = None
    unused: str = ""


@dataclass(frozen=True)
class Official:
    """`files`: names of the lists in a folder. `columns`: those by which a table or JSON is known. `read` gives entries
    of one file, with the variant that stands after the colon; `classes` the names in order from the folder, or None."""

    files: re.Pattern[str]
    columns: frozenset[str]
    read: Callable[[Path, str, list[str] | None], Iterator[Entry]]
    classes: Callable[[Path, str], list[str] | None]
    variants: tuple[str, ...] = ("",)


def official_format(path: Path) -> str | None:
    """The format of a file by its name or columns, or of a folder by the names in it; None for any other."""
    if path.is_dir():
        names = [entry.name for entry in path.iterdir()]
        # train.csv alone may be anybody's: a folder of Kinetics' lists has to be called one.
        known = [key for key, one in OFFICIAL.items() if any(map(one.files.fullmatch, names)) and key != "kinetics"]
        return next(iter(known), None)
    columns = _columns(path)
    for key, one in OFFICIAL.items():
        if one.columns <= columns if one.columns else one.files.fullmatch(path.name):
            return key
    return None


def list_official(
    source: str | os.PathLike[str], name: str, videos: str | os.PathLike[str] | None = None
) -> SourceListing:
    """The videos of a published list, or of a folder with all of them, in the format `name`. Raises DataError."""
    key, _, variant = name.partition(":")
    one = OFFICIAL[key]
    variant = variant or one.variants[0]
    if variant not in one.variants:
        raise DataError(f"{key} has {', '.join(one.variants)}, and no {variant!r}.")
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    files = [path]
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if (match := one.files.fullmatch(file.name)) and
                       (variant in ("", match.groupdict().get("fold")) or "fold" not in match.groupdict()))  # fmt: skip
        files = found
    if not files:
        raise DataError(f"{path} holds no list of {key}, such as {one.files.pattern}.")
    root = Path(folder if videos is None else videos)
    if not root.is_dir():
        raise DataError(f"There is no folder {str(root)!r} with the videos of {path}.")
    labels = one.classes(folder, variant)
    listing = SourceListing(str(root), labels=labels, numbers=labels is None)
    lookup = _Lookup(root)
    for file in files:
        for entry in one.read(file, variant, labels):
            _add(listing, entry, lookup)
    if not listing.videos:
        first = f" {listing.skipped[0]}" if listing.skipped else ""
        raise DataError(
            f"None of the {len(listing.skipped)} videos of {path} is below {root} ({len(lookup.by_stem)} videos "
            f"there): pass videos= (--videos), the folder they lie in.{first}"
        )
    listing.drop_unlabelled("has no label in the list")
    return listing


class _Lookup:
    """Videos below a folder by the name without ending."""

    def __init__(self, root: Path):
        self.root = root
        self.by_stem: dict[str, str] = {}
        for name in filter(is_video, walk_files(root)):
            self.by_stem.setdefault(os.path.splitext(os.path.basename(name))[0], name)

    def find(self, name: str) -> str | None:
        """The path relative to the folder."""
        path = locate(self.root, name) if "/" in name or is_video(name) else None
        if path is not None:
            return os.path.relpath(path, self.root).replace(os.sep, "/")
        base = os.path.basename(name)
        return self.by_stem.get(os.path.splitext(base)[0] if is_video(base) else base)


def _add(listing: SourceListing, entry: Entry, lookup: _Lookup) -> None:
    if entry.unused:
        listing.skipped.append(Skipped(entry.names[0], entry.unused, "unused"))
        return
    found = next(filter(None, map(lookup.find, entry.names)), None)
    source = None if found is None else entry.segment(str(lookup.root / found))
    if source is None:
        listing.skipped.append(Skipped(entry.names[0], f"no file of this name below {lookup.root}", "missing"))
        return
    listing.videos.append(ListedVideo(source, named_part(found, source), entry.label, entry.split, entry.group))


def _columns(path: Path) -> frozenset[str]:
    """Of a table its header, of JSON the keys of the first entry."""
    ending = path.suffix.lower()
    if ending == ".json":
        try:
            given = json.loads(read_text(path))
        except (DataError, ValueError):
            return frozenset()
        first = given[0] if isinstance(given, list) and given else None
        return frozenset(first) if isinstance(first, dict) else frozenset()
    if ending in (".csv", ".tsv", ".txt"):
        line = next((line for line in text_lines(read_text(path)[:65536]) if line.strip()), "")
        return frozenset(cell.strip().strip('"').lower() for cell in re.split(r"[,;\t]", line))
    return frozenset()


def _split_of_file(path: Path) -> str | None:
    return next(
        filter(None, map(split_name, re.split(r"[^a-zA-Z]+|(?<=train)(?=list)|(?<=test)(?=list)", path.stem))), None
    )


def _table(path: Path, *needed: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Records with lower-case columns and their places. Raises DataError where a column is missing."""
    table = read_table(path, names=needed)
    for record, place in zip(table.records, table.places, strict=True):
        record = {str(name).lower(): value for name, value in record.items()}
        missing = [name for name in needed if name not in record]
        if missing:
            raise DataError(f"{path}, {place}: there is no {missing[0]!r}; the list has {', '.join(record)}.")
        yield record, f"{path}, {place}"


def _no_classes(folder: Path, variant: str) -> None:
    return None


# -- Kinetics ---------------------------------------------------------------------------------------------------------


def _kinetics(path: Path, variant: str, labels: list[str] | None) -> Iterator[Entry]:
    entries = list(_table(path, "youtube_id", "time_start", "time_end"))
    clips = Counter(record["youtube_id"] for record, _ in entries)
    for record, place in entries:
        identity, label = str(record["youtube_id"]), record.get("label")
        try:
            start, end = float(record["time_start"]), float(record["time_end"])
        except (TypeError, ValueError):
            raise DataError(f"{place}: time_start and time_end are needed in seconds; {record} came.") from None
        if "label" in record and not label:
            raise DataError(f"{place}: a label is needed; {record} came.")
        cut = f"{identity}_{int(start):06d}_{int(end):06d}"
        alone = clips[record["youtube_id"]] == 1
        segment = functools.partial(_kinetics_clip, cut=cut, start=start, end=end, alone=alone)
        yield Entry((cut, identity), label or None, split_of(record) or _split_of_file(path), segment, identity)


def _kinetics_clip(path: str, cut: str, start: float, end: float, alone: bool) -> Any:
    """A file called by the bare id is the whole video, of which the clip is a part, or the clip: one that is shorter
    than the clip's end can only be the latter, of a list's only clip of this id."""
    if Path(path).stem == cut:
        return path
    try:
        with VideoReader(path) as reader:
            whole = reader.metadata.duration >= end - 0.5
    except (HFVideoError, OSError):
        whole = False
    return VideoPart(path, start, end) if whole else path if alone else None


# -- Something-Something v2 -------------------------------------------------------------------------------------------


def _something(path: Path, variant: str, labels: list[str] | None) -> Iterator[Entry]:
    answers: dict[str, str] = {}
    for file in path.parent.glob("*test-answers.csv"):
        answers |= dict(line.strip().split(";", 1) for line in text_lines(read_text(file)) if ";" in line)
    for record, place in _table(path, "id"):
        identity = str(record["id"])
        template = record.get("template") or answers.get(identity)
        if template is None and record.get("label"):
            raise DataError(f"{place}: there is a label and no template, which is the class of a video.")
        label = None if template is None else template.replace("[", "").replace("]", "")
        yield Entry((f"{identity}.webm", identity), label, _split_of_file(path))


def _something_classes(folder: Path, variant: str) -> list[str] | None:
    file = next((folder / name for name in ("something-something-v2-labels.json", "labels.json")
                 if (folder / name).is_file()), None)  # fmt: skip
    if file is None:
        return None
    numbers = json.loads(read_text(file))
    return sorted(numbers, key=lambda name: int(numbers[name]))


# -- UCF101 and HMDB51 ------------------------------------------------------------------------------------------------


def _ucf(path: Path, variant: str, labels: list[str] | None) -> Iterator[Entry]:
    for number, line in enumerate(text_lines(read_text(path)), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(?P<path>(?P<label>[^/\\]+)[/\\].+?\.\w+)(?:\s+\d+)?", line.strip())
        if match is None:
            raise DataError(f"{path}, line {number}: {line.strip()!r} came instead of `class/video.avi number`.")
        yield Entry((match["path"].replace("\\", "/"),), match["label"], _split_of_file(path))


def _hmdb(path: Path, variant: str, labels: list[str] | None) -> Iterator[Entry]:
    label = _HMDB_FILE.fullmatch(path.name)["label"]
    for number, line in enumerate(text_lines(read_text(path)), start=1):
        if not line.strip():
            continue
        name, _, part = line.strip().rpartition(" ")
        if part not in ("0", "1", "2"):
            raise DataError(f"{path}, line {number}: {line.strip()!r} came instead of `video.avi 0`, 1 or 2.")
        unused = "" if part != "0" else "stands in neither part of this split (0)"
        yield Entry((f"{label}/{name.strip()}",), label, {"1": "train", "2": "test"}.get(part), unused=unused)


# -- Diving48 ---------------------------------------------------------------------------------------------------------


def _diving(path: Path, variant: str, labels: list[str] | None) -> Iterator[Entry]:
    for record, place in _table(path, "vid_name", "label"):
        segment = functools.partial(part_of, record=record, columns=_FRAMES, place=place)
        label = _named(record["label"], labels, place)
        yield Entry((str(record["vid_name"]),), label, _split_of_file(path), segment)


def _diving_classes(folder: Path, variant: str) -> list[str] | None:
    file = folder / "Diving48_vocab.json"
    if not file.is_file():
        return None
    return [" ".join(one) if isinstance(one, list) else str(one) for one in json.loads(read_text(file))]


# -- Charades ---------------------------------------------------------------------------------------------------------


def _charades(path: Path, variant: str, labels: list[str] | None) -> Iterator[Entry]:
    for record, place in _table(path, "id", "actions"):
        codes = [one.split()[0] for one in record["actions"].split(";") if one.strip()]
        wrong = next((code for code in codes if not re.fullmatch(r"c\d{3}", code)), None)
        if wrong is not None:
            raise DataError(f"{place}: {wrong!r} came for an action; they are written `c092 11.90 21.20;c147 …`.")
        label = tuple(dict.fromkeys(_named(int(code[1:]), labels, place) for code in codes))
        yield Entry((str(record["id"]),), label, _split_of_file(path))


def _charades_classes(folder: Path, variant: str) -> list[str] | None:
    named = _numbered_classes(folder / "Charades_v1_classes.txt", r"c(\d{3})\s+(\S.*?)\s*")
    return named or [f"c{number:03d}" for number in range(157)]


# -- EPIC-KITCHENS ----------------------------------------------------------------------------------------------------


def _epic(path: Path, variant: str, labels: list[str] | None) -> Iterator[Entry]:
    names = {kind: _epic_classes(path.parent, kind) for kind in ("verb", "noun")}
    for record, place in _table(path, "video_id", *_TIMESTAMPS[:2]):
        segment = functools.partial(part_of, record=record, columns=_TIMESTAMPS, place=place)
        kinds = ("verb", "noun") if variant == "action" else (variant,)
        given = [record.get(f"{kind}_class") for kind in kinds]
        label = None
        if None not in given and "" not in given:
            label = " ".join(_named(one, names[kind], place) for one, kind in zip(given, kinds, strict=True))
        identity = str(record["video_id"])
        yield Entry((identity,), label, _split_of_file(path), segment, identity)


def _epic_classes(folder: Path, variant: str) -> list[str] | None:
    file = next(iter(sorted(folder.glob(f"EPIC*_{variant}_classes.csv"))), None)
    if file is None:
        return None
    # EPIC-KITCHENS-100 has id and key, the first edition verb_id and class_key.
    table = read_table(file, names=("id", f"{variant}_id"))
    pairs = (("id", "key"), (f"{variant}_id", "class_key"))
    at, name = next(pair for pair in pairs if pair[0] in table.columns)
    rows = {int(record[at]): record[name] for record in table.records}
    return [str(rows.get(number, number)) for number in range(max(rows) + 1)]


# -- classes ----------------------------------------------------------------------------------------------------------


def _numbered_classes(file: Path, line: str) -> list[str] | None:
    """Names in the order of their numbers; the lowest is the first class."""
    if not file.is_file():
        return None
    found = [match for text in text_lines(read_text(file)) if (match := re.fullmatch(line, text))]
    return [match[2] for match in sorted(found, key=lambda match: int(match[1]))]


def _named(number: str | int, labels: list[str] | None, place: str) -> str:
    try:
        return str(int(number)) if labels is None else labels[int(number)]
    except (TypeError, ValueError, IndexError):
        raise DataError(
            f"{place}: {number!r} is no class number{'' if labels is None else f' below {len(labels)}'}."
        ) from None


_FRAMES = ("start_frame", "end_frame", "frames")
_TIMESTAMPS = ("start_timestamp", "stop_timestamp", "seconds")
_NO_COLUMNS: frozenset[str] = frozenset()
_HMDB_FILE = re.compile(r"(?P<label>.+)_test_split(?P<fold>[123])\.txt")

OFFICIAL = {
    "kinetics": Official(
        re.compile(r".*(?:train|val|validate|validation|test)\.csv", re.IGNORECASE),
        frozenset({"youtube_id", "time_start", "time_end"}), _kinetics, _no_classes,
    ),
    "something-something": Official(
        re.compile(r"(?:something-something-v2-)?(?:train|validation|test)\.json"),
        frozenset({"id", "template"}), _something, _something_classes,
    ),
    "ucf101": Official(
        re.compile(r"(?:train|test)list0?(?P<fold>[123])\.txt"), _NO_COLUMNS, _ucf,
        lambda folder, _: _numbered_classes(folder / "classInd.txt", r"\s*(\d+)\s+(\S.*?)\s*"), ("1", "2", "3"),
    ),
    "hmdb51": Official(_HMDB_FILE, _NO_COLUMNS, _hmdb, _no_classes, ("1", "2", "3")),
    "diving48": Official(
        re.compile(r"Diving48_V2_(?:train|test)\.json", re.IGNORECASE),
        frozenset({"vid_name", "label"}), _diving, _diving_classes,
    ),
    "charades": Official(
        re.compile(r"Charades(?:_v1|Ego_v1)_(?:train|test)\.csv"), frozenset({"id", "actions", "script"}),
        _charades, _charades_classes,
    ),
    "epic-kitchens": Official(
        re.compile(r"EPIC_(?:100_)?(?:train|validation|test_timestamps|train_action_labels)\.csv"),
        frozenset({"video_id", "start_timestamp", "stop_timestamp", "participant_id"}),
        _epic, _epic_classes, ("verb", "noun", "action"),
    ),
}  # fmt: skip
