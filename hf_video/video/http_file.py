"""A web address as a seekable file: ranges of it where the server allows that, one download where it doesn't."""

from __future__ import annotations

import contextlib
import io
import tempfile
import urllib.error
import urllib.request
from collections import OrderedDict
from http.client import HTTPException, HTTPResponse

from hf_video._version import __version__
from hf_video.errors import EmptyFileError, VideoSourceError

BLOCK = 1 << 20
BLOCKS_KEPT = 16
TIMEOUT_SECONDS = 30.0
IN_MEMORY = 32 << 20


class HttpFile(io.RawIOBase):
    """`url` (http or https) as a read-only binary file.

    A server that answers range requests is asked for blocks of 1 MiB, of which the last 16 are kept, so that a few
    frames of a long video cost a few blocks. Another server's answer is stored in a temporary file.
    Raises `VideoSourceError` if the address does not answer, now or later.
    """

    def __init__(self, url: str):
        self._url = url
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._copy = None
        with self._request(0) as first:
            total = (first.headers.get("Content-Range") or "").rpartition("/")[2]
            ranges, partial = total.isdigit(), first.status == 206
            if ranges and partial:
                self._size = int(total)
                self._blocks[0] = self._drain(first)
            elif not partial:
                self._size = self._download(first)
        if partial and not ranges:  # a part, but of what?
            with self._request(None) as whole:
                self._size = self._download(whole)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._position + size)
        parts = []
        while self._position < end:
            part = self._piece(end)
            if not part:
                break
            parts.append(part)
            self._position += len(part)
        return b"".join(parts)

    def close(self) -> None:
        if self._copy is not None:
            self._copy.close()
        self._blocks.clear()
        super().close()

    def _piece(self, end: int) -> bytes:
        if self._copy is not None:
            self._copy.seek(self._position)
            return self._copy.read(end - self._position)
        number, offset = divmod(self._position, BLOCK)
        return self._block(number)[offset : offset + end - self._position]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            with self._request(number * BLOCK) as response:
                self._blocks[number] = self._drain(response)
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _request(self, start: int | None) -> HTTPResponse:
        """The answer to a request for the block that starts at byte `start`, or for everything."""
        headers = {"User-Agent": f"hf_video/{__version__}"}
        if start is not None:
            headers["Range"] = f"bytes={start}-{start + BLOCK - 1}"
        with self._translated():
            return urllib.request.urlopen(urllib.request.Request(self._url, headers=headers), timeout=TIMEOUT_SECONDS)

    def _drain(self, response: HTTPResponse) -> bytes:
        with self._translated():
            return response.read()

    def _download(self, response: HTTPResponse) -> int:
        self._copy = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed with this object
        with self._translated():
            while part := response.read(BLOCK):
                self._copy.write(part)
        return self._copy.tell()

    @contextlib.contextmanager
    def _translated(self):
        try:
            yield
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # not even byte 0 exists
                raise EmptyFileError(f"{self._url} is empty (0 bytes)") from None
            raise VideoSourceError(
                f"{self._url} answers {error.code} {error.reason}; check the address and your access to it"
            ) from None
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise VideoSourceError(f"{self._url} can't be reached: {reason}") from None
