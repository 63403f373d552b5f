"""`TrainingArguments` with what the recipes of video papers need beyond transformers' own."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from hf_video.errors import ConfigError, check_choice, check_number
from hf_video.training.measurement import reporters

SCHEDULES = ("cosine", "multistep")


@dataclass
class VideoTrainingArguments(TrainingArguments):
    """transformers' `TrainingArguments`, and:

    Batch and learning rate (a batch counts loader rows: with repeated augmentation each gives several clips, which the
    papers leave out of the scaling too):
        effective_batch_size: Rows of one optimiser step over all processes; sets `gradient_accumulation_steps`.
        base_learning_rate: The rate at `base_batch_size`; `learning_rate` becomes it x effective batch / base batch.
            `min_learning_rate` and `warmup_learning_rate` are then scaled alike (VideoMAE's scripts).
    Schedule, one value a step (`schedule=None` leaves it to transformers' `lr_scheduler_type`):
        schedule: "cosine" down to `min_learning_rate`, or "multistep": times `milestone_factor` at each milestone.
        warmup_epochs: Or transformers' `warmup_steps`. Linear from `warmup_learning_rate`.
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
    milestone_factor: float = field(default=0.1, metadata={"help": "What the rate is multiplied by there."})
    min_train_steps: int = field(default=0, metadata={"help": "Steps to train at least, by more epochs."})
    layer_decay: float | None = field(default=None, metadata={"help": "Layer-wise decay of the learning rate."})
    backbone_rate: float = field(default=1.0, metadata={"help": "Factor of the rate of all but the head."})
    decay_all: bool = field(default=False, metadata={"help": "Weight decay on every parameter."})
    ema_decay: float | None = field(default=None, metadata={"help": "Decay of the moving average of the weights."})

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
                f"effective_batch_size={self.effective_batch_size} is no multiple of the {at_once} rows that "
                f"{self.world_size} process(es) with per_device_train_batch_size={self.per_device_train_batch_size} "
                "take at once. Change one of them."
            )
        return self.effective_batch_size // at_once

    def _check(self) -> None:
        check_choice("schedule", self.schedule, (*SCHEDULES, None), ConfigError)
        needs_schedule = ("warmup_epochs", "min_learning_rate", "warmup_learning_rate", *_MILESTONES)
        given = [name for name in needs_schedule if getattr(self, name)]
        if self.schedule is None and given:
            raise ConfigError(
                f"{given[0]} needs schedule='cosine' or 'multistep'; transformers' own know no such thing."
            )
        milestones = [name for name in _MILESTONES if getattr(self, name)]
        if (self.schedule == "multistep") != (len(milestones) == 1):
            raise ConfigError("schedule='multistep' needs one of milestone_epochs and milestone_steps, others none.")
        if self.warmup_epochs is not None and self.warmup_steps:
            raise ConfigError("Give warmup_epochs or warmup_steps, not both.")
        for name in ("layer_decay", "ema_decay"):
            check_number(name, getattr(self, name), ConfigError, above=0, most=1, optional=True)
        for name in ("effective_batch_size", "base_learning_rate", "base_batch_size"):
            check_number(name, getattr(self, name), ConfigError, above=0, optional=True)


_MILESTONES = ("milestone_epochs", "milestone_steps")
