"""The report on videos with one class each: numbers, tables and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from transformers.utils import logging

from hf_video.errors import BackendError
from hf_video.evaluation import metrics
from hf_video.evaluation.base_report import SHOWN, EvaluationReport, json_number, write_csv
from hf_video.evaluation.figures import confusion_figure, reliability_figure

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
