"""HTTP as the loopback Hub speaks it: bodies piece by piece, answers, a record of every request, and disturbances."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from store import HubError

CHUNK = 64 * 1024


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass
class Upload:
    """One PUT of a large file or of a part of it (counted from 1; 0: the whole)."""

    sha256: str
    part: int
    size: int
    finished: bool


@dataclass
class Disturbance:
    """For requests that match: close the connection after so many bytes of a body, answer with an error (once `first`
    has returned, where there is one), or wait."""

    method: str
    pattern: str
    after: int | None = None
    status: int | None = None
    first: Callable[[], object] | None = None
    times: int = 1
    hold: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Cut(Exception):  # noqa: N818
    """The connection is closed here, without a word."""


ROUTES: list[tuple[str, re.Pattern[str], str]] = []


def route(method: str, pattern: str):
    def register(function):
        ROUTES.append(
            (method, re.compile(pattern.replace("{repo}", r"(?P<repo>[^/]+/[^/]+)") + "$"), function.__name__)
        )
        return function

    return register


class Wire(BaseHTTPRequestHandler):
    """The methods that `route` marks answer; `hub` is the LoopbackHub."""

    hub: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.record = Request(self.command, url.path, {k.lower(): v for k, v in self.headers.items()})
        self.hub.requests.append(self.record)
        self.left = self._body_parts()
        try:
            self.disturbance = self._disturbance(url.path)
            for method, pattern, name in ROUTES:
                if method == self.command and (match := pattern.match(url.path)):
                    getattr(self, name)(**{key: unquote(value or "") for key, value in match.groupdict().items()})
                    return
            raise HubError(404, f"no such endpoint: {self.command} {url.path}")
        except HubError as error:
            with suppress(Cut):
                self._drain()
            more = {"X-Error-Code": error.code} if error.code else {}
            self._json({"error": str(error)}, error.status, {"X-Error-Message": str(error), **more, **error.headers})
        except (Cut, ConnectionError):
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(2)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _disturbance(self, path: str) -> Disturbance | None:
        with self.hub.store.lock:
            fitting = (
                d for d in self.hub.disturbances if d.times and d.method == self.command and re.search(d.pattern, path)
            )
            found = next(fitting, None)
            if found is None:
                return None
            found.times -= 1
        if found.status:
            if found.first:
                found.first()
            raise HubError(found.status, "refused by the test")
        return found

    # ---- bodies ----

    def _body_parts(self):
        """The request's body as it comes, cut off where a disturbance says so."""
        got = 0
        for piece in self._raw_parts():
            got += len(piece)
            yield piece
            disturbed = getattr(self, "disturbance", None)
            if disturbed and disturbed.after is not None and got >= disturbed.after:
                disturbed.reached.set()
                if disturbed.hold:
                    disturbed.released.wait(60)
                raise Cut

    def _raw_parts(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, CHUNK))
            if not piece:
                raise Cut
            left -= len(piece)
            yield piece

    def _drain(self) -> bytes:
        return b"".join(self.left)

    def _body(self) -> Any:
        data = self._drain()
        return json.loads(data) if data else {}

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._bytes(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _bytes(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._drain()
        self.record.status = status
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        disturbed = self.disturbance if self.command == "GET" else None
        for start in range(0, len(data), CHUNK):
            if disturbed and disturbed.after is not None and start >= disturbed.after:
                disturbed.reached.set()
                raise Cut
            self.wfile.write(data[start : start + CHUNK])
            self.record.sent += len(data[start : start + CHUNK])
