"""The report on videos with several classes each: average precision, and F1 at the model's thresholds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from hf_video.evaluation import metrics
from hf_video.evaluation.report import EvaluationReport, json_number


@dataclass
class MultiLabelReport(EvaluationReport):
    """The report of a multi-label classifier, see `EvaluationReport`; `truth` is bool (N, C), and `thresholds` (C,) are
    the scores from which on a class counts as predicted.

    Average precision is scikit-learn's `average_precision_score` (no interpolation), and its mean is over the classes
    that some video shows: `average="macro"` of these classes. Charades' own evaluation is the same where no scores are
    equal, but that it puts videos without any class last.
    """

    thresholds: list[float] = field(default_factory=list)

    hardest_by: ClassVar[str] = "average_precision"
    class_columns: ClassVar[tuple[str, ...]] = (
        *("label", "videos", "answered", "average_precision", "precision", "recall", "f1", "threshold"),
    )

    @cached_property
    def average_precisions(self) -> np.ndarray:
        """(C,) float64, NaN for a class that no video shows."""
        columns = zip(self.scores.T, self.truth.T, strict=True)
        return np.array([metrics.average_precision(scores, truth) for scores, truth in columns])

    @property
    def mean_average_precision(self) -> float:
        """The mean of `average_precisions`."""
        return metrics.mean_average_precision(self.scores, self.truth)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N, C) bool: scores that reach the class's threshold."""
        return self.probabilities >= np.asarray(self.thresholds)

    @property
    def micro_f1(self) -> float:
        """F1 over all videos and classes together; 0 without any class shown or predicted."""
        both = int((self.predicted & self.truth).sum())
        return 2 * both / max(int(self.predicted.sum() + self.truth.sum()), 1)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that some video shows."""
        found = [row["f1"] for row in self.per_class if row["videos"]]
        return float(np.mean(found)) if found else float("nan")

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """The measures of each class that some video shows or that was predicted, by the names of `class_columns`;
        `answered` is how often it was predicted."""
        right, support, answered = (part.sum(0) for part in (self.predicted & self.truth, self.truth, self.predicted))
        return [
            dict(zip(self.class_columns, (
                self.labels[i],
                int(support[i]),
                int(answered[i]),
                json_number(self.average_precisions[i]),
                float(right[i] / answered[i]) if answered[i] else None,
                float(right[i] / support[i]) if support[i] else None,
                float(2 * right[i] / (support[i] + answered[i])),
                self.thresholds[i],
            ), strict=True))
            for i in np.flatnonzero((support > 0) | (answered > 0))
        ]  # fmt: skip

    def best_thresholds(self) -> list[float]:
        """Computes for each class the threshold of the highest F1 on these videos, 0.5 for classes that none shows.
        Choose thresholds on other videos than those that the model is tested on."""
        columns = zip(self.probabilities.T, self.truth.T, strict=True)
        found = [metrics.best_threshold(scores, truth) for scores, truth in columns]
        return [0.5 if np.isnan(one) else one for one in found]

    def _measures(self) -> dict[str, Any]:
        return {
            "problem_type": "multi_label_classification",
            "mean_average_precision": self.mean_average_precision,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "labels_per_video": float(self.truth.sum(1).mean()),
        }

    def _prediction_table(self) -> tuple[list[str], Iterable[list[Any]]]:
        def named(classes: np.ndarray) -> str:
            return "|".join(self.labels[i] for i in np.flatnonzero(classes))

        videos = zip(self.names, self.truth, self.predicted, self.probabilities, strict=True)
        rows = (
            [name, named(truth), named(given), *(f"{p:.6f}" for p in scores)] for name, truth, given, scores in videos
        )
        return ["video", "labels", "predicted", *self.labels], rows

    def _measure_lines(self) -> list[str]:
        return [
            f"  mAP        {self.mean_average_precision:7.2%}   {self._classes_in_words()}",
            f"  F1         {self.micro_f1:7.2%}   at the thresholds, all together; mean of classes {self.macro_f1:.1%}",
            f"  labels     {self.truth.sum(1).mean():7.2f}   a video; {self.predicted.sum(1).mean():.2f} answered",
        ]
