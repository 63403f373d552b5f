"""Clips of many videos, read in this process or in others, through a model in batches of equal shape, and back to the
videos they came from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from hf_video.clips.read import ClipInputs, Event, SeenWindows, each
from hf_video.errors import VideoError
from hf_video.video.frames.types import VideoList, Videos

# Views of one forward where nobody set a batch size: enough to fill a CPU or a small accelerator.
DEFAULT_BATCH = 8

Row = dict[str, torch.Tensor]
Forward = Callable[[Row], torch.Tensor]


@dataclass
class VideoResult:
    """What a model says of a video: what was seen, and the logits (classes,) of each view, by window; or the error.
    `others` is what a model gives that is no tensor.

    The logits of all views lie in one block of memory. A small one for each, which stays while those of clips come and
    go, would leave holes between them that fit no clip, and a process would grow with the length of its videos.
    """

    seen: SeenWindows = field(default_factory=lambda: SeenWindows([], np.zeros((0, 2))))
    others: list[Any] = field(default_factory=list)
    repeated: dict[int, set[int]] = field(default_factory=dict)
    error: VideoError | None = None
    complete: bool = False
    waiting: int = 0
    _logits: torch.Tensor | None = None
    _windows: list[int] = field(default_factory=list)  # of each row of `_logits`, ascending

    @property
    def ready(self) -> bool:
        return self.complete and not self.waiting

    def add(self, window: int, row: Any) -> None:
        """Takes what the model says of a view that waited."""
        self.waiting -= 1
        if not isinstance(row, torch.Tensor):
            self.others.append(row)
            return
        if self._logits is None:
            self._logits = row.new_empty((max(len(self.seen), 1), *row.shape))
        elif len(self._windows) == len(self._logits):  # several views of a window
            self._logits = torch.cat([self._logits, torch.empty_like(self._logits)])
        self._logits[len(self._windows)] = row
        self._windows.append(window)

    def views(self, window: int) -> torch.Tensor:
        """(views, classes): the logits of one window."""
        if self._logits is None:
            raise KeyError(window)
        return self._logits[bisect_left(self._windows, window) : bisect_right(self._windows, window)]

    def vectors(self) -> np.ndarray:
        """(windows, classes): the mean of the views of each window. Raises the video's error."""
        if self.error is not None:
            raise self.error
        return np.stack([self.views(number).mean(0).numpy() for number in range(len(self.seen))])


def run_videos(videos: Iterable[Iterable[Event]], forward: Forward, *, batch_size: int | None) -> Iterator[VideoResult]:
    """Runs a model over the clips of many videos.

    Args:
        videos: The events of each video, as `read_events` gives them.
        forward: Takes stacked rows, such as {"pixel_values": (rows, T, C, H, W)}, and returns logits (rows, classes).
        batch_size: Views of a forward, of several videos where one has fewer; None runs each video on its own, at most
            `DEFAULT_BATCH` views at a time.

    Yields:
        Each video, in order, when its last view is back.
    """
    numbered = (((0, event) for event in events) for events in videos)
    return (result for (result,) in run_models(numbered, [forward], batch_size=batch_size))


def run_models(
    videos: Iterable[Iterable[tuple[int, Event]]], forwards: Sequence[Forward], *, batch_size: int | None
) -> Iterator[list[VideoResult]]:
    """Runs several models over the clips of many videos, each in batches of its own: those that it would have alone.

    Args:
        videos: The events of each video, each with the number of the model that it is for.
        forwards, batch_size: As in `run_videos`.

    Yields:
        For each video, in order, the result of each model.
    """
    batches = [_Batch(forward, batch_size or DEFAULT_BATCH) for forward in forwards]
    waiting: deque[list[VideoResult]] = deque()
    for events in videos:
        results = [VideoResult() for _ in forwards]
        waiting.append(results)
        for number, event in events:
            _take(event, results[number], batches[number])
        for result, batch in zip(results, batches, strict=True):
            result.complete = True
            if batch_size is None:
                batch.run()
        while waiting and all(result.ready for result in waiting[0]):
            yield waiting.popleft()
    for batch in batches:
        batch.run()
    yield from waiting


def _take(event: Event, result: VideoResult, batch: _Batch) -> None:
    if isinstance(event, VideoError):
        result.error = event
    elif isinstance(event, ClipInputs):
        result.repeated.setdefault(event.window, set()).update(event.repeated)
        rows = len(next(iter(event.inputs.values())))
        for row in range(rows):
            batch.add(result, event.window, {name: value[row] for name, value in event.inputs.items()})
    else:
        result.seen = event


class _Batch:
    """Rows that wait for a forward."""

    def __init__(self, forward: Forward, size: int):
        self._forward = forward
        self._size = size
        self._held: list[tuple[VideoResult, int, Row]] = []

    def add(self, result: VideoResult, window: int, row: Row) -> None:
        if self._held and _shapes(self._held[0][2]) != _shapes(row):
            self.run()
        self._held.append((result, window, row))
        result.waiting += 1
        if len(self._held) >= self._size:
            self.run()

    def run(self) -> None:
        held, self._held = self._held, []
        if not held:
            return
        stacked = {name: torch.stack([row[name] for _, _, row in held]) for name in held[0][2]}
        for (result, window, _), row in zip(held, self._forward(stacked), strict=True):
            result.add(window, row)


def _shapes(row: Row) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in row.items()}


# What a worker hands over at once, of each of its videos: more clips than a forward takes, in bytes of model inputs and
# in number (each tensor that crosses to another process holds a file descriptor).
PART_BYTES, PART_EVENTS = 16 * 2**20, 32

AnyEvent = TypeVar("AnyEvent", Event, tuple[int, Event])


def read_each(
    videos: Videos, read: Callable[[Any], Iterable[AnyEvent]], num_workers: int
) -> Iterator[Iterable[AnyEvent]]:
    """Reads many videos, ahead of their use where there are workers.

    Args:
        videos: With a length, or read in this process.
        read: What gives the events of a video, or numbered ones; it runs in the workers.
        num_workers: Processes; 0 reads in this one.

    Returns:
        `read(video)` of each, in order. The events of one must be taken to their end before those of the next.
    """
    count = min(num_workers, len(videos)) if num_workers > 0 and isinstance(videos, VideoList) else 0
    if not count or not isinstance(videos, VideoList):
        return (read(video) for video in each(videos))
    shares = [iter(DataLoader(_Share(videos, read, n, count), batch_size=None, num_workers=1)) for n in range(count)]
    return (_until_end(shares[n % count]) for n in range(len(videos)))


def _until_end(parts: Iterator[tuple[list[AnyEvent], bool]]) -> Iterator[AnyEvent]:
    for events, is_last in parts:
        yield from events
        if is_last:
            return


class _Share(IterableDataset[tuple[list[Any], bool]]):
    """Every `step`th video from `first` on, as parts of its events and whether a part is the video's last: what one
    worker process reads."""

    def __init__(self, videos: VideoList, read: Callable[[Any], Iterable[Any]], first: int, step: int):
        self._videos, self._read, self._first, self._step = videos, read, first, step

    def __iter__(self) -> Iterator[tuple[list[Any], bool]]:
        for number in range(self._first, len(self._videos), self._step):
            part: list[Any] = []
            size = 0
            for event in self._read(self._videos[number]):
                part.append(event)
                event = event[1] if isinstance(event, tuple) else event
                if isinstance(event, ClipInputs):
                    size += sum(value.nbytes for value in event.inputs.values())
                if size > PART_BYTES or len(part) >= PART_EVENTS:
                    yield part, False
                    part, size = [], 0
            yield part, True
