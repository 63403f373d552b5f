"""Clips of many videos through a model in batches of equal shape, and back to the videos they came from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch

from hf_video.clips.read import ClipInputs, Event, WindowSample
from hf_video.errors import VideoError

# Views of one forward where nobody set a batch size: enough to fill a CPU or a small accelerator.
DEFAULT_BATCH = 8

Row = dict[str, torch.Tensor]
Forward = Callable[[Row], torch.Tensor]


@dataclass
class Job:
    """A video on its way: what was seen, and the logits (classes,) of each view, by window."""

    seen: list[WindowSample] = field(default_factory=list)
    logits: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    repeated: dict[int, set[int]] = field(default_factory=dict)
    error: VideoError | None = None
    complete: bool = False
    waiting: int = 0

    @property
    def ready(self) -> bool:
        return self.complete and not self.waiting


def run_jobs(videos: Iterable[Iterable[Event]], forward: Forward, *, batch_size: int | None) -> Iterator[Job]:
    """Runs the model over the clips of all videos and yields each video, in order, when its last view is back.

    `batch_size` views make a forward, of several videos where one has fewer; None runs each video on its own, at most
    `DEFAULT_BATCH` views at a time. `forward` takes stacked rows and returns logits (rows, classes).
    """
    batch = _Batch(forward, batch_size or DEFAULT_BATCH)
    jobs: deque[Job] = deque()
    for events in videos:
        job = Job()
        jobs.append(job)
        for event in events:
            _take(event, job, batch)
        job.complete = True
        if batch_size is None:
            batch.run()
        while jobs and jobs[0].ready:
            yield jobs.popleft()
    batch.run()
    yield from jobs


def _take(event: Event, job: Job, batch: _Batch) -> None:
    if isinstance(event, VideoError):
        job.error = event
    elif isinstance(event, ClipInputs):
        job.repeated.setdefault(event.window, set()).update(event.repeated)
        rows = len(next(iter(event.inputs.values())))
        for row in range(rows):
            batch.add(job, event.window, {name: value[row] for name, value in event.inputs.items()})
    else:
        job.seen = event


class _Batch:
    """Rows that wait for a forward."""

    def __init__(self, forward: Forward, size: int):
        self._forward = forward
        self._size = size
        self._held: list[tuple[Job, int, Row]] = []

    def add(self, job: Job, window: int, row: Row) -> None:
        if self._held and _shapes(self._held[0][2]) != _shapes(row):
            self.run()
        self._held.append((job, window, row))
        job.waiting += 1
        if len(self._held) >= self._size:
            self.run()

    def run(self) -> None:
        held, self._held = self._held, []
        if not held:
            return
        stacked = {name: torch.stack([row[name] for _, _, row in held]) for name in held[0][2]}
        for (job, window, _), logits in zip(held, self._forward(stacked), strict=True):
            job.logits.setdefault(window, []).append(logits)
            job.waiting -= 1


def _shapes(row: Row) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in row.items()}
