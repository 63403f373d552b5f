"""Loads the videos of an evaluation: a split of a data set, or Kinetics by its official list."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from hf_video.data import load_videos
from hf_video.data.rows import VideoRow, VideoRows, check_labelled
from hf_video.data.sources.division import Division
from hf_video.data.sources.load import list_source
from hf_video.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.data.types import DataSource

logger = logging.get_logger(__name__)


def evaluation_splits(
    source: DataSource,
    model: str | os.PathLike[str] | PreTrainedModel | None = None,
    *,
    division: bool = True,
    **options: Any,
) -> dict[str, VideoRows]:
    """Loads videos by split, as they were divided when the model was trained on them.

    A source without splits of its own is divided as the `split.json` in the model's folder says for a source of that
    name, unless options say how to divide; without such a file the same options give the same parts. Of a source with
    splits no file is opened. A warning counts the videos that are not for training here and were training videos.

    Args:
        source: Anything that `load_videos` takes.
        model: The model, or its folder.
        division: False takes a source undivided for one with splits.
        **options: Of `load_videos`; None stands for the default.
    """
    typed = any(options.get(name) is not None for name in ("test_size", "group_pattern", "seed"))
    options = {name: value for name, value in options.items() if value is not None}
    where = {name: options[name] for name in ("data_format", "videos") if name in options}
    own = not division or any(video.split is not None for video in list_source(source, **where).videos)
    is_folder = isinstance(model, (str, os.PathLike)) and os.path.isdir(model)
    recorded = Division.read(model, source) if is_folder else None
    if not own and not typed and recorded is not None:
        options["division"] = recorded
    elif not own and not typed and is_folder:
        options |= recorded_division(model, source)
    # What can't be read is set aside before dividing, as training does: the parts would not be the same.
    splits = load_videos(source, inspect=None if own else "open", **options)
    check_labelled(splits, source)
    held_out = [row for name, rows in splits.items() if name != "train" for row in rows]
    seen = [] if recorded is None else recorded.trained_on(held_out)
    if seen and division:
        logger.warning(
            f"{len(seen)} of the {len(held_out)} videos that are not for training are ones that {model} was trained "
            f"on, such as {seen[0]}: what is measured on them is too good. Leave --seed, --test-size and "
            "--group-pattern out to divide them as in its training."
        )
    return splits


def split_rows(
    source: DataSource,
    split: str = "test",
    model: str | os.PathLike[str] | PreTrainedModel | None = None,
    **options: Any,
) -> VideoRows:
    """Loads the videos of one split of a data set.

    Args:
        source: Anything that `load_videos` takes.
        split: Its name; "all" is every split together.
        model: The model, or its folder: a source without splits is divided as in its training.
        **options: Of `load_videos`; None stands for the default.

    Raises:
        DataError: The source has no such split.
    """
    splits = evaluation_splits(source, model, division=split != "all", **options)
    if split != "all" and split not in splits:
        raise DataError(f'{source} has no split {split!r}; it has {", ".join(splits)}. "all" takes them together.')
    chosen = list(splits.values()) if split == "all" else [splits[split]]
    tops = _tops(row for rows in chosen for row in rows)
    others = _tops(row for name, rows in splits.items() if split not in (name, "all") for row in rows)
    skipped = [entry for rows in splits.values() for entry in rows.skipped]
    if others and not tops & others:  # splits are folders: what lies in the others' is not missed here
        skipped = [entry for entry in skipped if entry.name.split("/")[0] not in others]
    return VideoRows([row for rows in chosen for row in rows], chosen[0].labels, skipped, root=chosen[0].root)


def recorded_division(model: str | os.PathLike[str], source: DataSource) -> dict[str, Any]:
    """Reads from `training_summary.json` how a data set without splits was divided in a model's training
    (`test_size`, `group_pattern`, None for the defaults); {} where it names no data of this name."""
    try:
        data = json.loads((Path(model) / "training_summary.json").read_text(encoding="utf-8"))["data"]
        known = data["source"] == Path(source).resolve().name
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return data.get("division") or {} if known else {}


def _tops(rows: Iterable[VideoRow]) -> set[str]:
    return {row.name.split("/")[0] for row in rows}


def kinetics_rows(videos: str | os.PathLike[str], annotations: str | os.PathLike[str] | None = None) -> VideoRows:
    """Loads the validation videos of Kinetics.

    Args:
        videos: The folder that holds them, at any depth; without `annotations` <label>/<video>.
        annotations: The official CSV with the columns label, youtube_id, time_start, time_end (seconds), of which all
            rows are taken, whatever their split. Those without a file are in `skipped` as "missing".

    Raises:
        DataError: For a CSV with other columns, and where not one of its videos is there.
    """
    if annotations is None:
        return next(iter(load_videos(videos, split="validation", inspect=None).values()))
    found = load_videos(annotations, data_format="kinetics", videos=videos, inspect=None)
    first = next(iter(found.values()))
    return VideoRows((row for rows in found.values() for row in rows), first.labels, first.skipped, root=first.root)
