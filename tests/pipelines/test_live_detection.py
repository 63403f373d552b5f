"""A stream gives the events of the whole video as they end, within the stated time, from a memory that stays flat."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import tiny
from bright import BRIGHT, RED, bright_pipeline, scene
from transformers import pipeline

from hf_video.errors import VideoArrayError, VideoOptionError
from hf_video.pipelines.live_detection import LiveDetector
from hf_video.pipelines.temporal_action_detection import TemporalActionDetectionPipeline
from hf_video.video import VideoFrames, VideoReader, write_video


@pytest.fixture(scope="module")
def detect(videomae) -> TemporalActionDetectionPipeline:
    return pipeline("temporal-action-detection", model=str(videomae), device="cpu")


def stream(live, frames, times, *, chunk=1, end=None):
    """All events, and for each the time of the frame that it came with."""
    events, came = [], []
    for first in range(0, len(frames), chunk):
        new = live.push(frames[first : first + chunk], times[first : first + chunk])
        events += new
        came += [times[min(first + chunk, len(frames)) - 1]] * len(new)
    rest = live.close(end)
    return events + rest, came


def rows(events):
    return sorted((one.label, one.start, one.end, one.score) for one in events)


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for a, b in zip(rows(found), rows(expected), strict=True):
        assert a[0] == b[0]
        assert a[1:] == pytest.approx(b[1:], abs=1e-6)


UNEVEN = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.3, 120))


@pytest.mark.parametrize("grid", ["1s/0.25s", "2s/0.5s", "8/3", "6/6", "0.5s/1.5s", "4/9", "12/4@7", "60s/1s", "500/4"])
@pytest.mark.parametrize("times", [np.arange(120) / 8, UNEVEN], ids=["even", "uneven"])
def test_a_stream_gives_the_events_of_the_whole_video(detect, grid, times):
    """Steps shorter and longer than a clip, clips longer than the video, rates that vary, whatever comes at once."""
    frames = np.concatenate([tiny.moving_frames(8, seed=seed) for seed in range(15)])
    expected = detect(VideoFrames(frames, np.arange(120), times), grid=grid, threshold=0.22)
    for chunk in (1, 50):
        live = LiveDetector(detect, grid=grid, threshold=0.22)
        assert_same(stream(live, frames, times, chunk=chunk)[0], expected)


@pytest.mark.parametrize("options", [{"smoothing": 5}, {"min_length": 0.7, "off_threshold": 0.2}, {"views": "2x3"}])
def test_options_are_those_of_the_pipeline(detect, options):
    frames = np.concatenate([tiny.moving_frames(8, seed=seed) for seed in range(10)])
    options = {"grid": "1s/0.25s", "threshold": 0.22, **options}
    live = LiveDetector(detect, **options)
    assert_same(stream(live, frames, np.arange(80) / 8)[0], detect(frames, fps=8, **options))


def test_frames_of_a_file_give_its_events(detect, tmp_path):
    frames = np.concatenate([tiny.moving_frames(8, seed=seed) for seed in range(10)])
    path = write_video(tmp_path / "long.mkv", frames, 8, codec="ffv1")
    live, found = LiveDetector(detect, grid="1s/0.25s", threshold=0.22), []
    with VideoReader(path) as reader:
        for first in range(0, 80, 7):
            found += live.push(reader.get_frames(np.arange(first, min(first + 7, 80))))
    assert_same(found + live.close(), detect(path, grid="1s/0.25s", threshold=0.22))


@pytest.mark.parametrize(("grid", "smoothing"), [("1s/0.2s", 1), ("1s/0.2s", 5), ("10/3", 3), ("0.33s/0.27s", 1)])
def test_events_come_within_the_latency_and_their_beginning_is_known(grid, smoothing):
    times = np.arange(400) / 10
    frames = scene(times, (BRIGHT, 3, 6), (RED, 9.5, 12.4), (BRIGHT, 20, 31.7))
    live = LiveDetector(bright_pipeline(), grid=grid, smoothing=smoothing)
    events, came = stream(live, frames, times)
    assert [one.label for one in events] == ["bright", "red", "bright"]
    waits = np.array(came) - [one.end for one in events]
    assert (waits <= live.latency + 1e-9).all()
    assert (waits >= live.latency - 0.11).all()

    live = LiveDetector(bright_pipeline(), grid=grid, smoothing=smoothing)
    assert live.push(frames[:60], times[:60]) == []
    (begun,) = live.under_way
    assert begun.label == "bright"
    assert begun.start == pytest.approx(events[0].start)


def test_memory_is_flat_over_half_an_hour():
    """The second quarter of an hour needs no more than the first."""
    live = LiveDetector(bright_pipeline(num_frames=2), grid="8s/8s")
    dark, bright = scene(np.zeros(1), size=8), scene(np.zeros(1), (BRIGHT, 0, 1), size=8)
    held, count = [], 0
    tracemalloc.start()
    try:
        for number in range(0, 30 * 60, 2):
            count += len(live.push(bright if number // 40 % 2 else dark, [float(number)]))
            if number in (900, 1780):
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert count + len(live.close()) == 22
    assert len(live._frames) <= 6
    assert held[1] < held[0] + 30_000


def test_a_stream_without_seconds_counts_at_its_rate():
    frames = scene(np.arange(60) / 10, (BRIGHT, 2, 4))
    live = LiveDetector(bright_pipeline(), grid="1s/0.5s", fps=10)
    found = [event for frame in frames for event in live.push(frame)] + live.close()
    assert_same(found, bright_pipeline()(frames, grid="1s/0.5s", fps=10))


def test_what_no_stream_can_be(detect, tmp_path):
    live = LiveDetector(detect)
    assert LiveDetector(detect).close() == []
    frames = tiny.moving_frames(3)
    for seconds in ([0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 1.0, float("nan")]):
        with pytest.raises(VideoArrayError, match="give each frame its second"):
            live.push(frames, seconds)
    live.push(frames, [0.0, 1.0, 2.0])
    with pytest.raises(VideoArrayError, match="after 2"):
        live.push(frames, [2.0, 3.0, 4.0])
    with pytest.raises(VideoArrayError, match="lies before the last frame"):
        live.close(1.0)
    live.close()
    with pytest.raises(VideoArrayError, match="is closed"):
        live.push(frames, [5.0, 6.0, 7.0])
    for options, message in (
        ({"top_k": 3}, "top_k=3"),
        ({"sampler": "adaptive"}, "whole video"),
        ({"nms": "soft"}, "nms"),
    ):
        with pytest.raises(VideoOptionError, match=message):
            LiveDetector(detect, **options)
