"""Which videos a model was trained on: `split.json` in its folder, and how data are divided again as they were then.

    {"version": 1, "data": "my_videos", "options": {"test_size": null, "group_pattern": null},
     "splits": {"train": ["5f0c2a…", …], "test": […]}}

`data` is the last part of the source's name, `options` what it was divided by (null: the default), and `splits` hold a
digest of each video's name (blake2b of 8 bytes, in hexadecimals), so that the file says nothing of anybody's folders.

And which files stand in the divided data twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_video.data.rows import ListedVideo, VideoRow, VideoRows
from hf_video.data.sources.files import canonical_path
from hf_video.data.sources.inspection import in_threads
from hf_video.errors import CheckpointError, DataError
from hf_video.video.frames.part import VideoPart

if TYPE_CHECKING:
    from hf_video.data.types import VideoSource

SPLIT_FILE = "split.json"
VERSION = 1
READ_AT_ONCE = 1 << 20
HEAD = 1 << 16
# Longer names first, where one begins like another.
_HMDB51_ACTIONS = (
    "brush_hair|cartwheel|catch|chew|clap|climb_stairs|climb|dive|draw_sword|dribble|drink|eat|fall_floor|"
    "fencing|flic_flac|golf|handstand|hit|hug|jump|kick_ball|kick|kiss|laugh|pick|pour|pullup|punch|pushup|"
    "push|ride_bike|ride_horse|run|shake_hands|shoot_ball|shoot_bow|shoot_gun|situp|sit|smile|smoke|"
    "somersault|stand|swing_baseball|sword_exercise|sword|talk|throw|turn|walk|wave"
)
# Clips cut from one recording, by the names that well-known data sets give them: the match, or its group, is the
# recording.
KNOWN_GROUPS = (
    re.compile(r"[^/]*_g\d+(?=_c\d+\.)"),  # UCF101: v_Archery_g01_c02.avi
    re.compile(
        r"(?<=/)[\w-]{11}(?=_\d{6}_\d{6}\.)|^[\w-]{11}(?=_\d{6}_\d{6}\.)"
    ),  # Kinetics: <YouTube id>_000010_000020
    re.compile(  # HMDB51: <film>_brush_hair_u_nm_np1_ba_goo_0.avi
        rf"(?:^|/)([^/]+?)_(?:{_HMDB51_ACTIONS})_[fhlu]_(?:cm|nm)_np\d_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+\."
    ),
    re.compile(r"(?:^|/)(?:Fight|NonFight)/([\w-]{8,11})_\d+\.", re.IGNORECASE),  # RWF-2000: Fight/<YouTube id>_0.avi
    re.compile(r"[^/]+?(?=[-_ ](?:clip|scene|part|shot|segment|seg|chunk)[-_ ]?\d+\.)", re.IGNORECASE),
)


@dataclass
class Division:
    """`splits` by the digest of a video's name; see the module."""

    data: str
    splits: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, source: object, splits: Mapping[str, VideoRows], **options: Any) -> Division:
        """That of data as they were just divided."""
        found = {digest(row.name): split for split, rows in splits.items() for row in rows}
        return cls(source_name(source), found, options)

    @classmethod
    def read(cls, folder: str | os.PathLike[str], source: object) -> Division | None:
        """What lies in a model's folder; None where nothing does, or it is of data of another name. Raises
        CheckpointError for a damaged file."""
        path = Path(folder) / SPLIT_FILE
        if not path.is_file():
            return None
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            splits = {one: split for split, digests in given["splits"].items() for one in digests}
            found = cls(given["data"], splits, given.get("options") or {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path} is damaged ({error!r}): it says on which videos a model was trained."
            ) from None
        return found if found.data == source_name(source) else None

    def save(self, folder: str | os.PathLike[str]) -> None:
        splits: dict[str, list[str]] = {}
        for one, split in self.splits.items():
            splits.setdefault(split, []).append(one)
        content = {"version": VERSION, "data": self.data, "options": self.options, "splits": splits}
        (Path(folder) / SPLIT_FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")

    def assign(self, videos: Sequence[ListedVideo]) -> int:
        """Gives videos the split that they had. New ones were not trained on: they are tested, and counted."""
        new = 0
        for video in videos:
            known = self.splits.get(digest(video.name))
            video.split = known or "test"
            new += known is None
        return new

    def trained_on(self, rows: Iterable[VideoRow]) -> list[str]:
        """Names of those that were training videos."""
        return [row.name for row in rows if self.splits.get(digest(row.name)) == "train"]


def digest(name: str) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def source_name(source: object) -> str:
    """The last part of a path; of a name on the Hub the whole; else the kind of object."""
    if not isinstance(source, (str, os.PathLike)):
        return type(source).__name__
    return Path(source).resolve().name if os.path.exists(source) else str(source)


# -- a new division ----------------------------------------------------------------------------------------------------


def assign_groups(videos: Sequence[ListedVideo], pattern: str | None) -> None:
    """Fills in `group` where the source gave none: from the name by a regular expression (its first group, or the
    whole match), or by the names of known data sets. Raises DataError for a pattern that is wrong or never matches."""
    try:
        known = KNOWN_GROUPS if pattern is None else (re.compile(pattern),)
    except re.error as error:
        raise DataError(f"group_pattern={pattern!r} is no regular expression: {error}.") from None
    for video in videos:
        if video.group is None:
            match = next(filter(None, (expression.search(video.name) for expression in known)), None)
            video.group = None if match is None else match.group(1 if match.re.groups else 0)
    if pattern is not None and videos and all(video.group is None for video in videos):
        raise DataError(f"group_pattern={pattern!r} matches none of the names, such as {videos[0].name!r}.")
    # What else shares a file: its parts, and rows that name it twice.
    of_file: dict[str, list[ListedVideo]] = defaultdict(list)
    for video in videos:
        path = video.source.source if isinstance(video.source, VideoPart) else video.source
        if video.group is None and isinstance(path, str):
            of_file[canonical_path(path)].append(video)
    for same in of_file.values():
        if len(same) > 1 or isinstance(same[0].source, VideoPart):
            first = same[0].source
            for video in same:
                video.group = first.source if isinstance(first, VideoPart) else first


def choose_test(videos: Sequence[ListedVideo], test_size: float, seed: int) -> list[bool]:
    """For each video whether it goes to the test side: about `test_size` of each class, whole groups only.

    Every class of two groups or more is on both sides, as far as videos of several classes let it be. The choice
    depends on the names, the groups and the seed, not on the order of the list.
    """
    if not test_size:
        return [False] * len(videos)
    groups: dict[str, list[int]] = defaultdict(list)
    for number, video in enumerate(videos):
        groups[f"\0{video.name}" if video.group is None else video.group].append(number)
    total = Counter(label for video in videos for label in _labels(video))
    # At least one where that leaves one for training, so that no class goes untested.
    wanted = {label: max(min(1, count - 1), round(count * test_size)) for label, count in total.items()}
    shuffled = sorted(groups, key=lambda name: hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest())
    members = {
        group: Counter(label for i in numbers for label in _labels(videos[i])) for group, numbers in groups.items()
    }
    taken: Counter[str] = Counter()
    test: set[str] = set()

    def take(group: str) -> None:
        test.add(group)
        taken.update(members[group])

    def nearer(group: str) -> bool:
        off = {label: wanted[label] - taken[label] for label in members[group]}
        return sum(abs(off[label] - count) for label, count in members[group].items()) < sum(map(abs, off.values()))

    for group in shuffled:
        if _fits(members[group], taken, total) and nearer(group):
            take(group)
    for group in sorted(shuffled, key=lambda name: len(groups[name])):  # a class of large groups gives its smallest
        if any(wanted[label] and not taken[label] for label in members[group]) and _fits(members[group], taken, total):
            take(group)
    chosen = [False] * len(videos)
    for number in (number for group in test for number in groups[group]):
        chosen[number] = True
    return chosen


def _labels(video: ListedVideo) -> tuple[Any, ...]:
    """Of a video without a label None, which is then shared out like a class."""
    return video.label or (None,) if isinstance(video.label, tuple) else (video.label,)


def _fits(members: Counter[str], taken: Counter[str], total: Counter[str]) -> bool:
    """Whether every class keeps something to train on."""
    return all(taken[label] + count < total[label] for label, count in members.items())


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
    for numbers in equal_bytes(rows):
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


def equal_bytes(videos: Sequence[ListedVideo | VideoRow]) -> list[list[int]]:
    """The numbers of videos whose files are equal to the byte, in groups of two or more."""
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
