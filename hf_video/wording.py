"""Parts of messages: the near match of a mistyped name, and counts with their noun."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


def nearest(name: object, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that is most like this one, upper and lower case alike; None where none is near."""
    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else None


def did_you_mean(name: object, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """` Did you mean 'uniform'?` to put behind a sentence, or nothing where no known name is near."""
    close = nearest(name, known, cutoff=cutoff)
    return f" Did you mean {close!r}?" if close else ""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`counted(1, "video")` is "1 video", `counted(2000, "video")` "2,000 videos"; `plural` where -s is wrong."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def near_path(path: str | os.PathLike[str], *, folders: bool = False) -> str:
    """` Is it 'videos'?` for a path where nothing is: the nearest name beside it (of a folder, with `folders`), or the
    first folder of it that isn't there."""
    path = os.fspath(path)
    if "\\" in path and os.path.exists(path.replace("\\", "/")):
        return f" Is it {path.replace(chr(92), '/')!r}?"
    above, last = os.path.split(os.path.expanduser(path).rstrip("/\\"))
    try:
        names = [one for one in os.listdir(above or ".") if not folders or os.path.isdir(os.path.join(above, one))]
    except OSError:
        return f" Nor is there {above!r}." if above else ""
    close = nearest(last, names)
    return f" Is it {os.path.join(above, close)!r}?" if close else ""


def without_name(reason: str, name: str) -> str:
    """A reason that begins with its file's name, such as "a.mp4 is empty", for a line that names the file first."""
    for begin in (f"{name} ", f"{name!r} ", f"{name}: "):
        if reason.startswith(begin):
            return reason.removeprefix(begin)
    return reason
