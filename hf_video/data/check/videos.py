"""What is wrong with a folder of videos before a model is trained on it: `hf-video check`."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.data.check.fingerprint import Prints, fingerprint, inspect_and_fingerprint
from hf_video.data.rows import ListedVideo, Skipped, VideoRow, VideoRows
from hf_video.data.sources.inspection import Inspection, in_threads, inspect_video
from hf_video.data.sources.load import inspect_listing, list_source
from hf_video.video.frames.part import VideoPart

if TYPE_CHECKING:
    from hf_video.data.types import DataSource, VideoSource

READ_AT_ONCE = 1 << 20
HEAD = 1 << 16


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


def double_files(splits: Mapping[str, VideoRows]) -> list[str]:
    """Names files that stand twice in data that are about to be trained on.

    Args:
        splits: The rows of each split by its name.

    Returns:
        A sentence for each kind of fault: the same bytes under two labels, in two splits, or simply twice.
    """
    rows = [row for part in splits.values() for row in part]
    split = [name for name, part in splits.items() for _ in part]
    found: dict[str, list[str]] = {}
    for numbers in _equal_bytes(rows):
        shown = ", ".join(f"{rows[i].name} ({split[i]})" for i in numbers[:3])
        if len({rows[i].label for i in numbers}) > 1:
            kind = "under different labels"
        else:
            kind = "in more than one split" if len({split[i] for i in numbers}) > 1 else "twice in one split"
        found.setdefault(kind, []).append(shown + (", …" if len(numbers) > 3 else ""))
    return [
        f"the same file stands {kind}{f' {len(groups)} times' if len(groups) > 1 else ''}: {groups[0]}; `hf-video "
        "check` names all of them, and those of the same content"
        for kind, groups in found.items()
    ]


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
    exact = _equal_bytes(videos)
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


def _equal_bytes(videos: Sequence[ListedVideo | VideoRow]) -> list[list[int]]:
    by_size = defaultdict(list)
    for number, video in enumerate(videos):
        if (size := _size(video.source)) is not None:
            by_size[size].append(number)
    groups = [numbers for numbers in by_size.values() if len(numbers) > 1]
    for most in (HEAD, None):  # of large data sets many files have a size in common, and few a beginning
        alike = [(group, number) for group, numbers in enumerate(groups) for number in numbers]
        digests = in_threads(lambda one, most=most: _digest(videos[one[1]].source, most), alike, "comparing bytes")
        by_digest = defaultdict(list)
        for (group, number), digest in zip(alike, digests, strict=True):
            by_digest[group, digest].append(number)
        groups = [numbers for numbers in by_digest.values() if len(numbers) > 1]
    return groups


def _size(source: VideoSource) -> int | None:
    if isinstance(source, VideoPart):
        return None  # two parts of one file are two videos
    if isinstance(source, str):
        return os.path.getsize(source) if os.path.isfile(source) else None
    return source.size if hasattr(source, "size") else len(source.read())


def _digest(source: VideoSource, most: int | None) -> bytes:
    """Of the first `most` bytes, or of all."""
    digest = hashlib.blake2b(digest_size=16)
    if not isinstance(source, str):
        digest.update(source.read()[:most])
        return digest.digest()
    with open(source, "rb") as file:
        while block := file.read(most or READ_AT_ONCE):
            digest.update(block)
            if most is not None:
                break
    return digest.digest()


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
