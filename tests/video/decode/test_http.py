"""Videos on the web: servers that are busy, that hang up, that know no ranges, and addresses as people write them."""

from __future__ import annotations

import http.server
import itertools
import threading
from email.utils import formatdate

import numpy as np
import pytest
from odd_files import COUNT, encode, x264

from hf_video import errors
from hf_video.cli.files import expand_paths
from hf_video.clips.read import open_video
from hf_video.data.sources.load import load_videos
from hf_video.video import VideoReader
from hf_video.video.decode.http_file import HttpFile, escaped
from hf_video.video.frames.addresses import local_path

PICKED = [70, 2, 33]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("clips") / "clip.mp4", options=x264())


@pytest.fixture(scope="module")
def expected(clip):
    with VideoReader(clip) as reader:
        return reader.get_frames(PICKED).data


@pytest.fixture
def waits(monkeypatch):
    """Blocks of 4 KiB, and no time lost: the waits that were asked for."""
    slept = []
    monkeypatch.setattr("hf_video.video.decode.http_file.BLOCK", 4096)
    monkeypatch.setattr("hf_video.video.decode.http_file.time.sleep", slept.append)
    return slept


class Server(http.server.ThreadingHTTPServer):
    """Serves `data` at every path. `trouble` is a list of what happens to the next requests: a status, ("status", a
    Retry-After), ("cut", bytes) to hang up after so many, or None. `always` is what happens when it is empty."""

    def __init__(self, data: bytes, *, ranges=True, trouble=(), always=None, tag='"one"', chunked=False):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.ranges, self.trouble, self.always, self.tag = data, ranges, list(trouble), always, tag
        self.chunked = chunked
        self.asked: list[tuple[str, str | None]] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        self.close_connection = True
        trouble = server.trouble.pop(0) if server.trouble else server.always
        if callable(trouble):
            trouble = trouble(server)
        if isinstance(trouble, int) or (trouble and trouble[0] != "cut"):
            status, after = (trouble, None) if isinstance(trouble, int) else trouble
            self.send_response(status)
            if after is not None:
                self.send_header("Retry-After", after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, first, total = server.data, 0, len(server.data)
        if wanted and server.ranges:
            start, end = wanted.removeprefix("bytes=").split("-")
            first, data = int(start), data[int(start) : int(end) + 1 if end else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{total}")
        else:
            self.send_response(200)
        if server.tag:
            self.send_header("ETag", server.tag)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        body = data[: trouble[1]] if trouble else data
        if server.chunked:
            for i in range(0, len(body), 1000):
                part = body[i : i + 1000]
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"" if trouble else b"0\r\n\r\n")
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "trouble",
    [
        [],
        [503],
        [429, 500, 502, 504],
        [("cut", 0)],
        [("cut", 1000), ("cut", 500), 503, ("cut", 700)],
        [None, 503, ("cut", 10), ("cut", 10), ("cut", 10), ("cut", 10), ("cut", 10), ("cut", 10)],
    ],
    ids=["none", "503", "four kinds", "dropped", "dropped half-way", "dropped again and again"],
)
def test_what_passes_is_outlasted(clip, expected, waits, ranges, chunked, trouble):
    with Server(clip.read_bytes(), ranges=ranges, trouble=trouble, chunked=chunked and not ranges) as server:
        with VideoReader(f"{server.address}/clip.mp4") as reader:
            assert np.array_equal(reader.get_frames(PICKED).data, expected)
            assert len(reader) == COUNT
        assert not server.trouble or not ranges


def test_what_has_arrived_is_not_asked_for_again(waits):
    data = np.random.default_rng(0).integers(0, 256, 10000, np.uint8).tobytes()
    with Server(data, trouble=[("cut", 1500), None]) as server:
        assert HttpFile(f"{server.address}/a.mp4").read(4096) == data[:4096]
        assert [wanted for _, wanted in server.asked] == ["bytes=0-4095", "bytes=1500-4095"]
    with Server(data, ranges=False, trouble=[("cut", 6000)]) as server:
        # A server without ranges begins again; one that takes them up where they are asked for goes on.
        assert HttpFile(f"{server.address}/a.mp4").read() == data
        assert [wanted for _, wanted in server.asked] == ["bytes=0-4095", "bytes=6000-"]


@pytest.mark.parametrize("trouble", [503, ("cut", 0), 429])
def test_what_does_not_pass_ends_after_five_attempts(waits, trouble):
    with Server(bytes(9000), always=trouble) as server:
        with pytest.raises(errors.VideoSourceError, match=r"503|429|reached"):
            HttpFile(f"{server.address}/a.mp4")
        assert len(server.asked) == 5
    assert len(waits) == 4
    assert all(later > earlier for earlier, later in itertools.pairwise(waits))


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_a_refusal_is_final(waits, status):
    with Server(b"", always=status) as server:
        with pytest.raises(errors.VideoSourceError, match=f"{status}.*access"):
            VideoReader(f"{server.address}/a.mp4")
        assert len(server.asked) == 1


