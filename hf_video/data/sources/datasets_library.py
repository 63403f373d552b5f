"""`datasets` as a source: a Dataset or DatasetDict with a Video column, one saved to disk, or a name on the Hub.

The column is cast to `Video(decode=False)` and our reader reads it, so torchcodec is not needed. Only the cells that
are read are ever in memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_video.data.rows import ListedVideo, SourceListing
from hf_video.data.sources.files import drop_unlabelled, split_name
from hf_video.data.sources.labels import LABEL_COLUMNS, read_label
from hf_video.data.sources.lists import pick_column
from hf_video.data.sources.tables import VIDEO_COLUMNS
from hf_video.errors import DataError, VideoSourceError


@dataclass(frozen=True, slots=True)
class Cell:
    """The video of one row of a `datasets` column: read from there when it is needed."""

    column: Any
    index: int
    name: str

    def read(self) -> bytes:
        found = self.column[self.index]["video"]
        if isinstance(found, Mapping):
            found = found.get("bytes")
        if not isinstance(found, bytes):
            raise VideoSourceError(f"{self.name} holds no bytes and no path.")
        return found


def is_dataset(source: Any) -> bool:
    """Whether it is of `datasets`, without importing that."""
    return any(kind.__module__.partition(".")[0] == "datasets" for kind in type(source).__mro__)


def saved_dataset(path: str) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return os.path.isdir(path) and any(
        os.path.isfile(os.path.join(path, name)) for name in ("dataset_dict.json", "state.json")
    )


def load_dataset_from(name: str) -> Any:
    """What `save_to_disk` wrote, or a data set of the Hub. Raises DataError."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"{name} needs the package datasets: pip install 'hf_video[train]'.") from None
    try:
        return datasets.load_from_disk(name) if os.path.isdir(name) else datasets.load_dataset(name)
    except Exception as error:  # datasets raises whatever its builders do
        raise DataError(
            f"{name!r} is no file or folder here (looked in {os.getcwd()}), and datasets can't load it: {error}"
        ) from error


def list_dataset(source: Any, *, video_column: str = "video", label_column: str = "label") -> SourceListing:
    """The rows of a Dataset or DatasetDict. Raises DataError for streams and for tables without a video column."""
    parts = dict(source.items()) if isinstance(source, Mapping) else {None: source}
    listing = SourceListing("", numbers=True)
    for split, part in parts.items():
        if not hasattr(part, "select_columns") or not hasattr(part, "__len__"):
            raise DataError("A streaming data set has no rows to number: use hf_video.data.VideoStream.")
        name = split or getattr(part, "split", None)
        prefix = f"{split}/" if split is not None else ""
        kept = None if split is None else split_name(str(name)) or str(name)
        _add_rows(listing, part, kept, prefix, video_column, label_column)
    if not listing.videos:
        raise DataError("The data set has no rows.")
    drop_unlabelled(listing, "its label is empty")
    return listing


def _add_rows(listing: SourceListing, part: Any, split: str | None, prefix: str, video: str, label: str) -> None:
    video_at, label_at = columns_of(part, video, label)
    feature = part.features[label_at] if label_at else None
    names = getattr(getattr(feature, "feature", feature), "names", None)  # a class, or a list of classes
    listing.labels = listing.labels if names is None else list(names)
    labels = part[label_at] if label_at else [None] * len(part)
    groups = part["group"] if "group" in part.column_names else [None] * len(part)
    column = undecoded(part.select_columns([video_at]), video_at).rename_columns({video_at: "video"})
    for number, (path, value, group) in enumerate(zip(_paths(column), labels, groups, strict=True)):
        name = f"{prefix}{number:06d}" + (f" ({os.path.basename(path)})" if path else "")
        source = path if path and os.path.exists(path) else Cell(column, number, name)
        text = label_text(value, names)
        listing.videos.append(ListedVideo(source, name, text, split, None if group is None else str(group)))


def columns_of(part: Any, video: str, label: str) -> tuple[str, str | None]:
    """The columns of videos and of labels. Raises DataError where no column is one of videos."""
    names = list(part.column_names or part.features or ())
    typed = [name for name, feature in (part.features or {}).items() if type(feature).__name__ == "Video"]
    at = video if video in names else typed[0] if typed else pick_column(names, video, VIDEO_COLUMNS)
    if at is None:
        raise DataError(f"The data set has the columns {', '.join(names)}, and none of videos: pass video_column=.")
    return at, pick_column([name for name in names if name != at], label, LABEL_COLUMNS)


def undecoded(part: Any, column: str) -> Any:
    """The same data set with cells `{"bytes", "path"}` instead of frames."""
    from datasets import Video

    feature = (part.features or {}).get(column)
    return part.cast_column(column, Video(decode=False)) if isinstance(feature, Video) else part


def label_text(value: Any, names: list[str] | None) -> str | tuple[str, ...] | None:
    """A label's name, or those of a list of labels; -1 is what `datasets` writes where there is none."""
    if isinstance(value, (list, tuple)):
        return tuple(filter(None, (label_text(one, names) for one in value)))
    if value is None or value == -1:
        return None
    return names[value] if names is not None and not isinstance(value, str) else read_label(value, "The data set")


def _paths(column: Any) -> list[str | None]:
    """The path of each cell, without loading bytes."""
    flat = column.flatten()
    name = next((name for name in ("video.path", "video") if name in flat.column_names), None)
    if name is None or flat.features[name].dtype != "string":
        return [None] * len(column)
    return list(flat[name])
