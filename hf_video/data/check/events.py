"""What is wrong with annotations of events before a detector is trained on them: `hf-video check --annotations`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hf_video.data.rows import Skipped
from hf_video.data.sources.event_files import read_events
from hf_video.data.sources.events import find_videos
from hf_video.errors import pluralize

SHOWN = 20  # faults of one kind that are printed


@dataclass
class EventReport:
    """Annotations as they stand in their file.

    Args:
        path: the file.
        videos: videos that it names, and `found` those that are there; `unannotated` are files that it does not name.
        events: of each class in each subset ("" for none).
        seconds: shortest, median and longest event.
        faults: see `EventFile.faults`, and "missing", "damaged", … for videos, with the place of each.
    """

    path: str
    videos: int
    found: int
    events: dict[str, dict[str, int]]
    seconds: tuple[float, float, float]
    faults: list[Skipped] = field(default_factory=list)
    unannotated: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "clean": self.clean}

    def lines(self) -> list[str]:
        """The report to print."""
        total = sum(sum(counts.values()) for counts in self.events.values())
        lines = [
            f"{self.path}: {pluralize(total, 'event')} in {pluralize(self.videos, 'video')}, {self.found} of them found"
        ]
        for subset, counts in self.events.items():
            shown = pluralize(sum(counts.values()), "event")
            lines.append(f"  {subset or 'no subset':<12}{shown} of {pluralize(len(counts), 'class', 'classes')}")
        lines.append(
            "  {:<12}{:g} to {:g}, median {:g}".format("seconds", self.seconds[0], self.seconds[2], self.seconds[1])
        )
        kinds = Counter(one.kind for one in self.faults)
        for kind, count in kinds.items():
            alike = [one for one in self.faults if one.kind == kind]
            lines += [f"{kind}: {one.name}: {one.reason}" for one in alike[:SHOWN]]
            lines += [f"{kind}: and {count - SHOWN} more (--json names all)"] if count > SHOWN else []
        if self.unannotated:
            first = self.unannotated[0]
            lines.append(f"without annotations: {pluralize(len(self.unannotated), 'file')}, such as {first}")
        return lines


def check_events(
    folder: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    label_column: str = "label",
) -> EventReport:
    """Reads annotations and looks at the videos that they name.

    Args:
        folder: of the videos, or of their features.
        annotations, labels, label_column: see `hf_video.data.sources.event_files.read_events`.

    Raises:
        DataError: the file can't be read at all, or none of its videos is there.
    """
    file = read_events(annotations, labels=labels, label_column=label_column)
    found = find_videos(folder, file)
    lengths = [one.end - one.start for video in file.videos.values() for one in video.events] or [0.0]
    return EventReport(
        path=file.path,
        videos=len(file.videos),
        found=len(found.paths),
        events={
            subset: dict(Counter(event.label for name in names for event in file.videos[name].events))
            for subset, names in file.subsets().items()
        },
        seconds=tuple(round(float(value), 3) for value in (min(lengths), np.median(lengths), max(lengths))),
        faults=[*file.faults, *found.faults, *found.skipped],
        unannotated=found.unannotated,
    )
