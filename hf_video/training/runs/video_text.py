"""Contrastive training, from captioned videos to a model for zero-shot classification, search and retrieval.

    train_video_text("pairs.csv", "openai/clip-vit-base-patch32", output="my_model")

What is left in the output folder: the model and its whole processor at the top, `training_summary.json` with retrieval
metrics of the test (or validation) split, `training_curve.png`, `skipped.jsonl`, `checkpoint-N/` and TensorBoard's
`runs/`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, set_seed

from hf_video.base.loading import SavedVideoModel
from hf_video.base.pairing import check_pair
from hf_video.data.datasets.captions import CaptionDataset, load_captions
from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import VideoRows
from hf_video.errors import CheckpointError, ConfigError, DataError, unknown_name
from hf_video.models.videoclip.from_image_text import video_clip
from hf_video.models.videoclip.modeling_videoclip import VideoCLIPModel
from hf_video.training.contrastive_trainer import ContrastiveTrainer
from hf_video.training.measurement import measure
from hf_video.training.measuring_trainer import MeasuringTrainer
from hf_video.training.plan import TrainingPlan, add_cost, check_batch, extra_epochs_remark
from hf_video.training.recipes import NARROW, change, load_recipe, typed_names
from hf_video.training.run_folder import SKIPPED_FILE, RunFolder, open_output, run_description
from hf_video.training.runs.model_loading import check_fields, set_evaluation_sampling
from hf_video.training.runs.preparation import crop_of, fit_batch, make_arguments, measuring
from hf_video.training.runs.run import begin
from hf_video.training.runs.summary import training_curve, write_summary
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.options import from_options

DATA_FIELDS = ("num_frames", "sampler", "sampler_options", "repeats", "resize", "max_errors")


def train_video_text(
    data: Any,
    model: str | Path | nn.Module,
    *,
    processor: Any = None,
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
    """Trains a model of video and text. Returns the summary that is also written.

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

    Raises DataError, ConfigError, CheckpointError and VideoOptionError for what can't work, before training.
    """
    output = Path(output)
    recipe = change(load_recipe(recipe or default_recipe(model)), settings)
    if recipe.get("task") != "video-text":
        raise ConfigError(
            f"The recipe {recipe['name']!r} is not for video and text. Those are clip4clip, video_text_small, "
            "violet_retrieval."
        )
    splits = load_captions(data, test_size=test_size, **columns)
    if "train" not in splits:
        raise DataError(f"{data} has no training split; it has {', '.join(splits)}.")
    if distinct_pairs(splits["train"]) < 2:
        raise DataError(f"{data} has one video or one caption to train on: nothing to tell apart.")
    recipe = fit_to_captions(recipe, splits["train"], settings)
    arguments = make_arguments(output, measuring(splits.get("validation"), recipe["training"], every=0.1))
    name = model if isinstance(model, (str, Path)) else type(model).__name__
    run = description(name, recipe, splits, chunk_size=chunk_size, hard_negatives=hard_negatives)
    with arguments.main_process_first(local=False):
        place = open_output(output, run, resume=resume, overwrite=overwrite)
    arguments.output_dir = str(place.folder)
    set_seed(arguments.seed)
    model, processor = load_pair(model, processor, recipe, settings)
    trainer = ContrastiveTrainer(
        model,
        arguments,
        processing_class=processor,
        chunk_size=chunk_size,
        hard_negatives=hard_negatives,
        train_dataset=make_dataset(
            *(CaptionDataset, splits["train"], processor, recipe),
            seed=arguments.seed,
            skipped_log=place.folder / SKIPPED_FILE,
        ),
        eval_dataset=CaptionDataset(splits["validation"], processor.image_processor)
        if "validation" in splits
        else None,
    )
    negatives = "similar captions (hard negatives)" if hard_negatives else "any captions"
    chunks = f", {chunk_size} at a time (gradient caching)" if chunk_size else ""
    plan = make_plan(trainer, splits, recipe, unit="pairs", of=f" of {negatives}{chunks}", few=chunk_size or 4)
    return run_trainer(trainer, splits, plan, place, task="video-text", yes=yes)


def run_trainer(
    trainer: MeasuringTrainer,
    splits: Mapping[str, VideoRows],
    plan: TrainingPlan,
    place: RunFolder,
    *,
    task: str,
    yes: bool = False,
) -> dict[str, Any]:
    """Tells the plan, trains, saves and measures. Returns the summary, which is also written."""
    plan.warnings += place.remarks
    begin(trainer, place, plan, yes=yes)
    with place.watched():
        result = trainer.train(resume_from_checkpoint=place.resumed_from)
        trainer.save_model()
        summary = _summary(trainer, splits, plan, result, task, place.run["model"])
        if trainer.is_world_process_zero():
            write_summary(place.folder, summary)
            training_curve(trainer.state.log_history, place.folder)
            place.finish()
    trainer.accelerator.wait_for_everyone()
    return {**summary, "output": str(place.output)}


# -- what it starts from ----------------------------------------------------------------------------------------------


def default_recipe(model: str | Path | nn.Module) -> str:
    if config_of(model).model_type == "violet":
        return "violet_retrieval:small" if is_narrow(model) else "violet_retrieval"
    return "video_text_small" if is_narrow(model) else "clip4clip"


def is_narrow(model: str | Path | nn.Module) -> bool:
    """Whether its text side has so few channels that the rates of the papers are too low."""
    return getattr(getattr(config_of(model), "text_config", None), "hidden_size", NARROW + 1) <= NARROW


def config_of(model: str | Path | nn.Module) -> PreTrainedConfig:
    """Raises CheckpointError for a name that is no model."""
    if not isinstance(model, (str, Path)):
        return model.config
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{model} is no model here or on the Hub: {reason}") from error


def load_pair(
    model: str | Path | nn.Module, processor: Any, recipe: Mapping[str, Any], settings: Sequence[str] = ()
) -> tuple[nn.Module, Any]:
    """The model and its processor, which sees as many frames as the recipe says. The recipe's fields of a configuration
    make a new model; one that was saved has its own, but for those that `settings` name. Raises CheckpointError and
    ConfigError."""
    frames, fields = recipe["data"].get("num_frames"), dict(recipe["model"])
    typed = {name: value for name, value in fields.items() if f"model.{name}" in typed_names(settings)}
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
    name: str, processor: Any, fields: dict[str, Any], frames: int | None, typed: dict[str, Any]
) -> tuple[nn.Module, Any]:
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
    most), so that about as many pairs are seen. What somebody typed stays."""
    made = fit_batch(recipe, distinct_pairs(rows), settings)
    before, after = (one["training"].get("per_device_train_batch_size", 8) for one in (recipe, made))
    times, least = min(before // after, 4), made["training"].get("min_train_steps")
    if least and times > 1 and "training.min_train_steps" not in typed_names(settings):
        made["training"]["min_train_steps"] = times * least
        made["remarks"] = [*made.get("remarks", ()), f"batches are small: min_train_steps={times * least}, not {least}"]
    return made


def make_dataset(
    kind: type[VideoDataset], rows: VideoRows, processor: Any, recipe: Mapping[str, Any], **more: Any
) -> Any:
    """Clips of `rows` as the recipe has them; `more` are arguments of that kind of data set. Raises ConfigError where a
    flip would make texts wrong."""
    options = {name: value for name, value in recipe["data"].items() if value is not None}
    unknown = [name for name in options if name not in DATA_FIELDS]
    if unknown:
        raise ConfigError(unknown_name("The section data has no", unknown[0], DATA_FIELDS))
    images, augmentation = processor.image_processor, None
    if recipe["augmentation"]:
        augmentation = from_options(Augmentation, recipe["augmentation"], size=crop_of(images))
        sided = next((row.text for row in rows if re.search(r"\b(left|right)\b", row.text.lower())), None)
        if augmentation.flip and sided is not None:
            raise ConfigError(f"augmentation.flip mirrors clips, and a text says {sided!r}. Set augmentation.flip=0.")
    return kind(rows, images, augmentation=augmentation, **more, **options)


# -- what is said about it --------------------------------------------------------------------------------------------


def description(name: Any, recipe: Mapping[str, Any], splits: Mapping[str, VideoRows], **choices: Any) -> dict:
    captions = [row.text for rows in splits.values() for row in rows]
    digest = hashlib.sha256(json.dumps(captions).encode()).hexdigest()
    return {**run_description(str(name), recipe, splits), "texts_sha256": digest, **choices}


def make_plan(
    trainer: MeasuringTrainer,
    splits: Mapping[str, VideoRows],
    recipe: Mapping[str, Any],
    *,
    unit: str,
    of: str = "",
    few: int = 4,
) -> TrainingPlan:
    """What will be done with so many rows (`unit`), in batches `of` what; `few` of them are read and run. Raises
    ConfigError for what can't work."""
    args, data, model = trainer.args, trainer.train_dataset, trainer.model
    check_batch(args, model, len(data), data.repeats)
    measured = measure(trainer, at_most=min(few, 4))
    per_epoch = trainer.steps_per_epoch()
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    counts = {name: [len({row.name for row in rows}), len(rows)] for name, rows in splits.items()}
    rate = f"{args.learning_rate:.3g}"
    if args.backbone_rate != 1.0:
        rate += f" for the temporal head, {args.learning_rate * args.backbone_rate:.3g} for all else"
    skipped = [one for rows in splits.values() for one in rows.skipped]
    name = ":".join(filter(None, (recipe["name"], recipe["variant"])))
    lines = [
        (unit, ", ".join(f"{rows} {split} (of {videos} videos)" for split, (videos, rows) in counts.items())),
        *([("left out", f"{len(skipped)}, the first: {skipped[0]}")] if skipped else []),
        ("a clip", f"{data.plan.num_frames} frames"),
        ("a batch", f"{args.rows_per_step} {unit}{of}"),
        ("learning rate", rate),
        ("steps", f"{steps} ({steps / per_epoch:.4g} epochs of {per_epoch}){extra_epochs_remark(trainer)}"),
        ("model", f"{type(model).__name__}, {model.num_parameters():,} parameters, on {args.device}"),
        ("recipe", name),
    ]
    facts = {unit: counts, "steps": steps, "recipe": name, "batch": args.rows_per_step, "device": str(args.device)}
    meant, given = recipe.get("model_type"), model.config.model_type
    odd = [f"the recipe {name} is meant for {meant}, and this is {given}"] if meant not in (None, given) else []
    plan = TrainingPlan(facts, lines, [*recipe.get("remarks", ()), *odd])
    add_cost(plan, trainer, measured, steps)
    return plan


def _summary(
    trainer: MeasuringTrainer, splits: Mapping[str, VideoRows], plan: TrainingPlan, result: Any, task: str, name: str
) -> dict[str, Any]:
    measured = {}
    for split in ("validation", "test"):
        if split in splits:
            data = type(trainer.train_dataset)(splits[split], trainer.processing_class.image_processor)
            measured[split] = trainer.evaluate(data, metric_key_prefix=split)
    skipped = {(one.name, one.kind): one for rows in splits.values() for one in rows.skipped}
    skipped |= {(one.name, one.kind): one for one in trainer.train_dataset.skipped()}
    return {
        "task": task,
        "model": name,
        "plan": plan.facts,
        "steps": trainer.state.global_step,
        "train_loss": result.metrics.get("train_loss"),
        "seconds": round(result.metrics.get("train_runtime", 0.0), 2),
        "evaluation": measured,
        "skipped": [one.as_dict() for one in skipped.values()],
    }
