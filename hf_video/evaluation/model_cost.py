"""What a model costs while it is evaluated: clips a second, and the memory that its tensors take."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_video.features.extraction import ClipVectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MeasuredModel(ClipVectors):
    """`ClipVectors` that measures. Memory is taken in the first forward, which warms up and is not in the speed."""

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        super().__init__(model, **options)
        self._clips, self._seconds = 0, 0.0
        self._peak: int | None = None
        # Those of an exported model are in a runtime's file.
        self.parameters = 0 if hasattr(model, "graphs") else sum(one.numel() for one in model.parameters())

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self._peak is None:
            return self._first(inputs)
        start = time.perf_counter()
        rows = super().__call__(inputs)  # on the CPU in the end: an accelerator is waited for
        self._seconds += time.perf_counter() - start
        self._clips += len(rows)
        return rows

    @property
    def clips_per_second(self) -> float | None:
        """Of the forwards, without decoding; None where there were fewer than two."""
        return self._clips / self._seconds if self._clips else None

    @property
    def memory(self) -> int | None:
        """Bytes of the weights and of what a forward holds at most besides; None where nothing was computed, and for a
        model that is not torch's (an exported one)."""
        if self._peak is None or not self.parameters:
            return None
        kept = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in self._tensors()}
        return sum(kept.values()) + self._peak

    def _tensors(self) -> list[torch.Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]

    def _first(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        device = self.model.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            rows = super().__call__(inputs)
            self._peak = torch.cuda.max_memory_allocated(device) - before
            return rows
        with _TensorBytes() as counted:
            rows = super().__call__(inputs)
        self._peak = counted.peak
        return rows


class _TensorBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make while it is entered: those that are alive `now`, and the
    `peak`. It is the peak that torch's profiler of memory sees, without the lines that this one writes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if not isinstance(one, torch.Tensor):
                continue
            storage = one.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self._alive:
                self._alive[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage._cdata)
        return made

    def _gone(self, key: int) -> None:
        self.now -= self._alive.pop(key)
