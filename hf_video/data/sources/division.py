"""Which videos a model was trained on: `split.json` in its folder, and how data are divided again as they were then.

    {"version": 1, "data": "my_videos", "options": {"test_size": null, "group_pattern": null},
     "splits": {"train": ["5f0c2a…", …], "test": […]}}

`data` is the last part of the source's name, `options` what it was divided by (null: the default), and `splits` hold a
digest of each video's name (blake2b of 8 bytes, in hexadecimals), so that the file says nothing of anybody's folders.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_video.data.rows import VideoRow, VideoRows
from hf_video.data.sources.folder import Found
from hf_video.errors import CheckpointError

SPLIT_FILE = "split.json"
VERSION = 1


@dataclass
class Division:
    """`splits` by the digest of a video's name; see the module."""

    data: str
    splits: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Any, splits: Mapping[str, VideoRows], **options: Any) -> Division:
        """That of data as they were just divided."""
        found = {digest(row.name): split for split, rows in splits.items() for row in rows}
        return cls(source_name(source), found, options)

    @classmethod
    def read(cls, folder: str | os.PathLike[str], source: Any) -> Division | None:
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

    def assign(self, videos: Sequence[Found]) -> int:
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


def source_name(source: Any) -> str:
    """The last part of a path; of a name on the Hub the whole; else the kind of object."""
    if not isinstance(source, (str, os.PathLike)):
        return type(source).__name__
    return Path(source).resolve().name if os.path.exists(source) else str(source)
