"""`PrivateVideoTrainer`: a `VideoTrainer` whose steps are DP-SGD's (Abadi et al., CCS 2016, algorithm 1)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset, Sampler
from transformers import EarlyStoppingCallback

from hf_video.data.datasets.dataset import FILE_ERRORS, OPTION_ERRORS, VideoDataset
from hf_video.errors import FederatedError
from hf_video.federated.privacy.accounting import Release
from hf_video.federated.privacy.policy import PrivacyPolicy
from hf_video.federated.privacy.samples import check_private, clipped_sum, gradients_in_chunks, private_gradient
from hf_video.federated.privacy.statement import PrivacyStatement
from hf_video.training.masked_trainer import MaskedTrainer
from hf_video.training.plan import training_steps
from hf_video.training.trainer import VideoTrainer

if TYPE_CHECKING:
    from hf_video.federated.privacy.ledger import PrivacyLedger
    from hf_video.federated.privacy.samples import Tensors


class PoissonSampler(Sampler[list[int]]):
    """Draws each video of each step on its own with the same chance, and divides a step into `parts` that are as even
    as they can be. Steps and parts may be empty, and come all the same.

    Args:
        num_videos: Of the data set.
        sample_rate: The chance of a video to be in a step.
        steps: Of an epoch.
        parts: Micro-batches of a step.
        generator: Of the draws; a seed that somebody knows voids the guarantee.
    """

    def __init__(self, num_videos: int, sample_rate: float, steps: int, parts: int, generator: torch.Generator) -> None:
        self.num_videos, self.sample_rate = num_videos, sample_rate
        self.steps, self.parts, self.generator = steps, parts, generator

    def __len__(self) -> int:
        return self.steps * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.steps):
            drawn = (torch.rand(self.num_videos, generator=self.generator) < self.sample_rate).nonzero().flatten()
            for part in drawn.tensor_split(self.parts):
                yield part.tolist()


class _Drawn(Dataset[list[Any]]):
    """Samples of a list of rows. A file that can't be read is left out: another in its place would count twice."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        if isinstance(dataset, VideoDataset):
            dataset.on_error = "raise"

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, rows: list[int]) -> list[Any]:
        samples = []
        for row in rows:
            try:
                samples.append(self.dataset[row])
            except FILE_ERRORS as error:
                if not isinstance(self.dataset, VideoDataset) or isinstance(error, OPTION_ERRORS):
                    raise
                self.dataset._record(self.dataset.rows[row], error)
        return samples


