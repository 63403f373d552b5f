"""What the pages of `hf-video watch` and `hf-video serve` share: a server of Python's own library."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def is_ipv6(text: str) -> bool:
    """Whether a text is an IPv6 address without brackets."""
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


class LocalServer(ThreadingHTTPServer):
    """Answers each request in a thread of its own, which does not keep the program from ending.

    Args:
        host: Address to listen on, IPv4 or IPv6, with brackets or without.
        port: Port to listen on; 0 takes a free one.
        handler: Makes the handler of a request.

    Raises:
        OSError, OverflowError: The address can't be listened on.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, handler: Callable[..., BaseHTTPRequestHandler]):
        host = host.strip("[]")
        self.is_local = host in LOOPBACK  # only this machine can open the pages
        self.address_family = socket.AF_INET6 if is_ipv6(host) else socket.AF_INET
        super().__init__((host, port), handler)
        self.url = f"http://{f'[{host}]' if is_ipv6(host) else host}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone on is no error; everything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class PageHandler(BaseHTTPRequestHandler):
    """Sends answers with the headers that keep other sites from reading or framing a page."""

    server: LocalServer
    timeout = 10  # seconds that a request may be silent

    def is_own_host(self) -> bool:
        """Whether a server that only this machine can open was asked by a name of this machine: another site may make a
        name of its own stand for this machine, and would then read the answers."""
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:  # such as "[::1"
            name = None
        return not self.server.is_local or name in LOOPBACK

    def send(self, code: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Sends an answer; `headers` replace those of the same name in `HEADERS`."""
        self.send_response(code)
        sent = {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS, **(headers or {})}
        if code >= 400:
            sent["Connection"] = "close"  # what else came, such as an upload, is not read
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests aren't written to the terminal."""
