"""What a training is about to do, said before it starts; and what can't work, refused."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from hf_video.data.check.videos import double_files
from hf_video.data.rows import VideoRows
from hf_video.errors import ConfigError, DataError, HFVideoError, pluralize
from hf_video.training.measurement import BatchCost, gigabytes, measure, training_bytes
from hf_video.training.recipes import NARROW
from hf_video.video.reader import VideoReader

LISTED = 12  # classes that are named one by one
LOOKED_AT = 12  # videos that are opened for it
WEIGHTS_PER_VIDEO = 20_000  # random ones: with more, a model learns its videos by heart at best
LONG, LONG_ON_GPU = 24 * 3600, 7 * 24 * 3600  # seconds: nobody starts more without meaning to
# Where a fine-tuning of a type can start, by its name on the Hub.
CHECKPOINTS = {
    "videomae": "MCG-NJU/videomae-base",
    "timesformer": "facebook/timesformer-base-finetuned-k400",
    "vivit": "google/vivit-b-16x2-kinetics400",
}
UNEVEN = 5  # the largest class so many times the smallest: worth a word


@dataclass
class TrainingPlan:
    """Lines to print, and the same as numbers for the summary. `warnings` are what may surprise, `concerns` what nobody
    can mean: these are asked about (see `confirm`)."""

    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    concerns: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(["The plan", *_columns(self.lines), *[f"  note: {warning}" for warning in self.warnings]])

    def add(self, name: str, text: str, **facts: Any) -> None:
        self.lines.append((name, text))
        self.facts.update(facts)


def _columns(lines: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in lines), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in lines]


def confirm(plan: TrainingPlan, *, yes: bool) -> None:
    """Asks whether to go on where the plan has concerns; with `yes` they are notes.

    Raises ConfigError for a no, and where there is no terminal to ask at.
    """
    if yes or not plan.concerns:
        for concern in plan.concerns:
            print(f"  note: {concern}", flush=True)
        return
    concerns = " ".join(plan.concerns)
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        print(f"  {concerns}")
        if input("Go on all the same? [y/N] ").strip().lower() in ("y", "yes"):
            return
        raise ConfigError("Nothing was trained.")
    raise ConfigError(f"{concerns} To go on all the same: --yes (yes=True).")


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


def check_batch(args: Any, model: nn.Module, rows: int, repeats: int) -> None:
    """Raises ConfigError for a step larger than the data, and for statistics over one clip."""
    if args.rows_per_step > rows:
        raise ConfigError(
            f"One step takes {args.rows_per_step} videos, and there are {rows}. Lower it: --set "
            f"training.effective_batch_size={2 ** int(math.log2(rows))}, or training.per_device_train_batch_size."
        )
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if (
        norms
        and args.per_device_train_batch_size * repeats == 1
        and not getattr(model.config, "frozen_batch_norm", False)
    ):
        raise ConfigError(
            f"{type(model).__name__} has batch norms, which need more than one clip at a time: raise "
            "training.per_device_train_batch_size."
        )


def describe_data(splits: Mapping[str, VideoRows]) -> TrainingPlan:
    """What there is to train on; `make_plan` goes on with it."""
    plan = TrainingPlan()
    _tell_data(plan, splits)
    return plan


def print_data(plan: TrainingPlan) -> None:
    """Prints what is known so far, and that the rest takes a moment."""
    print("\n".join(["The data", *_columns(plan.lines), "Measuring one batch ..."]), flush=True)


def make_plan(
    trainer: Any,
    splits: Mapping[str, VideoRows],
    *,
    recipe: str,
    remarks: list[str] | None = None,
    from_scratch: bool = False,
    begun: TrainingPlan | None = None,
) -> TrainingPlan:
    """Checks everything and describes what will be done, after what is `begun` (see `describe_data`). Reads one
    batch and runs one forward."""
    check_splits(splits)
    args, model, dataset = trainer.args, trainer.model, trainer.train_dataset
    check_batch(args, model, len(dataset), dataset.repeats)
    plan = describe_data(splits) if begun is None else begun
    plan.warnings += remarks or []
    _tell_clips(plan, dataset)
    steps = _tell_steps(plan, trainer)
    _tell_model(plan, trainer, recipe)
    if from_scratch:
        warn_of_random_weights(plan, model, len(splits["train"]))
    add_cost(plan, trainer, measure(trainer), steps)
    return plan


def _tell_data(plan: TrainingPlan, splits: Mapping[str, VideoRows]) -> None:
    sizes = {name: len(rows) for name, rows in splits.items()}
    plan.add("videos", ", ".join(f"{count} {name}" for name, count in sizes.items()), videos=sizes)
    counts = splits["train"].counts()
    shown = ", ".join(f"{label} {count}" for label, count in list(counts.items())[:LISTED])
    more = f", and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    plan.add("classes", f"{len(counts)}: {shown}{more}", classes={name: r.counts() for name, r in splits.items()})
    if splits["train"].multi_label:
        labels = sum(counts.values()) / len(splits["train"])
        plan.add("labels", f"{labels:.3g} a video: each class is a yes or a no (sigmoid)", labels_per_video=labels)
    most, least = max(counts.values()), min(counts.values())
    if least == 0:
        empty = [label for label, count in counts.items() if not count]
        plan.warnings.append(f"{len(empty)} classes have no video to train on, as {empty[0]!r}")
    elif most >= UNEVEN * least:
        plan.warnings.append(f"the largest class has {most} videos, the smallest {least}: look at accuracy per class")
    plan.warnings += double_files(splits)
    skipped = [one for rows in splits.values() for one in rows.skipped]
    if skipped:
        unused = [one for one in skipped if not one.used]
        remarked = len(skipped) - len(unused)
        more = f"; used with a remark: {pluralize(remarked, 'file')}" if remarked else ""
        plan.add("left out", f"{pluralize(len(unused), 'file')}{more}")


def _tell_clips(plan: TrainingPlan, dataset: Any) -> None:
    looked_at = inspect_clips(dataset)
    spans = [(seen, length) for seen, length, _, _ in looked_at]
    frames = dataset.plan.num_frames
    text = f"{frames} frames"
    facts = {"frames": frames}
    if spans:
        seen, length = (float(np.median(part)) for part in zip(*spans, strict=True))
        text += f" over {seen:.2f} s of videos of {length:.2f} s (medians of {len(spans)} looked at)"
        facts.update(seconds_seen=round(seen, 3), seconds_of_video=round(length, 3))
        if seen < 0.1 * length:
            plan.warnings.append(f"a clip sees {seen / length:.0%} of its video: a larger stride, or sampler=random?")
    short = [total for _, _, distinct, total in looked_at if distinct < min(frames, total)]
    if len(short) * 2 > len(looked_at):
        plan.warnings.append(f"clips show some frames twice: videos of {min(short)} frames are short for this sampler")
    if dataset.repeats > 1:
        text += f"; {dataset.repeats} clips of each video"
    plan.add("a clip", text, **facts)


def inspect_clips(dataset: Any) -> list[tuple[float, float, int, int]]:
    """Of some videos over the whole data set: seconds that a clip covers, seconds of the video, different frames of a
    clip, frames of the video. Files that can't be read are passed over."""
    found = []
    for number in np.unique(np.linspace(0, len(dataset.rows) - 1, LOOKED_AT).astype(int)):
        try:
            with VideoReader(dataset._opened(dataset.rows[number].source)) as reader:
                indices, data = dataset.plan.choose(reader, seed=int(number)).indices[0], reader.metadata
                covered = float(indices.max() - indices.min() + 1) / data.fps
                found.append((covered, data.num_frames / data.fps, len(np.unique(indices)), data.num_frames))
        except (HFVideoError, OSError):
            continue
    return found


