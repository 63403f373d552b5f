"""Parameter groups, schedules of the learning rate, and the moving average of the weights.

Layer-wise decay is BEiT's, as VideoMAE's scripts use it (optim_factory.py): with L blocks, the stem is layer 0, block i
layer i + 1, all that follows layer L + 1, and layer n learns at rate x decay ** (L + 1 - n).
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hf_video.errors import CheckpointError, ConfigError

# What wrappers (DDP, torch.compile, FSDP, checkpointing, personal rules of federated learning) put into names.
WRAPPERS = re.compile(
    r"(^module\.|^_shared_model\.|^_own_model\.|_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.)"
)


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Parameter name -> factor of its learning rate.

    Raises ConfigError for a model that does not tell its layers (transformers' own class of the same name).
    """
    groups = getattr(model, "layer_groups", None)
    if groups is None:
        raise ConfigError(
            f"layer_decay needs a model of hf_video, which knows its layer_groups(); a {type(model).__name__} came. "
            "Load it through hf_video (without HF_VIDEO_OVERRIDE=0), or leave layer_decay out."
        )
    groups = groups()
    return {name: layer_decay ** (len(groups) - 1 - layer) for layer, names in enumerate(groups) for name in names}


def parameters_without_decay(model: nn.Module) -> set[str]:
    """Names of the parameters without weight decay: of one dimension, tokens, positions."""
    if hasattr(model, "no_weight_decay"):
        return model.no_weight_decay()
    return {name for name, parameter in model.named_parameters() if parameter.ndim <= 1}


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float | None = None,
    backbone_rate: float = 1.0,
    decay_all: bool = False,
    described_by: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Groups for a torch optimiser: `params`, `lr`, `weight_decay`, and `lr_scale` to look at. One for each pair of
    scale and decay that occurs, frozen parameters left out.

    `backbone_rate` is a factor for all but the head (Video Swin's recipe). `described_by` is the model that knows the
    layers where `model` is a wrapper of it. Raises ConfigError where nothing is to be trained.
    """
    described_by = described_by or model
    scales = layer_scales(described_by, layer_decay) if layer_decay is not None else {}
    spared = set() if decay_all else parameters_without_decay(described_by)
    body = f"{getattr(described_by, 'base_model_prefix', '')}."
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for wrapped_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        name = WRAPPERS.sub("", wrapped_name)
        scale, decay = scales.get(name, 1.0), 0.0 if name in spared else weight_decay
        scale *= backbone_rate if name.startswith(body) else 1.0
        empty = {"params": [], "lr": learning_rate * scale, "weight_decay": decay, "lr_scale": scale}
        groups.setdefault((scale, decay), empty)["params"].append(parameter)
    if not groups:
        raise ConfigError("No parameter of the model has requires_grad=True: there is nothing to train.")
    return list(groups.values())


def with_warmup(after: Callable[[int], float], *, warmup_steps: int, start: float) -> Callable[[int], float]:
    """Linear from `start` at step 0 to 1 at the last warm-up step (numpy's linspace, as BEiT and VideoMAE have it)."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return start + (1 - start) * step / max(warmup_steps - 1, 1)
        return after(step)

    return factor


def cosine(*, warmup_steps: int, total_steps: int, end: float) -> Callable[[int], float]:
    """From 1 at the first step after the warm-up towards `end`, which it would reach at step `total_steps`."""

    def factor(step: int) -> float:
        progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
        return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def stable(*, decay_steps: int, total_steps: int, end: float) -> Callable[[int], float]:
    """1, and in the last `decay_steps` evenly towards `end`, which it would reach at step `total_steps` (V-JEPA 2's
    warmup-stable-decay)."""
    begin = total_steps - decay_steps
    return lambda step: 1 + (end - 1) * min(max(step - begin, 0) / max(decay_steps, 1), 1.0)


def multistep(*, milestones: Sequence[int], gamma: float) -> Callable[[int], float]:
    """`gamma` to the number of milestones (step numbers) that are reached."""
    milestones = sorted(milestones)
    return lambda step: gamma ** bisect.bisect_right(milestones, step)


def make_schedule(optimizer: Optimizer, args, *, total_steps: int, steps_per_epoch: float | None) -> LambdaLR:
    """The schedule that `VideoTrainingArguments` describe. `steps_per_epoch` is None for endless data."""
    rate = args.learning_rate or 1.0  # 0 holds all weights: any factor of it is 0
    if args.warmup_epochs is not None:
        warmup_steps = round(args.warmup_epochs * _known(steps_per_epoch, "warmup_epochs", "warmup_steps"))
    else:
        warmup_steps = args.get_warmup_steps(total_steps)
    if args.schedule == "cosine":
        end = args.scaled_min_learning_rate / rate
        after = cosine(warmup_steps=warmup_steps, total_steps=total_steps, end=end)
    elif args.schedule == "stable":
        steps = args.decay_steps if args.decay_steps >= 1 else args.decay_steps * total_steps
        if warmup_steps + round(steps) > total_steps:
            raise ConfigError(
                f"{warmup_steps} steps of warm-up and decay_steps={args.decay_steps} don't fit into the {total_steps} "
                "steps of the training."
            )
        after = stable(decay_steps=round(steps), total_steps=total_steps, end=args.scaled_min_learning_rate / rate)
    else:
        milestones = args.milestone_steps or [
            round(epoch * _known(steps_per_epoch, "milestone_epochs", "milestone_steps"))
            for epoch in args.milestone_epochs
        ]
        after = multistep(milestones=milestones, gamma=args.milestone_factor)
    start = args.scaled_warmup_learning_rate / rate
    return LambdaLR(optimizer, with_warmup(after, warmup_steps=warmup_steps, start=start))


def _known(steps_per_epoch: float | None, given: str, instead: str) -> float:
    if steps_per_epoch is None:
        raise ConfigError(f"{given} needs data of a known length. For a stream give {instead} and max_steps.")
    return steps_per_epoch


FILE = "ema.safetensors"


class MovingAverage:
    """average = decay x average + (1 - decay) x weights after each step, from the initial weights on (timm's ModelEma,
    which VideoMAE's scripts use). Buffers that float, as those of batch norms, are averaged alike."""

    def __init__(self, model: nn.Module, decay: float):
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.average.n_averaged.fill_(1)  # else torch copies the weights after the first step over the initial ones
        self.average.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.average.update_parameters(model)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` holds the average."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for mine, theirs in zip(_tensors(self.average.module), _tensors(model), strict=True):
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)

    def save(self, folder: str | Path) -> None:
        save_file({name: value.contiguous() for name, value in self.average.state_dict().items()}, Path(folder) / FILE)

    def load(self, folder: str | Path) -> None:
        """Raises CheckpointError where the checkpoint was written without an average."""
        path = Path(folder) / FILE
        if not path.exists():
            raise CheckpointError(
                f"{folder} holds no {FILE}: it was written without ema_decay. Leave ema_decay out, or start anew."
            )
        self.average.load_state_dict(load_file(path))


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    return itertools.chain(model.parameters(), model.buffers())
