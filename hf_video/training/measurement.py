"""What training costs: seconds and memory of one batch before it begins, memory while it runs, and who is told.

TensorBoard wherever it is installed; others by name (`report_to="wandb"`, `"trackio"`), as in transformers. All of them
get what `VideoTrainer` logs: losses, clips a second, the share of time spent waiting for data, and `memory_figures()`.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from hf_video.base.modeling import inputs_for
from hf_video.errors import ConfigError, HFVideoError

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

    from hf_video.base.configuration import VideoConfig

# Reporters that a name alone can't tell the package of.
_PACKAGES = {"azure_ml": "azureml.core", "comet_ml": "comet_ml", "flyte": "flytekit"}


# Limit, use, statistics and the name in them of pages that can be taken back.
_GROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def default_report_to() -> list[str]:
    """What to report to by default: `["tensorboard"]` if it is installed, else nothing."""
    return ["tensorboard"] if _installed("tensorboard") else []


def reporters(report_to: str | Sequence[str] | None) -> list[str]:
    """`report_to` as a list of names that will work: None is the default, "none" is nothing, "all" what is installed.

    Raises ConfigError for a name that transformers does not know, or whose package is missing: before training, not at
    its first log.
    """
    from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    if report_to is None:
        return default_report_to()
    names = [report_to] if isinstance(report_to, str) else list(report_to)
    if names == ["none"]:
        return []
    if names == ["all"]:
        return get_available_reporting_integrations()
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ConfigError(f"report_to={name!r} is not known. Allowed are none, all, or some of: {known}.")
        if not _installed(name):
            package = _PACKAGES.get(name, name)
            raise ConfigError(
                f"report_to={name!r} needs the package {package}, which is not installed: pip install {package}, or "
                "leave it out."
            )
    return names


def memory_figures() -> dict[str, float]:
    """Memory of this process in GiB, as names and numbers to log.

    `memory_gb` is what it holds of the machine's memory now, `memory_peak_gb` the most so far; loader workers are
    processes of their own and not in it. With a GPU also `gpu_memory_gb` and `gpu_memory_peak_gb` (what tensors take)
    and `gpu_memory_reserved_gb` (what was taken from the device). Figures that the system does not tell are left out.
    """
    figures = _host_memory()
    if torch.cuda.is_available():
        figures["gpu_memory_gb"] = torch.cuda.memory_allocated()
        figures["gpu_memory_peak_gb"] = torch.cuda.max_memory_allocated()
        figures["gpu_memory_reserved_gb"] = torch.cuda.memory_reserved()
    return {name: round(size / 2**30, 3) for name, size in figures.items()}


def _host_memory() -> dict[str, int]:
    """Bytes. Linux is asked itself: `getrusage` there counts the process that this one was started from."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return {
            name: int(lines[key].split()[0]) * 1024
            for name, key in (("memory_gb", "VmRSS"), ("memory_peak_gb", "VmHWM"))
            if key in lines
        }
    if sys.platform == "win32":
        return {}
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"memory_peak_gb": peak if sys.platform == "darwin" else peak * 1024}


def gigabytes(size: float) -> str:
    """ "12 MB", "3.4 GB"."""
    return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def available_memory(device: torch.device) -> int | None:
    """Bytes that are free on a GPU, or to this process on the host: what the system says, and at most what its group
    (a container, a job of a cluster) may still take. None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [size for size in (_free_of_host(), _free_of_group()) if size is not None]
    return min(found, default=None)


def _free_of_host() -> int | None:
    lines = Path("/proc/meminfo")
    if lines.exists():
        found = dict(line.split(":", 1) for line in lines.read_text().splitlines() if ":" in line)
        return int(found["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in found else None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _free_of_group() -> int | None:
    """Of control groups, version 2 and 1; pages of files count as free, for the kernel takes them back."""
    root = Path("/sys/fs/cgroup")
    for limit, used, stat, key in _GROUP_FILES:
        try:
            most = (root / limit).read_text().strip()
            taken = int((root / used).read_text())
            pages = dict(line.split() for line in (root / stat).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit() and int(most) < 1 << 60:
            return max(int(most) - taken + int(pages.get(key, 0)), 0)
    return None


def _installed(name: str) -> bool:
    if name == "tensorboard":
        return bool(find_spec("tensorboard") or find_spec("tensorboardX"))
    try:
        return find_spec(_PACKAGES.get(name, name)) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False


PATIENCE = 8.0  # seconds to measure for: what takes longer is measured on fewer clips
_ADAM = 2  # numbers of the same size that the optimiser keeps for each weight


@dataclass
class BatchCost:
    """Seconds that one process reads and one forward takes for a batch; bytes that training needs besides the weights
    that are loaded, and that are free for it (None: not known); and a batch, of fewer clips where it takes long."""

    reading_seconds: float
    forward_seconds: float
    bytes_needed: int
    bytes_available: int | None
    batch: dict[str, Any]
    clips: int

    @property
    def fits(self) -> bool:
        return self.bytes_available is None or self.bytes_needed <= self.bytes_available


def measure_batch(trainer: Trainer, *, at_most: int | None = None) -> BatchCost:
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
        cost = BatchCost(reading, once * clips, needed, _free(args), batch, clips)
        if cost.fits and once * read < PATIENCE:
            cost.forward_seconds = _forward(model, inputs) * clips / read
    return cost


def weight_bytes(model_class: type[nn.Module], config: VideoConfig) -> tuple[int, int] | None:
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


def check_weights(args: TrainingArguments, *, yes: bool) -> Callable[[type[nn.Module], VideoConfig], None]:
    """For `load_model`: raises ConfigError for a model whose weights, gradients and optimiser need more memory than is
    free, before any of it is taken, unless `yes`."""

    def check(model_class: type[nn.Module], config: VideoConfig) -> None:
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


def training_bytes(weights: int, args: TrainingArguments) -> int:
    """Bytes that weights, gradients, an Adam optimiser and the average take."""
    kept = 1 if "sgd" in str(args.optim) or "adafactor" in str(args.optim) else _ADAM
    return weights * (2 + kept + (args.ema_decay is not None))


def _needed(trainer: Trainer, activations: int, inputs: Mapping[str, torch.Tensor], times: float) -> int:
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


def _free(args: TrainingArguments) -> int | None:
    free = available_memory(args.device)
    shared = 1 if args.device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return None if free is None else free // shared


def _one_clip(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[int, float]:
    """Bytes that a forward of the first clip keeps for its backward, and seconds of a warm forward. What would be kept
    is counted and let go, so that no more memory is taken than in use."""
    first = {name: _first_row(value) for name, value in inputs.items()}
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


def _first_row(value: Any) -> Any:
    """The first row of a tensor, of a list with an entry for each row, or of each tensor of a tuple."""
    if isinstance(value, tuple):
        return tuple(map(_first_row, value))
    return value[:1] if torch.is_tensor(value) or isinstance(value, list) else value


def _forward(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> float:
    with _as_served(model, inputs) as moved, torch.no_grad():
        begin = time.perf_counter()
        model(**moved)
        _synchronise()
        return time.perf_counter() - begin


@contextmanager
def _as_served(model: nn.Module, inputs: Mapping[str, torch.Tensor]):
    """In eval mode: statistics of batch norms stay as they are, and no random number is drawn from training's."""
    from accelerate.utils import send_to_device

    device, training = next(model.parameters()).device, model.training
    moved = send_to_device(inputs_for(model, inputs), device)
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
