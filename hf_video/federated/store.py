"""What a client keeps between rounds, on its own disk: tensors that don't travel, control variates, residuals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hf_video.base.written_files import atomic_write, check_output_folder

Tensors = dict[str, torch.Tensor]
_KEPT = 2  # rounds of each kind; a server that resumes asks for its last round once more
_NAME = re.compile(r"-(\d{6})\.safetensors$")


class PersonalStore:
    """Tensors of one client by kind and round.

    A server that was stopped asks for a round again: what a client kept of that round must then not count, so `load`
    gives what earlier rounds left.

    Args:
        folder: Where they are kept; made when something is.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def save(self, kind: str, round_number: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keeps tensors of a round. Those of older rounds but one go, and those of later ones, since a server that asks
        for this round has gone back or began another run."""
        check_output_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / f"{kind}-{round_number:06d}.safetensors") as path:
            save_file({name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}, path)
        files = self._files(kind)
        kept = [path for number, path in files if number <= round_number][-_KEPT:]
        for _, path in files:
            if path not in kept:
                path.unlink()

    def load(self, kind: str, round_number: int) -> Tensors | None:
        """The tensors that the last round before `round_number` kept; None where there was none."""
        before = [path for number, path in self._files(kind) if number < round_number]
        return load_file(before[-1]) if before else None

    def _files(self, kind: str) -> list[tuple[int, Path]]:
        found = ((_NAME.search(path.name), path) for path in self.folder.glob(f"{kind}-??????.safetensors"))
        return sorted((int(match[1]), path) for match, path in found if match)
