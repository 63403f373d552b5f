"""The plan of a training: what it will do and cost, printed before it starts; and checks of what can't work."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from hf_video.errors import ConfigError, HFVideoError
from hf_video.training.measurement import BatchCost, gigabytes, training_bytes
from hf_video.training.recipes import NARROW
from hf_video.video.reader import VideoReader

if TYPE_CHECKING:
    from transformers import Trainer

    from hf_video.data.datasets.dataset import VideoDataset
    from hf_video.training.arguments import VideoTrainingArguments

INSPECTED = 12  # videos that are opened for the plan
WEIGHTS_PER_VIDEO = 20_000  # random ones: with more, a model learns its videos by heart at best
LONG, LONG_ON_GPU = 24 * 3600, 7 * 24 * 3600  # seconds above which the user is asked
# Where a fine-tuning of a type can start, by its name on the Hub.
CHECKPOINTS = {
    "videomae": "MCG-NJU/videomae-base",
    "timesformer": "facebook/timesformer-base-finetuned-k400",
    "vivit": "google/vivit-b-16x2-kinetics400",
    "vjepa2": "facebook/vjepa2-vitl-fpc64-256",
}


@dataclass
class TrainingPlan:
    """Lines to print, and the same as numbers for the summary. `warnings` are printed as notes; `concerns` are likely
    mistakes, which the user is asked about (see `confirm`)."""

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

    Raises ConfigError where the answer is no, and where there is no terminal to ask at.
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


def check_batch(args: VideoTrainingArguments, model: nn.Module, rows: int, repeats: int) -> None:
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


def print_data(plan: TrainingPlan) -> None:
    """Prints what is known so far, and that the rest takes a moment."""
    print("\n".join(["The data", *_columns(plan.lines), "Measuring one batch ..."]), flush=True)


@dataclass(frozen=True)
class InspectedClip:
    """Seconds that a clip covers and that its video has, frames of the video, and whether the clip repeats frames
    although the video has others."""

    seconds: float
    video_seconds: float
    video_frames: int
    repeats_frames: bool


def inspect_clips(dataset: VideoDataset) -> list[InspectedClip]:
    """A clip of some videos over the whole data set. Files that can't be read are passed over."""
    found = []
    for number in np.unique(np.linspace(0, len(dataset.rows) - 1, INSPECTED).astype(int)):
        try:
            with VideoReader(dataset._opened(dataset.rows[number].source)) as reader:
                indices, data = dataset.request.choose(reader, seed=int(number)).indices[0], reader.metadata
                covered = float(indices.max() - indices.min() + 1) / data.fps
                repeats = len(np.unique(indices)) < min(dataset.request.num_frames, data.num_frames)
                found.append(InspectedClip(covered, data.num_frames / data.fps, data.num_frames, repeats))
        except (HFVideoError, OSError):
            continue
    return found


def training_steps(trainer: Trainer) -> int:
    """Optimiser steps of the whole training."""
    args = trainer.args
    return args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * trainer.steps_per_epoch())


def add_steps(plan: TrainingPlan, trainer: Trainer) -> None:
    """The number of steps, and why there are more of them than `num_train_epochs` asked for."""
    args, per_epoch, steps = trainer.args, trainer.steps_per_epoch(), training_steps(trainer)
    more = ""
    if args.max_steps <= 0 and args.num_train_epochs != trainer.asked_epochs:
        asked, least = trainer.asked_epochs, args.min_train_steps
        more = f", for {asked:g} epochs are fewer than the recipe's min_train_steps={least}"
    epochs = f"{steps / per_epoch:.4g} epochs of {per_epoch}"
    plan.add("steps", f"{steps} ({epochs}){more}", steps=steps, steps_per_epoch=per_epoch)


def check_schedule(plan: TrainingPlan, trainer: Trainer) -> None:
    """Raises ConfigError for a warm-up that is as long as the training; warns of a moving average that lags behind."""
    args, per_epoch, steps = trainer.args, trainer.steps_per_epoch(), training_steps(trainer)
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


def add_model(plan: TrainingPlan, trainer: Trainer) -> None:
    """The model's size, and the device and the precision that it is trained with."""
    model, args = trainer.model, trainer.args
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    plan.add(
        "model",
        f"{type(model).__name__}, {trained:,} of {total:,} parameters are trained",
        parameters=total,
        trainable=trained,
    )
    own = str(next(model.parameters()).dtype).removeprefix("torch.")
    computed = "bfloat16" if args.bf16 else "float16" if args.fp16 else own
    plan.add("device", f"{args.device}, computed in {computed}", device=str(args.device), dtype=computed)


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


def add_cost(plan: TrainingPlan, trainer: Trainer, cost: BatchCost) -> None:
    """Time and memory of the training; concerns where they are absurd. Reading is shared by the loader's workers, a
    backward costs about two forwards."""
    args = trainer.args
    reading, forward = cost.reading_seconds / max(args.dataloader_num_workers, 1), cost.forward_seconds
    parts = (max(reading, 3 * forward), reading + 3 * forward)
    seconds = parts[args.dataloader_num_workers == 0] * args.gradient_accumulation_steps * training_steps(trainer)
    read = f"a batch of {cost.clips} clips: forward {forward:.2f} s, reading {reading:.2f} s"
    plan.add("time", f"about {rough_duration(seconds)} ({read})", estimated_seconds=round(seconds, 1))
    if reading > 3 * forward and args.dataloader_num_workers:
        plan.warnings.append("reading takes longer than computing: more dataloader_num_workers, or smaller files")
    needed = gigabytes(cost.bytes_needed)
    free = "" if cost.bytes_available is None else f", of {gigabytes(cost.bytes_available)} that are free"
    plan.add("memory", f"about {needed} more{free}", estimated_bytes=cost.bytes_needed)
    if not cost.fits:
        plan.concerns.append(
            f"This training needs about {needed} of memory, and {gigabytes(cost.bytes_available)} are free. "
            f"Take a smaller batch (training.per_device_train_batch_size, now {args.per_device_train_batch_size}, with "
            "training.gradient_accumulation_steps), training.gradient_checkpointing=true, or a smaller model."
        )
    limit = LONG if args.device.type == "cpu" else LONG_ON_GPU
    if seconds > limit:
        plan.concerns.append(
            f"This training takes about {rough_duration(seconds)} on {args.device}. Train for fewer steps "
            "(training.num_train_epochs, training.max_steps), a smaller model, or on a GPU."
        )
    check_disk(plan, trainer)


def check_disk(plan: TrainingPlan, trainer: Trainer) -> None:
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


def format_clip_rate(clips: float) -> str:
    """Clips a second: "0.05", "7.3", "1240"."""
    return f"{clips:.0f}" if clips >= 100 else f"{clips:.2g}" if clips < 1 else f"{clips:.1f}"


def rough_duration(seconds: float) -> str:
    """ "45 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
