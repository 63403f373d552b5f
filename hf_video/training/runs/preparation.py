"""From a recipe to a trainer: arguments, model, data sets, each checked before anything runs."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from hf_video.data import VideoCollator, VideoDataset
from hf_video.data.rows import VideoRows
from hf_video.errors import ConfigError, did_you_mean, unknown_name
from hf_video.evaluation.metrics import mean_average_precision
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.measurement import check_weights
from hf_video.training.plan import repeated_frames
from hf_video.training.recipes import typed_names
from hf_video.training.runs.model_loading import (
    LoadedModel,
    ModelSource,
    known_fields,
    load_model,
    set_evaluation_sampling,
)
from hf_video.training.trainer import VideoTrainer
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.mixing import Mixing
from hf_video.video.augment.options import from_options
from hf_video.video.augment.temporal import TemporalAugmentation

# Where -1 stands for all there is.
COUNTED_TO_THE_END = ("max_steps", "local_rank", "past_index", "dataloader_prefetch_factor")

DATA_FIELDS = ("num_frames", "sampler", "sampler_options", "repeats", "temporal", "resize", "max_errors")


def prepare(
    source: ModelSource,
    recipe: Mapping[str, Any],
    splits: Mapping[str, VideoRows],
    arguments: VideoTrainingArguments,
    *,
    settings: Sequence[str] = (),
    revision: str | None = None,
    log: Path | None = None,
    yes: bool = False,
) -> tuple[VideoTrainer, LoadedModel, dict[str, Any]]:
    """The trainer, what it starts from, and the recipe as it will be used."""
    before = check_weights(arguments, yes=yes)
    start = make_start(source, recipe, splits, settings, arguments.seed, revision, before)
    recipe = suit_sampling(start, recipe, splits["train"], settings)
    return make_trainer(start, splits, recipe, arguments, log=log), start, recipe


def fit_batch(recipe: Mapping[str, Any], rows: int, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe with a smaller batch where the data are fewer than it takes, and a remark. A paper's batch
    (`effective_batch_size`) and one that somebody typed stay as they are: `check_batch` refuses them. A typed
    `effective_batch_size` is divided into as many rows at a time as fit in it."""
    training, typed = dict(recipe["training"]), typed_names(settings)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    batch, effective = training.get("per_device_train_batch_size", 8), training.get("effective_batch_size")
    fits = rows // processes
    if "training.per_device_train_batch_size" in typed:
        chosen = batch
    elif "training.effective_batch_size" in typed and effective and effective % processes == 0:
        chosen = next(n for n in range(min(batch, effective // processes), 0, -1) if effective // processes % n == 0)
    elif not effective and "training.gradient_accumulation_steps" not in typed and 1 <= fits < batch:
        chosen = 2 ** (fits.bit_length() - 1)
    else:
        chosen = batch
    if chosen == batch:
        return {**recipe, "training": training}
    training["per_device_train_batch_size"] = chosen
    why = f"to make effective_batch_size={effective}" if effective else f"there are {rows} to train on"
    remark = f"{chosen} videos at a time, not {batch}: {why}"
    return {**recipe, "training": training, "remarks": [*recipe.get("remarks", ()), remark]}


def make_arguments(output: Path, settings: Mapping[str, Any]) -> VideoTrainingArguments:
    """`VideoTrainingArguments` of a recipe's section. What it leaves open: bfloat16 where the GPU has it, a worker for
    each core but one, ten checkpoints of which two are kept, a log every ten steps."""
    known = {one.name: one for one in fields(VideoTrainingArguments) if one.init}
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"There is no training argument {name!r}.{did_you_mean(name, known)}")
        if isinstance(value, str) and isinstance(known[name].default, (int, float)):
            raise ConfigError(f"The training argument {name} is a number or true or false, and {value!r} came.")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            least = 1 if re.search("batch_size|accumulation", name) else None if name in COUNTED_TO_THE_END else 0
            if not math.isfinite(value) or (least is not None and value < least):
                least = "finite" if least is None else f"{least} or more"
                raise ConfigError(f"The training argument {name} must be {least}, and {value!r} came.")
    # YAML 1.1 reads the word no as false.
    settings = {n: "no" if v is False and n.endswith("_strategy") else v for n, v in settings.items()}
    gpu = torch.cuda.is_available() and not settings.get("use_cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - (0 if gpu else 1)))
    chosen = {
        "dataloader_num_workers": workers,
        "dataloader_pin_memory": gpu,
        "bf16": gpu and torch.cuda.is_bf16_supported() and not settings.get("fp16"),
        "save_strategy": "steps",
        "save_steps": 0.1,
        "save_total_limit": 2,
        "logging_steps": 10,
        "log_lines": 0 if "logging_steps" in settings else 40,
        "ddp_timeout": 36000,  # the others wait while one process evaluates
        "disable_tqdm": not sys.stderr.isatty(),
        "seed": 0,
        **settings,
    }
    chosen.setdefault("dataloader_persistent_workers", chosen["dataloader_num_workers"] > 0)
    try:
        return VideoTrainingArguments(output_dir=str(output), **chosen)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"The training arguments don't work: {error}") from error


def evaluation_rows(splits: Mapping[str, VideoRows]) -> VideoRows | None:
    """The videos to measure on while training: of validation, or else of the test; None where there are none."""
    return next((splits[name] for name in ("validation", "test") if splits.get(name)), None)


def measuring(rows: VideoRows | None, settings: Mapping[str, Any], *, every: float = 0.1) -> dict[str, Any]:
    """`settings` of a training, which measures on `rows` after `every` share of its steps where nothing else is said.
    Raises ConfigError where it should measure and there is nothing to measure on."""
    if rows is not None:
        return {"eval_strategy": "steps", "eval_steps": every, **settings}
    if settings.get("eval_strategy", "no") not in ("no", False):
        raise ConfigError(
            f"eval_strategy={settings['eval_strategy']} needs videos that are held out, and there are none: add a "
            "validation or test split, or leave it out."
        )
    return dict(settings)


def make_start(
    source: ModelSource,
    recipe: Mapping[str, Any],
    splits: Mapping[str, VideoRows],
    settings: Sequence[str] = (),
    seed: int = 0,
    revision: str | None = None,
    before: Callable[[type, Any], None] | None = None,
) -> LoadedModel:
    """The model with the recipe's fields. Fields of the recipe that this model lacks are left out, with a remark; those
    that somebody typed must exist."""
    wanted = dict(recipe["model"])
    if recipe["data"].get("num_frames"):
        wanted["num_frames"] = recipe["data"]["num_frames"]
    typed = typed_names(settings)
    known, unknown = known_fields(source.entry.load(source.entry.config), wanted)
    known.update({name: wanted[name] for name in unknown if f"model.{name}" in typed})  # load_model refuses them
    set_seed(seed)
    train = splits["train"]
    start = load_model(
        source,
        labels=train.labels,
        multi_label=train.multi_label,
        settings=known,
        revision=revision,
        before=before,
    )
    start.remarks += recipe.get("remarks", ())
    meant = recipe.get("model_type")
    if meant and meant != source.model_type:
        start.remarks.append(f"the recipe {recipe['name']} is meant for {meant}, and this is {source.model_type}")
    left = [name for name in unknown if name not in known and wanted[name]]
    if left:
        start.remarks.append(f"{source.model_type} has no {', '.join(left)}: left out")
    return start


def suit_sampling(
    start: LoadedModel, recipe: Mapping[str, Any], rows: VideoRows, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """The recipe with a sampler that suits the videos, and the processor set to sample alike.

    Where neither the recipe nor a setting names one and most videos are too short for the processor's stride, so that a
    clip would show few different frames, one frame is taken from each of equal segments; the plan says so.
    """
    recipe = {**recipe, "data": dict(recipe["data"])}
    if recipe["data"].get("sampler") is None and "data.sampler" not in typed_names(settings):
        repeated = repeated_frames(make_dataset(rows, start.processor, recipe))
        if sum(repeated) * 2 > len(repeated):
            recipe["data"]["sampler"] = "random"
            start.remarks.append(
                "videos are too short for the processor's stride (frames would repeat): a clip takes a frame of each "
                "of equal segments of the whole video"
            )
    set_evaluation_sampling(start.processor, recipe["data"])
    return recipe


def make_trainer(
    start: LoadedModel,
    splits: Mapping[str, VideoRows],
    recipe: Mapping[str, Any],
    arguments: VideoTrainingArguments,
    *,
    log: Path | None = None,
) -> VideoTrainer:
    """The trainer with data sets of the train split, and of the one that is measured on while it trains."""
    train = make_dataset(splits["train"], start.processor, recipe, seed=arguments.seed, log=log)
    rows = evaluation_rows(splits)
    held_out = None if rows is None else VideoDataset(rows, start.processor)
    if splits["train"].multi_label and arguments.label_smoothing_factor:
        raise ConfigError(
            "label_smoothing_factor is for one class a video, and these have several: use mixing.label_smoothing."
        )
    mixing = None if recipe["mixing"] is None else from_options(Mixing, recipe["mixing"])
    return VideoTrainer(
        start.model,
        arguments,
        VideoCollator(mixing, num_labels=len(splits["train"].labels)),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=start.processor,
        compute_metrics=_multi_label if splits["train"].multi_label else _accuracy,
    )


def make_dataset(
    rows: VideoRows, processor: Any, recipe: Mapping[str, Any], *, seed: int = 0, log: Path | None = None
) -> VideoDataset:
    """Augmented clips of `rows` as the recipe has it. Raises VideoOptionError where flips or reversal would make labels
    wrong."""
    options = dict(recipe["data"])
    unknown = [name for name in options if name not in DATA_FIELDS]
    if unknown:
        raise ConfigError(unknown_name("The section data has no", unknown[0], DATA_FIELDS))
    temporal = options.pop("temporal", None)
    if temporal is not None:
        temporal = from_options(TemporalAugmentation, temporal).for_labels(rows.labels)
    given = {name: value for name, value in options.items() if value is not None}
    augmentation = from_options(Augmentation, recipe["augmentation"], size=crop_of(processor)).for_labels(rows.labels)
    return VideoDataset(
        rows, processor, augmentation=augmentation, temporal=temporal, seed=seed, skipped_log=log, **given
    )


def crop_of(processor: Any) -> tuple[int, int]:
    """Height and width, in pixels, of the clips that a processor makes. Raises ConfigError where they vary."""
    size = processor.crop_size if processor.do_center_crop else processor.size
    if "height" not in size:
        raise ConfigError(f"The processor makes clips of any width (size {size}); training needs do_center_crop=True.")
    return size["height"], size["width"]


def _multi_label(predictions: Any) -> dict[str, float]:
    return {"mean_average_precision": mean_average_precision(_logits(predictions), predictions.label_ids)}


def _logits(predictions: Any) -> Any:
    return predictions.predictions[0] if isinstance(predictions.predictions, tuple) else predictions.predictions


def _accuracy(predictions: Any) -> dict[str, float]:
    logits = _logits(predictions)
    return {"accuracy": float((logits.argmax(-1) == predictions.label_ids).mean())}
