"""What is wrong with a folder of videos before a model is trained on it: `hf-video check`."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.data.check.fingerprint import Prints, fingerprint, inspect_and_fingerprint
from hf_video.data.rows import ListedVideo, Skipped
from hf_video.data.sources.division import equal_bytes
from hf_video.data.sources.inspection import Inspection, in_threads, inspect_video
from hf_video.data.sources.load import inspect_listing, list_source

if TYPE_CHECKING:
    from hf_video.data.types import DataSource


@dataclass(frozen=True)
class Duplicates:
    """Videos that are the same, by name. `exact`: to the byte; else by what they show."""

    names: tuple[str, ...]
    exact: bool


@dataclass
class CheckReport:
    """`classes`: videos of each class in each split ("all" where there are none). `faults`: what can't be used or
    deserves a look. `duplicates`: all groups of the same video; `leaks`: those of them that stand in more than one
    split; `conflicts`: those with more than one label. `sizes`, `rates` (frames a second), `codecs`: how many videos of
    each; `seconds`: shortest, median and longest. `imbalance`: largest class / smallest, by split; `splits`: videos of
    each split."""

    root: str
    videos: int
    classes: dict[str, dict[str, int]]
    faults: list[Skipped]
    duplicates: list[Duplicates] = field(default_factory=list)
    leaks: list[Duplicates] = field(default_factory=list)
    conflicts: list[Duplicates] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    rates: dict[str, int] = field(default_factory=dict)
    codecs: dict[str, int] = field(default_factory=dict)
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)
    imbalance: dict[str, float] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was found; files such as a README at the top are no fault, nor is imbalance."""
        return not self.duplicates and all(fault.kind == "other" for fault in self.faults)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "clean": self.clean}


def check_videos(
    source: DataSource,
    *,
    level: str = "full",
    content: bool = True,
    num_frames: int = 4,
    data_format: str | None = None,
    videos: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[CheckReport, list[ListedVideo]]:
    """Opens or decodes every video of a source and compares them with each other.

    Args:
        source, data_format, videos, cache_dir: As in `load_videos`.
        level: "open" opens each file and decodes its first frame, "full" decodes all.
        content: Whether videos are compared by what they show too, not by their bytes alone.
        num_frames: Number of frames below which a video is named as short.

    Returns:
        The report, and the videos that can be used.

    Raises:
        DataError: There are no videos, or none that can be read.
    """
    listing = list_source(source, data_format, videos=videos)
    prints = _Prints(listing.videos)
    look = prints.inspect if content and level == "full" else None
    inspect_listing(listing, level, num_frames=num_frames, cache_dir=cache_dir, look=look)
    videos = listing.videos
    groups = find_duplicates(videos, content=content, prints=prints)
    by_name = {video.name: video for video in videos}
    classes = _classes(videos)
    return CheckReport(
        root=listing.root,
        videos=len(videos),
        classes=classes,
        faults=listing.skipped,
        duplicates=groups,
        leaks=[group for group in groups if len({by_name[name].split for name in group.names}) > 1],
        conflicts=[group for group in groups if len({by_name[name].label for name in group.names}) > 1],
        imbalance={
            split: round(max(counts.values()) / min(counts.values()), 2)
            for split, counts in classes.items()
            if len(counts) > 1
        },
        splits=dict(Counter(video.split or "all" for video in videos)),
        **_facts([video.inspection for video in videos if video.inspection is not None]),
    ), videos


def _classes(videos: list[ListedVideo]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter] = defaultdict(Counter)
    for video in videos:
        labels = video.label if isinstance(video.label, tuple) else (video.label,)
        found[video.split or "all"].update(label or "" for label in labels)
    return {split: dict(counts) for split, counts in found.items()}


def _facts(abouts: list[Any]) -> dict[str, Any]:
    seconds = np.array([about.seconds for about in abouts] or [0.0])
    return {
        "sizes": _ranked(f"{about.width}x{about.height}" for about in abouts),
        "rates": _ranked(f"{about.fps:.4g}" for about in abouts),
        "codecs": _ranked(about.codec for about in abouts),
        "seconds": tuple(round(float(part), 3) for part in (seconds.min(), np.median(seconds), seconds.max())),
    }


def _ranked(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


# -- duplicates -------------------------------------------------------------------------------------------------------


class _Prints:
    """Fingerprints of videos, taken while they are inspected where one decode does for both."""

    def __init__(self, videos: list[ListedVideo]):
        self.number = {id(video): number for number, video in enumerate(videos)}
        self.found = Prints(len(videos))

    def inspect(self, video: ListedVideo) -> Inspection:
        both = inspect_and_fingerprint(video.source)
        if both is None:
            return inspect_video(video.source, level="full")
        self.found.put(self.number[id(video)], both[1])
        return both[0]

    def complete(self, videos: list[ListedVideo]) -> None:
        """Looks at those that have none yet."""
        left = [video for video in videos if not self.found.known[self.number[id(video)]]]
        prints = in_threads(lambda video: fingerprint(video.source), left, "looking at videos")
        for video, one in zip(left, prints, strict=True):
            self.found.put(self.number[id(video)], one)


def find_duplicates(
    videos: list[ListedVideo], *, content: bool = True, prints: _Prints | None = None
) -> list[Duplicates]:
    """Finds videos that are there more than once.

    Args:
        videos: Of a listing, inspected or not.
        content: Whether videos that show the same are found too, besides files that are equal to the byte.
        prints: Fingerprints that are known already.

    Returns:
        Groups of two or more: first those that are equal to the byte, then those that show the same.
    """
    exact = equal_bytes(videos)
    groups = [Duplicates(tuple(videos[i].name for i in group), True) for group in exact]
    if not content:
        return groups
    # One of each group of equal files stands for all of them.
    meant = {i: [i] for i in range(len(videos))}
    for group in exact:
        meant[group[0]] = group
        for i in group[1:]:
            del meant[i]
    prints = _Prints(videos) if prints is None else prints
    prints.complete([videos[i] for i in meant])
    place = {prints.number[id(videos[i])]: i for i in meant}
    pairs = [(place[a], place[b]) for a, b in prints.found.same_content(list(place))]
    for group in _joined(pairs):
        members = sorted(i for one in group for i in meant[one])
        groups.append(Duplicates(tuple(videos[i].name for i in members), False))
    return groups


def _joined(pairs: list[tuple[int, int]]) -> list[set[int]]:
    """Pairs to groups: what is the same as the same is the same."""
    above: dict[int, int] = {}

    def top(number: int) -> int:
        while above.get(number, number) != number:
            number = above[number]
        return number

    for first, second in pairs:
        low, high = sorted((top(first), top(second)))
        above[high] = low
        above.setdefault(low, low)
    groups = defaultdict(set)
    for number in sorted(above):
        groups[top(number)].add(number)
    return list(groups.values())
