"""A page to search an index with: `page.html`, and the small server behind it, of Python's own library.

    GET  /                                       the page
    POST /search?kind=text&page=0&threshold=0.2  body: a sentence, or the bytes of a video or an image -> JSON
    GET  /picture?video=3&at=4.5                 a frame of a video, JPEG
    GET  /clip?video=3&start=4&end=6             a moment as a video that any browser plays

Videos are named by their number in the index: no path comes from outside.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import re
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from hf_video.errors import HFVideoError, VideoError, VideoIndexError, VideoOptionError, pluralize
from hf_video.live.local_server import LocalServer, PageHandler
from hf_video.retrieval.index import VideoIndex
from hf_video.retrieval.moments import Moment, moment_frames, write_moment
from hf_video.video.reader import VideoReader

VIDEOS_OF_A_PAGE = 8
MOST_MOMENTS = 1000  # that are looked at for one search
MOST_BYTES = 512 * 2**20  # of an example


def serve(index: VideoIndex, *, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Shows the page until it is interrupted.

    Args:
        index: What is searched.
        host: The address to listen on. With a local one, only pages of this machine's own names are answered.
        port: 0 takes a free one.

    Raises:
        VideoIndexError: The index is empty, or the address can't be listened on.
    """
    if not len(index):
        raise VideoIndexError("The index is empty: update it with a folder of videos first.")
    index.encoder.prepare()  # now, and not while the first person waits
    with tempfile.TemporaryDirectory(prefix="hf-video-serve-") as folder:
        try:
            server = SearchServer(index, (host, port), Path(folder))
        except (OSError, OverflowError) as error:
            raise VideoIndexError(f"The page can't be served at {host}:{port}: {error}") from error
        with server:
            print(f"Search page: {server.url} (Ctrl-C ends it)", flush=True)
            server.serve_forever()


class SearchServer(LocalServer):
    """Answers for one index; clips that were played lie in `folder`."""

    def __init__(self, index: VideoIndex, address: tuple[str, int], folder: Path):
        self.index = index
        self.folder = folder
        self.files = [file.path for file in index.files]
        self.number = {path: number for number, path in enumerate(self.files)}
        self.root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in self.files])
        self.searching = threading.Lock()  # one at a time: a model may be shared by no two threads
        self.duration = functools.lru_cache(maxsize=4096)(self._duration)
        super().__init__(*address, _Handler)

    def facts(self) -> dict[str, Any]:
        """What the page says of the index."""
        size = f"{pluralize(len(self.index), 'moment')} of {pluralize(len(self.files), 'video')}"
        return {"size": size, "readsText": self.index.encoder.reads_text}

    def search(self, kind: str, query: str | bytes, page: int, threshold: float | None) -> dict[str, Any]:
        """The videos of one page, the best first, each with its moments in order of time."""
        given: Any = _image(query) if isinstance(query, bytes) and kind == "image" else query
        with self.searching:
            moments = self.index.search(**{kind: given}, top_k=MOST_MOMENTS, threshold=threshold)
        videos: dict[str, list[Moment]] = {}
        for moment in moments:
            videos.setdefault(moment.path, []).append(moment)
        first = page * VIDEOS_OF_A_PAGE
        shown = list(videos.items())[first : first + VIDEOS_OF_A_PAGE]
        return {
            "first": first + 1,
            "videos": [self._entry(path, found) for path, found in shown],
            "total": len(videos),
            "capped": len(moments) == MOST_MOMENTS,
        }

    def _entry(self, path: str, moments: list[Moment]) -> dict[str, Any]:
        begin, end = self.duration(path) or (0.0, max(one.end for one in moments))
        return {
            "video": self.number[path],
            "name": os.path.relpath(path, self.root).encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            "begin": begin,
            "end": end,
            "gone": self.duration(path) is None,
            "moments": [
                {"start": one.start, "end": one.end, "score": round(one.score, 4)}
                for one in sorted(moments, key=lambda one: one.start)
            ],
        }

    @staticmethod
    def _duration(path: str) -> tuple[float, float] | None:
        try:
            with VideoReader(path) as reader:
                return reader.metadata.begin, reader.end
        except VideoError:
            return None

    def picture(self, number: int, second: float) -> bytes:
        """A frame as JPEG, 180 pixels high."""
        moment = Moment(self.files[number], second, second, 0.0)
        out = io.BytesIO()
        Image.fromarray(moment_frames(moment, count=1, shortest_edge=180)[0]).save(out, "jpeg", quality=85)
        return out.getvalue()

    def clip(self, number: int, start: float, end: float) -> bytes:
        """A moment as MP4."""
        moment = Moment(self.files[number], start, end, 0.0)
        path = self.folder / f"{number}-{start:.3f}-{end:.3f}.mp4"
        if not path.exists():
            draft = path.with_suffix(f".{threading.get_ident()}.mp4")
            write_moment(moment, draft)
            draft.replace(path)
        return path.read_bytes()


