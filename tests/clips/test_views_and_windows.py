"""Views and windows: parsing, which frames, which seconds, how scores become one."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from hf_video.clips.batching import _Share, read_each
from hf_video.clips.read import ClipInputs, cut
from hf_video.clips.request import Sampling, Views, Windows, average_views, parse_views, parse_windows
from hf_video.errors import SamplingError, VideoOptionError
from hf_video.video.frames.types import VideoFrames, VideoMetadata
from hf_video.video.inputs import MemoryVideo


def video(count=40, fps=10.0):
    return MemoryVideo(np.zeros((count, 8, 8, 3), np.uint8), fps=fps)


@pytest.mark.parametrize(
    ("given", "parsed"),
    [("5x3", (5, 3)), (" 2 X 1 ", (2, 1)), ("4×3", (4, 3)), ((10, 3), (10, 3)), (None, (1, 1)), (Views(2, 3), (2, 3))],
)
def test_views_are_clips_times_crops(given, parsed):
    views = parse_views(given)
    assert (views.clips, views.crops) == parsed
    assert views.total == parsed[0] * parsed[1]


@pytest.mark.parametrize("given", ["5", "5x2", "0x3", "x3", "5x3x1", "-1x3", (5,), (5.0, 3), (True, 3), 15, ""])
def test_views_that_mean_nothing(given):
    with pytest.raises(VideoOptionError, match="clips x crops"):
        parse_views(given)


@pytest.mark.parametrize(
    ("given", "parsed"),
    [(2, (2, 2)), (0.5, (0.5, 0.5)), ("2s", (2, 2)), ("2s/1s", (2, 1)), ("1.5/.5", (1.5, 0.5)), ((4, 2.0), (4, 2))],
)
def test_windows_are_length_and_step(given, parsed):
    assert parse_windows(given) == Windows(*map(float, parsed))


@pytest.mark.parametrize("given", [0, -1, "0s", "two", "2s/3s", (1, 2), "2m", (), (1, 1, 1), True, float("nan")])
def test_windows_that_mean_nothing(given):
    with pytest.raises(VideoOptionError, match="windows="):
        parse_windows(given)


@pytest.mark.parametrize(
    ("windows", "seconds", "frames"),
    [
        (None, [(0, 4)], [(0, 40)]),
        (1, [(0, 1), (1, 2), (2, 3), (3, 4)], [(0, 10), (10, 20), (20, 30), (30, 40)]),
        ("2/1", [(0, 2), (1, 3), (2, 4)], [(0, 20), (10, 30), (20, 40)]),
        (1.5, [(0, 1.5), (1.5, 3), (3, 4)], [(0, 15), (15, 30), (30, 40)]),  # the last one is shorter
        (1.95, [(0, 1.95), (1.95, 4)], [(0, 20), (19, 40)]),  # a sliver of 0.1 s goes to the one before it
        (9, [(0, 4)], [(0, 40)]),
    ],
)
def test_windows_cover_the_video(windows, seconds, frames):
    segments = cut(video(), parse_windows(windows))
    np.testing.assert_allclose([s.seconds for s in segments], seconds)
    assert [(s.first, s.first + len(s)) for s in segments] == frames


def test_windows_of_variable_rate_and_late_start():
    seconds = np.array([5.0, 5.1, 5.2, 8.0, 8.5])
    frames = VideoFrames(data=np.zeros((5, 8, 8, 3), np.uint8), indices=np.arange(5), seconds=seconds)
    windows = cut(MemoryVideo(frames), parse_windows(1))
    # from 6 to 8 s frame 2 stays on screen
    assert [(s.first, s.first + len(s)) for s in windows] == [(0, 3), (2, 3), (2, 3), (3, 5), (4, 5)]
    assert windows[0].seconds == (5.0, 6.0)
    assert windows[-1].seconds[1] == pytest.approx(MemoryVideo(frames).metadata.duration + 5)


@pytest.mark.parametrize(
    ("sampling", "views", "indices"),
    [
        (Sampling(4), Views(), [[5, 15, 25, 35]]),
        (Sampling(4), Views(2, 1), [[0, 10, 20, 30], [5, 15, 25, 35]]),
        (Sampling(4, stride=2), Views(), [[16, 18, 20, 22]]),
        (Sampling(4, stride=2), Views(3, 1), [[0, 2, 4, 6], [16, 18, 20, 22], [32, 34, 36, 38]]),
        (Sampling(4, "at_fps", stride=3), Views(), [[0, 1, 2, 3]]),
        (Sampling(2, lambda n, t, **_: [0, n - 1]), Views(), [[0, 39]]),
        (Sampling(2, lambda n, t, num_clips: [[k, n - 1] for k in range(num_clips)]), Views(2, 1), [[0, 39], [1, 39]]),
        (Sampling(4, "uniform", options={"mode": "floor"}), Views(), [[0, 10, 20, 30]]),
    ],
)
def test_which_frames(sampling, views, indices):
    sample = sampling.choose(video(), views)
    np.testing.assert_array_equal(sample.indices, indices)
    np.testing.assert_allclose(sample.spans[:, 0], np.min(indices, axis=1) / 10)


@pytest.mark.parametrize(
    ("sampling", "views", "hint"),
    [
        (Sampling(4, "uniform", stride=2), Views(), "no stride|has no"),
        (Sampling(4, "center"), Views(2, 1), "one clip"),
        (Sampling(4, "unifrom"), Views(), "Did you mean 'uniform'"),
        (Sampling(4, lambda n, t, **_: [0, 1]), Views(), "4 were"),
        (Sampling(2, lambda n, t, **_: [0, 1]), Views(3, 1), "3 clips"),
        (Sampling(2, lambda n, t: [0, 99]), Views(), "0 to 39"),
    ],
)
def test_choices_that_do_not_go_together(sampling, views, hint):
    with pytest.raises(SamplingError, match=hint):
        sampling.choose(video(), views)


def test_views_are_averaged_after_the_function():
    logits = torch.tensor([[2.0, 0.0], [-1.0, 3.0]])
    e = np.exp(logits.numpy())
    np.testing.assert_allclose(average_views(logits, "softmax"), (e / e.sum(1, keepdims=True)).mean(0), rtol=1e-6)
    np.testing.assert_allclose(average_views(logits, "sigmoid"), (1 / (1 + 1 / e)).mean(0), rtol=1e-6)
    np.testing.assert_allclose(average_views(logits, "none"), [0.5, 1.5])
    assert average_views(logits.bfloat16(), "softmax").dtype == torch.float32


class LongVideo:
    """An hour at 30 frames a second, of which only the times are there; as a reader does, it gives a copy of them."""

    metadata = VideoMetadata(num_frames=108_000, fps=30.0, duration=3600.0, height=8, width=8)

    @property
    def timestamps(self):
        return np.arange(108_000) / 30


def test_the_times_of_a_long_video_are_not_there_once_for_each_window():
    windows = parse_windows("20s/10s")  # each whole table is 0.9 MB
    tracemalloc.start()
    try:
        segments = cut(LongVideo(), windows)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(segments) == 359
    assert used < 10e6  # 311 MB where each window keeps a table
    assert segments[200].timestamps[[0, -1]].tolist() == pytest.approx([2000, 2020 - 1 / 30])


def test_workers_hand_a_long_video_over_in_parts():
    def read(video):
        yield "seen"
        for window in range(video):
            yield ClipInputs(window, {"pixel_values": torch.zeros(1, 2**20 if video == 7 else 1)})

    parts = list(_Share([100, 7, 0], read, 0, 1))
    assert [len(events) for events, _ in parts] == [32, 32, 32, 5, 6, 2, 1]  # by number, by bytes
    assert [last for _, last in parts] == [False] * 3 + [True] + [False, True] + [True]
    videos = [list(range(n)) for n in (70, 0, 1, 33, 5)]
    for workers in (0, 2):
        assert [list(one) for one in read_each(videos, iter, workers)] == videos
