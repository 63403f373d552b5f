"""Where the bytes of an encoded video come from: a path, memory, a file object or a URL.

A `Media` can be pickled and opened any number of times, each time from the first byte and with an offset of its own;
that is what makes readers safe in worker processes.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from hf_video.errors import EmptyFileError, VideoSourceError
from hf_video.video.decode.http_file import HttpFile


@dataclass
class Media:
    """`kind` is `path`, `bytes` or `url`, or `file` for a file object that is none of these (not picklable then);
    `value` is the path, the bytes, the URL or the object; `label` names it in messages. `track` is the number of the
    stream to read, None for the main one."""

    kind: str
    value: Any
    label: str
    track: int | None = None
    _opened: HttpFile | None = field(default=None, repr=False, compare=False)

    def open(self) -> str | BinaryIO:
        """What FFmpeg opens. A path is marked as one, since `a:b.mp4` would be taken for a protocol."""
        if self.kind == "path":
            return f"file:{self.value}"
        return self.stream()

    def stream(self) -> BinaryIO:
        """A binary file object at the first byte, that the caller closes."""
        if self.kind == "path":
            return open(self.value, "rb")
        if self.kind == "bytes":
            return io.BytesIO(self.value)
        if self.kind == "url":
            opened, self._opened = self._opened, None
            if opened is None:
                return HttpFile(self.value)
            opened.seek(0)
            return opened
        return _Borrowed(self.value)

    def head(self, size: int = 256) -> bytes:
        """The first bytes. Raises `EmptyFileError` if there are none, `VideoSourceError` if it can't be read."""
        try:
            file = self.stream()
            head = file.read(size)
        except OSError as error:
            raise VideoSourceError(f"{self.label} can't be read: {error.strerror or error}") from None
        if self.kind == "url" and head:
            self._opened = file  # the request that answered is used on
        else:
            file.close()
        if not head:
            raise EmptyFileError(f"{self.label} is empty (0 bytes); was it downloaded or copied completely?")
        return head

    def __getstate__(self) -> dict[str, Any]:
        kind, value = self.kind, self.value
        if kind == "file":
            with self.stream() as file:
                kind, value = "bytes", file.read()
        return {"kind": kind, "value": value, "label": self.label, "track": self.track, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Borrowed(io.RawIOBase):
    """Somebody's seekable file object, read from its first byte and left open."""

    def __init__(self, file: BinaryIO):
        self._borrowed = file
        file.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._borrowed.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._borrowed.seek(offset, whence)

    def tell(self) -> int:
        return self._borrowed.tell()


def media_from_path(path: str) -> Media:
    return Media("path", os.path.abspath(path), path)


def media_from_bytes(data: bytes | bytearray | memoryview) -> Media:
    return Media("bytes", bytes(data), f"the buffer of {len(data)} bytes")


def media_from_url(url: str) -> Media:
    return Media("url", url, url)


def media_from_file(file: Any) -> Media:
    """A binary file object, read from its first byte whatever its position.

    One that stands for a file on disk is taken as that path: file objects share one offset between processes, paths
    don't. One that can't seek (a pipe, a response body) is read into memory.
    """
    name = getattr(file, "name", None)
    label = name if isinstance(name, str) else f"the {type(file).__name__} object"
    if isinstance(name, str) and os.path.isfile(name) and _is_same_file(file, name):
        return media_from_path(name)
    seekable = getattr(file, "seekable", None)
    try:
        if seekable is not None and seekable():
            file.seek(0)
            if not isinstance(file.read(0), bytes):
                raise VideoSourceError(f"{label} is opened in text mode; open it with 'rb'")
            return Media("file", file, label)
        data = file.read()
    except (OSError, ValueError) as error:
        raise VideoSourceError(f"{label} can't be read: {error}") from None
    if not isinstance(data, bytes):
        raise VideoSourceError(f"{label} gives {type(data).__name__}, not bytes; open it in binary mode")
    return Media("bytes", data, label)


def _is_same_file(file: Any, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(name))
    except (OSError, AttributeError, ValueError):
        return False
