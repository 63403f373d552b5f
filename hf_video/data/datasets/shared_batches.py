"""Batches from a loader's workers to the training process through memory that is used again.

A batch of four clips of 16x224x224 has 38 MB. torch hands it over in new shared memory each time, and giving it fresh
pages costs eight times as much as copying the pixels (measured: 7.7 against 0.9 ms a clip). So a worker keeps a few
buffers; the training process says through a byte in each when the last tensor that looks at it is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import secrets
import weakref
from typing import Any

import numpy as np
import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_keeping = 0  # the process in which that has been done
BUFFERS = 8  # of a worker; a batch for which none is free takes the ordinary way
MARK = 64  # bytes after the pixels, of which the first is 1 while somebody reads them


def keep_freed_memory() -> None:
    """In a worker, once: glibc gives the memory of clips back to the system and asks for it again with every batch,
    page by page (measured: 7 of 77 ms CPU a clip of 16x224x224). Without glibc nothing happens."""
    global _keeping
    if _keeping != os.getpid():
        _keeping = os.getpid()
        with contextlib.suppress(OSError, AttributeError, TypeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            libc.mallopt(_M_TRIM_THRESHOLD, 512 << 20)


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
        _forget_the_dead()
        _mapped[key] = memory.numpy()
    whole = _mapped[key]
    lease = whole[:-MARK]
    weakref.finalize(lease, _release, whole).atexit = False
    return torch.from_numpy(lease).view(dtype).view(shape)


def _release(whole: np.ndarray) -> None:
    whole[-MARK] = 0


def _forget_the_dead() -> None:
    """Lets go of the buffers of workers that have ended; tensors over them keep what they need."""
    alive = {process.pid for process in multiprocessing.active_children()}
    for key in [key for key in _mapped if key[0] not in alive]:
        del _mapped[key]
