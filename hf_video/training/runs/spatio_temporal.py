"""Training a classifier of boxes, from videos and AVA's CSV to a folder that tells what people do.

    train_people("videos/", "ava.csv", "my-videomae", output="people")

leaves in the output folder: the model, its processor and card, `training_summary.json`, `evaluation/<split>/` with
frame-mAP and detections as AVA's CSV, `training_curve.png`, `skipped.jsonl`, `checkpoint-N/` and TensorBoard's `runs/`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from hf_video.base.configuration import VideoConfig
from hf_video.base.processing import ClipProcessing
from hf_video.base.processing_config import sampler_settings
from hf_video.data.datasets.boxes import BoxAugmentation, BoxCollator, BoxDataset
from hf_video.data.rows import VideoRows
from hf_video.data.sources.boxes import BoxRow, BoxRows, load_boxes
from hf_video.errors import ConfigError, DataError, check_number, pluralize
from hf_video.evaluation.detection.boxes import BoxReport, evaluate_boxes
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.measurement import BatchCost
from hf_video.training.plan import TrainingPlan, check_schedule
from hf_video.training.recipes import setting_names
from hf_video.training.run_folder import SKIPPED_FILE
from hf_video.training.runs.classification import LISTED, default_output
from hf_video.training.runs.model_loading import LoadedModel, ModelSource, find_source, known_fields, load_model
from hf_video.training.runs.run import Task, run_training
from hf_video.training.runs.summary import make_summary
from hf_video.training.trainer import RowEvaluationTrainer
from hf_video.video.augment.checks import from_options
from hf_video.video.reader import VideoReader
from hf_video.video.sampling.samplers import at_fps, resolve

HEAD = "ForSpatioTemporalActionDetection"
READING = ("actions", "excluded", "first_second", "invalid")
LOOKED_AT = 16  # videos whose rate and length decide the distance of frames


def train_people(
    data: str | os.PathLike[str],
    annotations: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    model: str | Path,
    *,
    recipe: str | Path | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    test_size: float | None = None,
    group_pattern: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    yes: bool = False,
    push_to_hub: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Trains a classifier of boxes.

    Args:
        data: A folder of videos.
        annotations: AVA's CSV, a folder with one for each split, or a dict of these; see `load_boxes`.
        model: A SlowFast, Slow or VideoMAE: a folder or name on the Hub with weights, of a classifier or encoder too,
            or a model type, a preset ("slowfast:slow-r50-ava") or a file of its configuration for random weights.
        recipe: See `load_recipe`. Default: "people"; for AVA "people:slowfast-ava", "slow-ava" and "videomae-ava".
            `data.actions` is the list of actions, `data.excluded` frames to leave out, `data.first_second` the
            annotations' second at which videos begin (AVA: 900).
        output: Folder of the run. Default: named after data and model.
        settings: Changes of the recipe, "training.learning_rate=1e-3".
        test_size, group_pattern: Of annotations without splits, as in `load_boxes`.
        resume, overwrite, yes, push_to_hub, private, revision: As in `finetune`.

    Returns:
        The summary that is also written to `training_summary.json`.

    Raises:
        HFVideoError, TrainingInterrupted: As `finetune`.
    """
    source = find_source(model, revision=revision)
    task = SpatioTemporal(data, annotations, source, {"test_size": test_size, "group_pattern": group_pattern}, revision)
    output = Path(output) if output is not None else default_output(data, source)
    run = {"resume": resume, "overwrite": overwrite, "yes": yes, "push_to_hub": push_to_hub, "private": private}
    return run_training(task, recipe or "people", output, settings, **run)


class BoxTrainer(RowEvaluationTrainer):
    """A trainer that measures frame-mAP."""

    def evaluate_rows(self, model: nn.Module, rows: VideoRows, **options: Any) -> dict[str, float]:
        assert isinstance(rows, BoxRows)
        report = evaluate_boxes(model, self.processing_class, rows, **options)
        return {"mean_average_precision": report.mean_average_precision}


