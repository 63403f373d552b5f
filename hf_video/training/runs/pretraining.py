"""VideoMAE pretraining, from a folder of unlabelled clips to an encoder: the steps behind `hf-video pretrain`.

    pretrain("my_clips", "videomae:small", output="my_encoder")

What is left in the output folder: the model, its processor and card, `training_summary.json` with the masked loss on
held-out clips beside that of predictors that know nothing, `figures/` (reconstructions while it trained, the loss
curve), `training_curve.png`, `skipped.jsonl`, `checkpoint-N/` and TensorBoard's `runs/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from hf_video.data import VideoDataset, VideoRow, VideoRows, load_videos
from hf_video.errors import ConfigError, DataError, VideoError
from hf_video.features.extraction import extract_features
from hf_video.hub.model_card import write_card
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.masked_pretraining import MaskedVideoCollator
from hf_video.training.masked_trainer import MaskedTrainer, ProbeCallback, ReconstructionCallback
from hf_video.training.measurement import check_weights, measure
from hf_video.training.plan import (
    TrainingPlan,
    add_cost,
    check_batch,
    extra_epochs_remark,
    print_data,
    warn_of_random_weights,
)
from hf_video.training.pretrain_figures import loss_curve
from hf_video.training.recipes import change, load_recipe, typed_names
from hf_video.training.run_folder import SKIPPED_FILE, open_output, run_description
from hf_video.training.runs.classification import default_output
from hf_video.training.runs.model_loading import LoadedModel, find_source, load_model, set_evaluation_sampling
from hf_video.training.runs.preparation import fit_batch, make_arguments, make_dataset, measuring
from hf_video.training.runs.probe import check_rows, probe_features
from hf_video.training.runs.run import begin
from hf_video.training.runs.summary import make_summary, training_curve, write_summary
from hf_video.video.reader import VideoReader

RECIPE = "videomae_pretrain_small"
TASK = "AutoModelForPreTraining"
FEW = 100  # videos: below, the recipe's variant for few of them
FIGURES = "figures"
SHOWN = 4  # clips of a reconstruction figure
MEASURED = 64  # held-out clips to measure on; a video gives eight at most
LOOKED_AT = 32  # videos that are opened to see how long they are


def pretrain(
    data: Any,
    model: str | Path,
    *,
    recipe: str | Path | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    held_out: float | None = None,
    group_pattern: str | None = None,
    probe: Any = None,
    probe_every: int = 10,
    resume: bool = False,
    overwrite: bool = False,
    yes: bool = False,
    revision: str | None = None,
) -> dict[str, Any]:
    """Trains a masked autoencoder. Returns the summary that is also written.

    Args:
        data: What `load_videos` takes. Labels are not used.
        model: See `find_source`: a folder, a name on the Hub, a model type with a size or a file of its configuration.
        recipe: See `load_recipe`. Default: "videomae_pretrain_small", for fewer than 100 videos its variant
            "few_videos".
        settings, output, resume, overwrite, yes: As in `finetune`.
        held_out: Share of the videos that is measured on, where they have no test or validation split; 0 for none.
            Default: a tenth, of fewer than 100 videos a quarter. `group_pattern` keeps clips of one recording together:
            see `load_videos`.
        probe: Labelled videos for a linear probe before, every `probe_every` epochs, and after.

    Raises DataError, ConfigError, CheckpointError and VideoOptionError for what can't work, before training.
    """
    source = find_source(model, revision=revision)
    splits = read_splits(data, held_out, group_pattern)
    recipe = change(load_recipe(recipe or default_recipe(sum(map(len, splits.values())))), settings)
    if recipe.get("task") != "pretraining":
        raise ConfigError(f"The recipe {recipe['name']!r} is for classifiers. For pretraining: {RECIPE!r}.")
    if "training.num_train_epochs" in typed_names(settings):
        recipe = fit_batch(recipe, len(splits["train"]), settings)  # an epoch is then each video once
    output = Path(output) if output is not None else default_output(data, source)
    arguments = make_arguments(output, measuring(splits.get("test"), recipe["training"], every=0.05))
    with arguments.main_process_first(local=False):
        place = open_output(output, run_description(source.name, recipe, splits), resume=resume, overwrite=overwrite)
    arguments.output_dir = str(place.folder)
    plan = TrainingPlan()
    plan.add("videos", ", ".join(f"{len(rows)} {split}" for split, rows in splits.items()))
    if arguments.process_index == 0:
        print_data(plan)
    set_seed(arguments.seed)
    start, recipe = make_start(
        source, recipe, splits["train"], revision, settings=settings, before=check_weights(arguments, yes=yes)
    )
    trainer = make_trainer(start, splits, recipe, arguments, place.folder)
    if probe is not None:
        trainer.add_callback(ProbeCallback(trainer, make_probe(probe, start.processor), probe_every))
    complete_plan(plan, trainer, splits, recipe, [*start.remarks, *place.remarks], from_scratch=start.from_scratch)
    begin(trainer, place, plan, yes=yes)
    summary: dict[str, Any] = {}
    with place.watched():
        result = trainer.train(resume_from_checkpoint=place.resumed_from)
        measured = trainer.evaluate() if "test" in splits else None
        trainer.save_model()
        if trainer.is_world_process_zero():
            summary = make_summary(trainer, splits, source, recipe, plan, result, {}, data=data)
            summary |= {
                "task": "masked pretraining",
                "masking": recipe["masking"],
                **held_out_summary(trainer, measured),
            }
            write_summary(place.folder, summary)
            draw(trainer, place.folder)
            training_curve(trainer.state.log_history, place.folder)
            write_card(place.folder)
            place.finish()
            summary["output"] = str(output)
    trainer.accelerator.wait_for_everyone()
    return summary


def default_recipe(videos: int) -> str:
    return f"{RECIPE}:few_videos" if videos < FEW else RECIPE


def read_splits(data: Any, held_out: float | None = None, group_pattern: str | None = None) -> dict[str, VideoRows]:
    """ "train" and, unless `held_out` is 0, "test", without labels. Raises DataError where there are no videos, or one
    and it should be held out."""
    options = {"group_pattern": group_pattern, "need_labels": False}
    found = load_videos(data, test_size=0.1 if held_out is None else held_out, **options)
    if held_out is None and sum(map(len, found.values())) < FEW:
        held_out = 0.25  # what one or two videos say is chance
        found = load_videos(data, test_size=held_out, **options)
    if not len(found.get("train", ())):
        skipped = [str(one) for rows in found.values() for one in rows.skipped]
        raise DataError(f"There are no videos to train on in {data}. {'; '.join(skipped[:3])}")
    unseen = found.get("test") or found.get("validation")
    if held_out != 0 and not unseen:
        raise DataError(
            f"{data} has one video, or clips of one recording: none can be held out to measure on. Give more videos, "
            "or hold out none (held_out=0)."
        )
    chosen = {"train": found["train"], "test": unseen} if held_out != 0 else {"train": found["train"]}
    return {name: _without_labels(rows) for name, rows in chosen.items()}


def _without_labels(rows: VideoRows) -> VideoRows:
    bare = (VideoRow(row.source, None, row.name, row.group) for row in rows)
    return VideoRows(bare, skipped=rows.skipped, root=rows.root)


def make_start(
    source: Any,
    recipe: Mapping[str, Any],
    rows: VideoRows,
    revision: str | None = None,
    *,
    settings: Sequence[str] = (),
    before: Any = None,
) -> tuple[LoadedModel, dict[str, Any]]:
    """The autoencoder and its processor, and the recipe with a stride that fits the videos. The paper's encoder ends
    with a norm: mean pooling, which has none, is for classifiers."""
    if TASK not in source.entry.auto:
        raise ConfigError(f"{source.model_type} has no masked pretraining; videomae has.")
    fields = {"use_mean_pooling": False, **recipe["model"]}
    start = load_model(source, task=TASK, settings=fields, revision=revision, before=before)
    start.remarks += recipe.get("remarks", ())
    data = dict(recipe["data"])
    data["num_frames"] = data.get("num_frames") or start.model.config.num_frames
    stride = (data.get("sampler_options") or {}).get("stride")
    typed = any(name.startswith("data.sampler") for name in typed_names(settings))
    if stride is not None and not typed and (fitting := fit_stride(rows, data["num_frames"], stride)) < stride:
        data["sampler_options"] = {**data["sampler_options"], "stride": fitting}
        start.remarks.append(f"the videos are short: frames are taken at stride {fitting}, not {stride}")
    set_evaluation_sampling(start.processor, data)
    return start, {**recipe, "data": data}


def fit_stride(rows: VideoRows, num_frames: int, stride: int) -> int:
    """The largest stride up to `stride` at which the median of some videos still fills a clip with different frames."""
    lengths = []
    for row in rows[:LOOKED_AT]:
        try:
            with VideoReader(VideoDataset._opened(row.source)) as reader:
                lengths.append(reader.metadata.num_frames)
        except (VideoError, OSError):
            continue
    span = int(np.median(lengths)) - 1 if lengths else stride * num_frames
    return max(1, min(stride, span // max(num_frames - 1, 1)))


class FixedClipDataset(VideoDataset):
    """Clips and masks are the same at every evaluation. Loaders whose workers live on take evaluations for epochs."""

    def set_epoch(self, epoch: int) -> None:
        pass


def make_trainer(
    start: LoadedModel,
    splits: Mapping[str, VideoRows],
    recipe: Mapping[str, Any],
    arguments: VideoTrainingArguments,
    output: Path,
) -> MaskedTrainer:
    """With data sets of both splits and, where something is held out, pictures of it."""
    log = output / SKIPPED_FILE
    rows = splits["train"]
    # Fewer videos than a step takes: each is there several times, as a clip of another place.
    times = -(-arguments.rows_per_step // len(rows))
    if times > 1:
        start.remarks.append(f"each video is read {times} times an epoch, to fill a batch")
    repeated = rows.select(i for _ in range(times) for i in range(len(rows)))
    train = make_dataset(repeated, start.processor, recipe, seed=arguments.seed, log=log)
    test = splits.get("test")
    if test is not None:
        options = {name: recipe["data"][name] for name in ("sampler", "sampler_options") if name in recipe["data"]}
        views = min(-(-MEASURED // len(test)), 8)
        test = FixedClipDataset(test, start.processor, views=views, seed=arguments.seed, skipped_log=log, **options)
    trainer = MaskedTrainer(
        start.model,
        arguments,
        MaskedVideoCollator(start.model.config.patch, **recipe["masking"]),
        train_dataset=train,
        eval_dataset=test,
        processing_class=start.processor,
    )
    if test is not None:
        trainer.add_callback(_pictures(trainer, test, output / FIGURES))
    return trainer


def _pictures(trainer: MaskedTrainer, test: VideoDataset, folder: Path) -> ReconstructionCallback:
    """A clip from the middle of some of the held-out videos."""
    videos = np.linspace(0, len(test.rows) - 1, min(SHOWN, len(test.rows))).round().astype(int).tolist()
    clips = torch.utils.data.Subset(test, [video * test.clips + test.clips // 2 for video in videos])
    return ReconstructionCallback(trainer, clips, [test.rows[video].name for video in videos], folder)


def make_probe(data: Any, processor: Any) -> Any:
    """model -> top-1 of a linear probe. Raises DataError for videos without labels or a test split."""
    splits = load_videos(data)
    test = splits.get("test") or splits.get("validation")
    if "train" not in splits or not test or not splits["train"].labelled:
        raise DataError(f"The videos to probe with, {data}, need labels, and some to test on.")
    check_rows(splits["train"], test)
    return partial(_probe_top1, processor=processor, train=splits["train"], test=test)


def _probe_top1(model: Any, *, processor: Any, train: VideoRows, test: VideoRows) -> float:
    seen, unseen = (extract_features(model, processor, rows, batch_size=32) for rows in (train, test))
    return probe_features(seen, unseen, train).test_top1


def complete_plan(
    plan: TrainingPlan,
    trainer: MaskedTrainer,
    splits: Mapping[str, VideoRows],
    recipe: Mapping[str, Any],
    remarks: Sequence[str] = (),
    *,
    from_scratch: bool = False,
) -> None:
    """What will be done, with one batch read and run. Raises ConfigError for what can't work."""
    args, data, model = trainer.args, trainer.train_dataset, trainer.model
    check_batch(args, model, len(data), data.repeats)
    measured = measure(trainer)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * trainer.steps_per_epoch())
    epochs = f"{steps / trainer.steps_per_epoch():.4g} epochs of {len(data) * data.repeats} clips"
    hidden = measured.batch["bool_masked_pos"]
    name = ":".join(filter(None, (recipe["name"], recipe["variant"])))
    plan.add("a clip", f"{data.plan.num_frames} frames, {hidden.shape[1]} tubelets, {hidden[0].sum()} of them hidden")
    plan.add("a step", f"{args.rows_per_step * data.repeats} clips, learning rate {args.learning_rate:.3g}")
    plan.add("steps", f"{steps} ({epochs}){extra_epochs_remark(trainer)}", steps=steps)
    plan.add("model", f"{type(model).__name__}, {model.num_parameters():,} parameters, on {args.device}")
    plan.add("recipe", name, recipe=name, device=str(args.device))
    plan.facts["videos"] = {split: len(rows) for split, rows in splits.items()}
    plan.warnings += remarks
    if from_scratch:
        warn_of_random_weights(plan, model, len(splits["train"]))
    add_cost(plan, trainer, measured, steps)


def held_out_summary(trainer: MaskedTrainer, measured: Mapping[str, float] | None) -> dict[str, Any]:
    """`held_out`: the masked loss and that of predictors that know nothing, and whether it `beats_trivial`;
    `probe_top1` by epoch."""
    names = ("masked_loss", "mean_of_patch", "copy_of_nearest", "explained")
    held_out = None
    if measured is not None:
        data = trainer.eval_dataset
        held_out = {name: measured[f"eval_{name}"] for name in names} | {"clips": len(data), "videos": len(data.rows)}
        held_out["beats_trivial"] = held_out["explained"] > 0
    probes = {f"{row['epoch']:g}": row["probe_top1"] for row in trainer.state.log_history if "probe_top1" in row}
    return {"held_out": held_out, "probe_top1": probes or None}


def draw(trainer: MaskedTrainer, output: Path) -> None:
    """`figures/reconstruction.png`, with the final weights, and `figures/loss_curve.png`."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ReconstructionCallback):
            with trainer.averaged():
                callback.draw(output / FIGURES / "reconstruction.png")
    loss_curve(trainer.state.log_history, output / FIGURES / "loss_curve.png")
