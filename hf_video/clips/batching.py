"""Clips of many videos, read in this process or in others, through a model in batches of equal shape, and back to the
videos they came from."""

from __future__ import annotations

import contextlib
import itertools
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

    def vectors(self, *, joined: bool = False) -> np.ndarray:
        """(windows, classes): the mean of the views of each window, or `joined` (windows, views · classes) all of them.
        Raises the video's error."""
        if self.error is not None:
            raise self.error
        views = [self.views(number) for number in range(len(self.seen))]
        return np.stack([one.flatten().numpy() if joined else one.mean(0).numpy() for one in views])


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
    with _closed(videos):
        for (result,) in run_models(numbered, [forward], batch_size=batch_size):
            yield result


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
    with _closed(videos):
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


def _closed(videos: Iterable[Any]) -> contextlib.AbstractContextManager[Any]:
    """Closes a generator at the end: the traceback of an error would keep it, and a thread that reads for it."""
    return contextlib.closing(videos) if isinstance(videos, Generator) else contextlib.nullcontext()


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


# What is handed over at once of a video that is read elsewhere: more clips than a forward takes, in bytes of model
# inputs and in number (each tensor that crosses to another process holds a file descriptor).
PART_BYTES, PART_EVENTS = 16 * 2**20, 32
# What a thread has read, or is reading, before it is asked for: as many parts like the last as have these bytes. So
# clips of several videos fill the next batch while the model has this one.
BYTES_AHEAD, LEAST_AHEAD, MOST_AHEAD = 64 * 2**20, 2, 16

AnyEvent = TypeVar("AnyEvent", Event, tuple[int, Event])
Part = tuple[list[Any], bool]  # events of a video, and whether they are its last


def read_each(
    videos: Videos, read: Callable[[Any], Iterable[AnyEvent]], num_workers: int | None
) -> Generator[Iterable[AnyEvent], None, None]:
    """Reads many videos, ahead of their use but with 0 workers.

    Args:
        videos: With a length, or read in this process.
        read: What gives the events of a video, or numbered ones; it runs in the workers.
        num_workers: Processes that read. None: one thread of this process, which reads the next clips, or videos, while
            those before them are used. 0: each video is read when its events are asked for.

    Returns:
        `read(video)` of each, in order. The events of one can be taken until those of the next are asked for.
    """
    if num_workers == 0:
        return (read(video) for video in each(videos))
    if num_workers is None or not isinstance(videos, VideoList):
        return _by_video(_read_ahead(_parts(each(videos), read)))
    return _by_video(_read_elsewhere(videos, read, min(num_workers, len(videos))))


def _by_video(parts: Generator[Part, None, None]) -> Generator[Iterable[Any], None, None]:
    with contextlib.closing(parts):
        for part in parts:
            events = _until_end(itertools.chain([part], parts))
            yield events
            deque(events, maxlen=0)  # of a video that was given up the rest is not the next one's


def _until_end(parts: Iterable[Part]) -> Iterator[Any]:
    for events, is_last in parts:
        yield from events
        if is_last:
            return


def _parts(videos: Iterable[Any], read: Callable[[Any], Iterable[Any]]) -> Generator[Part, None, None]:
    for video in videos:
        part: list[Any] = []
        size = 0
        for event in read(video):
            part.append(event)
            size += _bytes(event)
            if size > PART_BYTES or len(part) >= PART_EVENTS:
                yield part, False
                part, size = [], 0
        yield part, True


def _bytes(event: Any) -> int:
    event = event[1] if isinstance(event, tuple) else event
    return sum(value.nbytes for value in event.inputs.values()) if isinstance(event, ClipInputs) else 0


def _read_ahead(parts: Generator[Part, None, None]) -> Generator[Part, None, None]:
    """The same parts, made by a thread. It ends with this generator, after the part that it is making."""
    ended: Part = ([], True)
    threads = torch.get_num_threads()
    # The first call in a thread sets that thread to torch's own number. Made later, it would undo the 1 below.
    with ThreadPoolExecutor(1, "hf_video-reader", initializer=torch.get_num_threads) as reader:
        try:
            if threads > 1:
                # Sets how many torch takes for what this thread does, and what new threads begin with. A reader with
                # several would wait, at every resize, for cores that the model has.
                reader.submit(torch.set_num_threads, 1).result()
                torch.set_num_threads(threads)
            ahead = deque(reader.submit(next, parts, ended) for _ in range(LEAST_AHEAD))
            while (part := ahead.popleft().result()) is not ended:
                likely = BYTES_AHEAD // max(1, sum(map(_bytes, part[0])))
                missing = min(max(likely, LEAST_AHEAD), MOST_AHEAD) - len(ahead)
                ahead.extend(reader.submit(next, parts, ended) for _ in range(missing))
                yield part
        finally:
            reader.shutdown(cancel_futures=True)
            parts.close()


def _read_elsewhere(videos: VideoList, read: Callable[[Any], Iterable[Any]], count: int) -> Generator[Part, None, None]:
    """The parts that `count` processes make, in order."""
    shares = [iter(DataLoader(_Share(videos, read, n, count), batch_size=None, num_workers=1)) for n in range(count)]
    for number in range(len(videos)):
        for part in shares[number % count]:
            yield part
            if part[1]:
                break


class _Share(IterableDataset[Part]):
    """Every `step`th video from `first` on: what one worker process reads."""

    def __init__(self, videos: VideoList, read: Callable[[Any], Iterable[Any]], first: int, step: int):
        self._videos, self._read, self._first, self._step = videos, read, first, step

    def __iter__(self) -> Iterator[Part]:
        mine = (self._videos[number] for number in range(self._first, len(self._videos), self._step))
        return _parts(mine, self._read)
