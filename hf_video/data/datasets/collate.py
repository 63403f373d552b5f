"""Samples to a batch, and batches from a loader's workers to the training process through memory that is used again.

torch hands each batch over in new shared memory, whose fresh pages cost several times as much as copying the pixels. So
a worker keeps a few buffers; the training process says through a byte in each when the last tensor over it is gone.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import secrets
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_video.data.datasets.dataset import generator
from hf_video.errors import DataError, check_number

if TYPE_CHECKING:
    from hf_video.video.augment.mixing import Mixing

BUFFERS = 8  # of a worker; a batch for which none is free takes the ordinary way
MARK = 64  # bytes after the pixels, of which the first is 1 while somebody reads them


class VideoCollator:
    """Makes a batch of samples of a `VideoDataset`: `pixel_values` (B, T, C, H, W), other inputs likewise, and
    `labels`, (B,) int64, or (B, classes) float32 with mixing or label smoothing, and where videos show several classes
    (0 and 1).

    Samples that come as lists (repeated augmentation) are laid one after the other, so B may be larger than the batch
    size.

    Args:
        mixing: `hf_video.video.augment.Mixing`. It is drawn from the seeds of the samples alone: the same batch is
            always mixed alike, whatever worker or process puts it together.
        num_labels: Number of classes; needed for mixing and label smoothing.
        label_smoothing: Share of each label, from 0 to below 1, that is spread over all classes.

    Raises:
        DataError: Samples don't stack, `num_labels` is needed, or `label_smoothing` is out of its range.
    """

    def __init__(self, mixing: Mixing | None = None, num_labels: int | None = None, label_smoothing: float = 0.0):
        if (mixing is not None or label_smoothing) and not num_labels:
            raise DataError("Mixing and label smoothing make labels into shares of classes: pass num_labels=.")
        check_number("label_smoothing", label_smoothing, DataError, least=0, below=1)
        self.mixing = mixing
        self.num_labels = num_labels
        self.label_smoothing = label_smoothing
        self._pool = BufferPool()

    def __call__(self, samples: Sequence[Any]) -> dict[str, torch.Tensor]:
        flat = [one for sample in samples for one in (sample if isinstance(sample, (list, tuple)) else [sample])]
        seeds = [int(one["seed"]) for one in flat if "seed" in one]
        inputs = [name for name in flat[0] if name not in ("seed", "labels")]
        batch = {name: _stack(name, [one.get(name) for one in flat], self._pool) for name in inputs}
        labels = [one["labels"] for one in flat if "labels" in one]
        if labels:
            if len(labels) != len(flat):
                raise DataError(f"{len(flat) - len(labels)} of {len(flat)} samples have no label and the others do.")
            several = isinstance(labels[0], torch.Tensor)
            batch["labels"] = torch.stack(labels) if several else torch.as_tensor(labels, dtype=torch.int64)
            self._soften(batch, seeds)
        return batch

    def _soften(self, batch: dict[str, torch.Tensor], seeds: list[int]) -> None:
        if self.mixing is not None:
            if not seeds:
                raise DataError(
                    "Mixing draws from the samples' seeds and there are none: use remove_unused_columns=False."
                )
            clips = {name: values for name, values in batch.items() if values.ndim == 5}
            size = next(iter(clips.values())).shape
            joined = 0  # one seed from those of the samples, in their order
            for seed in seeds:
                joined = (joined * 1_000_003 + seed) % (1 << 63)
            mixture = self.mixing.draw(size[0], *size[-2:], generator=generator(joined))
            for name, values in clips.items():
                batch[name] = values.copy_(mixture.clips(values))  # stays where it is: see shared_batches
            batch["labels"] = mixture.targets(batch["labels"], self.num_labels)
        elif self.label_smoothing:
            hard = batch["labels"]
            if not hard.is_floating_point():
                hard = torch.nn.functional.one_hot(hard, self.num_labels).float()
            batch["labels"] = hard * (1 - self.label_smoothing) + self.label_smoothing / self.num_labels


def _stack(name: str, values: list[Any], pool: BufferPool) -> torch.Tensor:
    if any(value is None for value in values):
        raise DataError(f"Some samples of the batch have {name!r} and some don't.")
    tensors = [torch.as_tensor(value) for value in values]
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        raise DataError(
            f"{name} of the shapes {shapes} don't stack into one batch. Give all clips one number of frames and one "
            "size: an augmentation or a processor that crops."
        )
    in_worker = torch.utils.data.get_worker_info() is not None
    out = pool.empty((len(tensors), *shapes[0]), tensors[0].dtype) if in_worker else None
    return torch.stack(tensors, out=out)


# -- shared memory -----------------------------------------------------------------------------------------------------


class SharedTensor(torch.Tensor):
    """A tensor in a worker's buffer; what is computed from it is an ordinary one. Pickled to the training process it
    is an ordinary one there, over the same memory."""

    buffer: Buffer
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:
        memory = None if self.buffer.sent else self.buffer.memory
        self.buffer.sent = True
        return _arrive, (self.buffer.key, memory, tuple(self.shape), self.dtype)


class Buffer:
    """Shared memory for `size` bytes, and the mark."""

    def __init__(self, size: int, key: tuple[int, str, int]):
        storage = torch.UntypedStorage._new_shared(size + MARK, device="cpu")
        self.memory = torch.empty(0, dtype=torch.uint8).set_(storage)
        self.memory[size:] = 0
        self.size = size
        self.key = key
        self.sent = False

    @property
    def taken(self) -> bool:
        return bool(self.memory[self.size])

    def take(self) -> None:
        self.memory[self.size] = 1


class BufferPool:
    """The buffers of one worker."""

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []
        self._pid = 0
        self._token = ""

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """A tensor in a buffer, not filled; None if all buffers are in use."""
        if self._pid != os.getpid():  # forked: these are the parent's
            self._buffers, self._pid, self._token = [], os.getpid(), secrets.token_hex(8)
        size = math.prod(shape) * dtype.itemsize
        buffer = next((b for b in self._buffers if b.size == size and not b.taken), None) or self._new(size)
        if buffer is None:
            return None
        buffer.take()
        values = buffer.memory[:size].view(dtype).view(shape).as_subclass(SharedTensor)
        values.buffer = buffer
        return values

    def _new(self, size: int) -> Buffer | None:
        if len(self._buffers) >= BUFFERS:
            # A last, smaller batch may have left buffers that nothing fits any more.
            self._buffers = [b for b in self._buffers if b.taken or b.size == size]
            if len(self._buffers) >= BUFFERS:
                return None
        key = (self._pid, self._token, secrets.randbits(62))
        self._buffers.append(Buffer(size, key))
        return self._buffers[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()


# -- in the training process -------------------------------------------------------------------------------------------

_mapped: dict[tuple[int, str, int], np.ndarray] = {}


def _arrive(
    key: tuple[int, str, int], memory: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """A tensor over a worker's buffer. The buffer is free again when its storage, which views share, is."""
    if memory is not None:
        # Lets go of the buffers of workers that have ended; tensors over them keep what they need.
        alive = {process.pid for process in multiprocessing.active_children()}
        for ended in [one for one in _mapped if one[0] not in alive]:
            del _mapped[ended]
        _mapped[key] = memory.numpy()
    whole = _mapped[key]
    lease = whole[:-MARK]
    weakref.finalize(lease, whole.__setitem__, -MARK, 0).atexit = False
    return torch.from_numpy(lease).view(dtype).view(shape)
