"""Which of a file's video streams is read, and that the metadata names them all."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from odd_files import COUNT, encode, read_stamp, stamp, x264

from hf_video.cli import main
from hf_video.errors import VideoOptionError
from hf_video.video import VideoReader

FLAGS = av.stream.Disposition


def several(path: Path, *streams: dict) -> Path:
    """A file of streams of `codec`, `size` (height, width), `count` frames, `rate` and `disposition`."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as target:
        packets = []
        for given in streams:
            height, width = given["size"]
            stream = target.add_stream(given["codec"], rate=given.get("rate", 30))
            stream.width, stream.height, stream.pix_fmt = width, height, given.get("pix_fmt", "yuv420p")
            stream.disposition = given.get("disposition", 0)
            stream.options = x264() if given["codec"] == "libx264" else {}
            for number in range(given["count"]):
                frame = av.VideoFrame.from_ndarray(stamp(number, height, width), format="rgb24")
                packets += stream.encode(frame.reformat(format=stream.pix_fmt))
            packets += stream.encode(None)
        for packet in packets:
            target.mux(packet)
    return path


SMALL = {"codec": "libx264", "size": (48, 64), "count": 24}
LARGE = {"codec": "libx264", "size": (64, 96), "count": 24}
PNG = {"codec": "png", "size": (32, 32), "count": 1, "pix_fmt": "rgb24"}
JPEG = {"codec": "mjpeg", "size": (32, 32), "count": 1, "pix_fmt": "yuvj420p"}
DEFAULT = {"disposition": FLAGS.default}

MAIN = {
    "a png first": (1, ".mp4", PNG, LARGE),
    "a png first, as default": (1, ".mov", {**PNG, **DEFAULT}, LARGE),
    "a jpeg first, as default": (1, ".mov", {**JPEG, **DEFAULT}, LARGE),
    "a jpeg last": (0, ".mov", LARGE, JPEG),
    "the second as default": (1, ".mp4", SMALL, {**LARGE, **DEFAULT}),
    "the second as default in mkv": (1, ".mkv", LARGE, {**SMALL, **DEFAULT}),
    "the first as default": (0, ".mkv", {**SMALL, **DEFAULT}, LARGE),
    "two moving pictures of one kind": (0, ".avi", {**JPEG, "count": 24}, {**JPEG, "count": 24}),
}


@pytest.mark.parametrize("case", list(MAIN))
def test_the_stream_that_is_meant(tmp_path, case):
    expected, ending, *streams = MAIN[case]
    path = several(tmp_path / f"several{ending}", *streams)
    with VideoReader(path) as reader:
        meta = reader.metadata
        assert (meta.stream, meta.num_frames) == (expected, 24)
        assert (meta.height, meta.width) == streams[expected]["size"]
        assert [(s.index, s.height, s.width) for s in meta.streams] == [(i, *s["size"]) for i, s in enumerate(streams)]
        assert reader.get_frames([23, 5]).data.shape[1:3] == streams[expected]["size"]
        assert len(list(reader)) == 24


def test_an_animated_avif_moves(tmp_path):
    """Its still comes first."""
    path = encode(tmp_path / "moving.avif", "libsvtav1", frames=[stamp(i) for i in range(10)],
                  options={"preset": "12", "svtav1-params": "lp=1"})  # fmt: skip
    with VideoReader(path) as reader:
        assert len(reader) == 10
        assert [read_stamp(frame.data[0]) for frame in reader] == list(range(10))


class TestNamedStream:
    @pytest.fixture(scope="class")
    def path(self, tmp_path_factory):
        return several(tmp_path_factory.mktemp("named") / "n.mov", SMALL, {**LARGE, **DEFAULT}, {**PNG, "count": 2})

    @pytest.mark.parametrize(("stream", "size"), [(0, (48, 64)), (1, (64, 96)), (2, (32, 32)), (None, (64, 96))])
    def test_it_is_read_whatever_the_source(self, path, stream, size):
        for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
            with VideoReader(source, stream=stream) as reader:
                assert (reader.metadata.height, reader.metadata.width) == size
                assert reader.get_frames([1]).data.shape[1:3] == size
                assert next(iter(reader)).data.shape[1:3] == size

    def test_copies_of_a_reader_keep_it(self, path):
        with VideoReader(path, stream=0) as reader:
            for other in (VideoReader(reader), pickle.loads(pickle.dumps(reader))):
                with other:
                    assert other.metadata.stream == 0
                    assert other.get_frames([0]).data.shape[1:3] == (48, 64)
            with VideoReader(reader, stream=1) as other:
                assert other.metadata.stream == 1

    def test_one_that_is_not_there_is_refused_with_what_is(self, path):
        with pytest.raises(VideoOptionError, match=r"no stream 7.*0 \(h264, 64x48, 30 fps.*1 \(h264, 96x64.*default"):
            VideoReader(path, stream=7)

    def test_sound_is_no_video(self, odd):
        with pytest.raises(VideoOptionError, match="stream 0 is audio"):
            VideoReader(odd("h264_audio_first"), stream=0)

    @pytest.mark.parametrize("stream", [-1, 1.0, "1", True])
    def test_only_numbers_name_one(self, path, stream):
        with pytest.raises(VideoOptionError, match="number of a stream"):
            VideoReader(path, stream=stream)

    def test_arrays_have_none(self):
        with pytest.raises(VideoOptionError, match="stream=0"):
            VideoReader(np.zeros((2, 8, 8, 3), np.uint8), stream=0)

    def test_info_lists_them(self, path, capsys):
        assert main(["info", str(path)]) == 0
        assert "1 (h264, 96x64, 30 fps, default)" in capsys.readouterr().out
        assert main(["info", "--json", "--stream", "0", str(path)]) == 0
        row = json.loads(capsys.readouterr().out)[0]
        assert (row["stream"], row["height"]) == (0, 48)
        assert len(row["streams"]) == 3


def test_python_exits_quietly_with_a_reader_open(odd):
    """Names of modules may be gone when the last objects are. (No models are registered, as in the command.)"""
    code = (
        "import builtins, hf_video_command; hf_video_command.running = True\n"
        "from hf_video.video import VideoReader\n"
        f"builtins.kept = VideoReader({str(odd('h264_b'))!r}); kept.get_frames([3])\n"
        "builtins.walk = iter(kept); next(walk); kept.me = kept; print(len(kept))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(COUNT))
    assert "Exception ignored" not in done.stderr
