"""The grid of features: which frames a clip has, which seconds it stands for, and how a grid is written."""

from __future__ import annotations

import numpy as np
import pytest

from hf_video.clips.grid import FeatureGrid, parse_grid
from hf_video.clips.read import WindowSample, cut, read_clips
from hf_video.clips.request import ClipRequest
from hf_video.errors import VideoOptionError
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.image_processing_videomae import VideoMAEImageProcessor
from hf_video.video.frames.types import VideoFrames
from hf_video.video.inputs import MemoryVideo


def video(count=40, fps=10.0):
    return MemoryVideo(np.zeros((count, 8, 8, 3), np.uint8), fps=fps)


def uneven(times):
    times = np.asarray(times, dtype=np.float64)
    frames = np.zeros((len(times), 8, 8, 3), np.uint8)
    return MemoryVideo(VideoFrames(data=frames, indices=np.arange(len(times)), seconds=times))


@pytest.mark.parametrize(
    ("given", "grid"),
    [
        ("16/4", FeatureGrid(4, 16)),
        ("16", FeatureGrid(16, 16)),
        ("32/16@30", FeatureGrid(16, 32, 30)),
        ("2s/0.5s", FeatureGrid(0.5, 2, 1)),
        ("1.5s", FeatureGrid(1.5, 1.5, 1)),
        ((16, 4), FeatureGrid(4, 16)),
        ((32, 16, 30), FeatureGrid(16, 32, 30)),
        ({"stride": 4, "num_frames": 16}, FeatureGrid(4, 16)),
        (FeatureGrid(4, 16), FeatureGrid(4, 16)),
    ],
)
def test_grids_are_written_length_first(given, grid):
    assert parse_grid(given) == grid
    assert parse_grid(str(grid)) == grid


@pytest.mark.parametrize("given", ["", "a", "16/4s", "16/-4", "0/4", 16, (16,), {"stride": 4}, None, ("16", 4), "4/0"])
def test_what_is_no_grid(given):
    with pytest.raises(VideoOptionError, match="grid"):
        parse_grid(given)


@pytest.mark.parametrize(
    ("grid", "count", "last"),
    [
        (FeatureGrid(4, 16), 7, (24, 40, 2.4, 4.0)),
        (FeatureGrid(16, 16), 2, (16, 32, 1.6, 3.2)),  # what is left over has no clip
        (FeatureGrid(50, 16), 1, (0, 16, 0.0, 1.6)),
        (FeatureGrid(4, 60), 1, (0, 40, 0.0, 4.0)),  # a video shorter than one clip
        (FeatureGrid(0.5, 1, 1), 7, (30, 40, 3.0, 4.0)),
        (FeatureGrid(2, 8, 5), 7, (24, 40, 2.4, 4.0)),  # of a timeline at half the rate
        (FeatureGrid(16, 32, 30), 6, (26, 38, 80 / 30, 112 / 30)),
    ],
)
def test_clips_of_a_grid(grid, count, last):
    clips = grid.clips(video())
    assert len(clips) == count
    assert clips[-1] == pytest.approx(last)
    segments = cut(video(), grid)
    assert [(s.first, s.first + len(s)) for s in segments] == [one[:2] for one in clips]
    assert [s.seconds for s in segments] == [one[2:] for one in clips]


def test_fractions_of_the_video_s_own_frames_are_refused():
    with pytest.raises(VideoOptionError, match=r"16/2\.5 counts frames of the video"):
        FeatureGrid(2.5, 16).clips(video())


def test_times_of_uneven_frames_are_the_frames_own():
    times = np.cumsum([0, *([0.1] * 10), *([0.4] * 10)])
    one = uneven(times)
    assert FeatureGrid(5, 10).clips(one)[1] == (5, 15, pytest.approx(0.5), pytest.approx(3.0))
    line = FeatureGrid(5, 10).timeline(one)
    assert np.interp([0, 10, 12.5], *line.T) == pytest.approx([0, 1, 2.0])
    assert len(FeatureGrid(5, 10).timeline(video())) == 2
    seconds = FeatureGrid(0.5, 1, 1).clips(one)
    assert {round(end - start, 9) for *_, start, end in seconds} == {1.0}


@pytest.mark.parametrize("stride", [None, 4])
def test_frames_of_a_clip_are_spread_over_it_whatever_the_sampler(stride):
    """Clips of as many frames as the model takes are these frames, also where its processor takes every fourth."""
    options = {} if stride is None else {"sampler": "dense", "sampler_options": {"stride": stride}}
    processor = VideoMAEImageProcessor(num_frames=4, size={"height": 8, "width": 8}, **options)
    config = VideoMAEConfig(num_frames=4, image_size=8, patch_size=4)
    request = ClipRequest.resolve(processor, config, windows=FeatureGrid(2, 4))
    seen = next(iter(read_clips(video(12), request, lambda frames, crops: {})))
    assert all(isinstance(one, WindowSample) for one in seen)
    assert [one.sample.indices.tolist() for one in seen] == [[list(range(i, i + 4))] for i in range(0, 9, 2)]
    asked = ClipRequest.resolve(processor, config, windows=FeatureGrid(2, 8), sampler="dense", frame_sampling_rate=2)
    assert next(iter(read_clips(video(12), asked, lambda frames, crops: {})))[0].sample.indices.tolist() == [
        [0, 2, 4, 6]
    ]
