"""From what was typed to the videos that are meant: folders hold videos, or are one video of images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from hf_video.data.files import is_video, walk
from hf_video.video.addresses import local_path


def expand(names: Sequence[str]) -> list[str]:
    """Paths and URLs as they were typed, folders as the videos below them in natural order (2 before 10).

    A folder without videos but with images stands for itself: a video of one image a frame. One with neither stands for
    itself too, so that reading it says what is wrong. Hidden files and folders are passed over.
    """
    return [path for name in names for path in _one(name)]


def _one(name: str) -> Iterator[str]:
    name = local_path(name)
    videos = [os.path.join(name, file) for file in walk(name) if is_video(file)] if os.path.isdir(name) else []
    yield from videos or [name]
