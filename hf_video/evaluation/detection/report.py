"""The report on a detector of events: mAP by threshold, class and length, precision and recall, and what goes wrong."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from hf_video.base.detection.types import Detection, write_detections
from hf_video.base.version import __version__
from hf_video.data.rows import Skipped
from hf_video.data.sources.event_files import Event, ScoredEvent
from hf_video.errors import BackendError, pluralize, without_name
from hf_video.evaluation.detection.diagnosis import Diagnosis, diagnose, precision_recall
from hf_video.evaluation.detection.temporal import TemporalMAP, rows_by_class, temporal_map
from hf_video.evaluation.figures import bars_figure, precision_recall_figure
from hf_video.evaluation.report import SHOWN, json_number, write_csv

logger = logging.get_logger(__name__)


@dataclass
class DetectionReport:
    """The result of `evaluate_detections`. Shares are 0 to 1, times seconds.

    Args:
        model: name of the model or of the file of detections.
        protocol: "activitynet" or "actionformer", see `hf_video.evaluation.detection.temporal`.
        result: mAP and recall.
        ground_truth, detections: events of each video.
        skipped: videos that were not looked at, with the reason.
        bounds: lengths in seconds that divide the groups XS to XL; None for fifths of the events.
    """

    model: str
    protocol: str
    result: TemporalMAP
    ground_truth: Mapping[str, Sequence[Event]]
    detections: Mapping[str, Sequence[Detection | ScoredEvent]]
    skipped: list[Skipped] = field(default_factory=list)
    bounds: Sequence[float] | None = None

    @property
    def mean_average_precision(self) -> float:
        """The mean over classes and thresholds."""
        return self.result.average

    @property
    def found(self) -> int:
        """The number of annotated videos that were looked at."""
        return sum(name in self.detections for name in self.ground_truth)

    @property
    def total(self) -> int:
        """The number of annotated videos."""
        return len(self.ground_truth)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """False positives by kind, and events by length."""
        truth, found = _mappings(self.ground_truth), _mappings(self.detections)
        return diagnose(truth, found, thresholds=self.result.thresholds, bounds=self.bounds)

    @cached_property
    def curves(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Precision and recall of each class at the lowest threshold, after each detection, the best first."""
        truth = rows_by_class(_mappings(self.ground_truth))
        found = rows_by_class(_mappings(self.detections))
        lowest = float(self.result.thresholds.min())
        return {label: precision_recall(truth[label], found.get(label, []), lowest) for label in self.result.ap}

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """For each class its events, detections, and average precision: mean, and at each threshold."""
        events = Counter(one.label for many in self.ground_truth.values() for one in many)
        found = Counter(one.label for many in self.detections.values() for one in many)
        return [
            {
                "label": label,
                "events": events[label],
                "detections": found[label],
                "average_precision": float(ap.mean()),
                **{f"AP@{limit:g}": float(value) for limit, value in zip(self._limits, ap, strict=True)},
            }
            for label, ap in self.result.ap.items()
        ]

    @property
    def _limits(self) -> list[float]:
        return [round(float(limit), 6) for limit in self.result.thresholds]

    def measures(self) -> dict[str, float]:
        """mAP, at each threshold too, and recall at 1 and 5 times the number of events."""
        named = {f"mAP@{limit:g}": float(value) for limit, value in zip(self._limits, self.result.mean, strict=True)}
        recall = {f"recall@{k}x": float(value.mean()) for k, value in self.result.recall.items()}
        return {"mAP": self.mean_average_precision, **named, **recall}

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON values, None for undefined ones."""
        diagnosis = self.diagnosis
        return {
            "model": self.model,
            "task": "detection",
            "protocol": self.protocol,
            "found": self.found,
            "total": self.total,
            "mean_average_precision": self.mean_average_precision,
            **self.measures(),
            "thresholds": self._limits,
            "events": sum(map(len, self.ground_truth.values())),
            "detections": sum(map(len, self.detections.values())),
            "unknown_labels": self.result.unknown,
            "per_class": self.per_class,
            "by_length": [
                {name: json_number(value) for name, value in asdict(group).items()} for group in diagnosis.lengths
            ],
            "sensitivity_by_length": json_number(diagnosis.sensitivity),
            "normalized_mAP": diagnosis.normalized,
            "false_positives": {kind: counts.tolist() for kind, counts in diagnosis.counts.items()},
            "mAP_gain_without": diagnosis.gains,
            "skipped": [one.as_dict() for one in self.skipped],
            "hf_video": __version__,
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes the report into a folder, which is made if it is missing: report.json, per_class.csv, by_length.csv,
        detections.json (ActivityNet's results), and, where matplotlib is installed, precision_recall.png and
        false_positives.png.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = self.to_dict()
        (folder / "report.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for name in ("per_class", "by_length"):
            write_csv(folder / f"{name}.csv", list(content[name][0]), (row.values() for row in content[name]))
        write_detections(folder / "detections.json", self.detections)
        try:
            precision_recall_figure(self.curves, float(self._limits[0]), folder / "precision_recall.png")
            shares = {kind: counts / max(self._looked_at, 1) for kind, counts in self.diagnosis.counts.items()}
            bars_figure(shares, self._limits, "tIoU", "share of detections", folder / "false_positives.png")
        except BackendError as error:
            logger.warning(f"No pictures were drawn. {error}")
        return folder

    @property
    def _looked_at(self) -> int:
        return int(sum(counts[0] for counts in self.diagnosis.counts.values()))

    def __str__(self) -> str:
        result, diagnosis = self.result, self.diagnosis
        shown = "  ".join(f"{limit:g}: {value:.2%}" for limit, value in zip(self._limits, result.mean, strict=True))
        recall = ", ".join(f"@{k}x {value[0]:.1%}" for k, value in result.recall.items())
        events = pluralize(sum(map(len, self.ground_truth.values())), "event")
        lines = [
            f"{self.model}: {events} in {pluralize(self.total, 'video')}, {self.found} of them with detections",
            f"  protocol   {self.protocol}",
            f"  mAP        {result.average:.2%}   (mean over tIoU)  {shown}",
            f"  recall     {recall} at tIoU {self._limits[0]:g}",
        ]
        if result.unknown:
            lines.append(f"  labels     {pluralize(result.unknown, 'detection')} of labels that no event has")
        rows = sorted(self.per_class, key=lambda row: row["average_precision"])
        few = len(rows) <= 2 * SHOWN
        width = max(len(row["label"]) for row in rows)
        lines.append(f"  {'classes' if few else 'hardest classes'}")
        lines += [
            f"    {row['label']:<{width}}  AP {row['average_precision']:6.1%} of {row['events']}"
            for row in (rows if few else rows[:SHOWN])
        ]
        lines.append("  by length (normalised AP, and share found)")
        lines += [
            f"    {group.name:<3} {group.seconds[0]:8.2f} to {group.seconds[1]:.2f} s  {group.ap:6.1%}  "
            f"{group.found:6.1%} of {group.events}"
            for group in diagnosis.lengths
            if group.events
        ]
        kinds = ", ".join(
            f"{kind} {counts[0] / max(self._looked_at, 1):.0%} (+{diagnosis.gains[kind]:.1%})"
            for kind, counts in diagnosis.counts.items()
            if kind != "true positive"
        )
        lines.append(f"  false positives at tIoU {self._limits[0]:g} (mAP without them): {kinds}")
        if self.skipped:
            count = Counter(one.kind for one in self.skipped)
            lines.append(f"  skipped: {', '.join(f'{number} {kind}' for kind, number in count.items())}")
            lines += [f"    {one.name}: {without_name(one.reason, one.name)}" for one in self.skipped[:SHOWN]]
        return "\n".join(lines)


def evaluate_detections(
    ground_truth: Mapping[str, Sequence[Event]],
    detections: Mapping[str, Sequence[Detection | ScoredEvent]],
    *,
    model: str = "detections",
    protocol: str = "activitynet",
    thresholds: Sequence[float] | np.ndarray | str = "activitynet",
    skipped: Sequence[Skipped] = (),
    bounds: Sequence[float] | None = None,
) -> DetectionReport:
    """Compares detections with annotations.

    Args:
        ground_truth: for each video its events; their order doesn't matter.
        detections: for each video what was found. What is found in other videos is wrong.
        model: a name for the report.
        protocol, thresholds: see `temporal_map`.
        skipped: videos that could not be looked at.
        bounds: four lengths in seconds that divide groups by length, see `diagnose`.

    Raises:
        MetricError: unknown names, or no event in the ground truth.
    """
    result = temporal_map(_mappings(ground_truth), _mappings(detections), thresholds=thresholds, protocol=protocol)
    return DetectionReport(model, protocol, result, ground_truth, detections, list(skipped), bounds)


def _mappings(events: Mapping[str, Sequence[Event | Detection]]) -> dict[str, list[dict[str, Any]]]:
    """Events as `temporal_map` takes them."""
    return {
        video: [
            {"segment": (one.start, one.end), "label": one.label, "score": getattr(one, "score", 1.0)} for one in many
        ]
        for video, many in events.items()
    }