class _Collated:
    """A collator of the samples of one micro-batch; {} where none was drawn."""

    def __init__(self, collator: Callable[[list[Any]], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, drawn: list[list[Any]]) -> dict[str, Any]:
        return self.collator(drawn[0]) if drawn[0] else {}


class PrivateVideoTrainer(VideoTrainer):
    """A `VideoTrainer` with video-level privacy.

    - A step draws each video on its own with chance q = `args.rows_per_step` / videos; a step without videos is a step.
    - The gradient of each video is taken by itself and clipped to `privacy.clip` over all parameters that are trained.
    - Micro-batches add up; noise is added once a step, and the sum is divided by q · videos, whatever was drawn.
    - Order, noise, dropout and augmentation are drawn from seeds of the system, which nobody knows or keeps:
      no run can be repeated. Checkpoints hold no state of a generator.
    - Gradients are in `parameter.grad` before `on_pre_optimizer_step`: any optimiser, and terms such as FedProx', work.

    Args:
        privacy: Of the unit "video". Where it names an ε and no noise, the noise is that of the ledger's last entry, or
            what the steps of `rounds` such trainings need.
        ledger: Where steps are written before weights leave the trainer.
        rounds: How often the videos are to be trained on so, this time included.
        engine: "vmap", "loop", or "auto": loop under autocast or gradient checkpointing, which vmap can't do.
        private_seed: For tests: whoever knows it can take the noise off again.

    Raises:
        FederatedError: Something that would break the guarantee, in a sentence.
    """

    def __init__(
        self,
        *args: Any,
        privacy: PrivacyPolicy,
        ledger: PrivacyLedger | None = None,
        rounds: int = 1,
        engine: str = "auto",
        private_seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.ledger, self.private_seed = ledger, private_seed
        self._check_arguments()
        self._check_data()
        videos = len(self.train_dataset)
        self.sample_rate = min(self.args.rows_per_step / videos, 1.0)
        privacy.check_units(videos)
        self.privacy = privacy
        planned = [Release(self.sample_rate, rounds * training_steps(self))]
        self.privacy = privacy.resolved(planned) if ledger is None else ledger.settle_noise(privacy, planned)
        needs_loop = self.args.gradient_checkpointing or self.args.bf16
        self.engine = ("loop" if needs_loop else "vmap") if engine == "auto" else engine
        self._total: Tensors = {}
        self._recorded = 0
        self._draws = self._generator(0)
        self._noise = self._generator(1, self.args.device)
        if isinstance(self.train_dataset, VideoDataset):
            # Seeds of samples count rows: with one that is known, a video more would change the others' clips.
            self.train_dataset.seed = int(torch.randint(2**31, (1,), generator=self._draws))
        with self._training_mode(self.model):
            check_private(self.model)

    def _generator(self, purpose: int, device: torch.device | str = "cpu") -> torch.Generator:
        seed = int.from_bytes(os.urandom(8), "little") if self.private_seed is None else self.private_seed + purpose
        return torch.Generator(device).manual_seed(seed)

    # ---- what is refused ----

    def _check_arguments(self) -> None:
        args = self.args
        refusals = {
            f"max_grad_norm={args.max_grad_norm}: videos are clipped already. Set max_grad_norm=0.": args.max_grad_norm,
            "several processes or GPUs: each would draw and add noise of its own. Start one process on one GPU, and "
            "raise gradient_accumulation_steps.": args.world_size > 1 or args.n_gpu > 1,
            "fp16: its scaled losses change the gradients that are clipped. Set bf16=true or neither.": args.fp16,
            "torch_compile: gradients are taken of the model as it is. Set torch_compile=false.": args.torch_compile,
            "auto_find_batch_size: the batch is what the noise is for.": args.auto_find_batch_size,
            "load_best_model_at_end: which checkpoint is best tells of the private videos it is measured on. Train for "
            "a number of steps that is set before.": args.load_best_model_at_end,
            f"train_sampling_strategy={args.train_sampling_strategy!r}: each video must have the same chance in every "
            "step. Leave it out.": args.train_sampling_strategy != "random",
            "ReduceLROnPlateau: it follows measurements on private videos. Take another schedule.":
                "plateau" in str(args.lr_scheduler_type).lower(),
            f"mixing ({type(getattr(self.data_collator, 'mixing', None)).__name__}): a mixed clip holds two videos, "
            "and no bound holds for one. Set mixing=null.": getattr(self.data_collator, "mixing", None) is not None,
        }  # fmt: skip
        for refusal, found in refusals.items():
            if found:
                raise FederatedError(f"Training with video-level privacy can't have {refusal}")

    def _check_data(self) -> None:
        dataset = self.train_dataset
        if dataset is None or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise FederatedError("Video-level privacy draws videos by number: the data set needs a length and items.")
        if getattr(dataset, "repeats", 1) > 1:
            raise FederatedError(
                f"repeats={dataset.repeats} makes several rows of a video, each with the bound of one. Set repeats=1."
            )
        if isinstance(dataset, VideoDataset):
            if dataset.clips * dataset.crops > 1:
                raise FederatedError("views make several rows of a video, each with the bound of one. Leave views out.")
            seen: set[object] = set()
            for row in dataset.rows:
                key = row.source if isinstance(row.source, (str, os.PathLike)) else id(row.source)
                if key in seen:
                    raise FederatedError(
                        f"{row.name} is in several rows, each with the bound of one. Give each video one row."
                    )
                seen.add(key)

    # ---- drawing ----

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> PoissonSampler:
        self._epoch_setter.listeners = [self.train_dataset] if hasattr(self.train_dataset, "set_epoch") else []
        parts, steps = self.args.gradient_accumulation_steps, self.steps_per_epoch() or 1
        return PoissonSampler(len(self.train_dataset), self.sample_rate, steps, parts, self._draws)

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> Any:
        if not is_training:
            return super()._get_dataloader(*args, **kwargs)
        collator: Any = self.data_collator
        drawn = {**kwargs, "dataset": _Drawn(kwargs["dataset"]), "batch_size": 1}
        self.data_collator = _Collated(collator)  # type: ignore[assignment]
        try:
            return super()._get_dataloader(*args, is_training=True, **drawn)
        finally:
            self.data_collator = collator

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> None:
        """Losses are those of single videos; how many were drawn must not change them."""

    def _save_rng_state(self, output_dir: str) -> None:
        """A state of torch's generator would tell the masks of dropout."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        pass

    # ---- steps ----

    def train(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(one, EarlyStoppingCallback) for one in self.callback_handler.callbacks):
            raise FederatedError(
                "Early stopping on private videos tells of them. Train for a number of steps that is set before."
            )
        with torch.random.fork_rng(enabled=self.private_seed is None):
            if self.private_seed is None:
                torch.manual_seed(int.from_bytes(os.urandom(8), "little"))
            return super().train(*args, **kwargs)

    @contextmanager
    def _training_mode(self, model: nn.Module) -> Iterator[None]:
        """Training mode, but for batch norms where the policy freezes them."""
        training = model.training
        model.train()
        if self.privacy.batch_norms == "freeze":
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        yield
        model.train(training)

    def training_step(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], num_items_in_batch: int | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Adds the clipped gradients of a micro-batch; after the last of a step, noise. Returns the sum of the losses,
        over the expected batch."""
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        if not self._total:
            self._total = {name: torch.zeros_like(one, dtype=torch.float32) for name, one in trained.items()}
        expected = self.sample_rate * len(self.train_dataset)
        loss = torch.zeros((), device=self.args.device)
        if inputs:
            inputs = self._prepare_inputs(inputs)
            # Half a micro-batch at a time, but where a head or adapters are trained: gradients are as many times the
            # weights.
            weights, size = sum(one.numel() for one in trained.values()), self.args.per_device_train_batch_size
            clip_size = max(one[0].numel() for one in inputs.values())
            size = size if weights < clip_size else -(-size // 2)
            with self._training_mode(model):
                for gradients, losses in gradients_in_chunks(model, inputs, self._loss_of_one, self.engine, size):
                    total, _ = clipped_sum(gradients, self.privacy.clip)
                    loss += losses.sum() / expected
                    for name, one in total.items():
                        self._total[name] += one
        if self.accelerator.sync_gradients:
            numbers = (self.privacy.clip, self.privacy.noise_multiplier or 0.0, expected)
            for name, gradient in private_gradient(self._total, *numbers, self._noise).items():
                trained[name].grad = gradient.to(trained[name].dtype)
            self._total = {}
        return loss

    def _loss_of_one(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        with self.compute_loss_context_manager():
            return self.compute_loss(model, inputs)

    # ---- accounts ----

    def planned(self) -> Release:
        """The steps of the whole training, with the policy's noise."""
        return Release(self.sample_rate, training_steps(self), self.privacy.noise_multiplier)

    def account(self) -> None:
        """Writes the steps since the last account into the ledger."""
        steps = self.state.global_step - self._recorded
        if self.ledger is not None and steps > 0:
            self.ledger.record(self.privacy, Release(self.sample_rate, steps), len(self.train_dataset))
        self._recorded = self.state.global_step

    def statement(self) -> PrivacyStatement:
        """What may be said of all that the ledger holds; without one, of this training."""
        steps = Release(self.sample_rate, self.state.global_step, self.privacy.noise_multiplier)
        releases = [steps] if self.ledger is None else self.ledger.releases("video")
        seeded = self.private_seed is not None
        return PrivacyStatement(self.privacy, releases, len(self.train_dataset), known_seed=seeded)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._init_training_state(*args, **kwargs)
        self._recorded = self.state.global_step
        if self.ledger is not None:
            self.ledger.check(self.privacy, [Release(self.sample_rate, self.state.max_steps - self._recorded)])
        return found

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        self.account()
        super()._save_checkpoint(model, trial)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        self.account()
        return super()._finalize_training(*args, **kwargs)


class PrivateMaskedTrainer(PrivateVideoTrainer, MaskedTrainer):
    """Masked pretraining with video-level privacy; see `PrivateVideoTrainer`."""
