"""What all trainings of detectors of events share: videos with their events, what is measured, and the summary."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hf_video.data.sources.events import count_events, event_rows, load_events, one_class
from hf_video.errors import DataError, pluralize
from hf_video.registry import DETECTORS
from hf_video.training.plan import TrainingPlan
from hf_video.training.runs.run import Task
from hf_video.training.runs.summary import format_summary, make_summary

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from hf_video.data.rows import VideoRows
    from hf_video.evaluation.detection.report import DetectionReport
    from hf_video.training.runs.model_loading import ModelSource
    from hf_video.training.trainer import VideoTrainer

HEAD = "ForTemporalActionDetection"
FINDERS = {name: entry for name, entry in DETECTORS.items() if any(HEAD in one for one in entry.by_name)}
DATA_FIELDS = (
    *("truncation_threshold", "crop_ratio", "invalid", "ignore_labels", "label_column", "class_agnostic"),
    *("thresholds", "protocol", "repeats"),
)


class EventTraining(Task):
    """A detector of events. `model_type` is the detector's.

    Args:
        data, annotations: As of `train_detector`.
        encoder: What makes features, or what the detector's own encoder starts from.
        source: The detector.
        reading: Options of `load_events`.
        revision: Of the encoder.
    """

    name = "detection"
    data_fields: ClassVar[tuple[str, ...]] = DATA_FIELDS

    def __init__(
        self,
        data: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        encoder: str | None,
        source: ModelSource,
        reading: Mapping[str, Any],
        revision: str | None,
    ) -> None:
        super().__init__(source.name, source.model_type)
        self.data, self.annotations, self.encoder_name, self.source = data, annotations, encoder, source
        self.reading, self.revision = dict(reading), revision
        self.datasets: dict[str, Dataset] = {}

    def read_splits(self) -> dict[str, VideoRows]:
        chosen = self.recipe["data"]
        options = {
            name: chosen[name] for name in ("invalid", "ignore_labels", "label_column") if chosen.get(name) is not None
        }
        splits = load_events(self.data, self.annotations, **self.reading, **options)
        if chosen.get("class_agnostic"):
            splits = {name: one_class(rows) for name, rows in splits.items()}
        train = splits.get("train")
        if train is None or not sum(count_events(train).values()):
            raise DataError(f"{self.annotations} has no event to train on in the videos of {self.data}.")
        return splits

    def fit_recipe(self) -> dict[str, Any]:
        """Also keeps the best checkpoint where there are videos to choose it by, besides those of the test."""
        recipe = super().fit_recipe()
        if "validation" in self.splits:
            best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_mAP", "greater_is_better": True}
            recipe["training"] = {**best, **recipe["training"]}
        return recipe

    def evaluation_rows(self) -> VideoRows | None:
        return self.splits.get("validation") or self.splits.get("test")

    def description(self) -> dict[str, Any]:
        rows = [row for part in self.splits.values() for row in event_rows(part)]
        events = [(row.name, event.label, event.start, event.end) for row in rows for event in row.events]
        return {
            **super().description(),
            "encoder": self.encoder_name,
            "events_sha256": hashlib.sha256(json.dumps(events).encode()).hexdigest(),
        }

    def describe_data(self) -> TrainingPlan:
        plan, train = TrainingPlan(), self.splits["train"]
        sizes = {name: len(rows) for name, rows in self.splits.items()}
        plan.add("videos", ", ".join(f"{count} {name}" for name, count in sizes.items()), videos=sizes)
        counts = {name: count_events(rows) for name, rows in self.splits.items()}
        shown = ", ".join(f"{sum(one.values()):,} {name}" for name, one in counts.items())
        plan.add("events", f"{shown}, of {pluralize(len(train.labels), 'class', 'classes')}", events=counts)
        lengths = np.array([event.end - event.start for row in event_rows(train) for event in row.events])
        low, middle, high = np.quantile(lengths, (0.05, 0.5, 0.95))
        plan.add("seconds", f"{low:.2f} to {high:.2f}, median {middle:.2f} (9 of 10 events)")
        empty = [label for label, count in counts["train"].items() if not count]
        if empty:
            plan.warnings.append(f"{len(empty)} classes have no event to train on, as {empty[0]!r}")
        skipped = [one for rows in self.splits.values() for one in rows.skipped]
        if skipped:
            plan.add("left out", f"{pluralize(len(skipped), 'event or video', 'events or videos')}: {skipped[0]}")
        return plan

    def evaluate(self, trainer: VideoTrainer, folder: Path) -> dict[str, DetectionReport]:
        """Reports of the validation and test splits, written to `evaluation/`."""
        from hf_video.training.detection_trainer import DetectionTrainer

        reports = {}
        assert isinstance(trainer, DetectionTrainer)
        for name in ("validation", "test"):
            if name in self.datasets and trainer.is_world_process_zero():
                reports[name] = trainer.report(self.datasets[name], Path(folder).name)
                reports[name].save(folder / "evaluation" / name)
        trainer.accelerator.wait_for_everyone()
        return reports

    def summarize(
        self, trainer: VideoTrainer, plan: TrainingPlan, metrics: Mapping[str, float], results: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        made = make_summary(
            trainer, self.splits, self.source, self.recipe, plan, metrics, reports=results, data=str(self.data)
        )
        for name, report in (results or {}).items():
            made["evaluation"][name] |= report.measures()
        for name, rows in self.splits.items():
            made["data"]["splits"][name]["events"] = count_events(rows)
        return {**made, "task": self.name, "grid": plan.facts.get("grid")}

    def format_summary(self, summary: Mapping[str, Any], output: Path) -> str:
        return format_summary(summary, output)
