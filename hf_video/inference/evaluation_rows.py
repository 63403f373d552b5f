"""The videos of an evaluation: a split of a data set, or Kinetics by its official list."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_video.data import load_videos
from hf_video.data.load import list_source
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import DataError


def split_rows(source: Any, split: str = "test", **options: Any) -> VideoRows:
    """The videos of one split of anything that `load_videos` takes; "all" is every split together.

    A source without splits is divided as for training (the same `options`, such as `test_size`, give the same parts),
    so that "test" holds what a model that was trained on it has not seen. Of a source with splits no file is opened
    here. Raises DataError with the splits that there are.
    """
    # What can't be read is set aside before dividing, as training does: the parts would not be the same.
    own = split == "all" or any(video.split is not None for video in list_source(source).videos)
    splits = load_videos(source, inspect=None if own else "open", **options)
    if split != "all" and split not in splits:
        raise DataError(f'{source} has no split {split!r}; it has {", ".join(splits)}. "all" takes them together.')
    chosen = list(splits.values()) if split == "all" else [splits[split]]
    tops = _tops(row for rows in chosen for row in rows)
    others = _tops(row for name, rows in splits.items() if split not in (name, "all") for row in rows)
    skipped = [entry for rows in splits.values() for entry in rows.skipped]
    if others and not tops & others:  # splits are folders: what lies in the others' is not missed here
        skipped = [entry for entry in skipped if entry.name.split("/")[0] not in others]
    return VideoRows([row for rows in chosen for row in rows], chosen[0].labels, skipped, root=chosen[0].root)


def recorded_division(model: str | os.PathLike[str], source: Any) -> dict[str, Any]:
    """How a data set without splits was divided when the model in this folder was trained on it (`test_size`,
    `group_pattern`, None for the defaults); {} where no `training_summary.json` tells of data of this name."""
    try:
        data = json.loads((Path(model) / "training_summary.json").read_text(encoding="utf-8"))["data"]
        known = data["source"] == Path(source).resolve().name
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return data.get("division") or {} if known else {}


def _tops(rows: Iterable[VideoRow]) -> set[str]:
    return {row.name.split("/")[0] for row in rows}


def kinetics_rows(videos: str | os.PathLike[str], annotations: str | os.PathLike[str] | None = None) -> VideoRows:
    """The validation videos of Kinetics in the folder `videos`, at any depth.

    `annotations` is the official CSV with the columns label, youtube_id, time_start, time_end (seconds): see
    `hf_video.data.official`. All of its rows are taken, whatever their split. Those without a file are in `skipped` as
    "missing", so that reports count them. Without `annotations` the folder is <label>/<video>.

    Raises DataError for a CSV with other columns, and where not one of its videos is there.
    """
    if annotations is None:
        return next(iter(load_videos(videos, split="validation", inspect=None).values()))
    found = load_videos(annotations, data_format="kinetics", videos=videos, inspect=None)
    first = next(iter(found.values()))
    return VideoRows((row for rows in found.values() for row in rows), first.labels, first.skipped, root=first.root)
