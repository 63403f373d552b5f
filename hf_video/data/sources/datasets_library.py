"""`datasets` as a source: a Dataset or DatasetDict with a column of videos, one saved to disk, or a name on the Hub.

A Video column is cast to `Video(decode=False)` and our reader reads it, so torchcodec is not needed. Only the cells
that are read are ever in memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_video.data.rows import SourceListing
from hf_video.data.sources.files import locate, split_name
from hf_video.data.sources.labels import LABEL_COLUMNS, AnnotationReader, ClassName, read_label
from hf_video.data.sources.lists import (
    Missing,
    RecordCollector,
    check_usable,
    find_video_column,
)
from hf_video.data.sources.tables import VIDEO_COLUMNS, pick_column
from hf_video.errors import DataError, VideoSourceError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset

OWNER = "The data set"


@dataclass(frozen=True, slots=True)
class Cell:
    """The video of one row of a `datasets` column: read from there when it is needed."""

    column: Dataset
    index: int
    name: str

    def read(self) -> bytes:
        found = self.column[self.index]["video"]
        if isinstance(found, Mapping):
            found = found.get("bytes")
        if not isinstance(found, bytes):
            raise VideoSourceError(f"{self.name} holds no bytes and no path.")
        return found


def load_dataset_from(name: str) -> Dataset | DatasetDict:
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


def list_dataset(
    source: Dataset | DatasetDict, annotations: AnnotationReader, videos: str | os.PathLike[str] | None = None
) -> SourceListing:
    """The rows of a Dataset or DatasetDict. A column of texts holds paths relative to `videos`, by default the current
    folder. Raises DataError for streams and for tables without a column of videos."""
    parts = dict(source.items()) if isinstance(source, Mapping) else {None: source}
    listing = SourceListing("" if videos is None else os.fspath(videos), numbers=True)
    for split, part in parts.items():
        if not hasattr(part, "select_columns") or not hasattr(part, "__len__"):
            raise DataError("A streaming data set has no rows to number: use hf_video.data.VideoStream.")
        _add_rows(listing, part, annotations, split)
    check_usable(listing, OWNER, sum(map(len, parts.values())))
    return listing


def _add_rows(listing: SourceListing, part: Dataset, annotations: AnnotationReader, split: str | None) -> None:
    columns = list(part.column_names)
    video_column = _video_column(part, columns, annotations.video_column)
    collector = RecordCollector(listing, annotations, columns, video_column, OWNER)
    classes: dict[str, list[str] | None] = {}
    for column in collector.columns:
        feature = part.features[column]
        names = getattr(getattr(feature, "feature", feature), "names", None)  # a class, or a list of classes
        if names is not None or (column in collector.annotation_columns and not annotations.grouped):
            classes[column] = names
    if not annotations.grouped:
        listing.labels = next(filter(None, classes.values()), listing.labels)
    prefix, kept = ("", None) if split is None else (f"{split}/", split_name(str(split)) or str(split))
    cells = undecoded(part.select_columns([video_column]), video_column).rename_columns({video_column: "video"})
    are_texts = getattr(cells.features["video"], "dtype", "") == "string"
    records = part.select_columns(collector.columns).with_format(None) if collector.columns else [{}] * len(part)
    for number, (path, record) in enumerate(zip(_paths(cells), records, strict=True)):
        name = f"{prefix}{number:06d}" + (f" ({os.path.basename(path)})" if path else "")
        source: str | Cell = Cell(cells, number, name)
        if path and os.path.exists(path):
            source = path
        elif path and are_texts:
            source = locate(listing.root, path) or Missing(os.path.join(listing.root, path))
        named = {column: _class_name(record[column], names) for column, names in classes.items()}
        collector.add({**record, **named}, name, source, name, kept)


def _video_column(part: Dataset | IterableDataset, columns: list[str], wanted: str) -> str:
    """The wanted column, else one of `datasets`' type for videos, else one with a usual name. Raises DataError."""
    typed = [name for name, feature in (part.features or {}).items() if type(feature).__name__ == "Video"]
    if typed and wanted not in columns and wanted in VIDEO_COLUMNS:
        return typed[0]
    return find_video_column(columns, wanted, OWNER)


def columns_of(part: IterableDataset, video: str, label: str) -> tuple[str, str | None]:
    """The columns of videos and of labels of a stream. Raises DataError where no column is one of videos."""
    names = list(part.column_names or part.features or ())
    at = _video_column(part, names, video)
    return at, pick_column([name for name in names if name != at], label, LABEL_COLUMNS)


def undecoded(part: Dataset | IterableDataset, column: str) -> Dataset | IterableDataset:
    """The same data set with cells `{"bytes", "path"}` instead of frames."""
    from datasets import Video

    feature = (part.features or {}).get(column)
    return part.cast_column(column, Video(decode=False)) if isinstance(feature, Video) else part


def label_text(value: object, names: list[str] | None) -> str | tuple[str, ...] | None:
    """A label's name, or those of a list of labels."""
    return read_label(_class_name(value, names), OWNER)


def _class_name(value: Any, names: list[str] | None) -> Any:
    """A number of a class as its name, lists of them likewise; -1 is what `datasets` writes where there is none."""
    if isinstance(value, (list, tuple)):
        return [found for one in value if (found := _class_name(one, names)) is not None]
    if value is None or value == -1:
        return None
    return value if names is None or isinstance(value, str) else ClassName(names[value])


def _paths(column: Dataset) -> list[str | None]:
    """The path of each cell, without loading bytes."""
    flat = column.flatten()
    name = next((name for name in ("video.path", "video") if name in flat.column_names), None)
    if name is None or flat.features[name].dtype != "string":
        return [None] * len(column)
    return list(flat[name])
