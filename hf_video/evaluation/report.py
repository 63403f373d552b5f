"""What an evaluation found: numbers, tables and pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from hf_video.base.version import __version__
from hf_video.errors import BackendError
from hf_video.evaluation import metrics
from hf_video.evaluation.base_report import SHOWN, EvaluationReport, json_number, write_csv

logger = logging.get_logger(__name__)


@dataclass
class Report(EvaluationReport):
    """See `EvaluationReport`; `truth` (N,) are class numbers. For videos of several classes see `MultiLabelReport`."""

    # -- numbers -------------------------------------------------------------------------------------------------------

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
        return float((self.ranks < 1).mean())

    @property
    def top5(self) -> float:
        """1 where there are no more than 5 classes."""
        return float((self.ranks < 5).mean())

    @property
    def top1_interval(self) -> tuple[float, float]:
        """Between which two shares the true top-1 lies with 95 % confidence, for this many videos."""
        return metrics.wilson_interval(int((self.ranks < 1).sum()), self.found)

    @cached_property
    def confusion(self) -> np.ndarray:
        """(C, C) counts: rows the truth, columns the answer."""
        return metrics.confusion_matrix(self.predicted, self.truth, len(self.labels))

    @property
    def mean_class_accuracy(self) -> float:
        return metrics.mean_class_accuracy(self.confusion)

    @property
    def macro_f1(self) -> float:
        return metrics.macro_f1(self.confusion)

    @property
    def log_loss(self) -> float:
        return metrics.log_loss(self.probabilities, self.truth)

    @cached_property
    def calibration(self) -> metrics.Reliability:
        return metrics.reliability(self.probabilities, self.truth)

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """Of each class that has videos or was answered: label, videos, answered, accuracy, precision, f1, and the
        class that it is most often taken for (`confused_with`, `confused` times)."""
        found = metrics.class_metrics(self.confusion)
        rows = []
        for i in np.flatnonzero((found.support > 0) | (found.predicted > 0)):
            wrong = np.where(np.arange(len(self.labels)) == i, 0, self.confusion[i])
            other = int(wrong.argmax())
            rows.append({
                "label": self.labels[i],
                "videos": int(found.support[i]),
                "answered": int(found.predicted[i]),
                "accuracy": json_number(found.recall[i]),
                "precision": json_number(found.precision[i]),
                "f1": json_number(found.f1[i]),
                "confused_with": self.labels[other] if wrong[other] else None,
                "confused": int(wrong[other]),
            })  # fmt: skip
        return rows

    def mistakes(self, count: int = 10) -> list[dict[str, Any]]:
        """The wrong answers given with the most confidence: video, label, predicted, confidence. Often labels are
        wrong there."""
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

    # -- out -----------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, None for what has no value."""
        calibration = self.calibration
        return {
            "model": self.model,
            "protocol": self.protocol.to_dict(),
            "found": self.found,
            "total": self.total,
            "top1": self.top1,
            "top1_interval": list(self.top1_interval),
            "top5": self.top5,
            "mean_class_accuracy": self.mean_class_accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "calibration_error": calibration.error,
            "classes": len(self.labels),
            "classes_seen": len(np.unique(self.truth)),
            "seconds": self.seconds,
            "resumed": self.resumed,
            "per_class": self.per_class,
            "mistakes": self.mistakes(),
            "skipped": [entry.as_dict() for entry in self.skipped],
            "calibration": {
                name: [json_number(x) for x in getattr(calibration, name)]
                for name in ("edges", "counts", "confidence", "accuracy")
            },
            "hf_video": __version__,
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes report.json, per_class.csv, confusion.csv, predictions.csv, and, where matplotlib is installed,
        confusion.png and calibration.png."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        write_csv(folder / "per_class.csv", list(self.per_class[0]), (row.values() for row in self.per_class))
        counts = ([label, *row] for label, row in zip(self.labels, self.confusion.tolist(), strict=True))
        write_csv(folder / "confusion.csv", ["truth \\ predicted", *self.labels], counts)
        write_csv(folder / "predictions.csv", ["video", "label", "predicted", "confidence", "rank", *_tops()],
                   self._prediction_rows())  # fmt: skip
        try:
            self._draw(folder)
        except BackendError as error:
            logger.warning(f"No pictures were drawn. {error}")
        return folder

    def _draw(self, folder: Path) -> None:
        from hf_video.evaluation.figures import confusion_figure, reliability_figure

        confusion_figure(self.confusion, self.labels, folder / "confusion.png")
        reliability_figure(self.calibration, folder / "calibration.png")

    def _prediction_rows(self) -> Iterable[list[Any]]:
        confidence = self.probabilities.max(1)
        order = np.argsort(-self.scores, axis=1, kind="stable")[:, :SHOWN]
        for i, name in enumerate(self.names):
            best = [self.labels[c] for c in order[i]]
            label, rank = self.labels[self.truth[i]], int(self.ranks[i]) + 1
            yield [name, label, best[0], f"{confidence[i]:.6f}", rank, *best, *[""] * (SHOWN - len(best))]

    def __str__(self) -> str:
        return "\n".join([*self._head(), *self._numbers(), *self._worst(), *self._errors(), *self._left_out()])

    def _numbers(self) -> list[str]:
        low, high = self.top1_interval
        seen = len(np.unique(self.truth))
        lines = [
            f"  top-1      {self.top1:7.2%}   (95 % interval {low:.1%} to {high:.1%})",
            f"  top-5      {self.top5:7.2%}",
            f"  per class  {self.mean_class_accuracy:7.2%}   mean of {seen} of {len(self.labels)} classes, "
            f"macro F1 {self.macro_f1:.3f}",
            f"  log loss   {self.log_loss:7.3f}   calibration error {self.calibration.error:.1%}",
        ]
        return lines if len(self.labels) > 5 else [lines[0], *lines[2:]]  # top-5 of 5 classes is no news

    def _worst(self) -> list[str]:
        rows = sorted((row for row in self.per_class if row["videos"]), key=lambda row: row["accuracy"])
        few = len(rows) <= 2 * SHOWN
        width = max(len(row["label"]) for row in rows)
        lines = [f"  {'classes' if few else 'hardest classes'}"]
        for row in rows if few else rows[:SHOWN]:
            taken = f"   {row['confused']} as {row['confused_with']}" if row["confused"] else ""
            lines.append(f"    {row['label']:<{width}}  {row['accuracy']:7.1%} of {row['videos']}{taken}")
        return lines

    def _errors(self) -> list[str]:
        mistakes = self.mistakes(SHOWN)
        lines = [f"    {m['video']}: {m['label']} as {m['predicted']}, {m['confidence']:.0%} sure" for m in mistakes]
        return ["  most confident mistakes", *lines] if lines else []


def _tops() -> list[str]:
    return [f"top{i + 1}" for i in range(SHOWN)]
