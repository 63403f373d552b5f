"""What the reports of all evaluations have in common: scored videos, skipped videos, and how they are written."""

from __future__ import annotations

import csv
import json
import math
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from hf_video.base.version import __version__
from hf_video.data.rows import Skipped
from hf_video.errors import pluralize, without_name
from hf_video.evaluation.protocols import Protocol

# Kinds of skipped entries that do not count as videos.
NOT_VIDEOS = ("format", "no videos", "hidden split", "unused")
SHOWN = 5


@dataclass
class EvaluationReport:
    """The result of `evaluate_videos` for N scored videos and C classes. Shares are 0 to 1.

    Args:
        model: Its name.
        protocol: The views and how their scores were combined.
        labels: The C class names, in the order of their numbers.
        names: The N videos that were scored.
        truth: Class numbers (N,), or for several classes a video bool (N, C).
        scores: (N, C) float32, as the protocol combines views.
        skipped: The videos that were not scored, with the reason.
        seconds: How long the evaluation took.
        resumed: How many videos an earlier, interrupted call had scored.
    """

    model: str
    protocol: Protocol
    labels: list[str]
    names: list[str]
    truth: np.ndarray
    scores: np.ndarray
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0
    resumed: int = 0

    # The measure of a class by which the text lists the hardest, and the columns of per_class.csv.
    hardest_by: ClassVar[str]
    class_columns: ClassVar[tuple[str, ...]]

    @property
    def found(self) -> int:
        """The number of videos that were scored."""
        return len(self.names)

    @property
    def total(self) -> int:
        """The number of videos that were looked for: scored, missing, unreadable and unlabelled ones."""
        return self.found + sum(entry.kind not in NOT_VIDEOS for entry in self.skipped)

    @property
    def classes_seen(self) -> int:
        """The number of classes that have videos."""
        return int(self.truth.any(0).sum()) if self.truth.ndim == 2 else len(np.unique(self.truth))

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C) float64."""
        return self.protocol.probabilities(torch.from_numpy(self.scores).double()).numpy()

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """The measures of each class that has videos or was predicted, by the names of `class_columns`."""
        raise NotImplementedError

    def _measures(self) -> dict[str, Any]:
        """The overall measures, for `to_dict`."""
        raise NotImplementedError

    def _measure_lines(self) -> list[str]:
        """The overall measures, for the text."""
        raise NotImplementedError

    def _prediction_table(self) -> tuple[list[str], Iterable[list[Any]]]:
        """Head and rows of predictions.csv."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON values, None for undefined ones."""
        measures = {name: json_number(value) for name, value in self._measures().items()}
        return {
            "model": self.model,
            "protocol": self.protocol.to_dict(),
            "found": self.found,
            "total": self.total,
            **measures,
            "classes": len(self.labels),
            "classes_seen": self.classes_seen,
            "seconds": self.seconds,
            "resumed": self.resumed,
            "per_class": self.per_class,
            "skipped": [entry.as_dict() for entry in self.skipped],
            "hf_video": __version__,
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes the report into a folder, which is made if it is missing.

        The files are report.json, per_class.csv and predictions.csv; `Report` adds confusion.csv and, where matplotlib
        is installed, confusion.png and calibration.png.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        write_csv(folder / "per_class.csv", self.class_columns, (row.values() for row in self.per_class))
        write_csv(folder / "predictions.csv", *self._prediction_table())
        return folder

    def __str__(self) -> str:
        protocol = f"{self.protocol.name}: {self.protocol.describe()}"
        lines = [
            f"{self.model}: found {self.found} of {pluralize(self.total, 'video')}",
            *textwrap.wrap(protocol, 110, initial_indent="  protocol   ", subsequent_indent=" " * 13),
            *self._measure_lines(),
            *self._class_lines(),
        ]
        if self.skipped:
            kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(s.kind for s in self.skipped).items())
            lines.append(f"  skipped: {kinds}")
            lines += [f"    {one.name}: {without_name(one.reason, one.name)}" for one in self.skipped[:SHOWN]]
        if len(self.skipped) > SHOWN:
            more = len(self.skipped) - SHOWN
            lines.append(f"    … {more} more: --json, or report.json in the folder of --output, names all")
        return "\n".join(lines)

    def _classes_in_words(self) -> str:
        return f"mean of {self.classes_seen} of {pluralize(len(self.labels), 'class', 'classes')}"

    def _class_lines(self) -> list[str]:
        """The classes, the hardest first, or the hardest of many."""
        rows = sorted((row for row in self.per_class if row["videos"]), key=lambda row: row[self.hardest_by])
        few = len(rows) <= 2 * SHOWN
        width = max((len(row["label"]) for row in rows), default=0)
        short = "AP " if self.hardest_by == "average_precision" else " "
        lines = [f"  {'classes' if few else 'hardest classes'}"] if rows else []
        for row in rows if few else rows[:SHOWN]:
            taken = f"   {row['confused']} as {row['confused_with']}" if row.get("confused") else ""
            lines.append(f"    {row['label']:<{width}}  {short}{row[self.hardest_by]:6.1%} of {row['videos']}{taken}")
        return lines


def json_number(value: object) -> Any:
    """A number of NumPy as one of Python, NaN as None; anything else as it is."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
