"""The measuring core: candidates take turns in one process, and a row says how one compares with another.

A machine's speed drifts (heat, neighbours, frequency), so timing one candidate after the other compares the weather.
Here every round runs all of them, A B C A B C …, each round gives one ratio, and the median of the ratios is what
counts.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = {"cpu": "ms CPU", "wall": "ms wall", "memory": "MB"}


@dataclass
class Times:
    """Milliseconds of one candidate, one entry a round: CPU time of all of the process's threads, and wall time."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def of(self, kind: str) -> list[float]:
        return getattr(self, kind)


@dataclass
class Row:
    """One comparison. `ours` and `peer` are medians in `KINDS[kind]`; `ratio` is the median of the rounds' ours / peer,
    `other_ratio` the same of the other clock (wall where `kind` is cpu). `target` is the largest ratio that was aimed
    at, or None. A peer that isn't there leaves `peer` and `ratio` None and says why in `note`."""

    area: str
    job: str
    name: str
    ours: float | None
    peer_name: str
    peer: float | None
    ratio: float | None
    kind: str = "wall"
    other_ratio: float | None = None
    target: float | None = None
    rounds: int = 0
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing to compare with."""
        return None if self.target is None or self.ratio is None else self.ratio <= self.target

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def race(candidates: dict[str, Callable[[], Any]], rounds: int, *, warmup: int = 1) -> dict[str, Times]:
    """Runs the candidates in turns, `rounds` times after `warmup` uncounted ones, and returns the times of each.

    The garbage collector is off while a candidate runs and clears up between two, so that nobody pays for another's
    litter. What a candidate returns is dropped after its clock stopped.
    """
    times = {name: Times() for name in candidates}
    collecting = gc.isenabled()
    try:
        for number in range(warmup + rounds):
            for name, job in candidates.items():
                gc.collect()
                gc.disable()
                cpu, wall = time.process_time(), time.perf_counter()
                result = job()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                del result
                if number >= warmup:
                    times[name].cpu.append(cpu * 1e3)
                    times[name].wall.append(wall * 1e3)
    finally:
        gc.enable() if collecting else gc.disable()
    return times


def ratio(ours: list[float], peer: list[float]) -> float:
    """Median of the rounds' ours / peer. A peer that ran fewer rounds (a very slow one) is taken by its median."""
    if len(ours) != len(peer):
        return statistics.median(ours) / statistics.median(peer)
    return statistics.median(a / b for a, b in zip(ours, peer, strict=True))


def compare(
    times: dict[str, Times],
    name: str,
    peer_name: str,
    *,
    area: str,
    job: str,
    kind: str = "wall",
    target: float | None = None,
    note: str = "",
) -> Row:
    """The row for `name` against `peer_name`, both keys of `times`."""
    ours, peer = times[name], times[peer_name]
    other = "cpu" if kind == "wall" else "wall"
    return Row(
        area=area,
        job=job,
        name=name,
        ours=statistics.median(ours.of(kind)),
        peer_name=peer_name,
        peer=statistics.median(peer.of(kind)),
        ratio=ratio(ours.of(kind), peer.of(kind)),
        kind=kind,
        other_ratio=ratio(ours.of(other), peer.of(other)),
        target=target,
        rounds=len(peer.of(kind)),
        note=note,
    )


def absent(name: str, ours: Times | None, peer_name: str, reason: str, *, area: str, job: str, kind: str) -> Row:
    """A row for a peer that could not run here, so that the table says so instead of leaving it out."""
    value = statistics.median(ours.of(kind)) if ours else None
    return Row(area, job, name, value, peer_name, None, None, kind=kind, note=reason)


class NotEqualError(AssertionError):
    """Two candidates gave different results, so timing them would compare nothing."""


def require_close(what: str, difference: float, tolerance: float) -> None:
    """Raises NotEqualError unless `difference` is a number up to `tolerance`."""
    if not difference <= tolerance:  # a NaN fails too
        raise NotEqualError(f"{what}: results differ by {difference:g} and {tolerance:g} is allowed; not timed.")
