"""A page with the newest frame of a live video and its labels, by the standard library's server."""

from __future__ import annotations

import functools
import io
import json
import threading
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from hf_video.errors import VideoOptionError, check_count
from hf_video.live.local_server import LocalServer, PageHandler
from hf_video.live.watch import Watch
from hf_video.video.frames.pixels import shortest_edge_size

PICTURE_EDGE = 480  # pixels of the picture's shorter side


class LivePage:
    """Shows what a `Watch` says, beside the loop over it, until it is closed.

    Args:
        watch: What is shown.
        host: Address to listen on; by default only this machine can open the page.
        port: Port to listen on; 0 takes a free one, which `address` has.

    Raises:
        VideoOptionError: The address can't be listened on.
    """

    def __init__(self, watch: Watch, host: str = "127.0.0.1", port: int = 7861):
        self.watch = watch
        check_count("port", port, least=0, most=65535)
        try:
            self._server = LocalServer(host, port, functools.partial(_Answer, self))
        except OSError as error:
            raise VideoOptionError(f"No page can be served at {host}:{port}: {error.strerror or error}.") from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="LivePage", daemon=True)
        self._thread.start()

    @property
    def is_local(self) -> bool:
        """Whether only this machine can open the page."""
        return self._server.is_local

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return self._server.url

    def state(self) -> dict[str, Any]:
        """What the page shows.

        Returns:
            JSON values; `labels` and `events` are lists of [text, score or None].
        """
        video, last = self.watch.video, self.watch.last
        broken = video.broken
        return {
            "source": video.label,
            "note": ""
            if broken is None
            else f"The stream broke off ({broken}). It is opened again as soon as it answers.",
            "heading": "Events under way" if self.watch.finds_events else "Labels",
            "labels": [] if last is None else _labels(last.predictions),
            "events": [
                (f"{one.label}, {one.start:.2f} – {one.end:.2f} s", one.score) for one in reversed(self.watch.recent)
            ],
            "seconds": None if last is None else last.seconds,
            "delay": self.watch.event_delay,
            "latency": None if last is None else last.latency,
            "read": video.frames_read,
            "dropped": video.frames_dropped,
            "damaged": video.packets_damaged,
            "reconnections": video.reconnections,
        }

    def picture(self) -> bytes | None:
        """The newest frame.

        Returns:
            JPEG, its shorter side 480 pixels at most; None before the first frame.
        """
        pixels = self.watch.video.picture()
        if pixels is None:
            return None
        image, file = Image.fromarray(pixels), io.BytesIO()
        if min(image.size) > PICTURE_EDGE:
            height, width = shortest_edge_size(image.height, image.width, PICTURE_EDGE)
            image = image.resize((width, height))
        image.save(file, "JPEG", quality=85)
        return file.getvalue()

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _labels(predictions: Any) -> list[tuple[str, float | None]]:
    """What a pipeline gave for a window: labels with scores, or a text, or anything."""
    if isinstance(predictions, list) and all(isinstance(one, dict) and "label" in one for one in predictions):
        return [(one["label"], one.get("score")) for one in predictions]
    return [(str(predictions), None)]


class _Answer(PageHandler):
    def __init__(self, page: LivePage, *args: Any):
        self._page = page
        super().__init__(*args)

    def do_GET(self) -> None:  # noqa: N802
        path = urlsplit(self.path).path
        if not self.is_own_host():
            return self.send(403, "text/plain", b"This page is for this machine only.")
        if path == "/":
            return self.send(200, "text/html; charset=utf-8", files("hf_video.live").joinpath("page.html").read_bytes())
        if path == "/state.json":
            return self.send(200, "application/json", json.dumps(self._page.state()).encode())
        if path == "/picture.jpg" and (picture := self._page.picture()) is not None:
            return self.send(200, "image/jpeg", picture)
        return self.send(404, "text/plain", b"There is nothing here.")
