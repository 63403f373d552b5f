"""The steps of every training run."""

from __future__ import annotations

from typing import Any

from hf_video.training.plan import TrainingPlan, confirm
from hf_video.training.run_folder import RunFolder


def begin(trainer: Any, place: RunFolder, plan: TrainingPlan, *, yes: bool) -> None:
    """Tells the plan, asks where it is absurd (see `confirm`), and begins the run's folder."""
    from accelerate.utils import broadcast_object_list

    if trainer.is_world_process_zero():
        print(plan, flush=True)
    plan.concerns = broadcast_object_list([plan.concerns])[0]  # all processes go on, or none
    confirm(plan, yes=yes)
    place.run["ran"] = {
        "steps": plan.facts.get("steps"),
        **{name: getattr(trainer.args, name) for name in ("num_train_epochs", "learning_rate", "rows_per_step")},
        "per_device_train_batch_size": trainer.args.per_device_train_batch_size,
    }
    if trainer.is_world_process_zero():
        place.begin()
    trainer.accelerator.wait_for_everyone()
