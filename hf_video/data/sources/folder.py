"""A folder of videos as rows: `train/<label>/clip.mp4`, `<label>/clip.mp4`, or just clips.

Every file below it ends up in a row or in the list of what was skipped.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_video.data.rows import Skipped
from hf_video.data.sources.files import is_video, not_a_video, walk
from hf_video.errors import DataError, near_path

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "validate": "validation",
    "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass
class Found:
    """A video before labels have numbers. `split` is None where the source has no splits; `about` is its `Inspection`,
    once it has been opened. A video that shows several classes has a tuple of labels."""

    source: Any
    name: str
    label: str | tuple[str, ...] | None = None
    split: str | None = None
    group: str | None = None
    about: Any = None


@dataclass
class Listing:
    """What a source holds: videos, what was left out, and the class names in order where the source states them.

    `numbers` says that labels which are numbers are the numbers of classes, not names (as in lists; a folder may well
    be called "2")."""

    root: str
    videos: list[Found] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    unlabelled: list[Found] = field(default_factory=list)  # in `skipped` too; for uses that need no labels
    labels: list[str] | None = None
    numbers: bool = False


def split_name(text: str) -> str | None:
    """ "train", "validation" or "test" for the names that people give them, else None."""
    return SPLIT_NAMES.get(text.lower())


def list_folder(root: str | os.PathLike[str]) -> Listing:
    """The videos of a folder. Raises DataError where there is no folder or nothing in it is a video."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder (looked in {os.getcwd()}).{near_path(root)} Give a folder of videos.")
    listing = Listing(str(root))
    splits = _splits(root)
    for name in walk(root):
        _place(listing, root, name, splits)
    if not listing.videos:
        others = f" There are other files, such as {listing.skipped[0].name}." if listing.skipped else ""
        raise DataError(
            f"{root} holds no video.{others} Give train/<label>/clip.mp4, <label>/clip.mp4, or clips without labels."
        )
    drop_unlabelled(listing, "stands beside the label folders")
    _name_empty_classes(listing, root, splits)
    return listing


def _splits(root: Path) -> dict[str, str]:
    """Subfolders that are splits, by name: where one is the training split, or where all are splits."""
    below = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    named = {name: split_name(name) for name in below if split_name(name)}
    return named if "train" in named.values() or (below and len(named) == len(below)) else {}


def _place(listing: Listing, root: Path, name: str, splits: dict[str, str]) -> None:
    parts = name.split("/")
    split = None
    if splits:
        split = splits.get(parts[0]) if len(parts) > 1 else None
        if split is None and not is_video(name):
            listing.skipped.append(not_a_video(name))
            return
        if split is None:
            reason = f"stands beside the splits ({', '.join(splits)})"
            listing.unlabelled.append(Found(str(root / name), name))
            listing.skipped.append(Skipped(name, reason, "format"))
            return
        parts = parts[1:]
    if not is_video(name):
        listing.skipped.append(not_a_video(name))
        return
    label = parts[0] if len(parts) > 1 else None
    listing.videos.append(Found(str(root / name), name, label, split))


def drop_unlabelled(listing: Listing, reason: str) -> None:
    """In a split that has labels, videos without one are not used."""
    labelled = {video.split for video in listing.videos if video.label is not None}
    lost = [video for video in listing.videos if video.split in labelled and video.label is None]
    listing.videos = [video for video in listing.videos if video.split not in labelled or video.label is not None]
    listing.skipped += [Skipped(video.name, reason, "unlabelled") for video in lost]
    listing.unlabelled += lost


def _name_empty_classes(listing: Listing, root: Path, splits: dict[str, str]) -> None:
    """Label folders without any video: perhaps an unfinished download."""
    if all(video.label is None for video in listing.videos):
        return
    depth = 2 if splits else 1
    full = {"/".join(video.name.split("/")[:depth]) for video in listing.videos}
    for top in [root / name for name in splits] or [root]:
        for folder in sorted(entry for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            name = folder.relative_to(root).as_posix()
            if name not in full:
                listing.skipped.append(Skipped(name + "/", "a label folder without a video", "no videos"))
