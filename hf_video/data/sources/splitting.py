"""An automatic split into training and test videos: each class in proportion, and no recording on both sides."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from hf_video.data.sources.folder import Found
from hf_video.errors import DataError
from hf_video.video.frames.part import VideoPart

# Clips cut from one recording, by the names that well-known data sets give them: the match is the recording.
KNOWN_GROUPS = (
    re.compile(r"[^/]*_g\d+(?=_c\d+\.)"),  # UCF101: v_Archery_g01_c02.avi
    re.compile(
        r"(?<=/)[\w-]{11}(?=_\d{6}_\d{6}\.)|^[\w-]{11}(?=_\d{6}_\d{6}\.)"
    ),  # Kinetics: <YouTube id>_000010_000020
    re.compile(r"[^/]+?(?=[-_ ](?:clip|scene|part|shot|segment|seg|chunk)[-_ ]?\d+\.)", re.IGNORECASE),
)


def assign_groups(videos: Sequence[Found], pattern: str | None) -> None:
    """Fills in `group` where the source gave none: from the name by a regular expression (its first group, or the
    whole match), or by the names of known data sets. Raises DataError for a pattern that is wrong or never matches."""
    known = KNOWN_GROUPS if pattern is None else (_compiled(pattern),)
    for video in videos:
        if video.group is None:
            match = next(filter(None, (expression.search(video.name) for expression in known)), None)
            video.group = None if match is None else match.group(1 if match.re.groups else 0)
    parts = {video.source.source for video in videos if isinstance(video.source, VideoPart)}
    for video in videos if parts else ():
        whole = video.source.source if isinstance(video.source, VideoPart) else video.source
        if video.group is None and isinstance(whole, str) and whole in parts:
            video.group = whole
    if pattern is not None and videos and all(video.group is None for video in videos):
        raise DataError(f"group_pattern={pattern!r} matches none of the names, such as {videos[0].name!r}.")


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DataError(f"group_pattern={pattern!r} is no regular expression: {error}.") from None


def choose_test(videos: Sequence[Found], test_size: float, seed: int) -> list[bool]:
    """For each video whether it goes to the test side: about `test_size` of each class, whole groups only.

    Every class of two groups or more is on both sides, as far as videos of several classes let it be. The choice
    depends on the names, the groups and the seed, not on the order of the list.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, video in enumerate(videos):
        groups[f"\0{video.name}" if video.group is None else video.group].append(number)
    total = Counter(label for video in videos for label in _labels(video))
    # At least one where that leaves one for training, so that no class goes untested.
    wanted = {label: max(min(1, count - 1), round(count * test_size)) for label, count in total.items()}
    shuffled = sorted(groups, key=lambda name: _shuffled(name, seed))
    members = {
        group: Counter(label for i in numbers for label in _labels(videos[i])) for group, numbers in groups.items()
    }
    taken: Counter = Counter()
    test: set[str] = set()

    def take(group: str) -> None:
        test.add(group)
        taken.update(members[group])

    for group in shuffled:
        if _fits(members[group], taken, total) and _nearer(members[group], taken, wanted):
            take(group)
    for group in sorted(shuffled, key=lambda name: len(groups[name])):  # a class of large groups gives its smallest
        if any(wanted[label] and not taken[label] for label in members[group]) and _fits(members[group], taken, total):
            take(group)
    chosen = [False] * len(videos)
    for number in (number for group in test for number in groups[group]):
        chosen[number] = True
    return chosen


def _labels(video: Found) -> tuple[Any, ...]:
    """Of a video without a label None, which is then shared out like a class."""
    return video.label or (None,) if isinstance(video.label, tuple) else (video.label,)


def _fits(members: Counter, taken: Counter, total: Counter) -> bool:
    """Whether every class keeps something to train on."""
    return all(taken[label] + count < total[label] for label, count in members.items())


def _nearer(members: Counter, taken: Counter, wanted: dict) -> bool:
    before = sum(abs(wanted[label] - taken[label]) for label in members)
    return sum(abs(wanted[label] - taken[label] - count) for label, count in members.items()) < before


def _shuffled(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest()
