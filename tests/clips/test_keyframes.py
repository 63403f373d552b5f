"""Clips of keyframes alone: which they are, and that the seconds said are those of what is shown."""

from __future__ import annotations

import av
import numpy as np
import pytest
import tiny
import torch

from hf_video.clips.grid import FeatureGrid
from hf_video.clips.key_frames import around_key_frames
from hf_video.clips.read import ClipInputs, read_clips
from hf_video.clips.request import ClipRequest, Sampling, Windows
from hf_video.errors import VideoOptionError
from hf_video.video.reader import VideoReader
from hf_video.video.writer import write_video

FPS = 25


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    made = {}

    def make(gop, suffix):
        if (gop, suffix) not in made:
            path = tmp_path_factory.mktemp("clips") / f"gop{gop}{suffix}"
            frames = tiny.moving_frames(520, height=32, width=48)
            options = {"preset": "ultrafast", "sc_threshold": "0"}
            made[gop, suffix] = write_video(path, frames, FPS, "h264", keyframe_interval=gop, options=options)
        return made[gop, suffix]

    return make


def pixels(frames, crops):
    return {"frames": torch.from_numpy(np.array(frames))[None]}


def read(path, **options):
    seen, *clips = read_clips(path, ClipRequest(Sampling(8), **options), pixels)
    assert all(isinstance(one, ClipInputs) for one in clips)
    return seen, [one.inputs["frames"][0].numpy() for one in clips]


def keyframes_of(path):
    """Their seconds, as the container says."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.video[0])
        return np.array([float(packet.pts * packet.time_base) for packet in packets if packet.is_keyframe])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("gop", [10, 30, 250])
def test_windows_show_keyframes_and_have_their_seconds(clip, gop, suffix):
    path, windows = clip(gop, suffix), Windows(2.0, 1.0)
    keys = keyframes_of(path)
    exact, _ = read(path, windows=windows)
    seen, shown = read(path, windows=windows, snap="keyframe")
    with VideoReader(path) as reader:
        starts, end = reader.timestamps, reader.end
        assert len(keys) == -(-len(starts) // gop)
        for one, frames in zip(seen, shown, strict=True):
            (indices,), (seconds,) = one.sample.indices, one.sample.seconds
            assert np.abs(seconds[:, None] - keys).min(1).max() < 1e-9
            np.testing.assert_array_equal(starts[indices], seconds)
            np.testing.assert_array_equal(frames, reader.get_frames(indices).data)
            first, last = indices.min(), indices.max()
            assert one.seconds == (starts[first], starts[last + 1] if last + 1 < len(starts) else end)
            np.testing.assert_array_equal(one.sample.spans, [one.seconds])
    different = {tuple(np.unique(one.sample.indices)) for one in seen}
    assert len(different) == len(seen)
    for one in exact:  # none is lost, and what stands for it lies within half an interval
        near = np.abs(one.sample.seconds[0][:, None] - keys).argmin(1)
        assert np.abs(keys[near] - one.sample.seconds[0]).max() <= gop / FPS
        assert tuple(np.unique(np.searchsorted(starts, keys[near] - 1e-9))) in different


def test_of_long_stretches_without_keyframes_little_is_decoded(clip, monkeypatch):
    from hf_video.video.decode import segments

    path, decoded = clip(250, ".mp4"), []
    take = segments._take

    def counting(frames, *rest):
        decoded.extend(frames)
        return take(frames, *rest)

    monkeypatch.setattr(segments, "_take", counting)
    seen, _ = read(path, windows=Windows(2.0, 1.0), snap="keyframe")
    assert [one.seconds[0] for one in seen] == [0, 0, 10, 10, 20]
    assert len(decoded) <= 3 + 1  # and the first one, for its size


def test_frames_that_stand_alone_are_shown_as_they_are():
    frames = tiny.moving_frames(50)
    (one,), (shown,) = read(frames, snap="keyframe", fps=FPS)
    np.testing.assert_array_equal(shown, frames[one.sample.indices[0]])
    assert len(np.unique(one.sample.indices)) == 8


def test_what_keyframes_are_not_for(two_stream):
    for windows in (FeatureGrid(8, 16), FeatureGrid(1, 2, fps=1)):
        with pytest.raises(VideoOptionError, match="regular grid"):
            ClipRequest.resolve(None, None, num_frames=8, windows=windows, snap="keyframe")
    with pytest.raises(VideoOptionError, match="keyframe"):
        ClipRequest.resolve(None, None, num_frames=8, snap="key")
    with pytest.raises(VideoOptionError, match="optical flow"):
        ClipRequest.resolve(two_stream, None, num_frames=8, snap="keyframe")
    with pytest.raises(VideoOptionError, match="around key frames"):
        around_key_frames(ClipRequest(Sampling(8, stride=2), snap="keyframe"), lambda begin, end: np.array([1.0]))


@pytest.fixture
def two_stream():
    from hf_video import TwoStreamImageProcessor

    return TwoStreamImageProcessor()
