"""Pretraining of V-JEPA 2 as a task of `run_training`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hf_video.data import VideoDataset
from hf_video.training.masked_pretraining import BlockMaskCollator
from hf_video.training.masked_trainer import FeatureTrainer, MaskedTrainer
from hf_video.training.measurement import BatchCost
from hf_video.training.plan import TrainingPlan
from hf_video.training.runs.masked_pretraining import MaskedPretraining
from hf_video.training.trainer import VideoTrainer


class FeaturePretraining(MaskedPretraining):
    """A V-JEPA 2 that predicts features of hidden parts of clips, of which there is nothing to draw."""

    trainer_class = FeatureTrainer
    model_types: ClassVar = ("vjepa2",)
    model_fields: ClassVar = {}
    masking_fields: ClassVar = ("kinds",)
    predictors: ClassVar = {
        "mean_of_seen": "mean of the tokens that are seen",
        "copy_of_nearest": "copy of the nearest token that is seen",
    }
    measure = "error of the features of what was hidden"
    advice = "train longer, on more videos, or raise training.target_momentum"

    def make_collator(self, patch: tuple[int, int, int]) -> Callable[[list[Any]], dict[str, Any]]:
        return BlockMaskCollator(patch, **self.recipe["masking"])

    def add_pictures(self, trainer: MaskedTrainer, evaluated: VideoDataset, folder: Path) -> None:
        pass

    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        args, dataset = trainer.args, trainer.train_dataset
        contexts, targets = (
            "/".join(str(mask.shape[1]) for mask in cost.batch[name]) for name in ("context_mask", "target_mask")
        )
        clips = args.rows_per_step * dataset.repeats
        plan.add(
            "a clip", f"{dataset.request.num_frames} frames; of its tubelets about {contexts} seen, {targets} hidden"
        )
        plan.add("a step", f"{clips} clips, learning rate {args.learning_rate:.3g}")
