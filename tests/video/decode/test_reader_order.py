"""Files whose timestamps contradict the order in which their frames are decoded, and what their packets leave out."""

from __future__ import annotations

import pickle
from fractions import Fraction

import av
import numpy as np
import pytest
from odd_files import COUNT, ODD, encode, read_stamp, x264

from hf_video.video import VideoReader

BARE = [name for name in ODD if "_bare_in_" in name]
AVI = ["h264_avi_b", "h264_ts_in_avi", "mpeg4_avi_b", "h264_bare_in_avi"]


def stamps_read(reader: VideoReader, indices: list[int]) -> list[int]:
    return [read_stamp(frame) for frame in reader.get_frames(indices).data]


@pytest.mark.parametrize("name", BARE)
def test_decoding_times_as_presentation_times_are_noticed(odd, name):
    with VideoReader(odd(name)) as reader:
        assert stamps_read(reader, [2, 1, 0, 9, 70, 33]) == [2, 1, 0, 9, 70, 33]
        meta, times = reader.metadata, reader.timestamps
        again = pickle.loads(pickle.dumps(reader))
    assert meta.rebuilt_timestamps
    assert (meta.num_frames, meta.fps, meta.duration) == (COUNT, pytest.approx(30), pytest.approx(COUNT / 30))
    assert times == pytest.approx(np.arange(COUNT) / 30, abs=1e-3)
    with again:
        assert stamps_read(again, [5, 4]) == [5, 4]


@pytest.mark.parametrize(
    "name", ["h264_b", "h264_open_gop", "h264_vfr_mp4", "hevc_mp4", "mpeg4_mp4_b", "vp9_webm", "gif"]
)
def test_good_timestamps_are_kept(odd, name):
    with VideoReader(odd(name)) as reader:
        assert not reader.metadata.rebuilt_timestamps


def test_streams_without_b_frames_are_not_decoded_to_be_counted(tmp_path):
    """Nothing was reordered: decoding times are presentation times."""
    path = encode(tmp_path / "p.mp4", options=x264(bf="0"))
    with VideoReader(path) as reader:
        assert len(reader) == COUNT
        assert reader._source._video.table.origin == "index"


@pytest.mark.parametrize("name", AVI)
def test_avi_with_b_frames_has_the_rate_and_length_of_its_stream(odd, name):
    with VideoReader(odd(name)) as reader:
        meta = reader.metadata
        assert (meta.fps, meta.duration) == (pytest.approx(30), pytest.approx(COUNT / 30))
        assert read_stamp(reader.get_frames_at([1.5]).data[0]) == 45
        assert read_stamp(reader.get_frames_at([2.39]).data[0]) == 71


def test_the_last_frame_of_an_avi_lasts_as_long_as_the_others(tmp_path):
    """Such an avi counts in half frames; its packets say that they last one of them."""
    source = encode(tmp_path / "a.mp4", "mpeg4")
    path = tmp_path / "half.avi"
    with av.open(str(source)) as given, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(given.streams.video[0])
        stream.time_base = Fraction(1, 60)
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            packet.pts = packet.dts = 2 * number
            packet.duration, packet.time_base, packet.stream = 1, Fraction(1, 60), stream
            target.mux(packet)
    with VideoReader(path) as reader:
        assert reader.metadata.duration == pytest.approx(COUNT / 30)


def _all_flagged(source, path):
    """A copy whose packets are all marked as keyframes, as some tools write them."""
    with av.open(str(source)) as given, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.is_keyframe, packet.stream = True, stream
                target.mux(packet)
    return path


@pytest.mark.parametrize(("codec", "ending"), [("mpeg4", ".mkv"), ("mpeg4", ".mp4"), ("libx264", ".mkv")])
@pytest.mark.parametrize("snap", [None, "keyframe"])
def test_a_predicted_frame_is_no_keyframe_whatever_the_container_says(tmp_path, codec, ending, snap):
    options = x264(bf="0") if codec == "libx264" else {}
    path = _all_flagged(encode(tmp_path / f"a{ending}", codec, options=options), tmp_path / f"flagged{ending}")
    with VideoReader(path) as reader:
        whole = [frame.data[0] for frame in reader]
    with VideoReader(path, snap=snap) as reader:
        for index in (1, 5, 20, 47):
            got = reader.get_frames([index])
            assert np.array_equal(got.data[0], whole[got.indices[0]])


def test_a_palette_that_comes_once_is_there_after_seeking(tmp_path):
    """Old palette codecs in mov: the header alone has the colours, and the first packet brings them."""
    path = tmp_path / "old.mov"
    palette = np.stack([np.full(256, 255), *np.random.default_rng(0).integers(0, 256, (3, 256))], -1).astype(np.uint8)
    with av.open(str(path), "w") as target:
        stream = target.add_stream("smc", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        stream.codec_context.gop_size = 6
        for number in range(24):
            colours = np.full((48, 64), 3 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray((colours, palette), format="pal8")
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    with VideoReader(path) as reader:
        for index in (20, 0, 13):
            assert np.array_equal(reader.get_frames([index]).data[0, 0, 0], palette[3 * index, 1:])
