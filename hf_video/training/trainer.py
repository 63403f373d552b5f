"""`VideoTrainer`: transformers' `Trainer` with what training on videos needs."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints

from hf_video.base.modeling import inputs_for
from hf_video.base.written_files import mark_being_written, write_checksums
from hf_video.data.datasets.collate import VideoCollator
from hf_video.data.datasets.dataset import generator
from hf_video.data.rows import VideoRows
from hf_video.data.sources.division import SPLIT_FILE
from hf_video.errors import ConfigError
from hf_video.hub.publish import PublishingTrainer
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.callbacks import (
    AverageUpdater,
    EpochSetter,
    EvaluationStopped,
    InterruptCallback,
    StarvationWarning,
    Throughput,
    WorkerSignalHandling,
    use_log_lines,
)
from hf_video.training.measurement import memory_figures
from hf_video.training.optim import MovingAverage, make_schedule, parameter_groups
from hf_video.training.run_folder import RUN_FILE
from hf_video.training.samplers import EpochSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import Dataset, Sampler

    from hf_video.data.datasets.dataset import VideoDataset


class VideoTrainer(PublishingTrainer, Trainer):
    """A `Trainer` for `VideoDataset`s and models of this package; everything of transformers' own works on.

    - Parameter groups, schedule and averaging of `VideoTrainingArguments`.
    - The order of rows is a function of seed and epoch, whole steps only: any split of a step over micro-batches and
      processes gives the same weights, and so does resuming (see `EpochSampler`).
    - Logs `clips_per_second`, `decode_wait` (share of the step time that was spent waiting for the loader) and memory.
    - Labels that mixing made soft count as one item a clip, so that the loss is exact under accumulation.
    - With `ema_decay` the average is evaluated and saved; checkpoints hold it beside the weights.
    - `push_to_hub` sends safetensors, processor, evaluation and a card, to a private repository unless told otherwise.

    `data_collator` is a `VideoCollator` by default; evaluation never mixes. `processing_class` is saved with the model.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: VideoTrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        *more: Any,
        **kwargs: Any,
    ):
        if not isinstance(args, VideoTrainingArguments):
            raise ConfigError(f"VideoTrainer needs VideoTrainingArguments, got {type(args).__name__}.")
        collator = VideoCollator() if data_collator is None else data_collator
        self.average: MovingAverage | None = None
        self.throughput, self._epoch_setter = Throughput(), EpochSetter()
        self._saving_checkpoint, self._kept_args, self.stopper = False, {}, InterruptCallback()
        super().__init__(model, args, collator, *more, **kwargs)
        # On CPU, and under gradient accumulation, soft labels would else be taken for several classes at once.
        config = getattr(self.model, "config", None)
        if isinstance(collator, VideoCollator) and getattr(config, "problem_type", "") is None:
            config.problem_type = "single_label_classification"
        self.asked_epochs = args.num_train_epochs  # before more of them make min_train_steps
        steps = self.steps_per_epoch() if self.train_dataset is not None else None
        if args.max_steps <= 0 and steps and args.min_train_steps:
            args.num_train_epochs = max(args.num_train_epochs, math.ceil(args.min_train_steps / steps))
        starved = StarvationWarning(self.throughput)
        for callback in (self._epoch_setter, self.throughput, AverageUpdater(self), starved, self.stopper):
            self.add_callback(callback)
        use_log_lines(self)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains, as transformers' Trainer.

        Args:
            args: As transformers'.
            kwargs: As transformers'.

        Returns:
            As transformers'.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM ended it, after a whole step and with a checkpoint.
        """
        try:
            with self.stopper.listening():
                result = super().train(*args, **kwargs)
        finally:
            self.end_workers()
        if self.stopper.requested:
            raise KeyboardInterrupt(f"training stopped at step {self.state.global_step}")
        return result

    # ---- data ----

    def end_workers(self) -> None:
        """Ends the processes of persistent loaders. Those that live until Python exits are killed there, which torch
        reports as an error in a run that went well."""
        for loader in self.accelerator._dataloaders:
            batches = getattr(loader, "base_dataloader", loader)
            if getattr(batches, "_iterator", None) is not None:
                batches._iterator._shutdown_workers()
                batches._iterator = None

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        self._epoch_setter.listeners = [dataset] if hasattr(dataset, "set_epoch") else []
        if self.args.train_sampling_strategy != "random" or not hasattr(dataset, "__len__"):
            return super()._get_train_sampler(train_dataset)
        order = EpochSampler(
            len(dataset),
            rows_per_step=self.args.rows_per_step,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            drop_last=self.args.dataloader_drop_last,
        )
        self._epoch_setter.listeners.append(order)
        return order

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> Any:
        training = self.data_collator
        if not is_training and isinstance(training, VideoCollator):
            self.data_collator = VideoCollator()  # never mixes
        try:
            loader = super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.data_collator = training
        batches = getattr(loader, "base_dataloader", loader)
        if batches.num_workers:
            batches.worker_init_fn = WorkerSignalHandling(batches.worker_init_fn)
        # Starting workers draws a number, and workers that live on are started anew when a run is resumed: drawn from
        # torch's own generator it would shift every dropout after it.
        batches.generator = generator(self.args.seed)
        return loader

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        self.throughput.begin_step()
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        clips = sum(len(next(iter(batch.values()))) for batch in batches if isinstance(batch, dict) and batch)
        self.throughput.got_batch(clips * self.args.world_size)
        return batches, items

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        described_by = getattr(self.model, "described_by", self.model)
        return super()._prepare_inputs(inputs_for(described_by, inputs))

    def steps_per_epoch(self) -> int | None:
        """Optimiser steps of one epoch; None where the data have no length."""
        if not hasattr(self.train_dataset, "__len__"):
            return None
        rows, step = len(self.train_dataset), self.args.rows_per_step
        return max(rows // step if self.args.dataloader_drop_last else -(-rows // step), 1)

    # ---- optimiser and schedule ----

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        if self.optimizer is None:
            args, wrapped = self.args, self.model if model is None else model
            chosen, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(args, wrapped)
            self.optimizer_cls_and_kwargs = chosen, {**options, "params": self.parameter_groups(wrapped)}
        return super().create_optimizer(model)

    def parameter_groups(self, model: nn.Module, **changes: Any) -> list[dict[str, Any]]:
        """Groups the parameters as the arguments say: rates by layer, weight decay.

        Args:
            model: What is trained, wrapped or not.
            changes: Values in place of those of the arguments.

        Returns:
            Groups for the optimiser, see `hf_video.training.optim.parameter_groups`.
        """
        args = self.args
        options = {
            name: getattr(args, name)
            for name in ("learning_rate", "weight_decay", "layer_decay", "backbone_rate", "decay_all")
        }
        plain = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        described_by = getattr(plain, "described_by", plain)
        return parameter_groups(model, **{**options, **changes}, described_by=described_by)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        if self.lr_scheduler is None and self.args.schedule is not None:
            self.lr_scheduler = make_schedule(
                optimizer or self.optimizer,
                self.args,
                total_steps=num_training_steps,
                steps_per_epoch=self.steps_per_epoch(),
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_learning_rate(self) -> float:
        """The highest of all groups; transformers logs the first one's, which layer-wise decay makes the lowest."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return float(max(rates))

    # ---- the average ----

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.args.ema_decay is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ConfigError("ema_decay does not work with weights split over processes (FSDP, DeepSpeed).")
            self.average = MovingAverage(self.model, self.args.ema_decay)
        return super()._prepare_for_training(*args, **kwargs)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, `self.model` holds the averaged weights, if there are any."""
        return contextlib.nullcontext() if self.average is None else self.average.applied(self.model)

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        # Checkpoints by the best metric need one; and all processes have to stop at the same place.
        self.stopper.evaluating = self.args.metric_for_best_model is None and self.args.world_size == 1
        try:
            return super()._evaluate(*args, **kwargs)
        except EvaluationStopped:
            self.control.should_save = self.control.should_training_stop = True
            return {}
        finally:
            self.stopper.evaluating = False

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        try:
            with self.averaged():
                return super().evaluate(*args, **kwargs)
        finally:
            if not self.is_in_train:
                self.end_workers()

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with self.averaged():
            return super().predict(*args, **kwargs)

    # ---- saving and loading ----

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Older checkpoints go, and the new one is pushed, only when it is whole and has its checksums."""
        args, output = self.args, Path(self._get_output_dir(trial=trial))
        folder = output / f"checkpoint-{self.state.global_step}"
        if args.should_save:
            mark_being_written(folder, "This checkpoint was being written. Use the one before it.")
            for name in (RUN_FILE, SPLIT_FILE):
                if (output / name).exists():
                    shutil.copy(output / name, folder)
        self._kept_args = {"save_total_limit": args.save_total_limit, "push_to_hub": args.push_to_hub}
        args.save_total_limit, args.push_to_hub = None, False
        self._saving_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving_checkpoint = False
            vars(args).update(self._kept_args)
            self._kept_args = {}
        self.accelerator.wait_for_everyone()  # each process writes its random state
        if not args.should_save:
            return
        write_checksums(folder)
        if args.push_to_hub:
            self._push_from_checkpoint(str(folder))
        rotate_checkpoints(str(output), args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        with contextlib.nullcontext() if self._saving_checkpoint else self.averaged():
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            # transformers pickles its arguments; nothing that we hand on is a pickle.
            folder = Path(output_dir or self.args.output_dir)
            (folder / "training_args.bin").unlink(missing_ok=True)
            values = {**self.args.to_dict(), **self._kept_args}
            (folder / "training_args.json").write_text(json.dumps(values, indent=2, default=str))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.average is not None and self.args.should_save:
            self.average.save(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.average is not None and checkpoint is not None:
            self.average.load(checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.average is not None:
            self.average.load(self.state.best_model_checkpoint)

    # ---- logs ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {**logs, **self.throughput.read(), **memory_figures()}
        elif "train_runtime" in logs:
            logs.update(self.throughput.read_all())  # in place: Trainer returns these as the metrics of the training
        super().log(logs, start_time)


class RowEvaluationTrainer(VideoTrainer):
    """A `VideoTrainer` whose evaluation reads whole videos once: `evaluate_rows` on the first process for all of them,
    with the averaged weights where there are any."""

    def evaluate_rows(self, model: nn.Module, rows: VideoRows, **options: Any) -> dict[str, float]:
        """Numbers by name; `options` are `batch_size` and `num_workers`."""
        raise NotImplementedError

    def evaluate(
        self,
        eval_dataset: VideoDataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """`evaluate_rows` of the data set's rows, each name with the prefix in front."""
        from accelerate.utils import broadcast_object_list

        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        found: list[dict[str, float]] = [{}]
        if self.is_world_process_zero():
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            args = self.args
            with self.averaged():
                found[0] = self.evaluate_rows(
                    model,
                    dataset.rows,
                    batch_size=args.per_device_eval_batch_size,
                    num_workers=args.dataloader_num_workers,
                )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in broadcast_object_list(found)[0].items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