def test_retry_after_is_kept(waits):
    with Server(bytes(100), trouble=[(429, "7"), (503, formatdate(usegmt=True))]) as server:
        assert HttpFile(f"{server.address}/a").read() == bytes(100)
    assert waits == [7, 0]
    with Server(b"", always=(429, "3600")) as server:
        with pytest.raises(errors.VideoSourceError, match="3600 s"):
            HttpFile(f"{server.address}/a")
        assert len(server.asked) == 1


def test_a_file_that_changes_is_noticed(waits):
    data = np.random.default_rng(0).integers(0, 256, 10000, np.uint8).tobytes()
    with Server(data) as server:
        file = HttpFile(f"{server.address}/a.mp4")
        assert file.read(100) == data[:100]
        server.tag = '"two"'
        with pytest.raises(errors.VideoSourceError, match="changed"):
            file.read()
    with Server(data, tag=None) as server:
        file = HttpFile(f"{server.address}/a.mp4")
        server.data = data[:9000]
        with pytest.raises(errors.VideoSourceError, match="other bytes"):
            file.read()
    with Server(data, tag='W/"weak"') as server:
        file = HttpFile(f"{server.address}/a.mp4")
        server.tag = 'W/"other"'
        assert file.read() == data


def test_addresses_as_people_write_them(clip, expected, waits):
    with Server(clip.read_bytes()) as server:
        for path, sent in (
            ("a clip.mp4", "/a%20clip.mp4"),
            ("Übung–1.mp4?sig=a b&x=%2F", "/%C3%9Cbung%E2%80%931.mp4?sig=a%20b&x=%2F"),
            ("a%20b.mp4#t=3", "/a%20b.mp4"),
        ):
            with VideoReader(f"{server.address}/{path}".replace("http", "HTTP")) as reader:
                assert np.array_equal(reader.get_frames(PICKED).data, expected)
            assert server.asked[-1][0] == sent
    assert escaped("https://bücher.example/ü") == "https://xn--bcher-kva.example/%C3%BC"


def test_no_name_and_no_server_fail_at_once(waits):
    for url in ("http://127.0.0.1:9/clip.mp4", "http:///clip.mp4"):
        with pytest.raises(errors.VideoSourceError, match="can't be reached"):
            VideoReader(url)
    assert waits == []


# --- paths -----------------------------------------------------------------------------------------------------------


def test_a_file_address_is_a_path_everywhere(clip, expected, tmp_path):
    folder = tmp_path / "my clips ü" / "a"
    folder.mkdir(parents=True)
    path = folder / "a%41 b.mp4"
    path.write_bytes(clip.read_bytes())
    address = path.as_uri()
    for text in (address, address.replace("file://", "FILE://localhost")):
        assert local_path(text) == str(path)
        with VideoReader(text) as reader, open_video(text) as other:
            assert np.array_equal(reader.get_frames(PICKED).data, expected)
            assert np.array_equal(other.get_frames(PICKED).data, expected)
    assert expand_paths([address, folder.as_uri()]) == [str(path), str(path)]
    assert load_videos(folder.parent.as_uri(), test_size=0)["train"][0].source == str(path)
    (tmp_path / "list.csv").write_text(f"video,label\n{address},a\n", "utf-8")
    assert load_videos(tmp_path / "list.csv", test_size=0)["train"][0].source == str(path)
    with pytest.raises(errors.VideoSourceError, match="machine 'server'"):
        VideoReader("file://server/a.mp4")
    with pytest.raises(errors.VideoSourceError, match="does not exist"):
        VideoReader("file:///nothing/here.mp4")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s5--ab.mp4\n", "git annex get"),
        (b"../.git/annex/objects/xx/yy/SHA256E-s5--ab.mp4", "git annex get"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b'{"error": "Repository not found"}', "JSON"),
    ],
)
def test_what_stands_in_the_place_of_a_video_is_named(data, message, tmp_path, waits):
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    with Server(data) as server:
        for source in (path, data, f"{server.address}/clip.mp4"):
            with pytest.raises(errors.NotAVideoError, match=message):
                VideoReader(source)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").write_bytes(data)
    with pytest.raises(errors.NotAVideoError, match=message):
        VideoReader(tmp_path / "frames")


def test_links_and_backslashes(clip, tmp_path, monkeypatch):
    (tmp_path / "annexed.mp4").symlink_to(".git/annex/objects/a/b/SHA256E-s5--ab.mp4")
    (tmp_path / "gone.mp4").symlink_to("moved.mp4")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "0.png").symlink_to("nowhere.png")
    (tmp_path / "x" / "clip.mp4").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    for source, message in (
        ("annexed.mp4", "git annex get"),
        ("gone.mp4", r"link to 'moved\.mp4'"),
        ("x", r"link to 'nowhere\.png'"),
        ("x\\clip.mp4", "did you mean 'x/clip.mp4'"),
        ("C:\\videos\\clip.mp4", 'separated by "/"'),
    ):
        with pytest.raises(errors.VideoSourceError, match=message):
            VideoReader(source)
