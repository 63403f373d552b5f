"""What a run's folder tells while it is being run: a table of rounds, and who is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_video.federated.rounds import AUDIT

HEADER = f"{'round':>9}  {'clients':>7}  {'loss':>8}  {'accuracy':>8}  {'MB down':>9}  {'MB up':>9}  {'seconds':>7}"


class RoundTable:
    """Reads a run's audit log as it grows.

    Args:
        folder: Of the run.
        rounds: There will be.
    """

    def __init__(self, folder: Path, rounds: int) -> None:
        self.log, self.rounds = folder / AUDIT, rounds
        self.read = self.log.stat().st_size if self.log.exists() else 0
        self.headed = False

    def lines(self) -> list[str]:
        """What is new, as lines for a terminal."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            file.seek(self.read)
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return []
        self.read += len(whole) + 1
        found: list[str] = []
        for text in whole.splitlines():
            facts = json.loads(text)
            if facts["event"] == "started":
                found.append(_plan(facts))
            elif facts["event"] == "resumed":
                found.append(f"goes on after round {facts['round']}")
            elif facts["event"] == "failed":
                found.append(f"  round {facts['round']}: {facts['client']} is missing: {facts['reason']}")
            elif facts["event"] == "round":
                found += ([] if self.headed else [HEADER]) + [self._row(facts)]
                self.headed = True
        return found

    def _row(self, facts: Mapping[str, Any]) -> str:
        metrics = facts["metrics"]
        loss, accuracy = (_shown(metrics.get(name)) for name in ("loss", "accuracy"))
        done, answered = f"{facts['round']}/{self.rounds}", len(facts["clients"])
        asked = answered + len(facts["failed"])
        down, up = facts["bytes_down"] / 1e6, facts["bytes_up"] / 1e6
        return (
            f"{done:>9}  {f'{answered}/{asked}':>7}  {loss:>8}  {accuracy:>8}  {down:>9.2f}  {up:>9.2f}  "
            f"{facts['seconds']:>7.1f}"
        )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


WAY = 0.2  # share of the deadline that is left for the way; clients train for the rest


def least_bandwidth(size: float, deadline: float) -> float:
    """Megabits a second that a site needs for messages of so many bytes in a round."""
    return 8 * size / (WAY * deadline) / 1e6


def _plan(facts: Mapping[str, Any]) -> str:
    size, deadline = facts["bytes"], facts["config"]["deadline"]
    plan = f"{facts['tensors']} tensors travel, {size / 1e6:.2f} MB to each site and as much back in a round"
    if deadline is None:
        return plan
    needed = least_bandwidth(2 * size, deadline)
    return f"{plan}; the deadline of {deadline:g} s needs a line of {needed:.2f} Mbit/s"
