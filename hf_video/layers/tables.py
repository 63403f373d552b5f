"""Tensors that a module works out from its own settings, such as positions and indices of windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class Tables(nn.Module):
    """Holds tensors that are worked out once and need not be saved, as attributes of the given names.

    They are no buffers. A model that is built without memory (on the meta device, as `accelerate` and FSDP do it) and
    filled from a file gets its parameters and saved buffers from the file; a buffer that isn't saved would stay what
    the memory held before. Tables are made on the CPU whatever the default device, go where the model goes, and follow
    their users where the model was placed tensor by tensor. Their type stays: whoever uses one rounds it.
    """

    def __init__(self, **tables: torch.Tensor) -> None:
        super().__init__()
        self.names = tuple(tables)
        for name, table in tables.items():
            setattr(self, name, table)

    def table(self, name: str, device: torch.device) -> torch.Tensor:
        """The table of that name on a device. It stays there, but for the meta device, where values would be lost."""
        table = getattr(self, name)
        if table.device == device:
            return table
        if torch.compiler.is_compiling() or device.type == "meta":
            return table.to(device)
        with torch.inference_mode(False):  # what stays must serve in training too
            setattr(self, name, table.to(device))
        return getattr(self, name)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True):
        """`to`, `cuda` and the like: `fn` tells where the model goes; what else it does is for weights."""
        super()._apply(fn, recurse)
        for name in self.names:
            table = getattr(self, name)
            device = fn(torch.empty(0, device=table.device)).device
            if device.type != "meta":
                setattr(self, name, table.to(device))
        return self
