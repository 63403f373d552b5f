"""Windows of frames: which frames they have, how videos are covered, and what positions mean in seconds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import hf_video
from hf_video.clips.frame_windows import FrameWindows, read_frame_windows, to_steps
from hf_video.clips.read import clip_processor
from hf_video.clips.request import ClipRequest
from hf_video.errors import VideoOptionError
from hf_video.video import VideoFrames
from hf_video.video.inputs import MemoryVideo


def video(frames, fps=10.0, times=None):
    """Frames of 8x8 pixels whose red channel is their number."""
    data = np.zeros((frames, 8, 8, 3), np.uint8)
    data[..., 0] = (np.arange(frames) % 256)[:, None, None]
    if times is not None:
        return MemoryVideo(VideoFrames(data, np.arange(frames), np.asarray(times)))
    return MemoryVideo(data, fps=fps)


def official_windows(total, stride, size, overlap):
    """(first, last) frame of each window, as OpenTAD's sliding data set has them (`split_video_to_windows`)."""
    centers, found = np.arange(0, total, stride), []
    hop = int(size * (1 - overlap))
    for index in range(max(1, len(centers) // hop)):
        start, end = index * hop, index * hop + size
        if end > len(centers):
            start, end = max(0, len(centers) - size), len(centers)
        found.append((int(centers[start]), int(centers[end - 1])))
        if index * hop + size > len(centers):
            break
    return found


@pytest.mark.parametrize("total", [1, 5, 31, 32, 33, 40, 47, 64, 65, 95, 96, 97, 200])
@pytest.mark.parametrize("stride", [1, 3, 4])
def test_windows_are_those_of_the_official_code(total, stride):
    """But for a last window that is there twice: where it ends with the video without being moved."""
    windows = FrameWindows(16, stride)
    found = [(int(one.indices[0]), int(one.indices[-1])) for one in windows.of(video(total))]
    assert found == list(dict.fromkeys(official_windows(total, stride, 16, 0.5)))
    assert found[-1][1] == (total - 1) // stride * stride


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("frames_per_step", [1, 4])
def test_every_frame_is_in_a_window(overlap, frames_per_step):
    windows = FrameWindows(16, 2, frames_per_step=frames_per_step, overlap=overlap)
    for total in (1, 30, 32, 34, 101):
        found = windows.of(video(total))
        assert np.array_equal(np.unique([one.indices for one in found]), np.arange(0, total, 2))
        for one in found:
            assert len(one.indices) == 16
            first = one.start * frames_per_step * 2
            real = min(16, -(-(total - first) // 2))
            assert np.array_equal(one.indices[:real], first + 2 * np.arange(real))
            assert (one.indices[real:] == one.indices[real - 1]).all()
            assert one.steps == -(-real // frames_per_step)


def test_a_whole_video_in_one_window():
    """Official frames of "resize": the middles of as many equal parts as a window has frames."""
    windows = FrameWindows(8, frames_per_step=2, whole=True)
    (one,) = windows.of(video(80))
    assert one.indices.tolist() == [4, 14, 24, 34, 44, 54, 64, 74]
    assert windows.timeline(video(80)).tolist() == [[0, 0], [4, 8]]
    (short,) = windows.of(video(3))
    assert sorted(set(short.indices.tolist())) == [0, 1, 2]


def test_positions_are_seconds_of_the_frames_own_times():
    """At a varying rate too: position p of steps of two frames each, every third frame, is frame 6 p."""
    times = np.cumsum([0, *([0.1] * 20 + [0.5] * 19)])
    windows = FrameWindows(8, 3, frames_per_step=2)
    line = windows.timeline(video(40, times=times))
    assert to_steps(times[[6, 12, 36]], line) == pytest.approx([1, 2, 6])
    assert np.interp([1, 2, 6], *line.T) == pytest.approx(times[[6, 12, 36]])


def test_frames_of_a_timeline():
    """Every second frame of 20 a second, of a video of 10 a second and one of 40: the same seconds."""
    windows = FrameWindows(4, 2, fps=20.0)
    for rate in (10, 40):
        made = video(2 * rate, fps=rate)
        assert windows.frames(made).tolist() == [rate // 10 * k for k in range(20)]
        assert windows.timeline(made).tolist() == [[0, 0], [20, 2]]


def test_what_is_read(tmp_path):
    """Pixels of the chosen frames, and a mask over steps behind the end."""
    frames = np.zeros((21, 16, 16, 3), np.uint8)
    frames[..., 0] = 10 * np.arange(21)[:, None, None]
    file = hf_video.video.write_video(tmp_path / "a.mkv", frames, Fraction(10), codec="ffv1")
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    processor = hf_video.AdaTADImageProcessor(**sizes, do_normalize=False)
    request = ClipRequest.resolve(processor, None)
    seen, *clips = read_frame_windows(file, FrameWindows(8, 1), request, clip_processor(processor))
    assert seen.starts == [0, 4, 8, 12, 13]
    assert [clip.window for clip in clips] == list(range(5))
    for start, clip in zip(seen.starts, clips, strict=True):
        red = clip.inputs["pixel_values"][0, :, 0, 8, 8] * 255
        torch.testing.assert_close(red, 10.0 * (start + torch.arange(8)), atol=1.5, rtol=0)
        assert clip.inputs["mask"].all()
    seen, clip = read_frame_windows(file, FrameWindows(32, 1, frames_per_step=4), request, clip_processor(processor))
    assert clip.inputs["mask"].tolist() == [[True] * 6 + [False] * 2]
    assert clip.inputs["pixel_values"].shape == (1, 32, 3, 16, 16)
    assert seen.to_seconds([[0, 5], [5.25, 9]]) == pytest.approx(np.array([[0, 2.0], [2.1, 2.1]]))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"stride": 1.5}, "whole number"),
        ({"overlap": 1.0}, "overlap"),
        ({"stride": 0}, "stride"),
        ({"frames_per_step": 3}, "multiple of 3"),
    ],
)
def test_what_cuts_no_windows(options, match):
    with pytest.raises(VideoOptionError, match=match):
        FrameWindows(16, **options)
