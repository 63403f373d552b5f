"""`load_videos`: from whatever holds the videos to rows for each split."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from hf_video.data.folder import Found, Listing, drop_unlabelled, list_folder
from hf_video.data.rows import Skipped, VideoRow, VideoRows
from hf_video.data.splitting import assign_groups, choose_test
from hf_video.errors import DataError

SPLITS = ("train", "validation", "test")
TEST_SIZE = 0.2


def load_videos(
    source: Any,
    *,
    data_format: str | None = None,
    split: str | None = None,
    test_size: float | None = None,
    seed: int = 0,
    label_column: str = "label",
    video_column: str = "video",
    group_pattern: str | None = None,
    labels: Sequence[str] | None = None,
    inspect: str | None = "open",
    min_frames: int = 1,
) -> dict[str, VideoRows]:
    listing = list_folder(source)
    if split is not None:
        _keep_split(listing, split)
    elif all(video.split is None for video in listing.videos):
        _split_automatically(listing, test_size, seed, group_pattern)
    return _numbered(listing, labels)


def _keep_split(listing: Listing, split: str) -> None:
    """Only this split; a source without splits is this one, whole."""
    for video in listing.videos:
        video.split = video.split or split
    found = sorted({video.split for video in listing.videos})
    listing.videos = [video for video in listing.videos if video.split == split]
    if not listing.videos:
        raise DataError(f"{listing.root} has no split {split!r}; it has {', '.join(found)}.")


def _split_automatically(listing: Listing, test_size: float | None, seed: int, group_pattern: str | None) -> None:
    labelled = any(video.label is not None for video in listing.videos)
    share = (TEST_SIZE if labelled else 0.0) if test_size is None else test_size
    if not 0 <= share < 1:
        raise DataError(f"test_size={test_size!r} must be a share from 0 to below 1.")
    assign_groups(listing.videos, group_pattern)
    chosen = choose_test(listing.videos, share, seed) if share else [False] * len(listing.videos)
    for video, test in zip(listing.videos, chosen, strict=True):
        video.split = "test" if test else "train"


def _numbered(listing: Listing, labels: Sequence[str] | None) -> dict[str, VideoRows]:
    """Labels as numbers, rows by split."""
    names = _class_names(listing, labels)
    number = {name: i for i, name in enumerate(names)}
    rows: dict[str, list[VideoRow]] = {}
    for video in listing.videos:
        label = None if video.label is None else _number(video, number, names)
        rows.setdefault(video.split or "train", []).append(VideoRow(video.source, label, video.name, video.group))
    ordered = [*[name for name in SPLITS if name in rows], *[name for name in rows if name not in SPLITS]]
    return {
        name: VideoRows(rows[name], names, listing.skipped if name == ordered[0] else (), root=listing.root)
        for name in ordered
    }


def _class_names(listing: Listing, labels: Sequence[str] | None) -> list[str]:
    from hf_video.data.files import natural

    if labels is not None or listing.labels is not None:
        return list(labels if labels is not None else listing.labels)
    found = {video.label for video in listing.videos if video.label is not None}
    return sorted((str(label) for label in found), key=natural)


def _number(video: Found, number: dict[str, int], names: list[str]) -> int:
    if isinstance(video.label, str) and video.label in number:
        return number[video.label]
    near = difflib.get_close_matches(str(video.label), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise DataError(
        f"{video.name} has the label {video.label!r}, which is none of the {len(names)} classes.{hint} Rename it, or "
        "leave labels= out to take the classes that are there."
    )


__all__ = ["Skipped", "drop_unlabelled", "load_videos"]
