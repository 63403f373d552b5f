"""What one batch of a training costs: seconds to read and to compute it, and memory, before any training."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from hf_video.errors import ConfigError, HFVideoError
from hf_video.training.reporting import available_memory, gigabytes

PATIENCE = 8.0  # seconds to measure for: what takes longer is measured on fewer clips
_ADAM = 2  # numbers of the same size that the optimiser keeps for each weight


@dataclass
class Measured:
    """Seconds that one process reads and one forward takes for a batch; bytes that training needs besides the weights
    that are loaded, and that are free for it (None: not known); and a batch, of fewer clips where it takes long."""

    reading: float
    forward: float
    needed: int
    available: int | None
    batch: dict[str, Any]
    clips: int

    @property
    def fits(self) -> bool:
        return self.available is None or self.needed <= self.available


def measure(trainer: Any, *, at_most: int | None = None) -> Measured:
    """Reads a batch and runs it, forward and without changing anything; of at most so many rows. Memory is looked at
    on one clip, before more are run.

    Raises ConfigError where the model does not take the clips.
    """
    args, dataset, model = trainer.args, trainer.train_dataset, trainer.model
    whole = args.per_device_train_batch_size
    begin = time.perf_counter()
    samples = [dataset[0]]
    once = time.perf_counter() - begin
    rows = min(whole, len(dataset), at_most or whole, max(2, int(PATIENCE / max(once, 1e-6))))
    samples += [dataset[i] for i in range(1, rows)]
    reading = (time.perf_counter() - begin) * whole / rows
    batch = trainer.data_collator(samples)
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "return_loss")}
    read = len(next(iter(inputs.values())))
    clips = round(read * whole / rows)
    with trainer.accelerator.autocast():
        kept, once = _one_clip(model, inputs)
        needed = _needed(trainer, kept * clips, inputs, clips / read)
        measured = Measured(reading, once * clips, needed, _free(args), batch, clips)
        if measured.fits and once * read < PATIENCE:
            measured.forward = _forward(model, inputs) * clips / read
    return measured


def weight_bytes(model_class: type[nn.Module], config: Any) -> tuple[int, int] | None:
    """Parameters of a model and their bytes, without making it; None for one that can't be made without memory."""
    try:
        with torch.device("meta"):
            model = model_class(config)
    except HFVideoError:
        raise
    except Exception:  # a table that is computed from numbers, say
        return None
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters)


def check_weights(args: Any, *, yes: bool) -> Callable[[type[nn.Module], Any], None]:
    """For `load_start`: raises ConfigError for a model whose weights, gradients and optimiser need more memory than is
    free, before any of it is taken, unless `yes`."""

    def check(model_class: type[nn.Module], config: Any) -> None:
        found, free = weight_bytes(model_class, config), _free(args)
        if yes or found is None or free is None:
            return
        parameters, size = found
        needed = training_bytes(size, args)
        if needed > free:
            raise ConfigError(
                f"A {model_class.__name__} of {parameters:,} parameters needs about {gigabytes(needed)} for weights, "
                f"gradients and optimiser alone, and {gigabytes(free)} are free. Take a smaller model. To go on all "
                "the same: --yes (yes=True)."
            )

    return check


def training_bytes(weights: int, args: Any) -> int:
    """Bytes that weights, gradients, an Adam optimiser and the average take."""
    kept = 1 if "sgd" in str(args.optim) or "adafactor" in str(args.optim) else _ADAM
    return weights * (2 + kept + (args.ema_decay is not None))


def _needed(trainer: Any, activations: int, inputs: Mapping[str, torch.Tensor], times: float) -> int:
    args = trainer.args
    trained = sum(p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad)
    if args.gradient_checkpointing:
        activations //= 3  # of a block at a time, and what lies between blocks
    if getattr(trainer, "chunk_size", None):
        activations = activations * trainer.chunk_size // max(args.per_device_train_batch_size, trainer.chunk_size)
    waiting = 1 + args.dataloader_num_workers * (args.dataloader_prefetch_factor or 2)
    batch = sum(value.nbytes for value in inputs.values() if torch.is_tensor(value)) * times
    on_host = 1 if args.device.type == "cuda" else waiting
    return int(training_bytes(trained, args) - trained + activations + batch * on_host)


def _free(args: Any) -> int | None:
    free = available_memory(args.device)
    shared = 1 if args.device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return None if free is None else free // shared


def _one_clip(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[int, float]:
    """Bytes that a forward of the first clip keeps for its backward, and seconds of a warm forward. What would be kept
    is counted and let go, so that no more memory is taken than in use."""
    first = {name: value[:1] if torch.is_tensor(value) else value for name, value in inputs.items()}
    there = itertools.chain(model.parameters(), model.buffers())
    seen = {StorageWeakRef(tensor.untyped_storage()).cdata for tensor in there}
    held, total = [], 0

    def count(tensor: torch.Tensor) -> None:
        nonlocal total
        # A weak reference keeps the storage's address from being given to another one.
        reference = StorageWeakRef(tensor.untyped_storage())
        if reference.cdata not in seen:
            seen.add(reference.cdata)
            held.append(reference)
            total += tensor.untyped_storage().nbytes()

    def refuse(_: None) -> torch.Tensor:
        raise RuntimeError("this forward has no backward")

    with _as_served(model, first) as moved:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, refuse):
            model(**moved)
        begin = time.perf_counter()
        with torch.no_grad():
            model(**moved)
        _synchronise()
        return total, time.perf_counter() - begin


def _forward(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> float:
    with _as_served(model, inputs) as moved, torch.no_grad():
        begin = time.perf_counter()
        model(**moved)
        _synchronise()
        return time.perf_counter() - begin


@contextmanager
def _as_served(model: nn.Module, inputs: Mapping[str, torch.Tensor]):
    """In eval mode: statistics of batch norms stay as they are, and no random number is drawn from training's."""
    device, training = next(model.parameters()).device, model.training
    moved = {name: value.to(device) if torch.is_tensor(value) else value for name, value in inputs.items()}
    model.eval()
    try:
        with torch.random.fork_rng():
            yield moved
    except HFVideoError as error:
        raise ConfigError(f"The model does not take these clips: {error}") from error
    except (RuntimeError, ValueError, IndexError) as error:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in inputs.items() if torch.is_tensor(value))
        raise ConfigError(
            f"{type(model).__name__} does not take {shapes}: {error} Change data.num_frames, model.image_size or "
            "augmentation."
        ) from error
    finally:
        model.train(training)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
