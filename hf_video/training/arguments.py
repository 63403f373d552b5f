"""`TrainingArguments` with what the recipes of video papers need beyond transformers' own."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from hf_video.data.rows import VideoRows
from hf_video.errors import ConfigError, check_choice, check_number, did_you_mean
from hf_video.training.measurement import reporters
from hf_video.training.recipes import setting_names

SCHEDULES = ("cosine", "multistep", "stable")
_MILESTONES = ("milestone_epochs", "milestone_steps")
# Fields of which -1 stands for all there is.
_ALLOWS_MINUS_ONE = ("max_steps", "local_rank", "past_index", "dataloader_prefetch_factor")


@dataclass
class VideoTrainingArguments(TrainingArguments):
    """transformers' `TrainingArguments`, and:

    Batch and learning rate (a batch counts loader rows: with repeated augmentation each gives several clips, which the
    papers leave out of the scaling too):
        effective_batch_size: Rows of one optimiser step over all processes; sets `gradient_accumulation_steps`.
        base_learning_rate: The rate at `base_batch_size`; `learning_rate` becomes it x effective batch / base batch.
            `min_learning_rate` and `warmup_learning_rate` are then scaled alike (VideoMAE's scripts).
    Schedule, one value a step (`schedule=None` leaves it to transformers' `lr_scheduler_type`):
        schedule: "cosine" down to `min_learning_rate`, "multistep": times `milestone_factor` at each milestone, or
            "stable": the same rate until it falls evenly to `min_learning_rate` in the last `decay_steps`.
        warmup_epochs: Or transformers' `warmup_steps`. Linear from `warmup_learning_rate`.
        decay_steps: For "stable": a number of steps, or below 1 a share of all.
        milestone_epochs, milestone_steps: Where "multistep" steps, in epochs or in optimiser steps.
        min_train_steps: More epochs are trained where the data are so few that `num_train_epochs` gives fewer steps.
    Optimiser:
        layer_decay: Block i of L learns at rate x layer_decay ** (L - i), the stem at ** (L + 1), the head at full
            rate (BEiT's formula over `model.layer_groups()`).
        backbone_rate: A factor of the rate of all but the head (Video Swin: 0.1).
        decay_all: Weight decay on every parameter (TimeSformer). Default: none on biases, norms, tokens, positions.
    Averaging:
        ema_decay: Keeps an exponential moving average of the weights; it is what is evaluated and finally saved.
            Checkpoints hold both.
        target_momentum: First and last momentum of the average that V-JEPA 2's pretraining predicts, part of the model.
    Screen:
        log_lines: About so many of the logs are printed, evenly spread; 0: all of them. Reporters get all.

    Raises ConfigError for values that contradict each other.
    """

    effective_batch_size: int | None = field(default=None, metadata={"help": "Rows of one optimiser step."})
    base_learning_rate: float | None = field(default=None, metadata={"help": "Rate at base_batch_size."})
    base_batch_size: int = field(default=256, metadata={"help": "The batch that base_learning_rate is meant for."})
    min_learning_rate: float = field(default=0.0, metadata={"help": "Where the cosine ends."})
    warmup_learning_rate: float = field(default=0.0, metadata={"help": "Where the warm-up starts."})
    schedule: str | None = field(default=None, metadata={"help": f"One of {SCHEDULES}, or transformers' own."})
    warmup_epochs: float | None = field(default=None, metadata={"help": "Epochs of linear warm-up."})
    milestone_epochs: list[float] | None = field(default=None, metadata={"help": "Epochs where the rate steps."})
    milestone_steps: list[int] | None = field(default=None, metadata={"help": "Steps where the rate steps."})
    decay_steps: float = field(default=0.0, metadata={"help": "Steps, or a share of them, in which the rate falls."})
    milestone_factor: float = field(default=0.1, metadata={"help": "What the rate is multiplied by there."})
    min_train_steps: int = field(default=0, metadata={"help": "Steps to train at least, by more epochs."})
    layer_decay: float | None = field(default=None, metadata={"help": "Layer-wise decay of the learning rate."})
    backbone_rate: float = field(default=1.0, metadata={"help": "Factor of the rate of all but the head."})
    decay_all: bool = field(default=False, metadata={"help": "Weight decay on every parameter."})
    ema_decay: float | None = field(default=None, metadata={"help": "Decay of the moving average of the weights."})
    target_momentum: list[float] = field(
        default_factory=lambda: [0.99925, 0.99925], metadata={"help": "Momentum of V-JEPA 2's average."}
    )

    log_lines: int = field(default=0, metadata={"help": "Lines of the log on the screen; 0: all."})

    # Rows are dicts, or lists of dicts with repeated augmentation, and carry a seed for the collator.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Leave False for our data sets."})
    report_to: str | list[str] | None = field(default=None, metadata={"help": "TensorBoard if it is installed."})

    def __post_init__(self) -> None:
        self._check()
        self.report_to = reporters(self.report_to)
        super().__post_init__()
        if self.effective_batch_size is not None:
            self.gradient_accumulation_steps = self._accumulation()
        if self.base_learning_rate is not None:
            scale = self.rows_per_step / self.base_batch_size
            self.learning_rate = self.base_learning_rate * scale
            self._rate_scale = scale
        else:
            self._rate_scale = 1.0

    @property
    def rows_per_step(self) -> int:
        """Loader rows of one optimiser step, over all processes."""
        return self.train_batch_size * self.world_size * self.gradient_accumulation_steps

    @property
    def scaled_min_learning_rate(self) -> float:
        return self.min_learning_rate * self._rate_scale

    @property
    def scaled_warmup_learning_rate(self) -> float:
        return self.warmup_learning_rate * self._rate_scale

    def _accumulation(self) -> int:
        at_once = self.train_batch_size * self.world_size
        if self.effective_batch_size % at_once:
            raise ConfigError(
                f"effective_batch_size={self.effective_batch_size} is not a multiple of the {at_once} rows that "
                f"{self.world_size} process(es) with per_device_train_batch_size={self.per_device_train_batch_size} "
                "take at once. Change one of them."
            )
        return self.effective_batch_size // at_once

    def _check(self) -> None:
        check_choice("schedule", self.schedule, (*SCHEDULES, None), ConfigError)
        needs_schedule = ("warmup_epochs", "min_learning_rate", "warmup_learning_rate", "decay_steps", *_MILESTONES)
        given = [name for name in needs_schedule if getattr(self, name)]
        if self.schedule is None and given:
            raise ConfigError(
                f"{given[0]} needs schedule='cosine', 'multistep' or 'stable'; transformers' own know no such thing."
            )
        if self.decay_steps and self.schedule != "stable":
            raise ConfigError(f"decay_steps={self.decay_steps} needs schedule='stable'.")
        check_number("decay_steps", self.decay_steps, ConfigError, least=0)
        if not isinstance(self.target_momentum, (list, tuple)) or len(self.target_momentum) != 2:
            raise ConfigError(f"target_momentum is a list [first, last], and {self.target_momentum!r} came.")
        for momentum in self.target_momentum:
            check_number("target_momentum", momentum, ConfigError, least=0, most=1)
        milestones = [name for name in _MILESTONES if getattr(self, name)]
        if (self.schedule == "multistep") != (len(milestones) == 1):
            raise ConfigError("schedule='multistep' needs one of milestone_epochs and milestone_steps, others none.")
        if self.warmup_epochs is not None and self.warmup_steps:
            raise ConfigError("Give warmup_epochs or warmup_steps, not both.")
        for name in ("layer_decay", "ema_decay"):
            check_number(name, getattr(self, name), ConfigError, above=0, most=1, optional=True)
        for name in ("effective_batch_size", "base_learning_rate", "base_batch_size"):
            check_number(name, getattr(self, name), ConfigError, above=0, optional=True)


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
            least = 1 if re.search("batch_size|accumulation", name) else None if name in _ALLOWS_MINUS_ONE else 0
            if not math.isfinite(value) or (least is not None and value < least):
                allowed = "finite" if least is None else f"{least} or more"
                raise ConfigError(f"The training argument {name} must be {allowed}, and {value!r} came.")
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


def with_evaluation(rows: VideoRows | None, settings: Mapping[str, Any], *, every: float = 0.1) -> dict[str, Any]:
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


def fit_batch(recipe: Mapping[str, Any], rows: int, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe with a smaller batch where the data are fewer than it takes, and a remark. A paper's batch
    (`effective_batch_size`) and a batch size that the user set stay as they are: `check_batch` refuses them. A typed
    `effective_batch_size` is divided into as many rows at a time as fit in it."""
    training, typed = dict(recipe["training"]), setting_names(settings)
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
