"""Clips of many videos, read in this process or in others, through a model in batches of equal shape, and back to the
videos they came from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from hf_video.clips.read import ClipInputs, Event, WindowSample, each
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


# What a worker hands over at once, of each of its videos: more clips than a forward takes, in bytes of model inputs and
# in number (each tensor that crosses to another process holds a file descriptor).
PART_BYTES, PART_EVENTS = 16 * 2**20, 32

Read = Callable[[Any], Iterable[Event]]


def read_each(videos: Any, read: Read, num_workers: int) -> Iterator[Iterable[Event]]:
    """`read(video)` of each, in order. With `num_workers` they are read ahead in as many processes: `videos` must then
    have a length, and the events of one must be taken to their end before those of the next."""
    count = min(num_workers, len(videos)) if num_workers > 0 else 0
    if not count:
        return (read(video) for video in each(videos))
    shares = [iter(DataLoader(_Share(videos, read, n, count), batch_size=None, num_workers=1)) for n in range(count)]
    return (_until_end(shares[n % count]) for n in range(len(videos)))


def _until_end(parts: Iterator[tuple[list[Event], bool]]) -> Iterator[Event]:
    for events, is_last in parts:
        yield from events
        if is_last:
            return


class _Share(IterableDataset[tuple[list[Event], bool]]):
    """Every `step`th video from `first` on, as parts of its events and whether a part is the video's last: what one
    worker process reads."""

    def __init__(self, videos: Any, read: Read, first: int, step: int):
        self._videos, self._read, self._first, self._step = videos, read, first, step

    def __iter__(self) -> Iterator[tuple[list[Event], bool]]:
        for number in range(self._first, len(self._videos), self._step):
            part: list[Event] = []
            size = 0
            for event in self._read(self._videos[number]):
                part.append(event)
                if isinstance(event, ClipInputs):
                    size += sum(value.nbytes for value in event.inputs.values())
                if size > PART_BYTES or len(part) >= PART_EVENTS:
                    yield part, False
                    part, size = [], 0
            yield part, True
