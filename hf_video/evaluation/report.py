"""Reports on evaluations: what all have in common (scored videos, skipped videos, how they are written), and the
report on videos with one class each: numbers, tables and pictures."""

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
from transformers.utils import logging

from hf_video.base.version import __version__
from hf_video.data.rows import Skipped
from hf_video.errors import BackendError, pluralize, without_name
from hf_video.evaluation import metrics
from hf_video.evaluation.figures import confusion_figure, reliability_figure
from hf_video.evaluation.protocol import Protocol

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


logger = logging.get_logger(__name__)


@dataclass
class Report(EvaluationReport):
    """The report of a single-label classifier, see `EvaluationReport`; `truth` (N,) are class numbers."""

    hardest_by: ClassVar[str] = "accuracy"
    class_columns: ClassVar[tuple[str, ...]] = (
        *("label", "videos", "answered", "accuracy", "precision", "f1", "confused_with", "confused"),
    )

    @cached_property
    def ranks(self) -> np.ndarray:
        """(N,) place of the right class, 0 for the highest score."""
        return metrics.ranks(self.scores, self.truth)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N,) class numbers; of equal scores the lower, as in `ranks`."""
        return self.scores.argmax(1)

    @property
    def top1(self) -> float:
        """The share of videos whose class has the highest score."""
        return float((self.ranks < 1).mean())

    @property
    def top5(self) -> float:
        """The share of videos whose class is among the 5 highest scores; 1 with 5 classes or fewer."""
        return float((self.ranks < 5).mean())

    @property
    def top1_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of `top1` for this many videos."""
        return metrics.wilson_interval(int((self.ranks < 1).sum()), self.found)

    @cached_property
    def confusion(self) -> np.ndarray:
        """(C, C) counts: rows the truth, columns the prediction."""
        return metrics.confusion_matrix(self.predicted, self.truth, len(self.labels))

    @property
    def mean_class_accuracy(self) -> float:
        """The mean accuracy of the classes that have videos."""
        return metrics.mean_class_accuracy(self.confusion)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have videos."""
        return metrics.macro_f1(self.confusion)

    @property
    def log_loss(self) -> float:
        """The mean negative log-likelihood, in nats."""
        return metrics.log_loss(self.probabilities, self.truth)

    @cached_property
    def calibration(self) -> metrics.Reliability:
        """The reliability diagram and the expected calibration error."""
        return metrics.reliability(self.probabilities, self.truth)

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """The measures of each class that has videos or was predicted, by the names of `class_columns`: `answered` is
        how often it was predicted, `confused_with` the class that it is most often taken for (`confused` times)."""
        found = metrics.class_metrics(self.confusion)
        wrong = np.where(np.eye(len(self.labels), dtype=bool), 0, self.confusion)
        rows = []
        for i in np.flatnonzero((found.support > 0) | (found.predicted > 0)):
            other = int(wrong[i].argmax())
            measures = (found.support[i], found.predicted[i], found.recall[i], found.precision[i], found.f1[i])
            confused = (self.labels[other] if wrong[i, other] else None, int(wrong[i, other]))
            values = (self.labels[i], *map(json_number, measures), *confused)
            rows.append(dict(zip(self.class_columns, values, strict=True)))
        return rows

    def mistakes(self, count: int = 10) -> list[dict[str, Any]]:
        """Lists the wrong predictions with the highest confidence, where labels are often wrong.

        Args:
            count: How many, at most.

        Returns:
            Dictionaries of "video", "label", "predicted" and "confidence".
        """
        confidence = self.probabilities.max(1)
        wrong = np.flatnonzero(self.predicted != self.truth)
        return [
            {
                "video": self.names[i],
                "label": self.labels[self.truth[i]],
                "predicted": self.labels[self.predicted[i]],
                "confidence": float(confidence[i]),
            }
            for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
        ]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        folder = super().save(folder)
        counts = ([label, *row] for label, row in zip(self.labels, self.confusion.tolist(), strict=True))
        write_csv(folder / "confusion.csv", ["truth \\ predicted", *self.labels], counts)
        try:
            confusion_figure(self.confusion, self.labels, folder / "confusion.png")
            reliability_figure(self.calibration, folder / "calibration.png")
        except BackendError as error:
            logger.warning(f"No pictures were drawn. {error}")
        return folder

    def _measures(self) -> dict[str, Any]:
        calibration = self.calibration
        return {
            "top1": self.top1,
            "top1_interval": list(self.top1_interval),
            "top5": self.top5,
            "mean_class_accuracy": self.mean_class_accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "calibration_error": calibration.error,
            "mistakes": self.mistakes(),
            "calibration": {
                name: [json_number(x) for x in getattr(calibration, name)]
                for name in ("edges", "counts", "confidence", "accuracy")
            },
        }

    def _prediction_table(self) -> tuple[list[str], Iterable[list[Any]]]:
        head = ["video", "label", "predicted", "confidence", "rank", *(f"top{i + 1}" for i in range(SHOWN))]
        order = np.argsort(-self.scores, axis=1, kind="stable")[:, :SHOWN]
        rows = []
        for name, truth, classes, sure, rank in zip(
            self.names, self.truth, order, self.probabilities.max(1), self.ranks, strict=True
        ):
            best = [self.labels[c] for c in classes] + [""] * (SHOWN - len(classes))
            rows.append([name, self.labels[truth], best[0], f"{sure:.6f}", int(rank) + 1, *best])
        return head, rows

    def _measure_lines(self) -> list[str]:
        low, high = self.top1_interval
        return [
            f"  top-1      {self.top1:7.2%}   (95 % interval {low:.1%} to {high:.1%})",
            *([f"  top-5      {self.top5:7.2%}"] if len(self.labels) > 5 else []),
            f"  per class  {self.mean_class_accuracy:7.2%}   {self._classes_in_words()}, macro F1 {self.macro_f1:.3f}",
            f"  log loss   {self.log_loss:7.3f}   calibration error {self.calibration.error:.1%}",
        ]

    def _class_lines(self) -> list[str]:
        mistakes = self.mistakes(SHOWN)
        lines = [f"    {m['video']}: {m['label']} as {m['predicted']}, {m['confidence']:.0%} sure" for m in mistakes]
        return super()._class_lines() + (["  most confident mistakes", *lines] if lines else [])
