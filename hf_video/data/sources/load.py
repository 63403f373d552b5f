"""`load_videos`: from whatever holds the videos to rows for each split, as captions and questions are loaded too."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_video.data.rows import ListedVideo, Skipped, SourceListing, VideoRow, VideoRows, plain_reason
from hf_video.data.sources.datasets_library import list_dataset, load_dataset_from
from hf_video.data.sources.division import Division, assign_groups, choose_test
from hf_video.data.sources.files import canonical_path, is_dataset, is_video, saved_dataset, split_name, walk_files
from hf_video.data.sources.inspection import Inspection, inspect_all
from hf_video.data.sources.labels import (
    AnnotationReader,
    LabelReader,
    class_ids,
    class_names,
    class_number,
    normalize_labels,
)
from hf_video.data.sources.lists import list_file
from hf_video.data.sources.official import OFFICIAL, list_official, official_format
from hf_video.data.sources.tables import LINE_FORMATS, LIST_ENDINGS
from hf_video.data.sources.tar_shards import TAR_ENDINGS, list_shards
from hf_video.errors import DataError, check_choice, check_number, near_path, pluralize, unknown_name
from hf_video.video.frames.addresses import local_path

if TYPE_CHECKING:
    from hf_video.data.types import DataSource

SPLITS = ("train", "validation", "test")
FORMATS = ("folder", "list", "datasets", "webdataset", *LINE_FORMATS, *OFFICIAL)
TEST_SIZE = 0.2


def load_videos(
    source: DataSource,
    *,
    data_format: str | None = None,
    videos: str | os.PathLike[str] | None = None,
    split: str | None = None,
    test_size: float | None = None,
    seed: int = 0,
    label_column: str = "label",
    video_column: str = "video",
    group_pattern: str | None = None,
    division: Division | None = None,
    labels: Sequence[str] | None = None,
    need_labels: bool = True,
    inspect: str | None = "open",
    min_frames: int = 1,
    num_frames: int = 4,
    cache_dir: str | os.PathLike[str] | None = None,
) -> dict[str, VideoRows]:
    """Lists the videos of a source by split: "train", "validation", "test", as far as there are such.

    Args:
        source: A folder (`train/<label>/clip.mp4`; `<label>/clip.mp4`; clips without labels); a CSV, TSV, JSON, JSONL,
            Parquet or "path label" list, or a dict of these by split; a `datasets` Dataset or DatasetDict, one saved to
            disk or a name on the Hub; WebDataset tar shards (a tar, a folder, a glob, `{000..012}.tar`, a list).
        data_format: "folder", "list", "datasets" or "webdataset", where the source doesn't tell; "path-labels" or
            "path-frames-labels" for lines of several numbers; or a published list's: "kinetics",
            "something-something", "ucf101", "hmdb51", "diving48", "charades", "epic-kitchens" (see
            `hf_video.data.sources.official`), which are known by their columns too.
        videos: The folder that names in a list are relative to; default the list's own.
        split: The only split to take; a source without splits is then this one, whole.
        test_size: Share of each class, from 0 to below 1, that becomes "test" where the source has no splits; default
            0.2, and 0 for unlabelled videos.
        seed: Seed of that split.
        label_column: Its name in lists, tables and the .json files of shards.
        video_column: Its name in lists and tables.
        group_pattern: A regular expression on names; its first group (or the match) names the recording. Clips of one
            recording are never split up. By default UCF101's, Kinetics' and "..._clip3" names are known.
        division: How the source was divided before (`hf_video.data.sources.division`): what has no splits of its own
            gets these, and new videos are tested.
        labels: Class names in order, of a model that exists already; default: those found, in natural order. Labels
            that are numbers are indices.
        need_labels: Whether only labels make a video useful. False keeps the videos without a label beside those that
            have one, such as the loose ones beside label folders, and takes a file that several names lead to once.
        inspect: "open" opens each file and decodes its first frame, "full" decodes all, None looks at nothing. What
            can't be read is left out and named in `.skipped`; what is cut off or short is named and used.
        min_frames: Number of frames below which a file is not used.
        num_frames: Number of frames below which a file is named as short: pass the model's.
        cache_dir: Where inspections are kept; default `hf_video/inspected` in XDG_CACHE_HOME or ~/.cache.

    Returns:
        The rows of each split, the usual splits first. Rows of a list with `start` and `end` are parts of videos
        (`hf_video.video.VideoPart`). Where some rows have several labels ([1, 3], "run|jump"), the labels of all are
        tuples. What was left out, and why, stands in the first split's `skipped`.

    Raises:
        DataError: Nothing is there, there is no such split or column, a label is none of `labels`, or a list can't be
            read.
    """
    listing = load_listing(
        source,
        LabelReader(video_column, label_column),
        data_format=data_format,
        videos=videos,
        split=split,
        test_size=test_size,
        seed=seed,
        group_pattern=group_pattern,
        division=division,
        prepare=None if need_labels else _take_all,
        inspect=inspect,
        min_frames=min_frames,
        num_frames=num_frames,
        cache_dir=cache_dir,
    )
    names = class_names(listing, labels)
    ids = class_ids(names)

    def row(video: ListedVideo) -> list[VideoRow]:
        return [VideoRow(video.source, class_number(video, names, ids), video.name, video.group)]

    return rows_by_split(listing, row, names)


def load_listing(
    source: DataSource,
    annotations: AnnotationReader,
    *,
    data_format: str | None = None,
    videos: str | os.PathLike[str] | None = None,
    split: str | None = None,
    test_size: float | None = None,
    seed: int = 0,
    group_pattern: str | None = None,
    division: Division | None = None,
    prepare: Callable[[SourceListing], None] | None = None,
    inspect: str | None = "open",
    min_frames: int = 1,
    num_frames: int = 4,
    cache_dir: str | os.PathLike[str] | None = None,
) -> SourceListing:
    """The videos of a source with their annotations, each with its split: the road of labels, captions and questions.
    `prepare` changes the listing before files are opened. See `load_videos`."""
    check_number("test_size", test_size, DataError, least=0, below=1, optional=True)
    listing = list_source(source, data_format, videos=videos, annotations=annotations)
    if prepare is not None:
        prepare(listing)
        if not listing.videos:
            why = f" {listing.skipped[0]}" if listing.skipped else ""
            raise DataError(f"{listing.root or 'The source'} holds no {annotations.noun} that can be used.{why}")
    if inspect is not None:
        inspect_listing(listing, inspect, min_frames=min_frames, num_frames=num_frames, cache_dir=cache_dir)
    if split is not None:
        _keep_split(listing, split)
    elif all(video.split is None for video in listing.videos):
        if division is not None:
            division.assign(listing.videos)
        else:
            _split_automatically(listing, test_size, seed, group_pattern)
    return listing


def rows_by_split(
    listing: SourceListing, rows_of: Callable[[ListedVideo], Iterable[VideoRow]], labels: Sequence[str] = ()
) -> dict[str, VideoRows]:
    """The rows of all videos by split, the usual splits first; what was left out is in the first one's `skipped`."""
    rows: dict[str, list[VideoRow]] = {}
    for video in listing.videos:
        rows.setdefault(video.split or "train", []).extend(rows_of(video))
    ordered = [*[name for name in SPLITS if name in rows], *[name for name in rows if name not in SPLITS]]
    return {
        name: VideoRows(rows[name], labels, listing.skipped if name == ordered[0] else (), root=listing.root)
        for name in ordered
    }


