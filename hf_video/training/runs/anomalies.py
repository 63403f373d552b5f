"""Training a head for anomalies, from videos that are labelled normal or abnormal to a folder that scores files.

    train_anomalies("videos/", "train_list.txt", "my-encoder", output="head")

leaves in the output folder: the head at the top and its encoder in `encoder/`, the features in `features/`,
`training_summary.json`, `training_curve.png`, `checkpoint-N/` and TensorBoard's `runs/`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from hf_video.base.configuration import VideoConfig
from hf_video.clips.grid import parse_grid
from hf_video.data.rows import Skipped, VideoRow, VideoRows
from hf_video.data.sources.anomalies import read_video_labels
from hf_video.data.sources.division import choose_test
from hf_video.data.sources.files import videos_below
from hf_video.errors import CheckpointError, DataError, pluralize, unknown_name
from hf_video.features.sequence_encoder import SequenceEncoder, featured_rows, save_encoder
from hf_video.layers.bag_losses import pool_segments
from hf_video.registry import DETECTORS
from hf_video.training.arguments import VideoTrainingArguments, fit_batch
from hf_video.training.bags import BagPairs, BagTrainer
from hf_video.training.measurement import BatchCost
from hf_video.training.plan import TrainingPlan, check_schedule
from hf_video.training.runs.model_loading import LoadedModel, ModelSource, check_fields
from hf_video.training.runs.run import Task, run_training
from hf_video.training.runs.summary import make_summary
from hf_video.training.trainer import VideoTrainer

TASK = "ForAnomalyDetection"
HEADS = {name: entry for name, entry in DETECTORS.items() if TASK in entry.by_name}
LABELS = ("normal", "abnormal")
TEST_SIZE = 0.2


def train_anomalies(
    data: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    encoder: str,
    *,
    head: str = "rtfm",
    recipe: str | Path | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    grid: str | None = None,
    test_size: float | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    yes: bool = False,
    revision: str | None = None,
) -> dict[str, Any]:
    """Trains a head that scores the moments of videos, from labels of whole videos.

    Args:
        data: A folder of videos.
        annotations: A list of them, see `hf_video.data.sources.anomalies.read_video_labels`.
        encoder: A folder or name on the Hub of a video model, whose features the head works on.
        head: "rtfm" or "mil_ranking".
        recipe: See `load_recipe`; default "anomaly", with the authors' settings as the variants "rtfm" and "sultani".
        output: Folder of the run; default "<data>-<head>".
        settings: Changes of the recipe, "training.learning_rate=1e-3".
        grid: Clips of the features, see `parse_grid`; default the recipe's, else the encoder's own clip.
        test_size: Share (0 to 1) of the videos of each kind that is kept for the test, default .2.
        batch_size, device, revision: Of the encoder.
        resume, overwrite, yes: As in `finetune`.

    Returns:
        The summary that is also written to `training_summary.json`; its `evaluation` has `video_auc`, how well the
        highest score of a video tells abnormal ones from normal ones. Measure moments with `hf-video evaluate --task
        anomaly`.

    Raises:
        HFVideoError, TrainingInterrupted: As `finetune`.
    """
    if head not in HEADS:
        raise CheckpointError(unknown_name("There is no head", head, HEADS))
    output = Path(output) if output is not None else Path(f"{Path(data).resolve().name}-{head}")
    making = {"batch_size": batch_size, "device": device, "revision": revision, "cache": output / "features"}
    making = {name: value for name, value in making.items() if value is not None}
    task = AnomalyTraining(data, annotations, encoder, head, grid=grid, test_size=test_size, making=making)
    return run_training(task, recipe or "anomaly", output, settings, resume=resume, overwrite=overwrite, yes=yes)


class AnomalyTraining(Task):
    """Videos that are normal or not. `model_type` is the head's."""

    name = "anomaly"
    data_fields: ClassVar[tuple[str, ...]] = ("grid",)
    has_card: ClassVar[bool] = False

    def __init__(
        self,
        data: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        encoder: str,
        head: str,
        *,
        grid: str | None,
        test_size: float | None,
        making: Mapping[str, Any],
    ) -> None:
        super().__init__(head, head)
        self.data, self.annotations, self.encoder_name, self.grid = data, annotations, encoder, grid
        self.test_size, self.making = TEST_SIZE if test_size is None else test_size, dict(making)
        self.source = ModelSource(head, head, {}, None)
        self.datasets: dict[str, BagPairs] = {}

    def read_splits(self) -> dict[str, VideoRows]:
        self.grid = self.grid or self.recipe["data"].get("grid")
        rows = labelled_videos(self.data, self.annotations)
        test = choose_test(list(rows), self.test_size, 0)
        splits = {
            name: rows.select(number for number, one in enumerate(test) if one == kept)
            for name, kept in (("train", False), ("test", True))
        }
        splits["test"].skipped = []
        if not all(splits["train"].counts().values()):
            raise DataError(
                f"{self.annotations} needs a normal and an abnormal video to train on; {rows.counts()} came."
            )
        return {name: part for name, part in splits.items() if len(part)}

    def fit_recipe(self) -> dict[str, Any]:
        return fit_batch(self.recipe, max(self.splits["train"].counts().values()), self.settings)

    def evaluation_rows(self) -> VideoRows | None:
        rows = self.splits.get("test")
        return rows if rows and all(rows.counts().values()) else None

    def description(self) -> dict[str, Any]:
        return {**super().description(), "encoder": self.encoder_name, "grid": self.grid}

    def describe_data(self) -> TrainingPlan:
        plan = TrainingPlan()
        for name, rows in self.splits.items():
            counts = rows.counts()
            plan.add(
                name,
                f"{counts['normal']} normal and {counts['abnormal']} abnormal videos",
                **{f"{name}_videos": counts},
            )
        if self.evaluation_rows() is None:
            plan.warnings.append("the test has no video of one kind: nothing is measured")
        print("Making features, or reading those that are there ...", flush=True)
        return plan

    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        entry = HEADS[self.model_type]
        config_class, model_class = entry.load(entry.config), entry.load(entry.prefix + TASK)
        wanted = {name: value for name, value in self.recipe["model"].items() if value is not None}
        check_fields(config_class, wanted, self.model_type)
        grid = None if self.grid is None else parse_grid(self.grid)
        self.encoder = SequenceEncoder(self.encoder_name, grid=grid, **self.making)
        segments = wanted.get("num_segments", config_class.num_segments)
        remarks: list[str] = []
        for name, rows in self.splits.items():
            kept, bags, lost = featured_rows(
                self.encoder, rows, lambda one: pool_segments(torch.from_numpy(one.vectors), segments)
            )
            self.splits[name], remarks = kept, [*remarks, *lost]
            labels = [int(row.label) for row in kept if isinstance(row.label, int)]
            self.datasets[name] = BagPairs(bags, labels)
        if not all(self.splits["train"].counts().values()):
            raise DataError(f"No normal or no abnormal video can be read: {'; '.join(remarks[:3])}")
        grid = self.encoder.grid
        data = {
            "input_size": self.datasets["train"].bags[0].shape[1],
            "feature_stride": grid.stride,
            "feature_frames": grid.num_frames,
            "feature_fps": grid.fps,
            "encoder": {"name": self.encoder.name, "digest": self.encoder.digest},
        }
        config = config_class(**{**wanted, **data})
        check(model_class, config)
        return LoadedModel(model_class(config), None, False, self.model_type, remarks)  # type: ignore[arg-type]

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> BagTrainer:
        self.datasets["train"].seed = arguments.seed
        held_out = None if self.evaluation_rows() is None else self.datasets["test"]
        return BagTrainer(loaded.model, arguments, train_dataset=self.datasets["train"], eval_dataset=held_out)

    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        config = trainer.model.config
        plan.add("grid", str(self.encoder.grid), grid=str(self.encoder.grid))
        plan.add("a sample", f"a normal and an abnormal video, {config.num_segments} segments each")
        plan.add(
            "a step", f"{pluralize(trainer.args.rows_per_step, 'pair')}, learning rate {trainer.args.learning_rate:.3g}"
        )
        check_schedule(plan, trainer)

    def save_division(self, folder: Path) -> None:
        """Puts the encoder into `encoder/`."""
        save_encoder(self.encoder, folder)

    def evaluate(self, trainer: VideoTrainer, folder: Path) -> dict[str, float]:
        if self.evaluation_rows() is None or not isinstance(trainer, BagTrainer):
            return {}
        return {"video_auc": trainer.video_auc(self.datasets["test"])}

    def summarize(
        self, trainer: VideoTrainer, plan: TrainingPlan, metrics: Mapping[str, float], results: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        made = make_summary(trainer, self.splits, self.source, self.recipe, plan, metrics, data=str(self.data))
        made["evaluation"] = {"test": {**results, "videos": len(self.splits["test"])}} if results else {}
        return {**made, "task": self.name, "encoder": trainer.model.config.encoder, "grid": plan.facts.get("grid")}

    def format_summary(self, summary: Mapping[str, Any], output: Path) -> str:
        lines = [f"Trained {summary['steps']} steps."]
        for name, found in summary["evaluation"].items():
            lines.append(
                f"AUC of {name} videos by their highest score: {found['video_auc']:.3f} ({found['videos']} videos)"
            )
        lines += [str(Skipped(**one)) for one in summary["data"]["skipped"]]
        return "\n".join([*lines, f"Saved to {output}"])


def labelled_videos(folder: str | os.PathLike[str], annotations: str | os.PathLike[str]) -> VideoRows:
    """The videos of a folder that a list names, with whether they are abnormal. Names are paths below the folder, with
    or without an ending, or names of files alone.

    Raises DataError for videos that are not there or that a name could mean several of.
    """
    root, labels = Path(folder), read_video_labels(annotations)
    if not root.is_dir():
        raise DataError(f"There is no folder {root}. Give the folder that holds the videos.")
    files = videos_below(str(root))[0]
    named: dict[str, list[str]] = {}
    for file in files:
        stem = os.path.splitext(file)[0]
        for one in {file, stem, os.path.basename(file), os.path.basename(stem)}:
            named.setdefault(one, []).append(file)
    rows, missing = [], []
    for name, label in labels.items():
        found = named.get(name) or named.get(os.path.basename(name)) or []
        if len(found) > 1:
            raise DataError(f"{annotations}: {name!r} is the name of {len(found)} videos in {root}: write their paths.")
        if found:
            rows.append(VideoRow(str(root / found[0]), label, found[0]))
        else:
            missing.append(name)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(labels)} videos in {annotations} are not in {root}: {', '.join(missing[:3])}."
        )
    return VideoRows(rows, LABELS, root=str(root))
