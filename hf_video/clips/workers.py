"""What is read of many videos, in this process or in others, handed on bit by bit: a long video is never held whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from hf_video.clips.read import ClipInputs, Event
from hf_video.clips.sources import each

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


class _Share(IterableDataset):
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
