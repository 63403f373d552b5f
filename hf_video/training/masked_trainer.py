"""`MaskedTrainer` and `FeatureTrainer`: masked pretraining of pixels and of features with figures of what it has to
beat, pictures, and a linear probe on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerState

from hf_video.errors import ConfigError
from hf_video.training.masked_pretraining import (
    FEATURE_PREDICTORS,
    PREDICTORS,
    feature_errors,
    masked_errors,
    reconstruct,
    summarise_errors,
)
from hf_video.training.pretrain_figures import reconstruction_sheet
from hf_video.training.trainer import VideoTrainer


class MaskedTrainer(VideoTrainer):
    """A `VideoTrainer` for `…ForPreTraining` models and batches of `MaskedVideoCollator`.

    Evaluation gives `eval_loss`, `eval_masked_loss`, `eval_mean_of_patch`, `eval_copy_of_nearest` (all with the model's
    own loss, on the same hidden tokens) and `eval_explained`; see `summarise_errors`. Masks of evaluation are the same
    every time.
    """

    predictors = PREDICTORS

    def __init__(self, *args: Any, **kwargs: Any):
        metrics = {"compute_metrics": lambda prediction: summarise_errors(prediction.predictions, self.predictors)}
        super().__init__(*args, **metrics, **kwargs)

    def clip_errors(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """The errors of clips (B, columns), whose first column is the model's; see `summarise_errors`."""
        return masked_errors(model, inputs["pixel_values"], inputs["bool_masked_pos"])

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ):
        """The clips' errors (B, 3) stand in for predictions, so that Trainer gathers them over processes."""
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            errors = self.clip_errors(model, inputs)
        return errors[:, 0].mean(), errors, errors[:, 0]


class FeatureTrainer(MaskedTrainer):
    """A `MaskedTrainer` for V-JEPA 2 and batches of `BlockMaskCollator`. After each step the model's average moves,
    with `target_momentum` of the arguments.

    Evaluation gives `eval_mean_of_seen` in place of `eval_mean_of_patch`, and `eval_target_deviation`; see
    `feature_errors`. The targets change as the model learns, so that losses of different steps don't compare;
    `eval_explained` does.
    """

    predictors = FEATURE_PREDICTORS

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.args.ema_decay is not None:
            raise ConfigError("ema_decay would average what is an average: set target_momentum, and leave it out.")
        self.add_callback(TargetUpdater(self))

    def clip_errors(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        names = ("pixel_values_videos", "context_mask", "target_mask")
        return feature_errors(self.accelerator.unwrap_model(model), *(inputs[name] for name in names))


class TargetUpdater(TrainerCallback):
    """Moves the average of a V-JEPA 2 after each step of the optimiser, with a momentum that goes evenly from the first
    of `target_momentum` to the second."""

    def __init__(self, trainer: FeatureTrainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        first, last = args.target_momentum
        momentum = first + (last - first) * (state.global_step - 1) / max(state.max_steps, 1)
        model = self.trainer.accelerator.unwrap_model(self.trainer.model, keep_torch_compile=False)
        model.update_target(momentum)


class ReconstructionCallback(TrainerCallback):
    """`reconstruction-<step>.png` at each evaluation: clips of different held-out videos, always the same ones."""

    def __init__(self, trainer: MaskedTrainer, dataset: torch.utils.data.Dataset, names: list[str], folder: Path):
        self.trainer, self.folder, self.names = trainer, folder, names
        self._dataset, self._batch = dataset, None

    def on_evaluate(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.draw(self.folder / f"reconstruction-{state.global_step:06d}.png")

    def draw(self, path: Path) -> None:
        """With the weights that the model has now."""
        if self._batch is None:
            self._batch = self.trainer.data_collator([self._dataset[i] for i in range(len(self.names))])
        model = self.trainer.accelerator.unwrap_model(self.trainer.model, keep_torch_compile=False)
        clips, mask = (self._batch[name].to(model.device) for name in ("pixel_values", "bool_masked_pos"))
        training = model.training
        model.eval()
        errors, shown = masked_errors(model, clips, mask).cpu().numpy(), reconstruct(model, clips, mask)
        model.train(training)
        step = self.trainer.state.global_step
        frames, rows, columns = model.config.patch
        note = (
            f"Hidden from the model: {mask.float().mean():.0%} of the tubelets ({frames} frames of {rows}x{columns} "
            "pixels each). What it has to beat is their true mean colour."
        )
        if model.config.norm_pix_loss:
            note += " It predicts only what lies around that mean: colour and contrast are given to it in this picture."
        captions = [
            (
                name,
                f"loss {loss:.3f}; the mean colour's {mean:.3f}, that of a copy of the nearest visible tube {copy:.3f}",
            )
            for name, (loss, mean, copy) in zip(self.names, errors.tolist(), strict=True)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        reconstruction_sheet(shown, captions, title=f"Held-out clips after {step} steps", note=note).save(path)


class ProbeCallback(TrainerCallback):
    """Logs `probe_top1` before training, every `every` epochs, and after it. `probe(model)` returns the accuracy of a
    linear probe on the encoder; it is made on one process."""

    def __init__(self, trainer: MaskedTrainer, probe: Callable[[nn.Module], float], every: int):
        self.trainer, self.probe, self.every = trainer, probe, every

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self._run(state)

    def on_epoch_end(self, args, state, control, **kwargs):
        last = state.global_step >= state.max_steps
        if last or round(state.epoch) % self.every == 0:
            self._run(state)

    def _run(self, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        model = self.trainer.accelerator.unwrap_model(self.trainer.model, keep_torch_compile=False)
        # What a probe draws must not move what training draws, or probing would change the weights.
        with torch.random.fork_rng(), self.trainer.averaged():
            top1 = self.probe(model)
        self.trainer.log({"probe_top1": top1})
