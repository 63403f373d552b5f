"""Frames of many overlapping clips: the same as of each clip alone, with little memory and work, whatever keyframes."""

from __future__ import annotations

import av
import numpy as np
import pytest
import tiny

from hf_video.errors import DamagedVideoError
from hf_video.video.decode import clip_frames
from hf_video.video.decode.container import OpenVideo
from hf_video.video.reader import VideoReader

FRAMES = 96
WINDOWS = [np.arange(first, first + 12, 3) for first in range(0, FRAMES - 12, 4)]


@pytest.fixture(scope="module")
def one_keyframe(tmp_path_factory):
    """A keyframe at the start and none after it, with frames that nothing refers to, in three containers."""
    folder = tmp_path_factory.mktemp("clips")
    path = folder / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 24, options={"g": "1000", "bf": "2", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for frame in tiny.moving_frames(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    for ending in ("ts", "mkv"):
        with av.open(str(path)) as given, av.open(str(folder / f"clip.{ending}"), "w") as copy:
            stream = copy.add_stream_from_template(given.streams.video[0])
            for packet in given.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    copy.mux(packet)
    return folder


@pytest.fixture
def packets(monkeypatch):
    """Counts the packets that are read."""
    count = [0]
    plain = OpenVideo.packets

    def counting(self):
        for packet in plain(self):
            count[0] += 1
            yield packet

    monkeypatch.setattr(OpenVideo, "packets", counting)
    return count


@pytest.mark.parametrize("ending", ["mp4", "ts", "mkv"])
@pytest.mark.parametrize("limit", [8, 1000])
def test_clips_are_what_get_frames_gives(one_keyframe, ending, limit):
    with VideoReader(one_keyframe / f"clip.{ending}") as reader:
        found = list(reader.frames_of_clips(WINDOWS, limit=limit))
        assert len(found) == len(WINDOWS)
        for frames, clip in zip(found, WINDOWS, strict=True):
            expected = reader.get_frames(clip)
            np.testing.assert_array_equal(frames.data, expected.data)
            np.testing.assert_array_equal(frames.indices, clip)
            np.testing.assert_array_equal(frames.seconds, expected.seconds)


@pytest.mark.parametrize("ending", ["mp4", "ts", "mkv"])
def test_work_grows_with_the_length_and_not_with_its_square(one_keyframe, ending, packets):
    with VideoReader(one_keyframe / f"clip.{ending}") as reader:
        len(reader)  # the table of frames
        packets[0] = 0
        list(reader.frames_of_clips(WINDOWS, limit=8))
    assert FRAMES - 12 <= packets[0] <= 2.5 * FRAMES  # one pass, and another one where it has to confirm an index


def test_clips_that_go_back_and_forth_are_read_in_groups(one_keyframe, packets):
    clips = [np.arange(start, FRAMES, 8) for start in range(8)]  # each spans the video: one pass would hold it all
    with VideoReader(one_keyframe / "clip.mkv") as reader:
        groups = clip_frames.groups_of(clips, 12)
        assert len(groups) == 8
        assert not clip_frames.is_better_in_one_pass(reader._source, groups, 12)
        for frames, clip in zip(reader.frames_of_clips(clips, limit=12), clips, strict=True):
            np.testing.assert_array_equal(frames.data, reader.get_frames(clip).data)


@pytest.mark.parametrize("name", ["corrupt_h264_mp4_2", "corrupt_h264_mkv_1", "corrupt_h264_ts_1"])
def test_damage_is_treated_alike_in_both_ways(odd, name, monkeypatch):
    damaged = odd(name)
    for on_error in ("skip", "repeat", "raise"):
        ways = []
        for most in (0, np.inf):
            monkeypatch.setattr(clip_frames, "MOST_DECODED", most)
            with VideoReader(damaged, on_error=on_error) as reader:
                clips = [np.arange(first, first + 12) for first in range(0, len(reader) - 12, 4)]
                ways.append(read(reader, clips))
        assert len(ways[0]) == len(ways[1]) > 0
        for once, grouped in zip(*ways, strict=True):
            if isinstance(once, DamagedVideoError):
                assert isinstance(grouped, DamagedVideoError)
                continue
            np.testing.assert_array_equal(once.indices, grouped.indices)
            np.testing.assert_array_equal(once.data, grouped.data)
            assert once.repeated == grouped.repeated


def read(reader, clips):
    """What is read, up to and with the first fault; groups find it as early as their first clip."""
    found = []
    try:
        for frames in reader.frames_of_clips(clips, limit=24):
            found.append(frames)
    except DamagedVideoError as error:
        return [error]
    return found


def test_clips_that_share_nothing_are_read_one_by_one(tmp_path, monkeypatch):
    """So that no more than one of them is in memory; those behind one keyframe are decoded together all the same."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        options = {"g": "24", "keyint_min": "24", "sc_threshold": "0", "preset": "ultrafast"}
        stream = container.add_stream("libx264", 24, options=options)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for frame in tiny.moving_frames(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    clips = [np.arange(first, first + 8) for first in (0, 24, 48, 72)]
    asked = []
    plain = VideoReader.get_frames
    monkeypatch.setattr(VideoReader, "get_frames", lambda self, one: asked.append(len(one)) or plain(self, one))
    with VideoReader(path) as reader:
        found = list(reader.frames_of_clips(clips, limit=1000))
        assert asked == [8, 8, 8, 8]
        for clip, frames in zip(clips, found, strict=True):
            assert np.array_equal(frames.indices, clip)
            assert np.array_equal(frames.data, plain(reader, clip).data)
        asked.clear()
        assert len(list(reader.frames_of_clips([clips[0], clips[0] + 10], limit=1000))) == 2
        assert len(list(reader.frames_of_clips([clips[0], clips[0] + 4], limit=1000))) == 2
        assert asked == [16, 12]
