"""What an evaluation found on videos of several classes each: average precision, and F1 at the model's thresholds."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hf_video.base.version import __version__
from hf_video.evaluation import metrics
from hf_video.evaluation.base_report import SHOWN, EvaluationReport, json_number, write_csv


@dataclass
class MultiLabelReport(EvaluationReport):
    """See `EvaluationReport`; `truth` (N, C) bool, `thresholds` (C,) from which score on a class counts as shown.

    Average precision is scikit-learn's `average_precision_score` (no interpolation), and its mean is over the classes
    that some video shows: `average="macro"` of these classes. Charades' own evaluation is the same where no scores are
    equal, but that it puts videos without any class last.
    """

    thresholds: list[float] = field(default_factory=list)

    @cached_property
    def average_precisions(self) -> np.ndarray:
        """(C,) float64, NaN for a class that no video shows."""
        columns = zip(self.scores.T, self.truth.T, strict=True)
        return np.array([metrics.average_precision(scores, truth) for scores, truth in columns])

    @property
    def mean_average_precision(self) -> float:
        return metrics.mean_average_precision(self.scores, self.truth)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N, C) bool: scores that reach the class's threshold."""
        return self.probabilities >= np.asarray(self.thresholds)

    @property
    def micro_f1(self) -> float:
        """F1 over all videos and classes together; 0 where nothing is shown and nothing answered."""
        both = int((self.predicted & self.truth).sum())
        return 2 * both / max(int(self.predicted.sum() + self.truth.sum()), 1)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that some video shows."""
        found = [row["f1"] for row in self.per_class if row["videos"]]
        return float(np.mean(found)) if found else float("nan")

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """Of each class that some video shows or that was answered: label, videos, answered, average_precision,
        precision, recall and f1 at its threshold."""
        rows = []
        right, support, answered = (part.sum(0) for part in (self.predicted & self.truth, self.truth, self.predicted))
        for i in np.flatnonzero((support > 0) | (answered > 0)):
            rows.append({
                "label": self.labels[i],
                "videos": int(support[i]),
                "answered": int(answered[i]),
                "average_precision": json_number(self.average_precisions[i]),
                "precision": float(right[i] / answered[i]) if answered[i] else None,
                "recall": float(right[i] / support[i]) if support[i] else None,
                "f1": float(2 * right[i] / (support[i] + answered[i])),
                "threshold": self.thresholds[i],
            })  # fmt: skip
        return rows

    def best_thresholds(self) -> list[float]:
        """For each class the threshold of the highest F1 on these videos; a half for classes that none shows. Choose
        them on other videos than those that the model is tested on."""
        columns = zip(self.probabilities.T, self.truth.T, strict=True)
        found = [metrics.best_threshold(scores, truth) for scores, truth in columns]
        return [0.5 if np.isnan(one) else one for one in found]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, None for what has no value."""
        return {
            "model": self.model,
            "problem_type": "multi_label_classification",
            "protocol": self.protocol.to_dict(),
            "found": self.found,
            "total": self.total,
            "mean_average_precision": json_number(self.mean_average_precision),
            "micro_f1": self.micro_f1,
            "macro_f1": json_number(self.macro_f1),
            "labels_per_video": float(self.truth.sum(1).mean()),
            "classes": len(self.labels),
            "classes_seen": int(self.truth.any(0).sum()),
            "seconds": self.seconds,
            "resumed": self.resumed,
            "per_class": self.per_class,
            "skipped": [entry.as_dict() for entry in self.skipped],
            "hf_video": __version__,
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes report.json, per_class.csv and predictions.csv (labels with "|" between them)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        names = ["label", "videos", "answered", "average_precision", "precision", "recall", "f1", "threshold"]
        write_csv(folder / "per_class.csv", names, (row.values() for row in self.per_class))
        rows = (
            [name, self._named(truth), self._named(predicted), *(f"{score:.6f}" for score in scores)]
            for name, truth, predicted, scores in zip(
                self.names, self.truth, self.predicted, self.probabilities, strict=True
            )
        )
        write_csv(folder / "predictions.csv", ["video", "labels", "predicted", *self.labels], rows)
        return folder

    def _named(self, classes: np.ndarray) -> str:
        return "|".join(self.labels[i] for i in np.flatnonzero(classes))

    def __str__(self) -> str:
        return "\n".join([*self._head(), *self._numbers(), *self._worst(), *self._left_out()])

    def _numbers(self) -> list[str]:
        seen = int(self.truth.any(0).sum())
        return [
            f"  mAP        {self.mean_average_precision:7.2%}   mean of {seen} of {len(self.labels)} classes",
            f"  F1         {self.micro_f1:7.2%}   at the thresholds, all together; mean of classes {self.macro_f1:.1%}",
            f"  labels     {self.truth.sum(1).mean():7.2f}   a video; {self.predicted.sum(1).mean():.2f} answered",
        ]

    def _worst(self) -> list[str]:
        rows = sorted((row for row in self.per_class if row["videos"]), key=lambda row: row["average_precision"])
        few = len(rows) <= 2 * SHOWN
        width = max((len(row["label"]) for row in rows), default=0)
        shown = rows if few else rows[:SHOWN]
        lines = [f"    {row['label']:<{width}}  AP {row['average_precision']:6.1%} of {row['videos']}" for row in shown]
        return [f"  {'classes' if few else 'hardest classes'}", *lines] if lines else []
