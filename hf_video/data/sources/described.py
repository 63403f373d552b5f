"""Lists of videos with something said about each: what captions and questions have in common.

A `Form` tells how one entry of a list is read; everything else (files, folders, `datasets`, splits, what is missing) is
done here. A video with several entries is one video.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_video.data.rows import ListedVideo, Skipped, SourceListing, VideoRow, VideoRows
from hf_video.data.sources.datasets_library import (
    columns_of,
    is_dataset,
    list_dataset,
    load_dataset_from,
    saved_dataset,
)
from hf_video.data.sources.division import assign_groups, choose_test
from hf_video.data.sources.files import locate, split_name
from hf_video.data.sources.lists import Columns, named_part, part_of, pick_column, segment_columns, split_of, text_of
from hf_video.data.sources.load import SPLITS, set_aside
from hf_video.data.sources.tables import LIST_ENDINGS, VIDEO_COLUMNS, Table, read_table
from hf_video.errors import DataError, check_number
from hf_video.video.frames.addresses import local_path

ID_COLUMNS = ("video_id", "videoid", "vid", "gif_name", "id", "key")  # names of files without their ending

# An entry to what it says of its video, or to the reason why nothing.
Reader = Callable[[Mapping[str, Any]], "list[Any] | str"]


@dataclass(frozen=True)
class Form:
    """How to read one kind of list.

    `what` is said of a video, in words. `reader` takes the names of all columns but that of videos, and the source's
    name for messages; it gives the columns that are read and a `Reader`, and raises DataError where one is missing.
    `special` gives the records of a file of some other form, None for all others. `folder` lists a folder. `headers`
    are names of columns that make a first line a header, besides those of videos.
    """

    what: str
    reader: Callable[[list[str], str], tuple[list[str], Reader]]
    folder: Callable[[Path, Callable[[Any], SourceListing]], SourceListing]
    video_column: str = "video"
    special: Callable[[Path], list[dict[str, Any]] | None] = lambda path: None
    headers: tuple[str, ...] = ()


@dataclass
class Described(ListedVideo):
    """A video, once, with all that is said about it."""

    said: list[Any] = field(default_factory=list)


def list_described(source: Any, form: Form, videos: str | os.PathLike[str] | None) -> SourceListing:
    """The `Described` of a source, unopened: a list, a folder, a `datasets` data set or its name, or a dict of these by
    split. `videos` is the folder that names in lists are relative to. Raises DataError."""
    if isinstance(source, Mapping) and not is_dataset(source):
        return _by_split(source, form, videos)
    if is_dataset(source):
        return _from_datasets(source, form)
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(
            f"A {type(source).__name__} is no source of {form.what}. Give a list (csv, json, jsonl), a folder, a "
            "datasets Dataset or a name on the Hub."
        )
    path = Path(local_path(source))
    if path.is_dir() and not saved_dataset(str(path)):
        return form.folder(path, lambda found: list_described(found, form, videos))
    if path.suffix.lower() in LIST_ENDINGS:
        return _from_list(path, form, videos)
    return _from_datasets(load_dataset_from(os.fspath(source)), form)


def inspect_and_divide(
    listing: SourceListing,
    *,
    split: str | None,
    test_size: float,
    seed: int,
    group_pattern: str | None,
    inspect: str | None,
    num_frames: int,
    cache_dir: Any,
) -> None:
    """Sets aside what can't be read, keeps one split, or divides what has none; see `load_captions`."""
    if inspect is not None:
        set_aside(listing, inspect, num_frames=num_frames, cache_dir=cache_dir)
    if split is not None:
        for video in listing.videos:
            video.split = video.split or split
        listing.videos = [video for video in listing.videos if video.split == split]
        if not listing.videos:
            raise DataError(f"{listing.root} has no split {split!r}.")
    elif all(video.split is None for video in listing.videos):
        assign_groups(listing.videos, group_pattern)
        test = choose_test(listing.videos, test_size, seed) if test_size else [False] * len(listing.videos)
        for video, chosen in zip(listing.videos, test, strict=True):
            video.split = "test" if chosen else "train"


def check_test_size(test_size: Any) -> None:
    check_number("test_size", test_size, DataError, least=0, below=1)


