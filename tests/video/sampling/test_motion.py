"""Motion energy finds where things move, in files and arrays, with few or all differences."""

from __future__ import annotations

import numpy as np
import pytest

from hf_video.errors import VideoOptionError
from hf_video.video.reader import VideoReader
from hf_video.video.sampling.motion import motion_energy
from hf_video.video.sampling.samplers import sample_video, uniform
from hf_video.video.writer import write_video


def moving_in_the_middle():
    frames = np.zeros((90, 48, 64, 3), np.uint8)
    for i in range(90):
        left = min(max(i - 30, 0), 30)  # still until 30, one pixel a frame until 60, still again
        frames[i, 10:30, left : left + 20] = 255
    return frames


@pytest.mark.parametrize("every", [None, 1, 4])
@pytest.mark.parametrize("kind", ["file", "array", "reader"])
def test_energy_is_where_the_motion_is(tmp_path, kind, every):
    frames = moving_in_the_middle()
    path = write_video(tmp_path / "a.mp4", frames, 30, crf=5)
    source = {"file": path, "array": frames, "reader": VideoReader(path)}[kind]
    energy = motion_energy(source, every=every)
    assert energy.shape == (90,)
    assert energy[33:58].min() > 3 * max(energy[:28].max(), energy[66:].max())


def test_constant_motion_and_single_frames():
    frames = np.zeros((20, 32, 32, 3), np.uint8)
    frames[::2] = 200  # every difference is the same
    energy = motion_energy(frames)
    assert energy == pytest.approx(np.full(20, 200 / 255))
    assert motion_energy(frames[:1]).tolist() == [0.0]
    reader = VideoReader(frames)
    assert np.array_equal(sample_video(reader, 4, sampler="adaptive").indices, uniform(20, 4).indices)
    with pytest.raises(VideoOptionError, match="every"):
        motion_energy(frames, every=0)


def test_adaptive_sampling_of_a_reader_takes_more_where_it_moves():
    sample = sample_video(VideoReader(moving_in_the_middle(), fps=30), 12, sampler="adaptive")
    inside = (sample.indices >= 30) & (sample.indices <= 60)
    assert inside.sum() >= 9
    assert sample.spans[0, 0] < 1 < 2 < sample.spans[0, 1]
