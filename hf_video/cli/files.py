"""From what was typed to the videos that are meant: folders hold videos, or are one video of images."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_video.data.rows import Skipped

NAMED = 5  # files in one message


def expand(names: Sequence[str]) -> list[str]:
    """Paths and URLs as they were typed, folders as the videos below them in natural order (2 before 10).

    A folder without videos but with images stands for itself: a video of one image a frame. One with neither stands for
    itself too, so that reading it says what is wrong. Hidden files and folders are passed over.
    """
    return [path for name in names for path in _one(name)]


def _one(name: str) -> Iterator[str]:
    from hf_video.data.sources.files import videos_below
    from hf_video.video.frames.addresses import local_path

    name = local_path(name)
    videos, others = videos_below(name) if os.path.isdir(name) else ([], [])
    if videos and others:
        print(left_out(others), file=sys.stderr)
    yield from [os.path.join(name, file) for file in videos] or [name]


def left_out(others: Sequence[Skipped]) -> str:
    """One line for the files of a folder that are not used."""
    named = "; ".join(f"{one.name} ({one.reason})" for one in others[:NAMED])
    rest = f"; and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return f"hf-video: left out: {named}{rest}"