def rows_by_split(listing: SourceListing, rows_of: Callable[[Described], Iterable[VideoRow]]) -> dict[str, VideoRows]:
    """Rows of all videos by split, the usual splits first; what was left out stands in the first one's `skipped`."""
    rows: dict[str, list[VideoRow]] = {}
    for video in listing.videos:
        rows.setdefault(video.split or "train", []).extend(rows_of(video))
    ordered = [*[name for name in SPLITS if name in rows], *[name for name in rows if name not in SPLITS]]
    return {
        name: VideoRows(rows[name], (), listing.skipped if name == ordered[0] else (), root=listing.root)
        for name in ordered
    }


def clean(text: Any) -> str:
    """In Unicode's NFC, without spaces around it and doubled ones; "" for what is no text."""
    return " ".join(unicodedata.normalize("NFC", text).split()) if isinstance(text, str) else ""


# -- sources ----------------------------------------------------------------------------------------------------------


def _by_split(sources: Mapping[str, Any], form: Form, videos: Any) -> SourceListing:
    whole = SourceListing("")
    for name, part in sources.items():
        found = list_described(part, form, videos)
        for video in found.videos:
            video.split = split_name(str(name)) or str(name)
        whole.root = whole.root or found.root
        whole.videos += found.videos
        whole.skipped += found.skipped
    return whole


def _from_list(path: Path, form: Form, videos: Any) -> SourceListing:
    special = form.special(path)
    table = (
        read_table(path, names=(form.video_column, *ID_COLUMNS, *form.headers))
        if special is None
        else Table(special, [f"entry {number + 1}" for number in range(len(special))])
    )
    names = table.columns
    at = pick_column(names, form.video_column, (*VIDEO_COLUMNS, *ID_COLUMNS))
    if at is None:
        columns = ", ".join(map(str, names))
        raise DataError(f"{path} has the columns {columns}, and none of videos: pass video_column=.")
    _, read = form.reader([name for name in names if name != at], str(path))
    segment = segment_columns(names)
    root = Path(videos) if videos is not None else path.parent
    listing, known = SourceListing(os.fspath(root)), {}
    for record, place in zip(table.records, table.places, strict=True):
        _add(listing, known, record, at, read, segment, f"{path}, {place}")
    return listing


def _add(
    listing: SourceListing,
    known: dict[Any, Any],
    record: Mapping[str, Any],
    at: str,
    read: Reader,
    segment: Columns | None,
    place: str,
) -> None:
    """One entry of a list; `known` holds the videos that came before, by source and split."""
    name = record.get(at)
    said, split = read(record), split_of(record)
    if name is None or name == "":
        listing.skipped.append(Skipped(place, f"its {at!r} is empty", "format"))
        return
    name = str(name)
    if isinstance(said, str):
        listing.skipped.append(Skipped(f"{name} ({place})", said, "unlabelled"))
        return
    whole = locate(listing.root, name)
    if whole is None:
        if (name, split) not in known:
            known[name, split] = None
            listing.skipped.append(Skipped(name, f"{os.path.join(listing.root, name)} does not exist", "missing"))
        return
    source = part_of(whole, record, segment, place)
    if (source, split) not in known:
        group = text_of(record.get("group"))
        known[source, split] = Described(source, named_part(name, source), None, split, group)
        listing.videos.append(known[source, split])
    known[source, split].said += said


def _from_datasets(source: Any, form: Form) -> SourceListing:
    parts = dict(source.items()) if isinstance(source, Mapping) else {None: source}
    said: list[list[Any] | str] = []
    bare = {}
    for split, part in parts.items():
        if not hasattr(part, "select_columns"):
            raise DataError("A streaming data set has no rows to number: download it, or make a list of it.")
        video_at, _ = columns_of(part, form.video_column, "")
        names = [name for name in part.column_names if name != video_at]
        columns, read = form.reader(names, "The data set")
        said += [read(record) for record in part.select_columns(columns)]
        bare[split] = part.select_columns([video_at, *({"group"} & set(names))])
    listing = list_dataset(bare.get(None, bare), video_column=form.video_column)
    found, listing.videos = listing.videos, []
    known: dict[Any, Described] = {}
    for one, what in zip(found, said, strict=True):
        # Rows of one file are one video; of those that lie in the data set itself each is its own.
        key = (one.source, one.split) if isinstance(one.source, str) else one.name
        if isinstance(what, str):
            listing.skipped.append(Skipped(one.name, what, "unlabelled"))
        elif key in known:
            known[key].said += what
        else:
            known[key] = Described(one.source, one.name, None, one.split, one.group, said=what)
            listing.videos.append(known[key])
    return listing
