"""Contrastive training, from captioned videos to a model for zero-shot classification, search and retrieval.

    train_video_text("pairs.csv", "openai/clip-vit-base-patch32", output="my_model")

leaves in the output folder: the model and its whole processor at the top, `training_summary.json` with retrieval
metrics of the test (or validation) split, `training_curve.png`, `skipped.jsonl`, `checkpoint-N/` and TensorBoard's
`runs/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, ProcessorMixin

from hf_video.base.configuration import VideoConfig
from hf_video.base.loading import check_pair
from hf_video.base.saved_model import SavedVideoModel
from hf_video.data.datasets.captions import CaptionDataset, load_captions
from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import VideoRows
from hf_video.errors import CheckpointError, ConfigError, DataError
from hf_video.models.videoclip.from_image_text import video_clip
from hf_video.models.videoclip.modeling_videoclip import VideoCLIPModel
from hf_video.training.arguments import VideoTrainingArguments, fit_batch
from hf_video.training.contrastive_trainer import ContrastiveTrainer
from hf_video.training.measurement import BatchCost
from hf_video.training.plan import TrainingPlan
from hf_video.training.recipes import NARROW, setting_names
from hf_video.training.runs.model_loading import LoadedModel, check_fields, set_evaluation_sampling
from hf_video.training.runs.run import DATA_FIELDS, Task, make_dataset, run_training
from hf_video.training.trainer import VideoTrainer


def train_video_text(
    data: Any,
    model: str | Path | nn.Module,
    *,
    processor: ProcessorMixin | None = None,
    recipe: str | Path | None = None,
    output: str | Path = "video-text",
    settings: Sequence[str] = (),
    chunk_size: int | None = None,
    hard_negatives: bool = False,
    test_size: float = 0.1,
    resume: bool = False,
    overwrite: bool = False,
    yes: bool = False,
    **columns: Any,
) -> dict[str, Any]:
    """Trains a model of video and text.

    Args:
        data: What `load_captions` takes: a CSV, JSON or JSONL list, MSR-VTT's file, a folder, a `datasets` data set.
        model: A folder or name on the Hub with a VideoCLIP or VIOLET for retrieval, or with a CLIP or SigLIP, which
            becomes a VideoCLIP with the recipe's temporal head; or a model in memory, with its `processor`.
        recipe: See `load_recipe`: "clip4clip[:lstm|transformer|tight]" (the default), "video_text_small" (of a model of
            at most 192 channels), for a VIOLET "violet_retrieval[:small]", or a YAML file.
        settings: Changes of the recipe, "training.learning_rate=1e-3".
        chunk_size: Pairs that go through the towers at once (gradient caching): the batch is then not bound by memory.
        hard_negatives: Batches of similar captions; see `PairSampler`.
        test_size: Share of the videos of unsplit data that is kept for the test.
        resume, overwrite, yes: As in `finetune`.
        columns: Further arguments of `load_captions`: `videos`, `video_column`, `caption_column`, `group_pattern`, ….

    Returns:
        The summary that is also written, with `output`, the folder.

    Raises:
        HFVideoError, TrainingInterrupted: As `finetune`.
    """
    reading = {"test_size": test_size, **columns}
    task = VideoText(data, model, processor, reading, chunk_size=chunk_size, hard_negatives=hard_negatives)
    recipe = recipe or video_text_recipe(model)
    summary = run_training(task, recipe, output, settings, resume=resume, overwrite=overwrite, yes=yes)
    return {**summary, "output": str(output)}


class TextTask(Task):
    """What tasks with a text for each video have in common. The model is given by name or in memory.

    Attributes:
        unit: What a row of the data is, in the plan.
        dataset_class: The data set of such rows.
    """

    data_fields = DATA_FIELDS
    unit: str
    dataset_class: type[VideoDataset]
    has_card = False

    def __init__(
        self, data: Any, model: str | Path | nn.Module, processor: ProcessorMixin | None, reading: Mapping[str, Any]
    ) -> None:
        name = str(model) if isinstance(model, (str, Path)) else type(model).__name__
        super().__init__(name, config_of(model).model_type)
        self.data, self.model, self.processor, self.reading = data, model, processor, reading

    def check_splits(self, splits: dict[str, VideoRows]) -> dict[str, VideoRows]:
        """The splits. Raises DataError where there is none to train on."""
        if "train" not in splits:
            raise DataError(f"{self.data} has no training split; it has {', '.join(splits)}.")
        return splits

    def describe_data(self) -> TrainingPlan:
        plan = TrainingPlan()
        counts = {name: [len({row.name for row in rows}), len(rows)] for name, rows in self.splits.items()}
        text = ", ".join(f"{rows} {split} (of {videos} videos)" for split, (videos, rows) in counts.items())
        plan.add(self.unit, text, **{self.unit: counts})
        skipped = [one for rows in self.splits.values() for one in rows.skipped]
        if skipped:
            plan.add("left out", f"{len(skipped)}, the first: {skipped[0]}")
        return plan

    def make_datasets(
        self, loaded: LoadedModel, arguments: VideoTrainingArguments, **options: Any
    ) -> dict[str, VideoDataset | None]:
        """The trainer's `train_dataset`, with `options`, and its `eval_dataset`."""
        kind, images = self.dataset_class, loaded.processor.image_processor
        held_out = self.evaluation_rows()
        return {
            "train_dataset": make_dataset(kind, self.splits["train"], images, self.recipe, arguments, **options),
            "eval_dataset": None if held_out is None else kind(held_out, images),
        }

    def describe_batch(self) -> str:
        """What a batch is made of, after the number of its rows."""
        return ""

    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        args = trainer.args
        plan.add("a clip", f"{trainer.train_dataset.request.num_frames} frames")
        plan.add("a batch", f"{args.rows_per_step} {self.unit}{self.describe_batch()}", batch=args.rows_per_step)
        rate = f"{args.learning_rate:.3g}"
        if args.backbone_rate != 1.0:
            rate += f" for the temporal head, {args.learning_rate * args.backbone_rate:.3g} for all else"
        plan.add("learning rate", rate)

    def evaluate(self, trainer: VideoTrainer, folder: Path) -> dict[str, dict[str, float]]:
        images = trainer.processing_class.image_processor
        return {
            split: trainer.evaluate(self.dataset_class(self.splits[split], images), metric_key_prefix=split)
            for split in ("validation", "test")
            if split in self.splits
        }

    def summarize(
        self, trainer: VideoTrainer, plan: TrainingPlan, metrics: Mapping[str, float], results: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        skipped = {(one.name, one.kind): one for rows in self.splits.values() for one in rows.skipped}
        skipped |= {(one.name, one.kind): one for one in trainer.train_dataset.skipped()}
        return {
            "task": self.name,
            "model": self.model_name,
            "plan": plan.facts,
            "steps": trainer.state.global_step,
            "train_loss": metrics.get("train_loss"),
            "seconds": round(metrics.get("train_runtime", 0.0), 2),
            "evaluation": results,
            "skipped": [one.as_dict() for one in skipped.values()],
        }


class VideoText(TextTask):
    """Pairs of video and caption that are to find each other."""

    name = "video-text"
    unit = "pairs"
    dataset_class = CaptionDataset

    def __init__(self, *given: Any, chunk_size: int | None, hard_negatives: bool) -> None:
        super().__init__(*given)
        self.chunk_size, self.hard_negatives = chunk_size, hard_negatives
        self.measured_rows = min(chunk_size or 4, 4)

    def read_splits(self) -> dict[str, VideoRows]:
        splits = self.check_splits(load_captions(self.data, **self.reading))
        if distinct_pairs(splits["train"]) < 2:
            raise DataError(f"{self.data} has one video or one caption to train on: nothing to tell apart.")
        return splits

    def fit_recipe(self) -> dict[str, Any]:
        return fit_to_captions(self.recipe, self.splits["train"], self.settings)

    def description(self) -> dict[str, Any]:
        texts = text_digest(self.splits)
        return {
            **super().description(),
            "texts_sha256": texts,
            "chunk_size": self.chunk_size,
            "hard_negatives": self.hard_negatives,
        }

    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        model, processor = load_pair(self.model, self.processor, self.recipe, self.settings)
        return LoadedModel(model, processor, False, self.model_type)

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> ContrastiveTrainer:
        return ContrastiveTrainer(
            loaded.model,
            arguments,
            processing_class=loaded.processor,
            chunk_size=self.chunk_size,
            hard_negatives=self.hard_negatives,
            **self.make_datasets(loaded, arguments),
        )

    def describe_batch(self) -> str:
        chunks = f", {self.chunk_size} at a time (gradient caching)" if self.chunk_size else ""
        return f" of {'similar captions (hard negatives)' if self.hard_negatives else 'any captions'}{chunks}"


def text_digest(splits: Mapping[str, VideoRows]) -> str:
    """SHA-256 of all captions or questions, in order."""
    texts = [row.text for rows in splits.values() for row in rows]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def video_text_recipe(model: str | Path | nn.Module) -> str:
    """The recipe where none is given, by the model's type and width."""
    if config_of(model).model_type == "violet":
        return "violet_retrieval:small" if is_narrow(model) else "violet_retrieval"
    return "video_text_small" if is_narrow(model) else "clip4clip"


def is_narrow(model: str | Path | nn.Module) -> bool:
    """Whether its text side has so few channels that the rates of the papers are too low."""
    return getattr(getattr(config_of(model), "text_config", None), "hidden_size", NARROW + 1) <= NARROW


def config_of(model: str | Path | nn.Module) -> PreTrainedConfig:
    """Raises CheckpointError for a name that does not lead to a model."""
    if not isinstance(model, (str, Path)):
        return model.config
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{model} is no model here or on the Hub: {reason}") from error


def load_pair(
    model: str | Path | nn.Module,
    processor: ProcessorMixin | None,
    recipe: Mapping[str, Any],
    settings: Sequence[str] = (),
) -> tuple[nn.Module, ProcessorMixin]:
    """The model and its processor, which sees as many frames as the recipe says. The recipe's fields of a configuration
    make a new model; one that was saved has its own, but for those that `settings` name. Raises CheckpointError and
    ConfigError."""
    frames, fields = recipe["data"].get("num_frames"), dict(recipe["model"])
    typed = {name: value for name, value in fields.items() if f"model.{name}" in setting_names(settings)}
    if not isinstance(model, (str, Path)):
        if processor is None:
            raise ConfigError("A model in memory needs its processor: pass processor=.")
        if typed.keys() - {"num_frames"}:
            raise ConfigError(f"The model is in memory and made: model.{min(typed)} changes nothing. Set it there.")
    else:
        fields.pop("num_frames", None)  # see `frames`
        typed.pop("num_frames", None)
        model, processor = _load(str(model), processor, fields, frames, typed)
    if frames:
        processor.image_processor.num_frames = model.config.num_frames = frames
    set_evaluation_sampling(processor.image_processor, recipe["data"])
    check_pair(model, processor)
    return model, processor


def _load(
    name: str, processor: ProcessorMixin | None, fields: dict[str, Any], frames: int | None, typed: dict[str, Any]
) -> tuple[nn.Module, ProcessorMixin]:
    config = config_of(name)
    if config.model_type in ("videoclip", "violet"):
        check_fields(type(config), typed, config.model_type)
        return SavedVideoModel.from_pretrained(name, **typed), processor or AutoProcessor.from_pretrained(name)
    fields["num_frames"] = frames or 12
    if processor is not None:
        return VideoCLIPModel.from_clip(name, **fields), processor
    return video_clip(name, **fields)


def distinct_pairs(rows: VideoRows) -> int:
    """So many pairs of `rows` are of different videos and different captions, at most: in a larger batch, pairs would
    be negatives of themselves."""
    return min(len({row.name for row in rows}), len({row.caption.lower() for row in rows}))


def fit_to_captions(recipe: Mapping[str, Any], rows: VideoRows, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe with a batch of different captions, and, where that is a smaller one, more steps (4 times as many at
    most), so that about as many pairs are seen. The user's settings stay."""
    made = fit_batch(recipe, distinct_pairs(rows), settings)
    before, after = (one["training"].get("per_device_train_batch_size", 8) for one in (recipe, made))
    times, least = min(before // after, 4), made["training"].get("min_train_steps")
    if least and times > 1 and "training.min_train_steps" not in setting_names(settings):
        made["training"]["min_train_steps"] = times * least
        made["remarks"] = [*made.get("remarks", ()), f"batches are small: min_train_steps={times * least}, not {least}"]
    return made
