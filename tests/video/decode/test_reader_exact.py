"""Frame i of the reader is the i-th frame of a sequential decode, to the bit, on every odd kind of file."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from odd_files import COUNT, DAMAGED, ODD, X265, encode, lost_sample, read_stamp, stamp, x264

from hf_video.data.sources.inspection import inspect_video
from hf_video.errors import DamagedVideoError, VideoError
from hf_video.video import VideoReader
from hf_video.video.decode.container import OpenVideo, media_from_path
from hf_video.video.decode.segments import SegmentReader, unreferenced_check

# What the names of frames in the file should be, where it is not 0, 1, 2, ...
FIRST_STAMP = {
    "h264_edit_list": 17,
    "h264_ts_joined_midway": 12,
    "h264_mkv_joined_midway": 12,
    "h264_mp4_joined_midway": 12,
    "h264_open_mkv_joined_midway": 8,
    "mpeg2_ts_joined_midway": 12,
    "hevc_open_joined_midway": 24,
    "gif_one_frame": 5,
}
FRAMES = {"gif_alpha": 40, "gif_one_frame": 1, "one_frame": 1, "three_frames": 3}


def sequential(path: Path, start: int | None = None) -> list[tuple[int | None, np.ndarray]]:
    """(pts, RGB upright by `frame.rotation`) of a plain decode of everything, or from the keyframe at `start` on, with
    one thread: with slice threads FFmpeg conceals damage in another way on every machine."""
    found = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
        stream.codec_context.thread_count = 1
        if start is not None:
            container.seek(int(start), stream=stream)
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                break
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                size = found[0][2] if found else (frame.width, frame.height)
                image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
                found.append((frame.pts, np.rot90(image, round(frame.rotation / 90)), size))
    return [(pts, image) for pts, image, _ in found]


def some_indices(count: int, seed: int):
    rng = random.Random(seed)
    for size in (1, 1, 1, 2, 3, 5, 16, 16):
        yield [rng.randrange(-count, count) for _ in range(size)]


@pytest.mark.parametrize("name", [n for n in ODD if n != "h264_mirrored"])
def test_every_multiset_of_indices_equals_the_sequential_decode(odd, name):
    path = odd(name)
    expected = [image for _, image in sequential(path)]
    with VideoReader(path) as reader:
        assert len(reader) == len(expected) == reader.metadata.num_frames
        for seed in range(3):
            for indices in some_indices(len(expected), seed):
                got = reader.get_frames(indices)
                assert got.indices.tolist() == [i % len(expected) for i in indices]
                for index, image in zip(got.indices, got.data, strict=True):
                    assert np.array_equal(image, expected[index]), f"frame {index} of {indices}"
        assert got.repeated == ()


@pytest.mark.parametrize("name", [n for n in ODD if n != "h264_mirrored"])
def test_stretches_side_by_side_equal_the_sequential_decode(odd, name):
    expected = [image for _, image in sequential(odd(name))]
    with VideoReader(odd(name), num_threads=2) as reader:
        for indices in some_indices(len(expected), 0):
            got = reader.get_frames(indices)
            assert got.indices.tolist() == [i % len(expected) for i in indices]
            for index, image in zip(got.indices, got.data, strict=True):
                assert np.array_equal(image, expected[index]), f"frame {index} of {indices}"


@pytest.mark.parametrize("threads", [2, 3, 0])
def test_stretches_are_shared_by_threads_that_end(odd, monkeypatch, threads):
    path, seen = odd("h264_b"), set()
    read = SegmentReader.read

    def noting(self, key, indices, deliver):
        seen.add(threading.current_thread())
        return read(self, key, indices, deliver)

    monkeypatch.setattr(SegmentReader, "read", noting)
    with VideoReader(path) as reader, VideoReader(path, num_threads=threads, size=(20, 30)) as several:
        indices = range(0, len(reader), 5)
        with VideoReader(path, size=(20, 30)) as one:
            assert np.array_equal(several.get_frames(indices).data, one.get_frames(indices).data)
    others = seen - {threading.current_thread()}
    assert 1 <= len(others) <= (threads or os.cpu_count())
    assert not any(thread.is_alive() for thread in others)


def test_a_fault_in_a_stretch_ends_all(odd, monkeypatch):
    begun = []

    def broken(self, key, indices, deliver):
        begun.append(key)
        raise ZeroDivisionError

    monkeypatch.setattr(SegmentReader, "read", broken)
    with VideoReader(odd("h264_b"), num_threads=2) as reader, pytest.raises(ZeroDivisionError):
        reader.get_frames(range(0, len(reader), 5))
    assert len(begun) <= 2


@pytest.mark.parametrize("name", [n for n in ODD if n != "h264_mirrored"])
def test_iteration_equals_the_sequential_decode(odd, name):
    path = odd(name)
    expected = [image for _, image in sequential(path)]
    with VideoReader(path) as reader:
        chunks = list(reader.chunks(7))
    assert np.array_equal(np.concatenate([c.indices for c in chunks]), np.arange(len(expected)))
    assert np.array_equal(np.concatenate([c.data for c in chunks]), np.stack(expected))


@pytest.mark.parametrize(
    "name", [n for n in ODD if not n.startswith(("rotated", "h264_mirrored", "cut", "gif_alpha", "h264_444"))]
)
def test_stamps_say_that_no_frame_is_missing(odd, name):
    first = FIRST_STAMP.get(name, 0)
    with VideoReader(odd(name)) as reader:
        stamps = [read_stamp(frame.data[0]) for frame in reader]
    assert stamps == list(range(first, first + len(stamps)))
    assert len(stamps) == FRAMES.get(name, COUNT - first)


@pytest.mark.parametrize("name", list(ODD))
def test_times_increase_and_bound_the_metadata(odd, name):
    with VideoReader(odd(name)) as reader:
        times, meta = reader.timestamps, reader.metadata
    assert np.all(np.diff(times) > 0)
    assert meta.begin == times[0]
    assert meta.duration > times[-1] - times[0]
    assert meta.fps == pytest.approx(meta.num_frames / meta.duration)


def test_times_are_those_of_the_file(odd):
    with VideoReader(odd("h264_late_start_mkv")) as reader:
        assert reader.metadata.begin == pytest.approx(1.5, abs=0.002)
    with VideoReader(odd("h264_edit_list")) as reader:
        assert reader.metadata.begin == pytest.approx(0, abs=1e-6)
    with VideoReader(odd("h264_vfr_mkv")) as reader:
        steps = np.random.default_rng(3).integers(11, 120, COUNT)
        assert np.allclose(reader.timestamps, (np.cumsum(steps) - 0) / 1000, atol=0.002)


def test_mirrored_pictures_are_turned_back(odd):
    path = odd("h264_mirrored")
    with av.open(str(path)) as container:
        raw = next(container.decode(video=0)).to_ndarray(format="rgb24")
    with VideoReader(path) as reader:
        assert np.array_equal(reader.get_frames([0]).data[0], raw[:, ::-1])


@pytest.mark.parametrize(("name", "degrees"), [("rotated_90", 270), ("rotated_180", 180), ("rotated_-90", 90)])
def test_rotation_is_applied_and_reported_clockwise(odd, name, degrees):
    with VideoReader(odd(name)) as reader:
        meta = reader.metadata
        shape = reader.get_frames([3]).data.shape
    assert meta.rotation == degrees
    assert (meta.height, meta.width) == ((48, 64) if degrees == 180 else (64, 48)) == shape[1:3]


ONE = 1 << 16
# (a, b, c, d) of the display matrix: rotation clockwise after a mirror, and what it does to a picture.
MATRICES = {
    (0, 0, 0, 0): (0, lambda x: x),
    (-ONE, 0, 0, ONE): (0, lambda x: x[:, ::-1]),
    (ONE, 0, 0, -ONE): (0, lambda x: x[::-1]),
    (-ONE, 0, 0, -ONE): (180, lambda x: x[::-1, ::-1]),
    (0, ONE, -ONE, 0): (90, lambda x: np.rot90(x, -1)),
    (0, -ONE, ONE, 0): (270, np.rot90),
    (0, ONE, ONE, 0): (270, lambda x: x.swapaxes(0, 1)),
    (0, -ONE, -ONE, 0): (90, lambda x: np.rot90(x, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_every_display_matrix_is_applied_and_reported(tmp_path, matrix):
    a, b, c, d = matrix
    degrees, shown = MATRICES[matrix]
    frames = [stamp(i) for i in range(3)]
    path = encode(tmp_path / "m.mp4", frames=frames, options=x264(), matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
    with av.open(str(path)) as container:
        raw = next(container.decode(video=0)).to_ndarray(format="rgb24")
    with VideoReader(path) as reader:
        meta, picture = reader.metadata, reader.get_frames([0]).data[0]
    assert meta.rotation == degrees
    assert (meta.height, meta.width) == picture.shape[:2]
    assert np.array_equal(picture, shown(raw))


def test_side_data_that_pyav_does_not_know_is_no_damage(tmp_path):
    """FFmpeg's tiff decoder hands out EXIF, a kind of side data that PyAV can't list."""
    path = encode(tmp_path / "t.mov", "tiff", pix_fmt="rgb24", frames=[stamp(i) for i in range(4)])
    with VideoReader(path) as reader:
        assert [read_stamp(f) for f in reader.get_frames([3, 0]).data] == [3, 0]
        assert [read_stamp(f.data[0]) for f in reader] == [0, 1, 2, 3]
    assert inspect_video(str(path), level="full").kind is None


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_never_gives_other_pixels_than_a_sequential_decode(odd, name):
    """A damaged file keeps its time line: frames are found by their time, lost ones are left out and named. A frame
    that a sequential decode loses to damage before its keyframe may be that of a decode from the keyframe."""
    path = odd(name)
    decoded = sequential(path)
    if not decoded:  # the seed hit a header: an error of ours, no frame
        with (
            pytest.raises(VideoError),
            VideoReader(path) as reader,
        ):
            reader.get_frames([0])
        return
    with VideoReader(path, on_error="skip") as reader:
        with av.open(str(path)) as container:
            tick = container.streams.video[0].time_base
        table = reader._source._video.table
        for seed in range(4):
            for indices in some_indices(len(reader), seed):
                got = reader.get_frames(indices)
                for index, second, image in zip(got.indices, got.seconds, got.data, strict=True):
                    if table.pts is None:
                        assert np.array_equal(image, decoded[index][1])
                    else:
                        matching = [x for pts, x in decoded if pts == round(second / tick)]
                        if not any(np.array_equal(image, x) for x in matching):
                            keyframe = int(table.pts[table.keys[table.key_before(index)]])
                            from_there = dict(sequential(path, keyframe))
                            assert np.array_equal(image, from_there[table.pts[index]]), f"frame {index} of {indices}"


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".ts"])
def test_only_frames_that_nothing_refers_to_are_dropped(tmp_path, codec, ending):
    """What the decoder gives of a whole file does not depend on the frames that `unreferenced_check` names."""
    options = x264() if codec == "libx264" else X265
    path = encode(tmp_path / f"v{ending}", codec, options=options)
    everything = dict(sequential(path))
    with contextlib.closing(OpenVideo(media_from_path(str(path)))) as video:
        is_unreferenced = unreferenced_check(video.decoder)
        packets = [packet for packet in video.packets() if packet.size]
        dropped = {packet.pts for packet in packets if is_unreferenced(packet)}
        assert COUNT / 5 < len(dropped) < COUNT / 2 + 5
        video.reopen()
        kept = [packet for packet in video.packets() if packet.pts not in dropped]
        frames = [frame for packet in kept for frame in video.decoder.decode(packet)]
    assert {frame.pts for frame in frames} == set(everything) - dropped
    for frame in frames:
        assert np.array_equal(frame.to_ndarray(format="rgb24"), everything[frame.pts])


@pytest.mark.parametrize("number", [4, 16])
def test_a_lost_reference_frame_is_noticed_on_the_way(tmp_path, number):
    """A packet that no longer holds a frame, where later frames refer to it: they are those of a sequential decode."""
    path = encode(tmp_path / "v.mp4", options=x264(), container_options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        data = bytearray(path.read_bytes())
        referred = [packet for packet in packets if bytes(packet)[4] == 0x41]
        data[referred[number].pos + 4] = 0x5D  # a kind of NAL unit that no decoder knows
    path.write_bytes(data)
    everything = dict(sequential(path))
    with VideoReader(path, on_error="skip") as reader:
        stamps = reader._source._video.table.pts.tolist()
    for index, pts in enumerate(stamps):
        with VideoReader(path, on_error="skip") as reader:
            for image in reader.get_frames([index]).data:
                assert np.array_equal(image, everything[pts]), f"frame {index}"


class TestLostSample:
    """A sample of zeros, number 30 of an mp4 without B-frames: no decoder makes a frame of it."""

    @pytest.fixture
    def path(self, tmp_path):
        return lost_sample(tmp_path / "lost")

    def test_raise_names_the_frame_and_its_second(self, path):
        with VideoReader(path) as reader, pytest.raises(DamagedVideoError, match=r"frame 30 \(1\.000 s\)") as caught:
            reader.get_frames([5, 30, 60])
        assert caught.value.indices == (30,)
        assert caught.value.seconds == pytest.approx((1.0,))

    def test_frames_elsewhere_are_read(self, path):
        with VideoReader(path) as reader:
            assert [read_stamp(f) for f in reader.get_frames([5, 29, 60]).data] == [5, 29, 60]

    def test_skip_leaves_it_out(self, path):
        with VideoReader(path, on_error="skip") as reader:
            got = reader.get_frames([29, 30, 48, 30])
            assert got.indices.tolist() == [29, 48]
            assert [read_stamp(f) for f in got.data] == [29, 48]
            assert reader.get_frames([30]).data.shape == (0, 48, 64, 3)

    def test_repeat_shows_the_nearest_and_says_so(self, path):
        with VideoReader(path, on_error="repeat") as reader:
            got = reader.get_frames([30, 27, 60, 30])
        assert got.indices.tolist() == [30, 27, 60, 30]
        assert [read_stamp(f) for f in got.data] == [29, 27, 60, 29]
        assert got.repeated == (30,)

    def test_repeat_looks_beyond_what_was_asked_for(self, path):
        with VideoReader(path, on_error="repeat") as reader:
            got = reader.get_frames([30])
        assert read_stamp(got.data[0]) == 29
        assert got.repeated == (30,)

    def test_iteration_follows_the_same_rule(self, path):
        with VideoReader(path) as reader, pytest.raises(DamagedVideoError):
            list(reader)
        with VideoReader(path, on_error="skip") as reader:
            assert [int(f.indices[0]) for f in reader] == [*range(30), *range(31, COUNT)]
        with VideoReader(path, on_error="repeat") as reader:
            frames = list(reader)
        assert len(frames) == COUNT
        assert [f.repeated for f in frames if f.repeated] == [(30,)]
        assert read_stamp(frames[30].data[0]) == 29


SHARED = Path(__file__).resolve().parents[4] / "shared" / "videos"
REAL = sorted(p for p in SHARED.glob("*") if p.suffix in (".mp4", ".avi", ".gif")) if SHARED.is_dir() else []


@pytest.mark.skipif(not REAL, reason="the folder of real clips is not beside this checkout")
@pytest.mark.parametrize("path", REAL, ids=lambda p: p.name)
def test_real_clips(path):
    expected = [image for _, image in sequential(path)]
    with VideoReader(path) as reader:
        assert len(reader) == len(expected)
        for indices in some_indices(len(expected), 0):
            got = reader.get_frames(indices)
            assert all(np.array_equal(x, expected[i]) for i, x in zip(got.indices, got.data, strict=True))
