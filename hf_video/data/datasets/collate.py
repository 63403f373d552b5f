"""Samples to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hf_video.data.datasets.shared_batches import BufferPool
from hf_video.data.seeds import generator
from hf_video.errors import DataError


class VideoCollator:
    """Samples of a `VideoDataset` to a batch: `pixel_values` (B, T, C, H, W), other inputs likewise, and `labels`, (B,)
    int64, or (B, classes) float32 with mixing or label smoothing, and where videos show several classes (0 and 1).

    Samples that come as lists (repeated augmentation) are laid one after the other, so B may be larger than the batch
    size. `mixing` (`hf_video.video.augment.Mixing`) is drawn from the seeds of the samples alone: the same batch is
    always mixed alike, whatever worker or process puts it together.

    Raises DataError for samples that do not stack, or mixing without `num_labels`.
    """

    def __init__(self, mixing: Any = None, num_labels: int | None = None, label_smoothing: float = 0.0):
        if (mixing is not None or label_smoothing) and not num_labels:
            raise DataError("Mixing and label smoothing make labels into shares of classes: pass num_labels=.")
        if not 0 <= label_smoothing < 1:
            raise DataError(f"label_smoothing={label_smoothing!r} must be a share from 0 to below 1.")
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
            mixture = self.mixing.draw(size[0], *size[-2:], generator=generator(_joined(seeds)))
            for name, values in clips.items():
                batch[name] = values.copy_(mixture.clips(values))  # stays where it is: see shared_batches
            batch["labels"] = mixture.targets(batch["labels"], self.num_labels)
        elif self.label_smoothing:
            hard = batch["labels"]
            if not hard.is_floating_point():
                hard = torch.nn.functional.one_hot(hard, self.num_labels).float()
            batch["labels"] = hard * (1 - self.label_smoothing) + self.label_smoothing / self.num_labels


def _joined(seeds: list[int]) -> int:
    """One seed from those of a batch's samples, in their order."""
    joined = 0
    for seed in seeds:
        joined = (joined * 1_000_003 + seed) % (1 << 63)
    return joined


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
