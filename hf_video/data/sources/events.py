"""Videos with the events that happen in them, by split: what detectors are trained and measured on.

splits = load_events("videos/", "annotations.json")     # {"train": VideoRows of EventRow, "test": …}
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hf_video.data.rows import ListedVideo, Skipped, SourceListing, VideoRow, VideoRows
from hf_video.data.sources.division import assign_groups, choose_test
from hf_video.data.sources.event_files import Event, EventFile, event_faults, read_events, same_event, video_key
from hf_video.data.sources.files import is_video, walk_files
from hf_video.data.sources.inspection import Inspection, inspect_all
from hf_video.data.sources.load import TEST_SIZE, rows_by_split
from hf_video.errors import DataError, check_choice, near_path

FEATURE_ENDINGS = (".npy", ".safetensors")
INVALID = ("raise", "drop")
# Faults of events that nothing can be trained on; copies and zero lengths are left out, as all published code does.
WRONG = ("value", "order", "negative", "beyond", "label")


@dataclass(frozen=True, slots=True)
class EventRow(VideoRow):
    """A video (or the file of its features) and its events by start; `label` are the numbers of their classes.
    `duration` (seconds) and `fps` are the video's own, else the annotations'; None where neither says them."""

    events: tuple[Event, ...] = field(default=())
    duration: float | None = None
    fps: float | None = None


def load_events(
    folder: str | os.PathLike[str],
    annotations: str | os.PathLike[str] | EventFile,
    *,
    invalid: str = "raise",
    test_size: float | None = None,
    seed: int = 0,
    group_pattern: str | None = None,
    label_column: str = "label",
    labels: Sequence[str] | None = None,
    ignore_labels: Sequence[str] = (),
) -> dict[str, VideoRows]:
    """The annotated videos of a folder, by the subsets of the annotations.

    Args:
        folder: of videos, or of ready-made features (`.npy`, `.safetensors`), named as the annotations name them, with
            or without an ending, folders and ActivityNet's "v_".
        annotations: see `read_events`, which takes `label_column`, `labels` and `ignore_labels`.
        invalid: what becomes of events whose times or label can't be right (start after end, negative, beyond the end
            of the video, an unknown label): "raise" or "drop". Copies and events without length are always left out.
        test_size: share of the videos of each class that becomes "test" where the annotations have no subsets; default
            .2. Clips of one recording (`group_pattern`, see `load_videos`) stay together.
        seed: of that division.

    Returns:
        `VideoRows` of `EventRow`, with what was left out in the first split's `skipped`.

    Raises:
        DataError: the folder or file isn't there, none of the videos is, an event is wrong with `invalid="raise"`, or a
            subset has a name that says nothing.
    """
    check_choice("invalid", invalid, INVALID, DataError)
    file = annotations
    if not isinstance(file, EventFile):
        file = read_events(file, labels=labels, label_column=label_column, ignore_labels=ignore_labels)
    found = find_videos(folder, file)
    faults = file.faults + found.faults
    strange = [one for one in faults if one.kind in (*WRONG, "subset")]
    if bad := [one for one in strange if one.kind == "subset"]:
        raise DataError(f"{file.path}: {bad[0]}")
    if strange and invalid == "raise":
        more = f" (and {len(strange) - 1} more; `hf-video check` with --annotations names all)" if strange[1:] else ""
        raise DataError(f"{file.path}: {strange[0]}{more}. Correct it, or leave such events out: data.invalid=drop.")
    wrong = {one.name for one in faults if one.kind in WRONG}
    numbers = {label: number for number, label in enumerate(file.labels)}
    splits = file.split_names()
    listing = SourceListing(str(folder), skipped=[*faults, *found.skipped])
    for name, path in found.paths.items():
        video, about = file.videos[name], found.inspections.get(name)
        kept: list[Event] = []
        for event in sorted(video.events, key=lambda one: (one.start, one.end)):
            good = event.place not in wrong and event.end > event.start
            if good and not any(same_event(event, other) for other in kept):
                kept.append(event)
        listed = ListedVideo(path, name, tuple(dict.fromkeys(event.label for event in kept)), inspection=about)
        listed.split = splits.get(video.subset or "")
        listed.annotations = kept
        listing.videos.append(listed)
    if not any(video.split for video in listing.videos):
        assign_groups(listing.videos, group_pattern)
        share = TEST_SIZE if test_size is None else test_size
        for listed, test in zip(listing.videos, choose_test(listing.videos, share, seed), strict=True):
            listed.split = "test" if test else "train"
    elif alone := [video.name for video in listing.videos if video.split is None]:
        raise DataError(
            f"{file.path}: {alone[0]} has no subset, and other videos have one. Give each video its subset."
        )

    def row(video: ListedVideo) -> Iterable[EventRow]:
        about, stated = video.inspection, file.videos[video.name]
        yield EventRow(
            video.source,
            tuple(sorted({numbers[event.label] for event in video.annotations})),
            video.name,
            video.group,
            tuple(video.annotations),
            about.seconds if about is not None else stated.duration,
            about.fps if about is not None else stated.fps,
        )

    rows = rows_by_split(listing, row, file.labels)
    # Published test sets often have videos without their annotations.
    return {
        name: part
        for name, part in rows.items()
        if name == "train" or any(isinstance(one, EventRow) and one.events for one in part)
    }


@dataclass
class FoundVideos:
    """Where the annotated videos lie: `paths` and `inspections` (of videos, not of features) by name, `skipped`
    (videos that are not there or can't be read), and `faults` of events beyond a video's real end."""

    paths: dict[str, str] = field(default_factory=dict)
    inspections: dict[str, Inspection] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    faults: list[Skipped] = field(default_factory=list)
    unannotated: list[str] = field(default_factory=list)


def find_videos(folder: str | os.PathLike[str], annotations: EventFile) -> FoundVideos:
    """Looks for the videos of `annotations` below a folder, opens each, and compares events with its real length.
    Raises DataError where the folder isn't there, two files fit one name, or none is found."""
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is no folder (looked in {os.getcwd()}).{near_path(root)} Give a folder of videos.")
    found, files = FoundVideos(), list(walk_files(root))
    videos = [name for name in files if is_video(name)]
    for file in videos or [name for name in files if name.endswith(FEATURE_ENDINGS)]:
        name = video_key(file, annotations.videos)
        if name not in annotations.videos:
            found.unannotated.append(file)
        elif name in found.paths:
            other = Path(found.paths[name]).relative_to(root)
            raise DataError(f"{other} and {file} could both be the video {name!r} of {annotations.path}.")
        else:
            found.paths[name] = str(root / file)
    if not found.paths:
        example = next(iter(annotations.videos))
        there = f" There are files such as {found.unannotated[0]}." if found.unannotated else ""
        raise DataError(
            f"None of the {len(annotations.videos)} videos of {annotations.path}, such as {example!r}, is in {root}."
            f"{there}"
        )
    found.skipped += [
        Skipped(name, f"is in {annotations.path}, and no file of that name is in {root}", "missing")
        for name in annotations.videos
        if name not in found.paths
    ]
    real = {name: path for name, path in found.paths.items() if is_video(path)}
    for name, about in zip(real, inspect_all(list(real.values()), root=str(root)), strict=True):
        if about.kind is not None:
            found.skipped.append(Skipped(name, about.reason, about.kind, used=about.usable))
        if not about.usable:
            del found.paths[name]
            continue
        found.inspections[name] = about
        named = annotations.videos[name]
        stated = {one.name for one in annotations.faults if one.kind == "beyond"}
        found.faults += [
            fault
            for event in named.events
            if event.place not in stated
            for fault in event_faults(event, about.seconds)
            if fault.kind == "beyond"
        ]
    return found


def count_events(rows: VideoRows) -> dict[str, int]:
    """Events of each class, classes without any included."""
    counts = Counter(event.label for row in event_rows(rows) for event in row.events)
    return {label: counts[label] for label in rows.labels}


def event_rows(rows: VideoRows) -> list[EventRow]:
    """The rows that have events, as their type says."""
    return [row for row in rows if isinstance(row, EventRow)]


def one_class(rows: VideoRows) -> VideoRows:
    """The same events, all of the class "action", for detectors of proposals."""
    renamed = [
        replace(row, label=(0,) if row.events else (), events=tuple(replace(one, label="action") for one in row.events))
        for row in event_rows(rows)
    ]
    return VideoRows(renamed, ["action"], rows.skipped, root=rows.root)