def repeated_frames(dataset: Any) -> list[bool]:
    """For each of some videos: does a clip repeat frames although the video has others?"""
    frames = dataset.plan.num_frames
    return [distinct < min(frames, total) for _, _, distinct, total in inspect_clips(dataset)]


def _tell_steps(plan: TrainingPlan, trainer: Any) -> int:
    args, per_epoch = trainer.args, trainer.steps_per_epoch()
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    parts = [f"{args.per_device_train_batch_size} at a time"]
    parts += [f"{args.gradient_accumulation_steps} accumulated"] if args.gradient_accumulation_steps > 1 else []
    parts += [f"{args.world_size} processes"] if args.world_size > 1 else []
    plan.add(
        "effective batch",
        f"{args.rows_per_step} videos ({' x '.join(parts)})",
        effective_batch=args.rows_per_step,
    )
    rate = f"{args.learning_rate:.3g}"
    if args.base_learning_rate is not None:
        rate += f" ({args.base_learning_rate:g} x {args.rows_per_step} / {args.base_batch_size})"
    if args.layer_decay is not None and hasattr(trainer.model, "layer_groups"):
        lowest = args.learning_rate * args.layer_decay ** (len(trainer.model.layer_groups()) - 1)
        rate += f", down to {lowest:.3g} at the stem"
    plan.add("learning rate", rate, learning_rate=args.learning_rate)
    plan.add(
        "steps",
        f"{steps} ({steps / per_epoch:.4g} epochs of {per_epoch}){extra_epochs_remark(trainer)}",
        steps=steps,
        steps_per_epoch=per_epoch,
    )
    _check_schedule(plan, args, steps, per_epoch)
    return steps


def extra_epochs_remark(trainer: Any) -> str:
    """Why there are more epochs than `num_train_epochs` asked for; "" where there are not."""
    if trainer.args.max_steps > 0 or trainer.args.num_train_epochs == trainer.asked_epochs:
        return ""
    least = trainer.args.min_train_steps
    return f", for {trainer.asked_epochs:g} epochs are fewer than the recipe's min_train_steps={least}"