# -- sources ----------------------------------------------------------------------------------------------------------


def list_source(
    source: DataSource,
    data_format: str | None = None,
    *,
    videos: str | os.PathLike[str] | None = None,
    annotations: AnnotationReader | None = None,
) -> SourceListing:
    """What a source holds, unopened, with labels in one spelling; see `load_videos`. Labels are read where no other
    `annotations` are asked for."""
    annotations = annotations or LabelReader()
    if isinstance(source, (str, os.PathLike)):
        source = local_path(source)
    name = data_format or _format_of(source, annotations)
    check_choice("data_format", name.partition(":")[0], FORMATS, DataError)
    listing = _list_as(name, source, annotations, videos)
    normalize_labels(listing)
    return listing


def _list_as(
    name: str, source: DataSource, annotations: AnnotationReader, videos: str | os.PathLike[str] | None
) -> SourceListing:
    key = name.partition(":")[0]
    if isinstance(source, Mapping) and not is_dataset(source):
        return _list_by_split(source, None if name == "list" else name, annotations, videos)
    if name in ("list", *LINE_FORMATS):
        return list_file(Path(source), annotations, videos, name if name in LINE_FORMATS else None)
    if name == "datasets":
        loaded = load_dataset_from(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else source
        return list_dataset(loaded, annotations, videos)
    if name == "folder":
        root = Path(source)
        if not root.is_dir():
            raise DataError(f"{root} is no folder (looked in {os.getcwd()}).{near_path(root)} Give a folder of videos.")
        if (found := annotations.find_list(root)) is not None:
            return list_source(found, videos=videos, annotations=annotations)
    elif not isinstance(annotations, LabelReader):
        raise DataError(
            f"{source} is read as {name}, which has labels and no {annotations.noun}: give a list of these."
        )
    elif key in OFFICIAL:
        return list_official(source, name, videos)
    if videos is not None:
        raise DataError(f"videos= is where the videos of a list lie, and {source} is read as {name}: leave it out.")
    if name == "folder":
        return annotations.list_folder(root)
    return list_shards(source, label_column=annotations.label_column)


def _format_of(source: object, annotations: AnnotationReader) -> str:
    """Which of FORMATS a source is in, by what lies there."""
    labelled = isinstance(annotations, LabelReader)  # what else there is holds labels alone
    if is_dataset(source):
        return "datasets"
    if isinstance(source, Mapping):
        return "list"
    if isinstance(source, (list, tuple)) and labelled:
        return "webdataset"
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(
            f"A {type(source).__name__} is no source of videos and {annotations.noun}. Give a folder, a list "
            f"({', '.join(LIST_ENDINGS)}), a datasets Dataset, a name on the Hub, or tar shards."
        )
    text = os.fspath(source)
    if os.path.isdir(text):
        if saved_dataset(text):
            return "datasets"
        files = list(walk_files(text)) if labelled else []
        if not files or any(map(is_video, files)):
            return "folder"
        tars = any(name.lower().endswith(TAR_ENDINGS) for name in files)
        return "webdataset" if tars else official_format(Path(text)) or "folder"
    if text.lower().endswith(TAR_ENDINGS):
        return "webdataset"
    if text.lower().endswith(LIST_ENDINGS):
        known = official_format(Path(text)) if labelled and os.path.isfile(text) else None
        return known or "list"
    if os.path.exists(text):
        raise DataError(f"{text} is neither a folder nor a list of videos. Lists end in {' '.join(LIST_ENDINGS)}.")
    return "datasets" if re.fullmatch(r"[\w.-]+/[\w.-]+", text) else "folder"


def _list_by_split(
    source: Mapping[str, Any],
    data_format: str | None,
    annotations: AnnotationReader,
    videos: str | os.PathLike[str] | None,
) -> SourceListing:
    """A dict of lists or folders by split."""
    whole: SourceListing | None = None
    for name, part in source.items():
        found = list_source(part, data_format, videos=videos, annotations=annotations)
        for one in found.videos:
            one.split = split_name(str(name)) or str(name)
        if whole is None:
            whole = found
            continue
        whole.videos += found.videos
        whole.skipped += found.skipped
        whole.unlabelled += found.unlabelled
        whole.labels = max(whole.labels or [], found.labels or [], key=len) or None
    if whole is None:
        raise DataError("The dict of lists is empty: give {'train': 'train.csv', 'test': 'test.csv'}.")
    return whole


def _take_all(listing: SourceListing) -> None:
    """Brings the videos without a label back, and takes each file once."""
    names = {video.name for video in listing.unlabelled}
    listing.skipped = [one for one in listing.skipped if one.name not in names]
    videos = [*listing.videos, *listing.unlabelled]
    first: dict[str | int, ListedVideo] = {}
    for video in videos:
        key = canonical_path(video.source) if isinstance(video.source, str) else id(video)
        if (before := first.setdefault(key, video)) is not video:
            listing.skipped.append(Skipped(video.name, f"is the same file as {before.name}", "other"))
    listing.videos, listing.unlabelled = list(first.values()), []


# -- files and splits -------------------------------------------------------------------------------------------------


def inspect_listing(
    listing: SourceListing,
    level: str,
    *,
    min_frames: int = 1,
    num_frames: int = 4,
    cache_dir: str | os.PathLike[str] | None = None,
    look: Callable[[ListedVideo], Inspection] | None = None,
) -> None:
    """Opens every video, sets its `inspection`, and moves those that can't be used to the skipped ones.
    `look` inspects a video in place of `inspect_video`. Raises DataError where none is left."""
    here = [v for v in listing.videos if not (isinstance(v.source, str) and "://" in v.source)]  # never the network
    found = inspect_all(
        [v.source for v in here],
        level=level,
        root=listing.root,
        cache_dir=cache_dir,
        look=None if look is None else lambda i: look(here[i]),
    )
    lost = set()
    for video, one in zip(here, found, strict=True):
        video.inspection = one
        kind, reason, used = one.kind, plain_reason(one.reason, video.source, video.name), one.usable
        if kind is None and one.frames < max(num_frames, min_frames):
            kind, reason, used = "short", f"{pluralize(one.frames, 'frame')} only", one.frames >= min_frames
        if kind is not None:
            listing.skipped.append(Skipped(video.name, reason, kind, used))
        if not used:
            lost.add(id(video))
    listing.videos = [video for video in listing.videos if id(video) not in lost]
    if not listing.videos:
        raise DataError(f"None of the {len(here)} videos of {listing.root} can be used. {listing.skipped[-1]}")


def _keep_split(listing: SourceListing, split: str) -> None:
    """Only this split; a source without splits is this one, whole."""
    for video in listing.videos:
        video.split = video.split or split
    found = sorted({video.split for video in listing.videos})
    listing.videos = [video for video in listing.videos if video.split == split]
    if not listing.videos:
        raise DataError(unknown_name(f"{listing.root} has no split", split, found))


def _split_automatically(listing: SourceListing, test_size: float | None, seed: int, group_pattern: str | None) -> None:
    labelled = any(video.label is not None for video in listing.videos)
    share = (TEST_SIZE if labelled else 0.0) if test_size is None else test_size
    assign_groups(listing.videos, group_pattern)
    for video, test in zip(listing.videos, choose_test(listing.videos, share, seed), strict=True):
        video.split = "test" if test else "train"
