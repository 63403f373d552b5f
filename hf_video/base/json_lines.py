"""An append-only file of JSON objects, one on each line, from which a stopped run goes on.

Each line is written whole and at once. What a kill cut off, and whatever lies behind it, is dropped when the file is
opened again. Text is in ASCII, since names of files need not be UTF-8.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Reads the whole lines of a file.

    Args:
        path: The file; it need not be there.

    Returns:
        Their objects, and how many bytes they take.
    """
    found: list[dict[str, Any]] = []
    size = 0
    if path.exists():
        with open(path, "rb") as file:
            while (entry := _entry(line := file.readline())) is not None:
                found.append(entry)
                size += len(line)
    return found, size


class JsonLines:
    """Appends lines to a file.

    Args:
        path: The file; its folder is made. None keeps nothing.
        size: The bytes of it that are kept; 0 begins anew.
    """

    def __init__(self, path: Path | None, size: int = 0):
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab")  # noqa: SIM115 - closed by `__exit__`
            self._file.truncate(size)

    def write(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry).encode("ascii") + b"\n")
            self._file.flush()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _entry(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
