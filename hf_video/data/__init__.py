"""Rows and labels: from a folder, a list, `datasets` or tar shards to batches.

    splits = load_videos("my_videos")                       # {"train": VideoRows, "test": VideoRows}
    data = VideoDataset(splits["train"], processor)         # clips of a torch data set
    batch = VideoCollator()([data[0], data[1]])             # {"pixel_values", "labels"}

Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "CaptionCollator": "captions",
    "CaptionDataset": "captions",
    "CaptionRow": "captions",
    "QuestionCollator": "questions",
    "QuestionDataset": "questions",
    "QuestionRow": "questions",
    "Skipped": "rows",
    "VideoCollator": "collate",
    "VideoDataset": "dataset",
    "VideoRow": "rows",
    "VideoRows": "rows",
    "VideoStream": "streaming",
    "load_captions": "captions",
    "load_questions": "questions",
    "load_videos": "load",
    "sample_seed": "seeds",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
