"""What a data set is made of: rows (a video and its label), and what was left out, with the reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, overload

from hf_video.errors import DataError, pluralize, without_name
from hf_video.video.frames.part import VideoPart

if TYPE_CHECKING:
    from hf_video.data.sources.inspection import Inspection
    from hf_video.data.types import VideoSource


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One video.

    `source` is anything that `VideoReader` opens: a path, URL, bytes, or an object with `read()` (a member of a tar, a
    cell of a `datasets` column: nothing is held in memory until it is read), or a `VideoPart` of it. `label` is the
    number of its class, None where it has none, and a tuple of numbers, maybe empty, where videos of the data set show
    several classes. `name` is what reports and seeds call it: its path relative to the root. Rows of one `group` (the
    clips of one recording) never stand on both sides of an automatic split.
    """

    source: Any
    label: int | tuple[int, ...] | None
    name: str
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not used, or with `used=True` one that is used all the same and deserves a look.

    `kind` is one of "empty", "damaged", "not a video", "short", "unlabelled", "no videos" (a label folder without any),
    "format" (no video by its name, or in no split), "missing" (not there, or not to be opened), "unused" (left out by
    the list itself), "label" (a class whose name is written in two ways, or nearly like another's), "other" (a file at
    the top of a folder that is no video, as a README is).
    """

    name: str
    reason: str
    kind: str
    used: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}{' (used)' if self.used else ''}: {without_name(self.reason, self.name)}"


def plain_reason(error: object, source: VideoSource, name: str) -> str:
    """A reader's message with the row's name for the path, and no working directory: reports are read on other
    machines."""
    if isinstance(source, VideoPart):
        return plain_reason(error, source.source, name.partition("#")[0])
    text = str(error).replace(f" (looked in {os.getcwd()})", "")
    return text.replace(source, name) if isinstance(source, str) else text


def classes_of(label: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The class numbers of a label: none, one or several."""
    return () if label is None else label if isinstance(label, tuple) else (label,)


class VideoRows(Sequence[VideoRow]):
    """The rows of one split.

    Args:
        rows: The videos.
        labels: Class names in the order of their numbers; none for unlabelled videos.
        skipped: What was left out.
        root: The folder that names of rows are relative to.

    Raises:
        DataError: The label of a row has no name.
    """

    def __init__(
        self, rows: Iterable[VideoRow], labels: Iterable[str] = (), skipped: Iterable[Skipped] = (), *, root: str = ""
    ):
        self.rows = list(rows)
        self.labels = list(labels)
        self.skipped = list(skipped)
        self.root = root
        wrong = [row for row in self.rows if not all(0 <= one < len(self.labels) for one in classes_of(row.label))]
        if wrong:
            raise DataError(
                f"{wrong[0].name} has label {wrong[0].label}, and the {len(self.labels)} classes are numbered from 0."
            )

    @property
    def label2id(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.labels))

    @property
    def labelled(self) -> bool:
        """Whether every row has a label."""
        return bool(self.rows) and all(row.label is not None for row in self.rows)

    @property
    def multi_label(self) -> bool:
        """Whether videos show several classes: labels are tuples."""
        return any(isinstance(row.label, tuple) for row in self.rows)

    def counts(self) -> dict[str, int]:
        """Videos of each class, classes without any included."""
        found = Counter(number for row in self.rows for number in classes_of(row.label))
        return {label: found[number] for number, label in enumerate(self.labels)}

    def select(self, indices: Iterable[int]) -> VideoRows:
        """Takes some of the rows.

        Args:
            indices: Numbers of rows.

        Returns:
            These rows in this order, with the same labels and the same list of what was skipped.
        """
        return VideoRows((self.rows[i] for i in indices), self.labels, self.skipped, root=self.root)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> VideoRow: ...
    @overload
    def __getitem__(self, index: slice) -> VideoRows: ...
    def __getitem__(self, index):
        return self.select(range(len(self))[index]) if isinstance(index, slice) else self.rows[index]

    def __iter__(self) -> Iterator[VideoRow]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"VideoRows({len(self)} videos, {len(self.labels)} classes, {len(self.skipped)} named as skipped)"


@dataclass
class ListedVideo:
    """A video before labels have numbers. `split` is None where the source has no splits, `inspection` is None before
    the video has been opened. A video that shows several classes has a tuple of labels; one with captions or questions
    has these as `annotations`."""

    source: Any
    name: str
    label: str | tuple[str, ...] | None = None
    split: str | None = None
    group: str | None = None
    inspection: Inspection | None = None
    annotations: list[Any] = field(default_factory=list)


@dataclass
class SourceListing:
    """What a source holds: videos, what was left out, and the class names in order where the source states them.

    `numbers` says that labels which are numbers are the numbers of classes, not names (as in lists; a folder may well
    be called "2")."""

    root: str
    videos: list[ListedVideo] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    unlabelled: list[ListedVideo] = field(default_factory=list)  # in `skipped` too; for uses that need no labels
    labels: list[str] | None = None
    numbers: bool = False

    def drop_unlabelled(self, reason: str) -> None:
        """Moves the videos without a label to the skipped ones, in splits that have labels."""
        labelled = {video.split for video in self.videos if video.label is not None}
        lost = [video for video in self.videos if video.split in labelled and video.label is None]
        self.videos = [video for video in self.videos if video.split not in labelled or video.label is not None]
        self.skipped += [Skipped(video.name, reason, "unlabelled") for video in lost]
        self.unlabelled += lost


def check_labelled(splits: Mapping[str, VideoRows], source: object) -> None:
    """Raises DataError where not one video has a label, saying how labels are given."""
    if all(row.label is None for rows in splits.values() for row in rows):
        videos = pluralize(sum(map(len, splits.values())), "video")
        raise DataError(
            f"{videos} of {source} without labels came, and labels are needed here. Put each video into a folder named "
            "after its class (<label>/clip.mp4, or <split>/<label>/clip.mp4), or give a list that names them "
            "(clip.mp4,label)."
        )
