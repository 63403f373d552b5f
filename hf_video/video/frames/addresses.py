"""What a text is that names a video: a path, a file:// address, which is a path too, or an address on the web; and the
order of such names."""

from __future__ import annotations

import os
import re
import urllib.parse
import urllib.request

from hf_video.errors import VideoSourceError, near_path

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # of one letter it would be a Windows drive


def scheme_of(text: str) -> str:
    """ "http", "file", ... in lower case; "" for what is a path."""
    found = SCHEME.match(text)
    return found[1].lower() if found else ""


def local_path(path: str | os.PathLike[str]) -> str:
    """A path as it is, and a file:// address as the path that it names (`file:///a%20b.mp4` is `/a b.mp4`); other
    addresses unchanged. Raises VideoSourceError for a file of another machine."""
    text = os.fsdecode(path)
    if scheme_of(text) != "file":
        return text
    parts = urllib.parse.urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise VideoSourceError(
            f"{text!r} names a file on the machine {parts.netloc!r}; write file:///path, or the path"
        )
    return urllib.request.url2pathname(parts.path)


def missing_path(text: str) -> VideoSourceError:
    """The error for a path where nothing is: what it may be that keeps it from being found."""
    if os.path.islink(text):
        to = os.readlink(text)
        annex = ".git/annex/objects" in to.replace(os.sep, "/")
        what = "get the file with `git annex get`" if annex else "restore that file, or change the link"
        return VideoSourceError(f"{text!r} is a link to {to!r}, where nothing is; {what}")
    near = near_path(text)
    hint = f"check the path.{near}" if near else "check the path"
    if "\\" in text and os.sep == "/":
        turned = text.replace("\\", "/")
        found = os.path.exists(turned)
        hint = f"did you mean {turned!r}?" if found else 'folders are separated by "/" here, not by "\\"'
    return VideoSourceError(f"{text!r} does not exist (looked in {os.getcwd()}); {hint}")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts numbers within names by value: frame2 before frame10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(p), p) if p[0].isdecimal() else (1, 0, p.lower()) for p in parts]
