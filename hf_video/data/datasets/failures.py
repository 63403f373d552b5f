"""What went wrong while training: one line of JSON for each file, written by any worker of any process."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_video.data.rows import Skipped


class FailureLog:
    """An append-only JSONL file. Lines are written whole in one system call, so that workers don't mix theirs; each
    process writes a file's fault once. Without a `path` it is a temporary file, removed with the process that made it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None):
        if path is None:
            handle, path = tempfile.mkstemp(prefix="hf_video_skipped_", suffix=".jsonl")
            os.close(handle)
            weakref.finalize(self, _remove, path, os.getpid())
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._written: set[tuple[str, str]] = set()

    def add(self, entry: Skipped, **more: Any) -> bool:
        """Appends an entry; False where this process wrote it before."""
        key = (entry.name, entry.kind)
        if key in self._written:
            return False
        self._written.add(key)
        line = json.dumps({**entry.as_dict(), **more}, ensure_ascii=False) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode("utf-8", "surrogateescape"))
        finally:
            os.close(handle)
        return True

    def entries(self) -> list[Skipped]:
        """Every entry so far, each file and kind once, in the order in which they came. A line that was cut off (a
        process was killed) is passed over."""
        return list({(entry.name, entry.kind): entry for entry in self._lines()}.values())

    def _lines(self) -> Iterable[Skipped]:
        try:
            text = self.path.read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            return
        for line in text.split("\n"):  # names may hold U+2028, at which splitlines cuts
            try:
                given = json.loads(line)
                yield Skipped(*(given[name] for name in ("name", "reason", "kind", "used")))
            except (ValueError, KeyError, TypeError):
                continue


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # not when a worker that was forked goes
        with contextlib.suppress(OSError):
            os.unlink(path)
