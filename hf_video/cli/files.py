"""Expands the paths of a command line: a folder stands for its videos, or is one video of images."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_video.data.rows import Skipped

NAMED = 5  # files in one message


def expand_paths(names: Sequence[str]) -> list[str]:
    """Paths and URLs as they were typed, folders as the videos below them in natural order (2 before 10).

    A folder without videos but with images stands for itself: a video of one image a frame. One with neither stands for
    itself too, so that reading it says what is wrong. Hidden files and folders are passed over.
    """
    from hf_video.data.sources.files import videos_below
    from hf_video.video.frames.addresses import local_path

    paths = []
    for name in map(local_path, names):
        videos, others = videos_below(name) if os.path.isdir(name) else ([], [])
        if videos and others:
            print(skipped_message(others), file=sys.stderr)
        paths += [os.path.join(name, file) for file in videos] or [name]
    return paths


def skipped_message(others: Sequence[Skipped]) -> str:
    """One line for the files of a folder that are not used."""
    named = "; ".join(f"{one.name} ({one.reason})" for one in others[:NAMED])
    rest = f"; and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return f"hf-video: left out: {named}{rest}"
