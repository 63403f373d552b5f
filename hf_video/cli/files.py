"""From what was typed to the videos that are meant: folders hold videos, or are one video of images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

VIDEO_ENDINGS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv",
    ".ogv", ".3gp", ".y4m", ".vob", ".asf", ".f4v",
)  # fmt: skip


def expand(names: Sequence[str]) -> list[str]:
    """Paths and URLs as they were typed, folders as the videos below them in natural order (2 before 10).

    A folder without videos but with images stands for itself: a video of one image a frame. One with neither stands for
    itself too, so that reading it says what is wrong. Hidden files and folders are passed over.
    """
    return [path for name in names for path in _one(name)]


def _one(name: str) -> Iterator[str]:
    if not os.path.isdir(name):
        yield name
        return
    found = [
        os.path.join(folder, file)
        for folder, below, files in os.walk(name)
        if not _prune(below)
        for file in files
        if file.lower().endswith(VIDEO_ENDINGS) and not file.startswith(".")
    ]
    yield from sorted(found, key=_natural) if found else [name]


def _prune(below: list[str]) -> None:
    below[:] = [folder for folder in below if not folder.startswith(".")]


def _natural(path: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", path)
    return [(0, int(p), p) if p[0].isdecimal() else (1, 0, p.lower()) for p in parts]