class _NothingHereError(Exception):
    """No such page, or no such video."""


class _Handler(PageHandler):
    server: SearchServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802
        self._answer(self._get)

    def do_POST(self) -> None:  # noqa: N802
        self._answer(self._post)

    def _get(self, path: str, asked: dict[str, str]) -> tuple[str, bytes]:
        server = self.server
        if path == "/":
            text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
            return "text/html; charset=utf-8", text.replace("{{facts}}", _script_json(server.facts())).encode()
        if path == "/picture":
            return "image/jpeg", server.picture(self._video(asked), _number(asked, "at"))
        if path == "/clip":
            return "video/mp4", server.clip(self._video(asked), _number(asked, "start"), _number(asked, "end"))
        raise _NothingHereError

    def _post(self, path: str, asked: dict[str, str]) -> tuple[str, bytes]:
        if path != "/search":
            raise _NothingHereError
        size = int(self.headers.get("Content-Length") or 0)
        if not 0 < size <= MOST_BYTES:
            raise VideoOptionError(
                f"A query of {size / 2**20:,.0f} MiB came; it must have from 1 byte to {MOST_BYTES / 2**20:,.0f} MiB."
            )
        body = self.rfile.read(size)
        kind = asked.get("kind", "")
        if kind not in ("text", "video", "image"):
            raise VideoOptionError(f"A search is by text, video or image; {kind!r} came.")
        query = body.decode("utf-8", "replace").strip() if kind == "text" else body
        threshold = _number(asked, "threshold") if asked.get("threshold") else None
        page = int(_number(asked, "page"))
        if page < 0:
            raise VideoOptionError(f"page={page} must be 0 or more.")
        found = self.server.search(kind, query, page, threshold)
        return "application/json", json.dumps(found).encode()

    def _video(self, asked: dict[str, str]) -> int:
        number = _number(asked, "video")
        if number not in range(len(self.server.files)):
            raise _NothingHereError
        return int(number)

    def _answer(self, make: Any) -> None:
        """Sends what `make` gives; what is wrong with a query or a file as a sentence, with its code."""
        url = urlsplit(self.path)
        asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            if not self.is_own_host():
                code, kind, body = 403, "text/plain; charset=utf-8", b"This page is for this machine only."
            else:
                code, (kind, body) = 200, make(url.path, asked)
        except _NothingHereError:
            code, kind, body = 404, "text/plain; charset=utf-8", b"There is nothing here."
        except (HFVideoError, OSError, ValueError) as error:
            code, kind, body = 422, "text/plain; charset=utf-8", str(error).encode("utf-8", "replace")
        except Exception:
            traceback.print_exc()
            kind, body = "text/plain; charset=utf-8", b"This is a fault of hf-video; the terminal says more."
            code = 500
        self._send(code, kind, body)

    def _send(self, code: int, kind: str, body: bytes) -> None:
        headers = {"Accept-Ranges": "bytes"}
        if not kind.startswith(("text", "application")):
            headers["Cache-Control"] = "max-age=3600"
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        total = len(body)
        if code == 200 and kind == "video/mp4" and part and int(part[1]) < total:  # some browsers play nothing else
            first, last = int(part[1]), min(int(part[2] or total - 1), total - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{total}"
            code, body = 206, body[first : last + 1]
        self.send(code, kind, body, headers)


def _image(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except OSError:
        raise VideoOptionError("The example is no image that can be read.") from None


def _number(asked: dict[str, str], name: str) -> float:
    try:
        number = float(asked.get(name, "0"))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise VideoOptionError(f"{name}={asked.get(name)!r} must be a number.")
    return number


def _script_json(facts: dict[str, Any]) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(facts).replace("<", "\\u003c")
