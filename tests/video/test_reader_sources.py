"""Every kind of source gives the same frames; every kind of wrong source gives its own error."""

from __future__ import annotations

import http.server
import io
import sys
import threading
import types
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from odd_files import COUNT, encode, stamp, x264
from PIL import Image

from hf_video import errors
from hf_video.video import VideoReader


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return encode(tmp_path_factory.mktemp("clips") / "clip.mp4", options=x264())


@pytest.fixture(scope="module")
def expected(clip) -> np.ndarray:
    with VideoReader(clip) as reader:
        return reader.get_frames(range(COUNT)).data


class Unseekable(io.RawIOBase):
    """A pipe: bytes come once."""

    def __init__(self, data: bytes):
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._file.readinto(buffer)


def as_source(kind: str, clip: Path):
    data = clip.read_bytes()
    return {
        "str": lambda: str(clip),
        "path": lambda: clip,
        "bytes": lambda: data,
        "bytearray": lambda: bytearray(data),
        "memoryview": lambda: memoryview(data),
        "open file": lambda: clip.open("rb"),
        "BytesIO": lambda: io.BytesIO(data),
        "pipe": lambda: Unseekable(data),
        "reader": lambda: VideoReader(clip),
        "reader of bytes": lambda: VideoReader(data),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    ["str", "path", "bytes", "bytearray", "memoryview", "open file", "BytesIO", "pipe", "reader", "reader of bytes"],
)
def test_sources_of_one_file_give_the_same(kind, clip, expected):
    with VideoReader(as_source(kind, clip)) as reader:
        assert len(reader) == COUNT
        for indices in ([7], [70, 3, 3, -1], list(range(COUNT))):
            assert np.array_equal(reader.get_frames(indices).data, expected[indices])


def test_a_file_object_is_read_from_its_first_byte_and_left_open(clip, expected):
    file = io.BytesIO(clip.read_bytes())
    file.seek(1000)
    with VideoReader(file) as reader:
        assert np.array_equal(reader.get_frames([5]).data[0], expected[5])
    assert not file.closed


def test_a_path_with_a_colon_is_a_path(clip, expected, tmp_path):
    odd = tmp_path / "http:clip %03d.mp4"
    odd.write_bytes(clip.read_bytes())
    with VideoReader(odd) as reader:
        assert np.array_equal(reader.get_frames([5]).data[0], expected[5])