class SpatioTemporal(Task):
    """What the people in boxes do."""

    name = "spatio-temporal-detection"
    data_fields: ClassVar[tuple[str, ...]] = (
        *READING,
        *("num_frames", "frame_sampling_rate", "repeats", "max_errors", "protocol"),
    )

    def __init__(
        self,
        data: str | os.PathLike[str],
        annotations: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
        source: ModelSource,
        division: Mapping[str, Any],
        revision: str | None,
    ) -> None:
        super().__init__(source.name, source.model_type)
        if HEAD not in source.entry.by_name:
            raise ConfigError(f"{source.model_type} has no {HEAD}; SlowFast, Slow and VideoMAE have one.")
        self.data, self.annotations, self.source = data, annotations, source
        self.division, self.revision = dict(division), revision

    def read_splits(self) -> dict[str, VideoRows]:
        """Classes have the order of the checkpoint's where it has the same ones: its classifier then fits."""
        settings = self.recipe["data"]
        options = {name: settings[name] for name in READING if settings.get(name) is not None}
        splits = load_boxes(self.data, self.annotations, **options, **self.division)
        if "train" not in splits or not len(splits["train"]):
            raise DataError(f"{self.annotations} has no key frame to train on in {self.data}.")
        known, names = self.source.labels, splits["train"].labels
        if known is not None and known != names and sorted(known) == sorted(names):
            splits = load_boxes(self.data, self.annotations, labels=known, **options, **self.division)
        return {name: rows for name, rows in splits.items() if len(rows)}

    def evaluation_rows(self) -> VideoRows | None:
        return self.splits.get("validation") or self.splits.get("test") or None

    def describe_data(self) -> TrainingPlan:
        plan = TrainingPlan()
        frames = {name: len(rows) for name, rows in self.splits.items()}
        boxes = {
            name: sum(len(one.boxes) for one in rows if isinstance(one, BoxRow)) for name, rows in self.splits.items()
        }
        text = ", ".join(f"{count} {name} with {boxes[name]} boxes" for name, count in frames.items())
        plan.add("key frames", text, key_frames=frames, boxes=boxes)
        shown = [
            sum(action in one for row in self.splits["train"] if isinstance(row, BoxRow) for one in row.actions)
            for action in range(len(self.splits["train"].labels))
        ]
        labels = dict(zip(self.splits["train"].labels, shown, strict=True))
        first = ", ".join(f"{label} {count}" for label, count in list(labels.items())[:LISTED])
        more = f", and {len(labels) - LISTED} more" if len(labels) > LISTED else ""
        plan.add("actions", f"{len(labels)}: {first}{more}", actions=labels)
        empty = [label for label, count in labels.items() if not count]
        if empty:
            plan.warnings.append(f"{len(empty)} actions have no box to train on, as {empty[0]!r}")
        skipped = [one for rows in self.splits.values() for one in rows.skipped]
        if skipped:
            plan.add("left out", f"{len(skipped)}, the first: {skipped[0]}")
        return plan

    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        """The head's classes are those of the annotations. A network that was made for whole clips gets a last stage
        that keeps its size, unless a setting says otherwise."""
        train, source, settings = self.splits["train"], self.source, self.recipe["data"]
        assert isinstance(train, BoxRows)
        wanted = dict(self.recipe["model"])
        if settings.get("num_frames"):
            wanted["num_frames"] = settings["num_frames"]
        typed = setting_names(self.settings)
        known, unknown = known_fields(source.entry.load(source.entry.config), wanted)
        known.update({name: wanted[name] for name in unknown if f"model.{name}" in typed})
        known = {**self._last_stage(known), **known}
        loaded = load_model(
            source,
            task=HEAD,
            labels=train.labels,
            multi_label=True,
            settings=known,
            revision=self.revision,
            before=check,
        )
        loaded.model.config.action_ids = train.action_ids
        left = [name for name in unknown if name not in known and wanted[name]]
        if left:
            loaded.remarks.append(f"{source.model_type} has no {', '.join(left)}: left out")
        loaded.remarks += set_processor(loaded.processor, train, settings, from_scratch=loaded.from_scratch)
        return loaded

    def _last_stage(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Strides and dilations of boxes, for a SlowFast that has others by default."""
        source = self.source
        has_boxes = any(HEAD in one for one in source.settings.get("architectures") or ())
        chosen = "spatial_strides" in known or (source.checkpoint is None and "spatial_strides" in source.settings)
        if source.model_type != "slowfast" or has_boxes or chosen:
            return {}
        stages = len(known.get("depths") or source.settings.get("depths") or (3, 4, 6, 3))
        return {
            "spatial_strides": [1, *[2] * (stages - 2), *[1] * (stages > 1)],
            "spatial_dilations": [*[1] * (stages - 1), 2],
        }

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> BoxTrainer:
        augmentation = from_options(BoxAugmentation, self.recipe["augmentation"])
        train, rows = self.splits["train"], self.evaluation_rows()
        options = {name: self.recipe["data"][name] for name in ("repeats", "max_errors") if name in self.recipe["data"]}
        dataset = BoxDataset(
            train,
            loaded.processor,
            augmentation=augmentation,
            seed=arguments.seed,
            skipped_log=Path(arguments.output_dir) / SKIPPED_FILE,
            **options,
        )
        return BoxTrainer(
            loaded.model,
            arguments,
            BoxCollator(),
            train_dataset=dataset,
            eval_dataset=None if rows is None else BoxDataset(rows, loaded.processor),
            processing_class=loaded.processor,
        )

    def describe_training(self, plan: TrainingPlan, trainer: BoxTrainer, cost: BatchCost) -> None:
        args, sampling = trainer.args, trainer.train_dataset.request.sampling
        stride, fps = sampling.distance()
        rate = f"every {stride:g}-th" if fps is None else f"every {stride:g}-th of {fps:g} a second"
        plan.add("a clip", f"{sampling.num_frames} frames around a key frame, {rate}", frames=sampling.num_frames)
        plan.add("effective batch", f"{args.rows_per_step} key frames", effective_batch=args.rows_per_step)
        plan.add("learning rate", f"{args.learning_rate:.3g}", learning_rate=args.learning_rate)
        check_schedule(plan, trainer)

    def evaluate(self, trainer: BoxTrainer, folder: Path) -> dict[str, BoxReport]:
        reports = {}
        with trainer.averaged():
            for name in ("validation", "test"):
                if trainer.is_world_process_zero() and name in self.splits:
                    rows = self.splits[name]
                    assert isinstance(rows, BoxRows)
                    reports[name] = evaluate_boxes(
                        trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False),
                        trainer.processing_class,
                        rows,
                        batch_size=trainer.args.per_device_eval_batch_size,
                        num_workers=trainer.args.dataloader_num_workers,
                        protocol=self.recipe["data"].get("protocol") or "activitynet",
                    )
                    reports[name].save(folder / "evaluation" / name)
            trainer.accelerator.wait_for_everyone()
        return reports

    def summarize(
        self, trainer: BoxTrainer, plan: TrainingPlan, metrics: Mapping[str, float], results: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        made = make_summary(
            trainer, self.splits, self.source, self.recipe, plan, metrics, reports=results, data=self.data
        )
        return {**made, "task": self.name}

    def format_summary(self, summary: Mapping[str, Any], output: Path) -> str:
        lines = [f"Trained {summary['steps']} steps."]
        for split, found in summary["evaluation"].items():
            lines.append(
                f"Frame-mAP at IoU .5 on {split}: {found['mean_average_precision']:.1%} "
                f"({found['found']} of {pluralize(found['total'], 'key frame')})"
            )
        return "\n".join([*lines, f"Saved to {output}"])


def set_processor(
    processor: ClipProcessing, rows: BoxRows, settings: Mapping[str, Any], *, from_scratch: bool
) -> list[str]:
    """Makes a processor show whole frames around key frames. The distance of frames is the setting, else the
    processor's own; with random weights, and where that would show frames twice or be longer than half of the videos,
    one that fits the videos: a second, or as much as half of them have. Returns remarks."""
    processor.do_center_crop, processor.num_crops = False, 1
    if settings.get("num_frames"):
        processor.num_frames = settings["num_frames"]
    stride = settings.get("frame_sampling_rate")
    if stride is not None:
        check_number("data.frame_sampling_rate", stride, ConfigError, above=0)
        processor.sampler, processor.sampler_options = "center", {"stride": int(stride)}
        return []
    sampler, options = sampler_settings(processor)
    options = dict(options or {})
    name = "rate" if resolve(sampler) is at_fps else "stride"
    frames, rates = lengths_of(rows)
    own = options.get(name, 0) * (rates / options.get("target_fps", 30.0) if name == "rate" else 1)
    most = max(int(frames // 2 // processor.num_frames), 1)
    if not from_scratch and 1 <= own <= most:
        return []
    fits = min(max(round(rates / processor.num_frames), 1), most)
    processor.sampler, processor.sampler_options = "center", {"stride": fits}
    return [f"a clip takes every {fits}-th frame around a key frame: videos have {frames:.0f} at {rates:.3g} a second"]


def lengths_of(rows: VideoRows) -> tuple[float, float]:
    """Medians of the frames and the rates of some videos."""
    sources = list(dict.fromkeys(row.source for row in rows))
    found = []
    for number in np.unique(np.linspace(0, len(sources) - 1, LOOKED_AT).astype(int)):
        with VideoReader(sources[number]) as reader:
            found.append((reader.metadata.num_frames, reader.metadata.fps))
    frames, rates = np.median(np.array(found), axis=0)
    return float(frames), float(rates)
