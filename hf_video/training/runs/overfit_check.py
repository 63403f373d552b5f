"""Can the model learn one batch by heart? If not, more data and time will not help."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import nn

from hf_video.data.datasets.collate import VideoCollator
from hf_video.training.optim import parameter_groups
from hf_video.training.trainer import VideoTrainer

CLIPS = 8
THRESHOLD = 0.1  # nats: every clip has its class at 90 % and more


@dataclass
class OverfitResult:
    """`losses` of every step; `passed` says that the last fell below the threshold. `hints` where it did not."""

    losses: list[float]
    clips: int
    passed: bool
    hints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        course = f"loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f} in {len(self.losses)} steps on {self.clips} clips"
        if self.passed:
            return f"Self-test passed: {course}. The model, its labels and its gradients are in order."
        return "\n".join(
            [f"Self-test FAILED: {course}; below {THRESHOLD} was expected.", *[f"  - {h}" for h in self.hints]]
        )


def overfit_check(trainer: VideoTrainer, *, steps: int = 150) -> OverfitResult:
    """Trains a copy of the trainer's model on one batch of its training rows, of different classes, with the run's
    optimiser settings but without augmentation, mixing, dropout and decay. The model itself is left alone."""
    model = copy.deepcopy(trainer.model)
    batch = _batch(trainer)
    inputs = trainer._prepare_inputs(batch)
    groups = parameter_groups(
        model,
        learning_rate=trainer.args.learning_rate,
        weight_decay=0.0,
        layer_decay=trainer.args.layer_decay,
        backbone_rate=trainer.args.backbone_rate,
    )
    optimizer = torch.optim.AdamW(groups)
    losses: list[float] = []
    for _ in range(steps):
        model.train()
        _without_noise(model)
        loss = model(**inputs).loss
        losses.append(loss.item())
        if not math.isfinite(losses[-1]) or losses[-1] < THRESHOLD / 2:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    passed = math.isfinite(losses[-1]) and losses[-1] < THRESHOLD
    hints = [] if passed else _hints(trainer, model, inputs, losses)
    return OverfitResult(losses, len(inputs["labels"]), passed, hints)


def _batch(trainer: VideoTrainer) -> dict[str, torch.Tensor]:
    """Clips of as many classes as fit, as evaluation sees them."""
    dataset = copy.copy(trainer.train_dataset)
    dataset.augmentation, dataset.temporal, dataset.repeats = None, None, 1
    by_class: dict[int, list[int]] = {}
    for number, row in enumerate(dataset.rows):
        by_class.setdefault(row.label, []).append(number)  # or set of classes
    turns = max(len(numbers) for numbers in by_class.values())
    order = [numbers[turn] for turn in range(turns) for numbers in by_class.values() if turn < len(numbers)]
    return VideoCollator()([dataset[number] for number in order[:CLIPS]])


def _without_noise(model: nn.Module) -> None:
    """Dropout and drop path off; batch norms keep training."""
    for module in model.modules():
        if "drop" in type(module).__name__.lower():
            module.eval()


def _hints(trainer: VideoTrainer, model: nn.Module, inputs: dict[str, torch.Tensor], losses: list[float]) -> list[str]:
    rate = trainer.args.learning_rate
    hints = []
    if not math.isfinite(losses[-1]):
        hints.append(f"The loss became {losses[-1]}: the learning rate {rate:.3g} is too high, or inputs hold NaN.")
    elif losses[-1] > losses[0]:
        hints.append(f"The loss rose: the learning rate {rate:.3g} is too high for this model.")
    elif losses[-1] > 0.5 * losses[0]:
        hints.append(f"The loss hardly moved: the learning rate {rate:.3g} may be too low (try ten times as much).")
    else:
        hints.append(f"The loss falls, too slowly: a higher learning rate than {rate:.3g}, or a larger model.")
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if frozen:
        hints.append(f"{len(frozen)} parameters are frozen, as {frozen[0]}.")
    idle = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    if idle:
        hints.append(f"{len(idle)} parameters get no gradient, as {idle[0]}.")
    for name, value in inputs.items():
        if value.is_floating_point() and value.ndim > 2:
            spread = value.flatten(1).std(1)
            if (spread < 1e-3).any():
                hints.append(f"{int((spread < 1e-3).sum())} of {len(value)} clips of {name} are one flat colour.")
            if len(value) > 1 and (value[1:] - value[:1]).abs().amax() == 0:
                hints.append(f"All clips of {name} are the same, and their labels differ.")
    return hints
