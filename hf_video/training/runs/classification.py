"""Fine-tuning, from a folder of videos to a model that `pipeline` loads: what `hf-video train` does.

    finetune("my_videos", "MCG-NJU/videomae-base", output="my_model")

reads the videos, loads the model and its processor, prints a plan, trains, evaluates on the test split, and leaves in
the output folder: the model, its processor and card, `training_summary.json`, `split.json`, `skipped.jsonl`,
`evaluation/<split>/`, `training_curve.png`, `checkpoint-N/` and TensorBoard's `runs/`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import EvalPrediction

from hf_video.base.configuration import VideoConfig
from hf_video.data import VideoCollator, VideoDataset, load_videos
from hf_video.data.rows import VideoRows
from hf_video.data.sources.division import Division, double_files
from hf_video.errors import ConfigError, DataError, pluralize
from hf_video.evaluation.metrics import mean_average_precision
from hf_video.evaluation.protocols import check_protocol
from hf_video.training.arguments import VideoTrainingArguments, make_arguments
from hf_video.training.measurement import BatchCost
from hf_video.training.plan import TrainingPlan, check_schedule, inspect_clips
from hf_video.training.recipes import NARROW, setting_names
from hf_video.training.run_folder import folder_to_resume
from hf_video.training.runs.model_loading import (
    LoadedModel,
    ModelSource,
    find_source,
    known_fields,
    load_model,
    set_evaluation_sampling,
)
from hf_video.training.runs.overfit_check import OverfitResult, overfit_check
from hf_video.training.runs.run import Task, load_trainer, make_dataset, resolve_inputs, run_training
from hf_video.training.runs.stock_classifiers import StockEntry
from hf_video.training.runs.summary import format_summary, make_summary
from hf_video.training.trainer import VideoTrainer
from hf_video.video.augment.checks import from_options
from hf_video.video.augment.mixing import Mixing

LISTED = 12  # classes that the plan names one by one
UNEVEN = 5  # the plan remarks on a largest class of so many times the smallest


def finetune(
    data: Any,
    model: str | Path,
    *,
    recipe: str | Path | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    test_size: float | None = None,
    group_pattern: str | None = None,
    data_format: str | None = None,
    videos: str | Path | None = None,
    protocol: str = "1x1",
    resume: bool = False,
    overwrite: bool = False,
    self_test: bool = False,
    yes: bool = False,
    push_to_hub: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    make_task: Callable[..., Classification] | None = None,
) -> dict[str, Any] | OverfitResult:
    """Trains a classifier.

    Args:
        data: What `load_videos` takes: a folder `train/<label>/` or `<label>/`, a list, a `datasets` data set, tars.
        model: A folder, a name on the Hub, a model type or a file of its configuration; see `find_source`.
        recipe: See `load_recipe`. Default: "small_data" from a checkpoint, "tiny" from random weights or for a model of
            at most 192 channels, for which the learning rates of the papers are too low.
        output: The folder of the run. Default: named after data and model, in the current folder.
        settings: Changes of the recipe, "training.learning_rate=1e-3".
        test_size: Share (0 to 1) of the videos of an unsplit folder that is kept for the test. How the data were
            divided is written to `split.json`, by which `evaluate`, `probe` and `resume` divide them again.
        group_pattern: Regular expression that keeps the videos of one recording in one split; see `load_videos`.
        data_format, videos: Of lists, see `load_videos`.
        protocol: How the test split is evaluated; see `evaluate_videos`.
        resume, overwrite: Go on with the run in `output`, or put a new one in its place once that is finished.
        self_test: Only check that the model can learn one batch by heart; nothing is written.
        yes: Train also where the plan's time or memory is absurd; without it, a terminal is asked, else it is refused.
        push_to_hub, private: A repository to push the finished folder to; see `push`.
        revision: Branch, tag or commit of a model on the Hub.
        make_task: What makes the task in the place of `Classification`, a subclass of it say.

    Returns:
        The summary that is also written to `training_summary.json`; with `self_test` the result of that check.

    Raises:
        HFVideoError: What can't work, before training: a DataError, ConfigError, CheckpointError, OutputError or
            VideoOptionError.
        TrainingInterrupted: (a KeyboardInterrupt) Ctrl-C or SIGTERM, after a checkpoint is saved.
    """
    check_protocol(protocol)
    source = find_source(model, revision=revision)
    recipe = recipe or default_recipe(source)
    output = Path(output) if output is not None else default_output(data, source)
    division = {"test_size": test_size, "group_pattern": group_pattern}
    reading: dict[str, Any] = {"data_format": data_format, "videos": videos, **division}
    before = Division.read(folder_to_resume(output), data) if resume else None
    if before is not None and before.options == division:
        reading["division"] = before
    task = (make_task or Classification)(
        data, source, division=division, reading=reading, protocol=protocol, revision=revision
    )
    if self_test:
        resolve_inputs(task, recipe, settings)
        with tempfile.TemporaryDirectory() as folder:
            arguments = make_arguments(Path(folder), task.recipe["training"])
            return overfit_check(load_trainer(task, arguments, yes=yes)[1])
    end = {"push_to_hub": push_to_hub, "private": private}
    return run_training(task, recipe, output, settings, resume=resume, overwrite=overwrite, yes=yes, **end)


def default_recipe(source: ModelSource) -> str:
    """The recipe where none is given, by the width of the model and whether it has weights."""
    narrow = source.settings.get("hidden_size", NARROW + 1) <= NARROW
    return "tiny" if source.checkpoint is None or narrow else "small_data"


def default_output(data: Any, source: ModelSource) -> Path:
    """The folder where none is given: "<data>-<model>" in the current folder."""
    stem = Path(data).stem if isinstance(data, (str, os.PathLike)) else "videos"
    return Path(f"{stem}-{Path(source.name).stem}".replace(":", "-"))


class Classification(Task):
    """Classes of videos, one or several for each. `reading` are arguments of `load_videos`."""

    name = "classification"

    def __init__(
        self,
        data: Any,
        source: ModelSource,
        *,
        division: Mapping[str, Any],
        reading: Mapping[str, Any],
        protocol: str,
        revision: str | None,
    ) -> None:
        super().__init__(source.name, source.model_type)
        self.data, self.source, self.revision = data, source, revision
        self.division, self.reading, self.protocol = division, reading, protocol

    def read_splits(self) -> dict[str, VideoRows]:
        """Classes have the order of the checkpoint's where it has the same ones: its classifier then fits."""
        options = {"num_frames": self.recipe["data"].get("num_frames") or self.source.num_frames, **self.reading}
        splits = load_videos(self.data, **options)
        check_splits(splits)
        names, known = splits["train"].labels, self.source.labels
        if known is not None and known != names and sorted(known) == sorted(names):
            splits = load_videos(self.data, labels=known, **options)
        return splits

    def fit_recipe(self) -> dict[str, Any]:
        """Classes of transformers' don't tell their layers, so all of them learn at one rate unless that is asked."""
        recipe = super().fit_recipe()
        if isinstance(self.source.entry, StockEntry) and "training.layer_decay" not in setting_names(self.settings):
            return {**recipe, "training": {**recipe["training"], "layer_decay": None}}
        return recipe

    def evaluation_rows(self) -> VideoRows | None:
        return self.splits.get("validation") or self.splits.get("test") or None

    def describe_data(self) -> TrainingPlan:
        plan, splits, train = TrainingPlan(), self.splits, self.splits["train"]
        sizes = {name: len(rows) for name, rows in splits.items()}
        plan.add("videos", ", ".join(f"{count} {name}" for name, count in sizes.items()), videos=sizes)
        counts = train.counts()
        shown = ", ".join(f"{label} {count}" for label, count in list(counts.items())[:LISTED])
        more = f", and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
        plan.add("classes", f"{len(counts)}: {shown}{more}", classes={name: r.counts() for name, r in splits.items()})
        if train.multi_label:
            labels = sum(counts.values()) / len(train)
            plan.add("labels", f"{labels:.3g} a video: each class is a yes or a no (sigmoid)", labels_per_video=labels)
        most, least = max(counts.values()), min(counts.values())
        if least == 0:
            empty = [label for label, count in counts.items() if not count]
            plan.warnings.append(f"{len(empty)} classes have no video to train on, as {empty[0]!r}")
        elif most >= UNEVEN * least:
            plan.warnings.append(
                f"the largest class has {most} videos, the smallest {least}: look at accuracy per class"
            )
        plan.warnings += double_files(splits)
        skipped = [one for rows in splits.values() for one in rows.skipped]
        if skipped:
            used = sum(one.used for one in skipped)
            more = f"; used with a remark: {pluralize(used, 'file')}" if used else ""
            plan.add("left out", f"{pluralize(len(skipped) - used, 'file')}{more}")
        return plan

    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        """Fields of the recipe that this model lacks are left out, with a remark; fields that the user set must exist.
        Without a sampler of the recipe or a setting, one is chosen that suits the length of the videos."""
        wanted, train, source = dict(self.recipe["model"]), self.splits["train"], self.source
        if self.recipe["data"].get("num_frames"):
            wanted["num_frames"] = self.recipe["data"]["num_frames"]
        typed = setting_names(self.settings)
        known, unknown = known_fields(source.entry.load(source.entry.config), wanted)
        known.update({name: wanted[name] for name in unknown if f"model.{name}" in typed})  # load_model refuses them
        loaded = load_model(
            source,
            labels=train.labels,
            multi_label=train.multi_label,
            settings=known,
            revision=self.revision,
            before=check,
        )
        left = [name for name in unknown if name not in known and wanted[name]]
        if left:
            loaded.remarks.append(f"{source.model_type} has no {', '.join(left)}: left out")
        if self.recipe["data"].get("sampler") is None and "data.sampler" not in typed:
            clips = inspect_clips(make_dataset(VideoDataset, train, loaded.processor, self.recipe))
            if sum(clip.repeats_frames for clip in clips) * 2 > len(clips):
                self.recipe["data"] = {**self.recipe["data"], "sampler": "random"}
                loaded.remarks.append(
                    "videos are too short for the processor's stride (frames would repeat): a clip takes a frame of "
                    "each of equal segments of the whole video"
                )
        set_evaluation_sampling(loaded.processor, self.recipe["data"])
        return loaded

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> VideoTrainer:
        train, rows = self.splits["train"], self.evaluation_rows()
        dataset = make_dataset(VideoDataset, train, loaded.processor, self.recipe, arguments)
        if train.multi_label and arguments.label_smoothing_factor:
            raise ConfigError(
                "label_smoothing_factor is for one class a video, and these have several: use mixing.label_smoothing."
            )
        mixing = None if self.recipe["mixing"] is None else from_options(Mixing, self.recipe["mixing"])
        return self.trainer_class(
            loaded.model,
            arguments,
            VideoCollator(mixing, num_labels=len(train.labels)),
            train_dataset=dataset,
            eval_dataset=None if rows is None else VideoDataset(rows, loaded.processor),
            processing_class=loaded.processor,
            compute_metrics=multi_label_metrics if train.multi_label else single_label_metrics,
        )

    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        args, dataset = trainer.args, trainer.train_dataset
        clips, frames = inspect_clips(dataset), dataset.request.num_frames
        text, facts = f"{frames} frames", {"frames": frames}
        if clips:
            seen, length = (
                float(np.median([getattr(clip, name) for clip in clips])) for name in ("seconds", "video_seconds")
            )
            text += f" over {seen:.2f} s of videos of {length:.2f} s (medians of {len(clips)} looked at)"
            facts.update(seconds_seen=round(seen, 3), seconds_of_video=round(length, 3))
            # Saved with the model: detection takes clips of this length where the processor spans no fixed time.
            trainer.model.config.clip_seconds = round(seen, 3)
            if seen < 0.1 * length:
                plan.warnings.append(
                    f"a clip sees {seen / length:.0%} of its video: a larger stride, or sampler=random?"
                )
        short = [clip.video_frames for clip in clips if clip.repeats_frames]
        if len(short) * 2 > len(clips):
            plan.warnings.append(
                f"clips show some frames twice: videos of {min(short)} frames are short for this sampler"
            )
        if dataset.repeats > 1:
            text += f"; {dataset.repeats} clips of each video"
        plan.add("a clip", text, **facts)
        parts = [f"{args.per_device_train_batch_size} at a time"]
        parts += [f"{args.gradient_accumulation_steps} accumulated"] if args.gradient_accumulation_steps > 1 else []
        parts += [f"{args.world_size} processes"] if args.world_size > 1 else []
        batch = args.rows_per_step
        plan.add("effective batch", f"{batch} videos ({' x '.join(parts)})", effective_batch=batch)
        rate = f"{args.learning_rate:.3g}"
        if args.base_learning_rate is not None:
            rate += f" ({args.base_learning_rate:g} x {batch} / {args.base_batch_size})"
        if args.layer_decay is not None and hasattr(trainer.model, "layer_groups"):
            lowest = args.learning_rate * args.layer_decay ** (len(trainer.model.layer_groups()) - 1)
            rate += f", down to {lowest:.3g} at the stem"
        plan.add("learning rate", rate, learning_rate=args.learning_rate)
        check_schedule(plan, trainer)

    def save_division(self, folder: Path) -> None:
        Division.of(self.data, self.splits, **self.division).save(folder)

    def evaluate(self, trainer: VideoTrainer, folder: Path) -> dict[str, Any]:
        """Reports of the validation and test splits, written to `evaluation/`; each video once, on the main process.
        Where videos have several labels, the validation split gives the configuration its `label_thresholds`."""
        from hf_video.evaluation.classification import evaluate_videos
        from hf_video.evaluation.multi_label_report import MultiLabelReport

        reports = {}
        with trainer.averaged():
            for name in ("validation", "test"):
                if trainer.is_world_process_zero() and name in self.splits and len(self.splits[name]):
                    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
                    reports[name] = evaluate_videos(
                        model,
                        trainer.processing_class,
                        self.splits[name],
                        protocol=self.protocol,
                        batch_size=trainer.args.per_device_eval_batch_size,
                        num_workers=trainer.args.dataloader_num_workers,
                    )
                    if name == "validation" and isinstance(reports[name], MultiLabelReport):
                        # On videos that the model was not trained on, nor is tested on.
                        model.config.label_thresholds = reports[name].best_thresholds()
                        model.config.save_pretrained(folder)
                        reports[name].thresholds = model.config.label_thresholds
                    reports[name].save(folder / "evaluation" / name)
            trainer.accelerator.wait_for_everyone()
        return reports

    def summarize(
        self, trainer: VideoTrainer, plan: TrainingPlan, metrics: Mapping[str, float], results: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        made = make_summary(
            trainer, self.splits, self.source, self.recipe, plan, metrics, reports=results, data=self.data
        )
        made["data"]["division"] = self.division
        return made

    def format_summary(self, summary: Mapping[str, Any], output: Path) -> str:
        return format_summary(summary, output)


def check_splits(splits: Mapping[str, VideoRows]) -> None:
    """Raises DataError for data that no classifier can be trained on: no videos, none labelled, one class, classes that
    only the test split has."""
    train = splits.get("train")
    if train is None or not len(train):
        skipped = [one for rows in splits.values() for one in rows.skipped]
        why = f" {len(skipped)} files were left out, the first: {skipped[0]}" if skipped else ""
        raise DataError(
            f"There are no videos to train on.{why} A folder holds train/<label>/*.mp4, or <label>/*.mp4 to be split."
        )
    if not train.labelled:
        bare = next(row.name for row in train if row.label is None)
        raise DataError(f"{bare} has no label. Put videos into one folder for each class, or list them with a label.")
    present = {label for label, count in train.counts().items() if count}
    if len(present) < 2:
        raise DataError(
            f"All {len(train)} videos for training are of one class ({next(iter(present))}); a classifier needs two."
        )
    for name, rows in splits.items():
        strange = sorted(label for label, count in rows.counts().items() if count and label not in present)
        if strange:
            raise DataError(
                f"The {name} split has the class {strange[0]!r} ({len(strange)} such), which training never sees. Move "
                "videos of it to the training split, or take the class out."
            )


def single_label_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Share of the clips whose class scores highest."""
    return {"accuracy": float((_logits(prediction).argmax(-1) == prediction.label_ids).mean())}


def multi_label_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Mean average precision over the classes."""
    return {"mean_average_precision": mean_average_precision(_logits(prediction), prediction.label_ids)}


def _logits(prediction: EvalPrediction) -> np.ndarray:
    return prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
