"""A web address as a seekable file: ranges of it where the server allows that, one download where it doesn't."""

from __future__ import annotations

import email.utils
import io
import random
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, HTTPResponse

from hf_video.errors import EmptyFileError, VideoSourceError

BLOCK = 1 << 20
BLOCKS_KEPT = 16
TIMEOUT_SECONDS = 30.0
IN_MEMORY = 32 << 20
ATTEMPTS = 5  # without a new byte among them
FIRST_WAIT = 0.5  # seconds; twice as long each time
LONGEST_WAIT = 60.0  # that a server may ask for
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
# Nothing that waiting helps against, if the server has never answered yet.
HOPELESS = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)


class HttpFile(io.RawIOBase):
    """`url` (http or https) as a read-only binary file.

    A server that answers range requests is asked for blocks of 1 MiB (or `block` bytes), of which the last 16 are kept,
    so that a few frames of a long video cost a few blocks. Another server's answer is stored in a temporary file.

    A busy server (408, 425, 429, 5xx) and a broken connection are tried again, up to 5 times in a row and after waiting
    .5, 1, 2 and 4 s or what `Retry-After` says; what has arrived is kept, and the rest asked for.
    Raises `VideoSourceError` if the address does not answer, now or later, or the file changes while it is read.
    """

    def __init__(self, url: str, *, block: int | None = None):
        self._url = url
        self._size_of_block = block or BLOCK
        self._address = escaped(url)
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._copy = None
        self._answered = False
        self._version: list[str | None] | None = None  # ETag and Last-Modified of the first answer
        first = self._patiently(lambda: self._request(0, self._size_of_block - 1))
        total = _content_range(first)[1]
        if first.status == 206 and total is not None:
            self._size = total
            self._blocks[0] = self._range(0, min(self._size_of_block, total), first)
        elif first.status == 206:  # a part, but of what?
            first.close()
            self._size = self._download(self._patiently(lambda: self._request(None)))
        else:
            self._size = self._download(first)

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
            if self._copy is not None:
                self._copy.seek(self._position)
                part = self._copy.read(end - self._position)
            else:
                number, offset = divmod(self._position, self._size_of_block)
                part = self._block(number)[offset : offset + end - self._position]
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

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * self._size_of_block
            self._blocks[number] = self._range(start, min(self._size_of_block, self._size - start))
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _request(self, start: int | None, end: int | None = None) -> HTTPResponse:
        """The answer to a request for the bytes from `start` to `end` (included; None: to the last), or for all."""
        headers = {"User-Agent": "hf_video", "Accept-Encoding": "identity"}
        if start is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end}"
        response = urllib.request.urlopen(
            urllib.request.Request(self._address, headers=headers), timeout=TIMEOUT_SECONDS
        )
        self._answered = True
        version = [response.headers.get(name) for name in ("ETag", "Last-Modified")]
        self._version = self._version or version
        # The first that both answers have decides; weak tags name what is shown, not its bytes.
        for known, now in zip(self._version, version, strict=True):
            if known and now and not known.startswith("W/"):
                if known != now:
                    response.close()
                    raise VideoSourceError(f"{self._url} has changed on the server while it was read; open it again")
                break
        return response

    def _range(self, start: int, length: int, response: HTTPResponse | None = None) -> bytes:
        """`length` bytes from `start` on, of an answer that has come already or of new ones."""
        data = bytearray()

        def more() -> bool:
            nonlocal response
            had = len(data)
            answer, response = response or self._request(start + had, start + length - 1), None
            with answer:
                first, total = _content_range(answer)
                if answer.status != 206 or first != start + had or total != self._size:
                    raise VideoSourceError(
                        f"{self._url} answered with other bytes than those from {start + had} on (status "
                        f"{answer.status}, {answer.headers.get('Content-Range') or 'no Content-Range'}): it has "
                        "changed on the server; open it again"
                    )
                return self._arrived(answer, data.extend, lambda: len(data), had, length)

        while not self._patiently(more):
            time.sleep(FIRST_WAIT)
        return bytes(data[:length])

    def _download(self, response: HTTPResponse | None) -> int:
        """Everything, into a temporary file; a connection that breaks is taken up again where the server can."""
        self._copy = copy = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed with this object
        stated = response.headers.get("Content-Length")
        length = int(stated) if stated and stated.isdigit() else None
        furthest = 0

        def more() -> bool:
            nonlocal response, furthest
            had = copy.tell()
            answer, response = response or self._request(had or None), None
            with answer:
                if answer.status == 206 and _content_range(answer)[0] != had:
                    raise VideoSourceError(f"{self._url} answered with other bytes than those from {had} on")
                if answer.status != 206:  # from the start again
                    copy.seek(0)
                    copy.truncate()
                furthest, before = max(furthest, had), max(furthest, had)
                return self._arrived(answer, copy.write, copy.tell, before, length)

        while not self._patiently(more):
            time.sleep(FIRST_WAIT)
        return copy.tell()

    @staticmethod
    def _arrived(
        answer: HTTPResponse, keep: Callable, count: Callable[[], int], before: int, length: int | None
    ) -> bool:
        """Keeps what an answer brings, and says whether that is all. Where the connection breaks after something new
        came, it isn't; where nothing did, what broke it is raised."""
        try:
            while part := answer.read(BLOCK):
                keep(part)
        except (HTTPException, OSError):
            if count() <= before:
                raise
            return False
        if length is None or count() >= length:
            return True
        if count() <= before:
            raise ConnectionError(f"the connection closed after {count()} of {length} bytes")
        return False

    def _patiently(self, attempt: Callable):
        """What `attempt` returns, tried again while the server is busy or the connection breaks."""
        for number in range(1, ATTEMPTS + 1):
            last, wait = number == ATTEMPTS, FIRST_WAIT * 2 ** (number - 1) * random.uniform(0.75, 1.25)
            try:
                return attempt()
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416:  # not even byte 0 exists
                    raise EmptyFileError(f"{self._url} is empty (0 bytes)") from None
                asked = _retry_after(error.headers)
                if last or error.code not in BUSY or (asked or 0) > LONGEST_WAIT:
                    raise VideoSourceError(self._refused(error, number, asked)) from None
                wait = wait if asked is None else asked
            except (urllib.error.URLError, HTTPException, OSError) as error:
                reason = getattr(error, "reason", None) or error
                hopeless = isinstance(reason, (*HOPELESS, str)) and not self._answered
                if last or hopeless:
                    raise VideoSourceError(f"{self._url} can't be reached: {reason}") from None
            except ValueError as error:  # an address that is none
                raise VideoSourceError(f"{self._url} can't be reached: {error}") from None
            time.sleep(wait)
        return None  # not reached: the last attempt returns or raises

    def _refused(self, error: urllib.error.HTTPError, number: int, asked: float | None) -> str:
        answer = f"{self._url} answers {error.code} {error.reason}"
        if error.code not in BUSY:
            return f"{answer}; check the address and your access to it"
        if asked is not None and asked > LONGEST_WAIT:
            return f"{answer} and asks to be left alone for {asked:.0f} s; try again then"
        return f"{answer}, also at attempt {number}; try again later"


def escaped(url: str) -> str:
    """The address as it is sent: blanks and letters beyond ASCII escaped, names of hosts by IDNA, escapes kept."""
    parts = urllib.parse.urlsplit(url.strip())
    try:
        host = parts.netloc.encode("ascii").decode()
    except UnicodeEncodeError:
        host = parts.netloc.encode("idna").decode()
    kept = "/%:@!$&'()*+,;=~"
    path, query = (
        urllib.parse.quote(part, safe=kept + extra) for part, extra in ((parts.path, ""), (parts.query, "?"))
    )
    return urllib.parse.urlunsplit((parts.scheme, host, path or "/", query, ""))


def _content_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """First byte and total of `Content-Range: bytes 0-99/1000`, None for what it doesn't say."""
    place, _, total = (response.headers.get("Content-Range") or "").rpartition("/")
    first = place.removeprefix("bytes").strip().partition("-")[0]
    return int(first) if first.isdigit() else None, int(total) if total.isdigit() else None


def _retry_after(headers: Message | None) -> float | None:
    """Seconds that a server asks to wait, which it says in seconds or as a date."""
    text = headers.get("Retry-After") if headers is not None else None
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
