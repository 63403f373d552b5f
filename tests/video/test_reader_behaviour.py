"""What a reader promises beyond its frames: arguments, times, keyframes, sizes, processes, memory."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from fractions import Fraction
from pathlib import Path

import av
import forked
import numpy as np
import pytest
import torch
from odd_files import COUNT, encode, read_stamp, stamp, x264
from PIL import Image

from hf_video import errors
from hf_video.video import VideoReader, resize_frames, shortest_edge_size


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return encode(tmp_path_factory.mktemp("clips") / "clip.mp4", options=x264(sc_threshold="0"), gop=16)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """Frames at 0, 10, 20, ... ms, but the last at 2 s: its successor never comes."""
    pts = [*range(0, 10 * (COUNT - 1), 10), 2000]
    path = tmp_path_factory.mktemp("clips") / "uneven.mkv"
    return encode(path, options=x264(), pts=pts, time_base=Fraction(1, 1000))


class TestIndices:
    @pytest.mark.parametrize(
        ("indices", "expected"),
        [
            (5, [5]),
            ([5, 5, 2], [5, 5, 2]),
            ((-1, 0), [COUNT - 1, 0]),
            (range(10, 4, -2), [10, 8, 6]),
            (slice(60, None, 5), [60, 65, 70]),
            (np.array([3, -COUNT], np.int32), [3, 0]),
            (torch.tensor([1, 2]), [1, 2]),
            (iter([4]), [4]),
            ([], []),
            (np.array([], np.int64), []),
        ],
    )
    def test_forms(self, clip, indices, expected):
        with VideoReader(clip) as reader:
            got = reader.get_frames(indices)
        assert got.indices.tolist() == expected
        assert got.indices.dtype == np.int64
        assert got.data.shape == (len(expected), 48, 64, 3)
        assert [read_stamp(f) for f in got.data] == expected
        assert got.seconds == pytest.approx(np.array(expected) / 30)

    @pytest.mark.parametrize("indices", [[COUNT], [0, -COUNT - 1], [10**12]])
    def test_out_of_range_names_the_range(self, clip, indices):
        with VideoReader(clip) as reader, pytest.raises(errors.FrameIndexError, match=f"-{COUNT} to {COUNT - 1}"):
            reader.get_frames(indices)

    @pytest.mark.parametrize("indices", [[0.5], ["1"], [True], [[1, 2]], None, [None], "12"])
    def test_only_whole_numbers(self, clip, indices):
        with VideoReader(clip) as reader, pytest.raises(errors.FrameIndexError, match="whole numbers"):
            reader.get_frames(indices)

    def test_item_access(self, clip):
        with VideoReader(clip) as reader:
            assert reader[7].indices.tolist() == [7]
            assert len(reader[3:9]) == 6


class TestTimes:
    def test_the_frame_on_screen(self, uneven):
        with VideoReader(uneven) as reader:
            end = reader.metadata.begin + reader.metadata.duration
            asked = [0.0, 0.0099, 0.01, 0.0199, 0.02, 0.7, 1.999, 2.0, (end + 2) / 2]
            got = reader.get_frames_at(asked)
        assert got.indices.tolist() == [0, 0, 1, 1, 2, COUNT - 2, COUNT - 2, COUNT - 1, COUNT - 1]
        assert got.seconds[-1] == pytest.approx(2.0)

    def test_every_own_time_gives_the_frame_itself(self, clip):
        with VideoReader(clip) as reader:
            times = reader.timestamps
            assert reader.get_frames_at(times).indices.tolist() == list(range(COUNT))
            assert reader.get_frames_at([i / 30 for i in range(COUNT)]).indices.tolist() == list(range(COUNT))

    @pytest.mark.parametrize("second", [-0.01, 2.4, 99.0, float("nan")])
    def test_outside(self, clip, second):
        with VideoReader(clip) as reader, pytest.raises(errors.FrameIndexError, match="runs from 0 s to"):
            reader.get_frames_at([0.1, second])

    @pytest.mark.parametrize("seconds", [["soon"], "10", None, [[0.1, 0.2]], [None]])
    def test_only_numbers(self, clip, seconds):
        with VideoReader(clip) as reader, pytest.raises(errors.FrameIndexError, match="seconds must be numbers"):
            reader.get_frames_at(seconds)

    def test_no_times(self, clip):
        with VideoReader(clip) as reader:
            assert reader.get_frames_at([]).data.shape == (0, 48, 64, 3)

    def test_one_number(self, clip):
        with VideoReader(clip) as reader:
            assert reader.get_frames_at(1.0).indices.tolist() == [30]


class TestMetadata:
    def test_mp4(self, clip):
        with VideoReader(clip) as reader:
            meta = reader.metadata
        assert (meta.num_frames, meta.height, meta.width, meta.rotation, meta.codec) == (COUNT, 48, 64, 0, "h264")
        assert (meta.fps, meta.duration, meta.begin) == (pytest.approx(30), pytest.approx(COUNT / 30), 0)
        assert meta.source == str(clip)

    def test_metadata_costs_no_pass_over_the_packets(self, clip, monkeypatch):
        monkeypatch.setattr(
            "hf_video.video.decode.frame_table._scan", lambda *_: pytest.fail("the index of an mp4 says everything")
        )
        with VideoReader(clip) as reader:
            assert reader.metadata.num_frames == COUNT
            reader.get_frames([50])

    def test_one_open_serves_metadata_and_frames(self, tmp_path, monkeypatch):
        path = encode(tmp_path / "clip.mkv", options=x264())
        opened = []
        original = av.open
        monkeypatch.setattr("av.open", lambda *a, **k: opened.append(a) or original(*a, **k))
        with VideoReader(path) as reader:
            assert reader.metadata.num_frames == len(reader) == COUNT
            reader.get_frames([50, 3])
            reader.get_frames([70])
        assert len(opened) == 1

    def test_few_frames_are_decoded(self, clip, monkeypatch):
        """Frames 40 and 41 of a clip with keyframes every 16: nothing before frame 32 is touched."""
        from hf_video.video.decode import segments

        decoded = []
        original = segments._take
        monkeypatch.setattr(segments, "_take", lambda frames, *a: decoded.extend(frames) or original(frames, *a))
        with VideoReader(clip) as reader:
            reader.get_frames([40, 41])
        assert 2 <= len(decoded) <= 12


class TestKeyframes:
    def test_snap_reads_the_nearest(self, clip):
        with VideoReader(clip, snap="keyframe") as reader:
            got = reader.get_frames([0, 7, 9, 25, 70, 9])
        assert got.indices.tolist() == [0, 0, 16, 32, 64, 16]
        assert got.seconds == pytest.approx(got.indices / 30)
        assert [read_stamp(f) for f in got.data] == got.indices.tolist()

    @pytest.mark.parametrize("ending", [".mkv", ".ts", ".avi"])
    def test_same_pixels_as_exact(self, tmp_path, ending):
        path = encode(tmp_path / f"clip{ending}", options=x264(sc_threshold="0"), gop=16)
        with VideoReader(path) as exact, VideoReader(path, snap="keyframe") as snapped:
            got = snapped.get_frames([3, 20, 60])
            assert np.array_equal(got.data, exact.get_frames(got.indices).data)
            assert set(got.indices) <= {0, 16, 32, 48, 64}
            assert snapped.get_frames_at([0.6]).indices.tolist() == [16]

    @pytest.mark.parametrize("name", ["h264_open_gop", "h264_open_gop_mkv", "h264_open_gop_ts", "hevc_open_gop", "gif"])
    def test_open_gops_too(self, odd, name):
        """Where frames that follow a keyframe in the file are shown before it."""
        with av.open(str(odd(name))) as container:
            keys = {i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame}
        with VideoReader(odd(name), snap="keyframe") as reader, VideoReader(odd(name)) as exact:
            got = reader.get_frames(range(0, COUNT, 5))
            assert set(got.indices) <= keys
            assert np.array_equal(got.data, exact.get_frames(got.indices).data)

    def test_one_packet_for_each(self, clip, monkeypatch):
        with VideoReader(clip, snap="keyframe") as reader:
            monkeypatch.setattr(reader._source._video, "fetch", lambda *_: pytest.fail("a full decode"))
            assert len(reader.get_frames([0, 20, 40])) == 3


class TestSizes:
    def test_exact_size_is_one_level_from_pil(self, clip):
        with VideoReader(clip) as plain, VideoReader(clip, size=(30, 50)) as small:
            whole, got = plain.get_frames([3, 40]).data, small.get_frames([3, 40]).data
        assert got.shape == (2, 30, 50, 3)
        for image, frame in zip(whole, got, strict=True):
            pil = np.asarray(Image.fromarray(image).resize((50, 30), Image.Resampling.BILINEAR))
            assert np.abs(pil.astype(int) - frame).max() <= 1

    def test_shortest_edge(self, clip):
        with VideoReader(clip, shortest_edge=20) as reader:
            assert reader.get_frames([0]).data.shape == (1, 20, 26, 3)
            assert (reader.metadata.height, reader.metadata.width) == (48, 64)
            assert reader.get_frames([]).data.shape == (0, 20, 26, 3)
            assert next(iter(reader)).data.shape == (1, 20, 26, 3)

    def test_size_counts_after_rotation(self, tmp_path):
        path = encode(tmp_path / "turned.mp4", options=x264(), rotation=90)
        for scaler in ("exact", "swscale"):
            with VideoReader(path, size=(40, 20), scaler=scaler) as reader:
                assert reader.get_frames([0]).data.shape == (1, 40, 20, 3)

    def test_swscale_is_near(self, clip):
        with VideoReader(clip, size=(24, 32)) as exact, VideoReader(clip, size=(24, 32), scaler="swscale") as fast:
            difference = exact.get_frames([9]).data.astype(int) - fast.get_frames([9]).data
        assert 0 < np.abs(difference).mean() < 6

    def test_resize_of_arrays(self):
        frames = np.stack([stamp(i) for i in range(3)])
        with VideoReader(frames, size=(24, 32)) as reader:
            assert np.array_equal(reader.get_frames([0, 1, 2]).data, resize_frames(frames, (24, 32)))

    @pytest.mark.parametrize(
        "options",
        [
            {"size": (0, 3)},
            {"size": 224},
            {"size": (1, 2, 3)},
            {"size": (2.5, 3)},
            {"shortest_edge": -1},
            {"size": (2, 2), "shortest_edge": 2},
            {"on_error": "ignore"},
            {"snap": "nearest"},
            {"backend": "decord"},
            {"scaler": "fast"},
            {"num_threads": -1},
            {"fps": 0},
            {"fps": float("nan")},
        ],
        ids=str,
    )
    def test_wrong_options(self, clip, options):
        with pytest.raises(errors.VideoOptionError):
            VideoReader(clip, **options)


class TestResize:
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    @pytest.mark.parametrize("size", [(17, 31), (100, 90), (48, 20)])
    def test_within_one_level_of_pil(self, interpolation, size):
        frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
        got = resize_frames(frames, size, interpolation=interpolation)
        for image, frame in zip(frames, got, strict=True):
            pil = Image.fromarray(image).resize(size[::-1], getattr(Image.Resampling, interpolation.upper()))
            assert np.abs(np.asarray(pil).astype(int) - frame).max() <= 1

    def test_kind_stays(self):
        tensor = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
        assert isinstance(resize_frames(tensor, (4, 4)), torch.Tensor)
        assert resize_frames(tensor, (8, 8)) is tensor
        assert resize_frames(np.zeros((0, 8, 8, 3), np.uint8), (4, 4)).shape == (0, 4, 4, 3)

    def test_wrong_input(self):
        with pytest.raises(errors.VideoArrayError):
            resize_frames(np.zeros((8, 8, 3), np.uint8), (4, 4))
        with pytest.raises(errors.VideoArrayError):
            resize_frames(np.zeros((1, 8, 8, 3)), (4, 4))
        with pytest.raises(errors.VideoOptionError):
            resize_frames(np.zeros((1, 8, 8, 3), np.uint8), (4, 4), interpolation="lanczos")
        with pytest.raises(errors.VideoOptionError):
            resize_frames(np.zeros((1, 8, 8, 3), np.uint8), (0, 4))

    @pytest.mark.parametrize(
        ("given", "expected"), [((480, 640), (224, 298)), ((640, 480), (298, 224)), ((7, 7), (224, 224))]
    )
    def test_shortest_edge_size(self, given, expected):
        assert shortest_edge_size(*given, 224) == expected

    def test_shortest_edge_of_nothing(self):
        with pytest.raises(errors.VideoOptionError):
            shortest_edge_size(0, 5, 224)


def _stamps(reader: VideoReader, queue: multiprocessing.SimpleQueue) -> None:
    queue.put([read_stamp(f) for f in reader.get_frames([40, 3]).data])


class TestProcesses:
    def test_pickle_carries_the_table_not_the_file(self, clip):
        with VideoReader(clip, shortest_edge=32) as reader:
            reader.get_frames([3])
            copy = pickle.loads(pickle.dumps(reader))
            assert copy._source._video._table is not None
            assert np.array_equal(copy.get_frames([40]).data, reader.get_frames([40]).data)
            copy.close()

    @pytest.mark.parametrize("name", ["h264_two_sizes", "h264_open_gop", "h264_ts", "h264_mkv", "gif", "mpeg4_avi_b"])
    def test_a_copy_reads_the_same_at_once(self, odd, name):
        """A copy knows the table but has opened nothing: the first thing that it reads lies in the middle."""
        with VideoReader(odd(name)) as reader:
            expected = reader.get_frames(range(COUNT)).data
            for index in (60, 11, 37):
                copy = pickle.loads(pickle.dumps(reader))
                assert np.array_equal(copy.get_frames([index]).data[0], expected[index])
                copy.close()

    @pytest.mark.parametrize("make", [lambda p: p.read_bytes(), lambda p: p.open("rb"), lambda p: [stamp(3), stamp(4)]])
    def test_other_sources_pickle_too(self, clip, make):
        with VideoReader(make(clip)) as reader:
            copy = pickle.loads(pickle.dumps(reader))
            assert np.array_equal(copy.get_frames([1]).data, reader.get_frames([1]).data)
            copy.close()

    @pytest.mark.parametrize("num_threads", [1, 2])
    def test_used_after_a_fork(self, clip, num_threads):
        context = multiprocessing.get_context("fork")
        with VideoReader(clip, num_threads=num_threads) as reader:
            reader.get_frames([10])
            queue = context.SimpleQueue()
            children = [context.Process(target=_stamps, args=(reader, queue)) for _ in range(2)]
            for child in children:
                child.start()
            mine = [read_stamp(f) for f in reader.get_frames([60, 20]).data]
            for child in children:
                child.join(20)
            assert [child.exitcode for child in children] == [0, 0], "a child hangs or failed"
            assert [queue.get(), queue.get(), mine] == [[40, 3], [40, 3], [60, 20]]

    def test_threads_take_turns(self, clip):
        failures = []
        with VideoReader(clip) as reader:

            def work(seed: int) -> None:
                rng = np.random.default_rng(seed)
                for _ in range(10):
                    indices = rng.integers(0, COUNT, 3).tolist()
                    if [read_stamp(f) for f in reader.get_frames(indices).data] != indices:
                        failures.append(indices)

            threads = [threading.Thread(target=work, args=(s,)) for s in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not failures

    def test_more_decoder_threads_give_the_same(self, clip):
        with VideoReader(clip) as one, VideoReader(clip, num_threads=2) as two:
            assert np.array_equal(one.get_frames([0, 17, 71]).data, two.get_frames([0, 17, 71]).data)

    def test_closed_readers_open_again(self, clip):
        reader = VideoReader(clip)
        reader.close()
        reader.close()
        assert len(reader.get_frames([3])) == 1
        reader.close()

    def test_reading_while_iterating(self, clip):
        with VideoReader(clip) as reader:
            for frame in reader:
                index = int(frame.indices[0])
                assert read_stamp(frame.data[0]) == index
                if index % 9 == 0:
                    assert read_stamp(reader.get_frames([COUNT - 1 - index]).data[0]) == COUNT - 1 - index


def _memory(kind: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) // 1024
    raise AssertionError(kind)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="memory is read from /proc")


@needs_proc
class TestLeaks:
    def test_opening_and_closing(self, clip, tmp_path):
        text = tmp_path / "text.mp4"
        text.write_text("no video" * 100)
        self._work(clip, text, 20)
        files, memory, threads = _open_files(), _memory("VmRSS"), threading.active_count()
        self._work(clip, text, 200)
        assert _open_files() <= files
        assert threading.active_count() == threads
        assert _memory("VmRSS") - memory < 12

    @staticmethod
    def _work(clip: Path, text: Path, times: int) -> None:
        for number in range(times):
            reader = VideoReader(clip)
            reader.get_frames([number % COUNT])
            next(iter(reader))
            if number % 2:
                reader.close()  # the others are closed when they are forgotten
            with pytest.raises(errors.NotAVideoError):
                VideoReader(text)


def _peak(path: str, options: dict, queue: multiprocessing.SimpleQueue) -> None:
    import torch  # noqa: F401 - the baseline has it loaded

    before = _memory("VmHWM")
    with VideoReader(path, **options) as reader:
        count = len(reader)
        frames = reader.get_frames([int((i + 0.5) * count / 16) for i in range(16)])
    queue.put((_memory("VmHWM") - before, frames.data.nbytes // 2**20))


@needs_proc
@pytest.mark.parametrize(("options", "allowed"), [({}, 110), ({"shortest_edge": 112}, 70)], ids=["full", "resized"])
def test_memory_of_sixteen_large_frames(tmp_path, options, allowed):
    """The result once (42 MiB at 720p) and the decoder's own pictures: no copies, no queue of decoded frames."""
    path = encode(
        tmp_path / "large.mp4",
        frames=(np.full((720, 1280, 3), i * 3, np.uint8) for i in range(48)),
        options=x264(preset="ultrafast"),
    )
    queue = forked.CONTEXT.SimpleQueue()
    child = forked.CONTEXT.Process(target=_peak, args=(str(path), options, queue))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    grown, _ = queue.get()
    assert grown <= allowed
