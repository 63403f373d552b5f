"""A log of scores, one line of JSON a video, from which an interrupted evaluation goes on."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)

NAME = "predictions.jsonl"


class PredictionLog:
    """`folder/predictions.jsonl`: a first line that names the run, then `{"video", "scores"}` for each video.

    `known` has what an earlier call with the same `run` (model, weights, protocol) wrote: names to scores (classes,)
    float32. A line that was cut off is dropped. A file of another run is moved to `predictions.previous.jsonl`.
    Without a folder nothing is kept.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, run: dict[str, Any]):
        self.known: dict[str, np.ndarray] = {}
        self._file = None
        if folder is None:
            return
        self.path = Path(folder) / NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._read(run):
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by `__exit__`
        else:
            self._file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115
            self._write({"run": run})

    def add(self, video: str, scores: np.ndarray) -> None:
        # Nine digits bring a float32 back to the bit.
        self._write({"video": video, "scores": [float(f"{x:.9g}") for x in scores.tolist()]})

    def __enter__(self) -> PredictionLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")  # in ASCII: names of files need not be UTF-8
            self._file.flush()

    def _read(self, run: dict[str, Any]) -> bool:
        """Reads the whole lines of this run's file and cuts off what is behind them; False without such a file."""
        if not self.path.exists():
            return False
        with open(self.path, "rb+") as file:
            if _entry(file.readline()) != {"run": json.loads(json.dumps(run))}:
                os.replace(self.path, self.path.with_name("predictions.previous.jsonl"))
                logger.warning(f"{self.path} was of another run and is now predictions.previous.jsonl; starting anew.")
                return False
            whole = file.tell()
            while (entry := _entry(line := file.readline())) is not None and "scores" in entry:
                self.known[entry["video"]] = np.asarray(entry["scores"], dtype=np.float32)
                whole += len(line)
            file.truncate(whole)
        return True


def _entry(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def weights_checksum(model: torch.nn.Module) -> str:
    """Computes a checksum of all parameters and buffers, which tells two epochs of one folder apart."""
    check = 0
    for name, value in model.state_dict().items():
        data = value.detach().cpu().contiguous().reshape(-1)
        check = zlib.crc32(data.view(torch.uint8).numpy() if data.numel() else b"", zlib.crc32(name.encode(), check))
    return f"{check:08x}"