class TestUrls:
    @pytest.fixture
    def serve(self, clip):
        """Serves the clip on the loopback interface, with or without ranges; yields a function to its address."""
        servers = []

        def start(ranges: bool | str) -> tuple[str, list[str]]:
            log: list[str] = []
            handler = partial(Handler, clip.parent, ranges, log)
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.append(server)
            return f"http://127.0.0.1:{server.server_port}", log

        yield start
        for server in servers:
            server.shutdown()
            server.server_close()

    def test_ranges_of_unknown_length(self, serve, clip, expected):
        address, log = serve("unknown")
        with VideoReader(f"{address}/{clip.name}") as reader:
            assert np.array_equal(reader.get_frames([60]).data, expected[[60]])
        assert log[-1] is None, "everything is asked for"

    @pytest.mark.parametrize("ranges", [True, False])
    def test_same_frames(self, serve, clip, expected, ranges):
        address, log = serve(ranges)
        with VideoReader(f"{address}/{clip.name}") as reader:
            assert np.array_equal(reader.get_frames([60, 2, 33]).data, expected[[60, 2, 33]])
            assert reader.metadata.num_frames == COUNT
        assert len(log) == 1, "a file smaller than one block needs one request"

    def test_blocks_of_a_large_file(self, serve, clip, expected, monkeypatch):
        monkeypatch.setattr("hf_video.video.decode.http_file.BLOCK", 1024)
        address, log = serve(True)
        with VideoReader(f"{address}/{clip.name}") as reader:
            assert np.array_equal(reader.get_frames([60, 2, 33]).data, expected[[60, 2, 33]])
        assert len(log) > 3

    def test_missing_page(self, serve):
        address, _ = serve(True)
        with pytest.raises(errors.VideoSourceError, match="404"):
            VideoReader(f"{address}/nothing.mp4")

    def test_text_page(self, serve, clip):
        (clip.parent / "page.mp4").write_text("<html>log in first</html>")
        address, _ = serve(True)
        with pytest.raises(errors.NotAVideoError):
            VideoReader(f"{address}/page.mp4")

    def test_empty_page(self, serve, clip):
        (clip.parent / "empty.mp4").write_bytes(b"")
        address, _ = serve(False)
        with pytest.raises(errors.EmptyFileError):
            VideoReader(f"{address}/empty.mp4")

    def test_no_server(self):
        with pytest.raises(errors.VideoSourceError, match="can't be reached"):
            VideoReader("http://127.0.0.1:9/clip.mp4")

    def test_other_protocols_are_refused(self):
        with pytest.raises(errors.VideoSourceError, match="http"):
            VideoReader("rtsp://127.0.0.1/clip")


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, folder: Path, ranges: bool, log: list[str], *arguments):
        self.folder, self.ranges, self.log = folder, ranges, log
        super().__init__(*arguments)

    def do_GET(self):
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, wanted = path.read_bytes(), self.headers.get("Range")
        self.log.append(wanted)
        if self.ranges and wanted:
            start, end = (int(x) for x in wanted.removeprefix("bytes=").split("-"))
            self.send_response(206)
            total = "*" if self.ranges == "unknown" else len(data)
            self.send_header("Content-Range", f"bytes {start}-{min(end, len(data) - 1)}/{total}")
            data = data[start : end + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class TestStills:
    frames = np.stack([stamp(i) for i in range(12)])

    @pytest.mark.parametrize(
        "as_kind", [lambda x: x, torch.from_numpy, lambda x: torch.from_numpy(x).permute(0, 3, 1, 2)]
    )
    def test_arrays(self, as_kind):
        with VideoReader(as_kind(self.frames), fps=10) as reader:
            meta = reader.metadata
            assert (meta.num_frames, meta.fps, meta.duration, meta.codec) == (12, 10, 1.2, "array")
            assert (meta.height, meta.width) == (48, 64)
            got = reader.get_frames([11, 0, 0])
            assert np.array_equal(got.data, self.frames[[11, 0, 0]])
            assert got.seconds.tolist() == pytest.approx([1.1, 0, 0])
            assert reader.get_frames_at([0.45]).indices.tolist() == [4]
            assert np.array_equal(np.concatenate([c.data for c in reader.chunks(5)]), self.frames)

    def test_grey_and_opacity(self):
        grey = self.frames[..., :1]
        assert np.array_equal(VideoReader(grey).get_frames([3]).data[0], np.repeat(grey[3], 3, -1))
        opacity = np.concatenate([self.frames, np.full_like(grey, 255)], -1)
        assert np.array_equal(VideoReader(opacity).get_frames([3]).data[0], self.frames[3])
        opacity[..., 3] = 0
        assert np.all(VideoReader(opacity).get_frames([3]).data == 255)
        assert np.all(VideoReader(opacity, background="black").get_frames([3]).data == 0)

    @pytest.mark.parametrize(
        "array",
        [
            np.full((4, 8, 8, 3), 254, np.float32),
            np.zeros((8, 8, 3), np.uint8),
            np.zeros((4, 8, 8, 7), np.uint8),
            np.zeros((4, 3, 8, 3), np.uint8),
            np.zeros((0, 8, 8, 3), np.uint8),
            torch.full((4, 8, 8, 3), 254.0),
            np.zeros(5, np.uint8),
        ],
        ids=lambda a: f"{tuple(a.shape)}-{a.dtype}",
    )
    def test_wrong_arrays(self, array):
        with pytest.raises(errors.VideoArrayError, match="uint8"):
            VideoReader(array)

    def test_list_of_images(self):
        images = [Image.fromarray(f) for f in self.frames]
        with VideoReader(images) as reader:
            assert np.array_equal(reader.get_frames([2, 9]).data, self.frames[[2, 9]])
            assert reader.metadata.fps == 25
        with pytest.raises(errors.VideoArrayError, match="one size"):
            VideoReader([images[0], images[1].resize((9, 9))])
        with pytest.raises(errors.VideoArrayError, match="empty list"):
            VideoReader([])
        with pytest.raises(errors.VideoSourceError, match="str"):
            VideoReader(["a.mp4", "b.mp4"])
        assert np.array_equal(VideoReader(list(self.frames)).get_frames([5]).data[0], self.frames[5])

    def test_folder_in_natural_order(self, tmp_path):
        for number, frame in enumerate(self.frames):
            Image.fromarray(frame).save(tmp_path / f"frame{number}.png")
        (tmp_path / "notes.txt").write_text("not a frame")
        (tmp_path / "more.png").mkdir()
        with VideoReader(tmp_path) as reader:
            assert np.array_equal(np.concatenate([f.data for f in reader]), self.frames)
            assert reader.metadata.codec == "images"

    def test_wrong_folders(self, tmp_path):
        with pytest.raises(errors.NoVideoStreamError, match="no images"):
            VideoReader(tmp_path)
        Image.fromarray(self.frames[0]).save(tmp_path / "0.png")
        Image.fromarray(self.frames[0][:9]).save(tmp_path / "1.png")
        with VideoReader(tmp_path) as reader, pytest.raises(errors.VideoArrayError, match=r"1\.png"):
            reader.get_frames([1])
        (tmp_path / "1.png").write_bytes(b"broken")
        with VideoReader(tmp_path) as reader, pytest.raises(errors.NotAVideoError, match=r"1\.png"):
            reader.get_frames([1])

    def test_animated_webp_keeps_its_durations(self, tmp_path):
        images = [Image.fromarray(f) for f in self.frames[:5]]
        path = tmp_path / "moving.webp"
        images[0].save(path, save_all=True, append_images=images[1:], duration=[40, 80, 40, 40, 100], lossless=True)
        with VideoReader(path) as reader:
            assert reader.metadata.duration == pytest.approx(0.3)
            assert reader.timestamps == pytest.approx([0, 0.04, 0.12, 0.16, 0.2])
            assert np.array_equal(reader.get_frames([4, 1]).data, self.frames[[4, 1]])

    @pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
    def test_one_image_is_a_video_of_one_frame(self, tmp_path, ending):
        path = tmp_path / f"still.{ending}"
        Image.fromarray(self.frames[0]).save(path)
        with VideoReader(path) as reader:
            assert len(reader) == 1
            assert np.array_equal(reader.get_frames([0]).data[0], np.asarray(Image.open(path).convert("RGB")))


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


class TestErrors:
    def test_missing_path(self, tmp_path):
        with pytest.raises(errors.VideoSourceError, match="does not exist"):
            VideoReader(tmp_path / "nothing.mp4")

    @pytest.mark.parametrize("given", [3, None, {"video": 1}, object()])
    def test_no_source_at_all(self, given):
        with pytest.raises(errors.VideoSourceError, match="not a video source"):
            VideoReader(given)

    def test_text_mode(self, tmp_path):
        with pytest.raises(errors.VideoSourceError, match=r"binary|text mode"):
            VideoReader(io.StringIO("video"))

    @pytest.mark.parametrize("make", [lambda p: _write(p, b""), lambda p: b"", lambda p: io.BytesIO()])
    def test_empty(self, make, tmp_path):
        with pytest.raises(errors.EmptyFileError):
            VideoReader(make(tmp_path / "empty.mp4"))

    @pytest.mark.parametrize(
        "data",
        [
            b"just some text, that somebody named .mp4\n" * 30,
            np.random.default_rng(0).integers(0, 256, 20000, np.uint8).tobytes(),
            bytes(5000),
            b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:9,\nother.ts\n",
            b"ffconcat version 1.0\nfile other.mp4\n",
        ],
        ids=["text", "noise", "zeros", "playlist", "concat"],
    )
    @pytest.mark.parametrize("ending", ["mp4", "txt", "avi"])
    def test_not_a_video(self, data, ending, tmp_path):
        with pytest.raises(errors.NotAVideoError):
            VideoReader(_write(tmp_path / f"file.{ending}", data))

    def test_cut_off_before_the_header(self, clip, tmp_path):
        with pytest.raises(errors.NotAVideoError):
            VideoReader(_write(tmp_path / "cut.mp4", clip.read_bytes()[:3000]))

    def test_only_sound(self, tmp_path):
        path = _sound(tmp_path / "sound.mp4")
        with pytest.raises(errors.NoVideoStreamError, match="audio"):
            VideoReader(path)

    def test_only_sound_and_cover_art(self, tmp_path):
        path = _sound(tmp_path / "song.mp4", cover=True)
        with pytest.raises(errors.NoVideoStreamError, match="cover art"):
            VideoReader(path)

    def test_no_decodable_frame(self, clip, tmp_path):
        """Every sample overwritten: a sound container around nothing."""
        import av

        data = bytearray(encode(tmp_path / "whole.mp4", options=x264(bf="0")).read_bytes())
        with av.open(str(tmp_path / "whole.mp4")) as container:
            for packet in container.demux(video=0):
                if packet.size:
                    data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
        path = _write(tmp_path / "hollow.mp4", bytes(data))
        with pytest.raises((errors.NoFramesError, errors.DamagedVideoError)), VideoReader(path) as reader:
            _ = reader.metadata
        with pytest.raises((errors.NoFramesError, errors.DamagedVideoError)), VideoReader(path) as reader:
            reader.get_frames([0])

    def test_nothing_of_a_library_leaks_out(self, clip, tmp_path):
        """Whatever is cut off or overwritten, what is raised is ours."""
        data = clip.read_bytes()
        rng = np.random.default_rng(1)
        for trial in range(60):
            broken = bytearray(data[: rng.integers(1, len(data))] if trial % 2 else data)
            for place in rng.integers(0, len(broken), 30):
                broken[place] = rng.integers(256)
            try:
                with VideoReader(bytes(broken), on_error="repeat") as reader:
                    reader.get_frames([0, -1])
                    _ = reader.metadata
            except errors.VideoError:
                pass


def _sound(path: Path, *, cover: bool = False) -> Path:
    import av
    from odd_files import _cover, _tone

    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        picture = _cover(container) if cover else None
        if picture is not None:
            container.mux(picture)
        container.mux(_tone(sound, 1.0))
    return path


def test_torch_that_another_thread_is_importing_is_not_looked_at(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))  # as it is while its import runs
    with VideoReader(clip) as reader:
        assert len(reader) == COUNT


def test_frames_of_an_animated_png_in_any_order(tmp_path):
    """As FFmpeg writes it, Pillow can't go back in it."""
    path = tmp_path / "moving.apng"
    with av.open(str(path), "w", format="apng") as file:
        stream = file.add_stream("apng", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
        for level in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 30 * level, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with VideoReader(path) as reader:
        for index in (5, 2, 2, 0, 7, 1):
            assert (reader.get_frames([index]).data == 30 * index).all()
