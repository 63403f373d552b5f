"""An exponential moving average of the weights, which often scores better than the weights themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hf_video.errors import CheckpointError

FILE = "ema.safetensors"


class MovingAverage:
    """average = decay x average + (1 - decay) x weights after each step, from the initial weights on (timm's ModelEma,
    which VideoMAE's scripts use). Buffers that float, as those of batch norms, are averaged alike."""

    def __init__(self, model: nn.Module, decay: float):
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.average.n_averaged.fill_(1)  # else torch copies the weights after the first step over the initial ones
        self.average.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.average.update_parameters(model)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` holds the average."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for mine, theirs in zip(_tensors(self.average.module), _tensors(model), strict=True):
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)

    def save(self, folder: str | Path) -> None:
        save_file({name: value.contiguous() for name, value in self.average.state_dict().items()}, Path(folder) / FILE)

    def load(self, folder: str | Path) -> None:
        """Raises CheckpointError where the checkpoint was written without an average."""
        path = Path(folder) / FILE
        if not path.exists():
            raise CheckpointError(
                f"{folder} holds no {FILE}: it was written without ema_decay. Leave ema_decay out, or start anew."
            )
        self.average.load_state_dict(load_file(path))


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    return itertools.chain(model.parameters(), model.buffers())