def _check_schedule(plan: TrainingPlan, args: Any, steps: int, per_epoch: int) -> None:
    warm = args.warmup_epochs * per_epoch if args.warmup_epochs is not None else args.get_warmup_steps(steps)
    if warm >= steps:
        raise ConfigError(
            f"The warm-up of {warm:g} steps is no shorter than the training of {steps}. Train longer "
            "(training.num_train_epochs), or shorten training.warmup_epochs / warmup_steps."
        )
    if args.ema_decay is not None and 2 / (1 - min(args.ema_decay, 1 - 1e-9)) > steps:
        plan.warnings.append(
            f"ema_decay={args.ema_decay} averages over {1 / (1 - args.ema_decay):.0f} steps and there are {steps}: the "
            "average will lag far behind"
        )


def _tell_model(plan: TrainingPlan, trainer: Any, recipe: str) -> None:
    model, args = trainer.model, trainer.args
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    plan.add(
        "model",
        f"{type(model).__name__}, {trained:,} of {total:,} parameters are trained",
        parameters=total,
        trainable=trained,
    )
    computed = (
        "bfloat16"
        if args.bf16
        else "float16"
        if args.fp16
        else str(next(model.parameters()).dtype).removeprefix("torch.")
    )
    plan.add("device", f"{args.device}, computed in {computed}", device=str(args.device), dtype=computed)
    plan.add("recipe", recipe, recipe=recipe)


def warn_of_random_weights(plan: TrainingPlan, model: nn.Module, videos: int) -> None:
    """A note where random weights are far too many for so few videos to teach them anything."""
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if parameters < WEIGHTS_PER_VIDEO * max(videos, 1):
        return
    count = f"{parameters / 1e6:.0f} million" if parameters >= 1e7 else f"{parameters:,}"
    name = CHECKPOINTS.get(model.config.model_type)
    start = f"--model {name}" if name else "one that hf-video convert made of the authors'"
    plan.warnings.append(
        f"{count} random weights won't learn from {videos} videos. Start from a checkpoint ({start}), or take a small "
        f"model: a JSON file with its model_type, a small image_size and a hidden_size of at most {NARROW}"
    )


def add_cost(plan: TrainingPlan, trainer: Any, measured: BatchCost, steps: int) -> None:
    """Time and memory of `steps` steps; concerns where they are absurd. Reading is shared by the loader's workers, a
    backward costs about two forwards."""
    args = trainer.args
    reading, forward = measured.reading / max(args.dataloader_num_workers, 1), measured.forward
    parts = (max(reading, 3 * forward), reading + 3 * forward)
    seconds = parts[args.dataloader_num_workers == 0] * args.gradient_accumulation_steps * steps
    read = f"a batch of {measured.clips} clips: forward {forward:.2f} s, reading {reading:.2f} s"
    plan.add("time", f"about {duration(seconds)} ({read})", estimated_seconds=round(seconds, 1))
    if reading > 3 * forward and args.dataloader_num_workers:
        plan.warnings.append("reading takes longer than computing: more dataloader_num_workers, or smaller files")
    needed = gigabytes(measured.needed)
    free = "" if measured.available is None else f", of {gigabytes(measured.available)} that are free"
    plan.add("memory", f"about {needed} more{free}", estimated_bytes=measured.needed)
    if not measured.fits:
        plan.concerns.append(
            f"This training needs about {needed} of memory, and {gigabytes(measured.available)} are free. "
            f"Take a smaller batch (training.per_device_train_batch_size, now {args.per_device_train_batch_size}, with "
            "training.gradient_accumulation_steps), training.gradient_checkpointing=true, or a smaller model."
        )
    limit = LONG if args.device.type == "cpu" else LONG_ON_GPU
    if seconds > limit:
        plan.concerns.append(
            f"This training takes about {duration(seconds)} on {args.device}. Train for fewer steps "
            "(training.num_train_epochs, training.max_steps), a smaller model, or on a GPU."
        )
    check_disk(plan, trainer)


def check_disk(plan: TrainingPlan, trainer: Any) -> None:
    """A concern where the disk has no room for one checkpoint more than are kept, and the model."""
    args = trainer.args
    weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    trained = sum(p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad)
    kept = 1 if args.save_strategy == "no" else (args.save_total_limit or 1) + 1
    needed = kept * (training_bytes(trained, args) - 2 * trained + weights) + weights
    folder = next(path for path in Path(args.output_dir).absolute().parents if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        plan.concerns.append(
            f"The checkpoints need about {gigabytes(needed)} in {args.output_dir}, and {gigabytes(free)} are free. "
            "Keep fewer (training.save_total_limit=1), or choose another --output."
        )


def clip_rate(clips: float) -> str:
    """Clips a second: "0.05", "7.3", "1240"."""
    return f"{clips:.0f}" if clips >= 100 else f"{clips:.2g}" if clips < 1 else f"{clips:.1f}"


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
