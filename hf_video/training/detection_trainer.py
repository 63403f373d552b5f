"""`DetectionTrainer`: a `VideoTrainer` for detectors of events over sequences of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import TrainerControl

from hf_video.base.detection.types import Detection
from hf_video.data.rows import Skipped, plain_reason
from hf_video.evaluation.detection.report import DetectionReport, evaluate_detections
from hf_video.features.events import find_events
from hf_video.features.window_detector import WindowDetector
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.segments import SegmentCollator, SegmentDataset, WindowCollator, WindowDataset
from hf_video.training.trainer import VideoTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.base.detection.modeling import TemporalDetector


class DetectionTrainer(VideoTrainer):
    """Trains on `SegmentDataset`s. Evaluation finds the events of whole videos and gives `eval_mAP`, the mean over
    classes and `thresholds`, `eval_mAP@0.5` and `eval_mAP@0.75` (the lowest and the middle one), by `protocol`."""

    control: TrainerControl
    collator: type = SegmentCollator

    def __init__(
        self,
        model: nn.Module | None = None,
        args: VideoTrainingArguments | None = None,
        *,
        thresholds: Sequence[float] | str = "activitynet",
        protocol: str = "activitynet",
        **kwargs: Any,
    ) -> None:
        self.thresholds, self.protocol = thresholds, protocol
        super().__init__(model, args, self.collator(), **kwargs)

    def evaluate(
        self,
        eval_dataset: SegmentDataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The measures by name, with the prefix in front; found on the first process for all of them."""
        from accelerate.utils import broadcast_object_list

        found: list[dict[str, float]] = [{}]
        if self.is_world_process_zero():
            result = self.report(self.eval_dataset if eval_dataset is None else eval_dataset).result
            limits, means = result.thresholds.tolist(), result.mean.tolist()
            shown = {place: limits[place] for place in (0, len(limits) // 2)}  # .5 and .75 of ActivityNet's
            found[0] = {"mAP": result.average, **{f"mAP@{limit:g}": means[i] for i, limit in shown.items()}}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in broadcast_object_list(found)[0].items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def report(self, dataset: SegmentDataset, name: str = "detector") -> DetectionReport:
        """Finds the events of all videos, with the averaged weights where there are any, and compares."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        training = model.training
        model.eval()
        try:
            with self.averaged():
                found, skipped = self.find(model, dataset)
        finally:
            model.train(training)
        truth = {row.name: row.events for row in dataset.rows}
        limits = {"protocol": self.protocol, "thresholds": self.thresholds}
        return evaluate_detections(truth, found, model=name, skipped=skipped, **limits)

    def find(
        self, model: TemporalDetector, dataset: SegmentDataset
    ) -> tuple[dict[str, list[Detection]], list[Skipped]]:
        """The events of each video by its name, and the videos that can't be read."""
        pairs = zip(dataset.rows, dataset.sequences, strict=True)
        return {row.name: find_events(model, sequence) for row, sequence in pairs}, []


class EndToEndTrainer(DetectionTrainer):
    """Trains on `WindowDataset`s. `processing_class` is the detector's processor."""

    collator = WindowCollator

    def find(self, model: PreTrainedModel, dataset: WindowDataset) -> tuple[dict[str, list[Detection]], list[Skipped]]:
        rows, detector = dataset.rows, WindowDetector(model, self.processing_class)
        found: dict[str, list[Detection]] = {}
        skipped = []
        for row, one in zip(rows, detector.events_of(row.source for row in rows), strict=True):
            if isinstance(one, Exception):
                skipped.append(Skipped(row.name, plain_reason(one, row.source, row.name), "damaged"))
            else:
                found[row.name] = one
        return found, skipped
