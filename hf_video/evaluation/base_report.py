"""What the reports of all evaluations have in common: scored videos, and what could not be scored."""

from __future__ import annotations

import csv
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_video.data.rows import Skipped
from hf_video.errors import counted, without_name
from hf_video.evaluation.protocols import Protocol

# Entries of a list of what was skipped that are no video that one looked for.
NOT_VIDEOS = ("format", "no videos", "hidden split", "unused")
SHOWN = 5


@dataclass
class EvaluationReport:
    """The result of `evaluate_videos` for N scored videos and C classes.

    `names`, `truth` (see the report's kind), `scores` (N, C) float32 as the protocol combines views; `skipped` what
    could not be scored; `seconds` the evaluation took, of which `resumed` videos were there before. Shares are 0 to 1.
    """

    model: str
    protocol: Protocol
    labels: list[str]
    names: list[str]
    truth: np.ndarray
    scores: np.ndarray
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0
    resumed: int = 0

    @property
    def found(self) -> int:
        """Videos that were scored."""
        return len(self.names)

    @property
    def total(self) -> int:
        """Videos that were looked for: scored, missing, unreadable and unlabelled ones."""
        return self.found + sum(entry.kind not in NOT_VIDEOS for entry in self.skipped)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C) float64."""
        return self.protocol.probabilities(torch.from_numpy(self.scores).double()).numpy()

    def _head(self) -> list[str]:
        words = f"{self.protocol.name}: {self.protocol.describe()}"
        return [
            f"{self.model}: found {self.found} of {counted(self.total, 'video')}",
            *textwrap.wrap(words, 110, initial_indent="  protocol   ", subsequent_indent=" " * 13),
        ]

    def _left_out(self) -> list[str]:
        if not self.skipped:
            return []
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(s.kind for s in self.skipped).items())
        shown = [f"    {entry.name}: {without_name(entry.reason, entry.name)}" for entry in self.skipped[:SHOWN]]
        more = (
            [f"    … {len(self.skipped) - SHOWN} more: --json, or report.json in the folder of --output, names all"]
            if len(self.skipped) > SHOWN
            else []
        )
        return [f"  skipped: {kinds}", *shown, *more]


def json_number(value: Any) -> float | int | None:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
