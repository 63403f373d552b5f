"""The videos of an evaluation: a split of a data set, or Kinetics by its official list."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_video.data import load_videos
from hf_video.data.files import is_video, walk
from hf_video.data.load import list_source
from hf_video.data.rows import Skipped, VideoRow, VideoRows
from hf_video.errors import DataError

COLUMNS = ("label", "youtube_id", "time_start", "time_end")


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

    `annotations` is the official CSV with the columns label, youtube_id, time_start, time_end (seconds). A video is the
    file `<youtube id>_<start>_<end>` (six digits each) or, where no other clip of the list has its id, `<youtube id>`,
    with any video's ending. Those without a file are in `skipped` as "missing", so that reports count them. Without
    `annotations` the folder is <label>/<video>.

    Raises DataError for a CSV with other columns, and where not one of its videos is there.
    """
    if annotations is None:
        return next(iter(load_videos(videos, split="validation", inspect=None).values()))
    listed = _read_list(annotations)
    labels = sorted({entry["label"] for entry in listed})
    number = {label: i for i, label in enumerate(labels)}
    files = _files_by_stem(videos)
    clips_of = Counter(entry["youtube_id"] for entry in listed)
    rows, missing = [], []
    for entry in listed:
        identity = entry["youtube_id"]
        name = f"{identity}_{int(float(entry['time_start'])):06d}_{int(float(entry['time_end'])):06d}"
        file = files.get(name) or (files.get(identity) if clips_of[identity] == 1 else None)
        if file is None:
            missing.append(Skipped(name, f"no file of this name below {videos}", "missing"))
        else:
            rows.append(VideoRow(str(Path(videos) / file), number[entry["label"]], file))
    if not rows:
        raise DataError(
            f"None of the {len(listed)} videos of {annotations} is below {videos} ({len(files)} videos there). Files "
            f"are called <youtube id>_<start>_<end>, such as {missing[0].name}.mp4."
        )
    return VideoRows(rows, labels, missing, root=str(videos))


def _read_list(annotations: str | os.PathLike[str]) -> list[dict[str, str]]:
    try:
        with open(annotations, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or ()]
            if not set(COLUMNS) <= set(columns):
                raise DataError(
                    f"{annotations} has the columns {', '.join(columns)}; the official list of Kinetics has "
                    f"{', '.join(COLUMNS)}. Without a list, give a folder of <label>/<video>."
                )
            reader.fieldnames = columns
            listed = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{annotations} can't be read as a CSV: {error}.") from error
    for line, entry in enumerate(listed, start=2):
        try:
            float(entry["time_start"]), float(entry["time_end"])
        except (TypeError, ValueError):
            entry["label"] = None
        if not entry["label"]:
            raise DataError(f"{annotations}, line {line}: a label and seconds are needed; {dict(entry)} came.")
    if not listed:
        raise DataError(f"{annotations} lists no videos.")
    return listed


def _files_by_stem(videos: str | os.PathLike[str]) -> dict[str, str]:
    if not os.path.isdir(videos):
        raise DataError(f"There is no folder {str(videos)!r}.")
    found: dict[str, str] = {}
    for name in walk(videos):
        if is_video(name):
            found.setdefault(Path(name).stem, name)
    return found
