"""Frame numbers in, frame numbers out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_video.errors import FrameIndexError, VideoOptionError
from hf_video.video.augment.temporal import TemporalAugmentation

CLIP = np.arange(0, 64, 4) + 20  # 16 frames, 20 to 80


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_nothing_is_on_by_default():
    result = TemporalAugmentation()(CLIP, 100, generator=gen())
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, CLIP)


def test_reverse():
    np.testing.assert_array_equal(TemporalAugmentation(reverse=1)(CLIP, 100, generator=gen()), CLIP[::-1])
    half = TemporalAugmentation(reverse=0.5)
    backwards = [half(CLIP, 100, generator=gen(s))[0] > 20 for s in range(400)]
    assert 0.4 < np.mean(backwards) < 0.6


@pytest.mark.parametrize(
    ("factor", "expected"), [(2.0, [2, 10, 18, 26]), (0.5, [11, 13, 15, 17]), (1.0, [8, 12, 16, 20])]
)
def test_speed_about_the_middle(factor, expected):
    """8, 12, 16, 20 about 14: distances from it times the factor."""
    temporal = TemporalAugmentation(speed=(factor, factor))
    np.testing.assert_array_equal(temporal([8, 12, 16, 20], 40, generator=gen()), expected)


def test_speed_stays_inside_the_video():
    twice = TemporalAugmentation(speed=(2, 2))
    np.testing.assert_array_equal(twice([0, 4, 8, 12], 40, generator=gen()), [0, 8, 16, 24])
    np.testing.assert_array_equal(twice([27, 31, 35, 39], 40, generator=gen()), [15, 23, 31, 39])
    np.testing.assert_array_equal(twice([0, 10, 20, 30], 31, generator=gen()), [0, 10, 20, 30])  # no room at all
    np.testing.assert_array_equal(twice([5], 31, generator=gen()), [5])
    np.testing.assert_array_equal(twice([5, 5, 5], 31, generator=gen()), [5, 5, 5])


def test_speeds_are_uniform_in_the_logarithm():
    temporal = TemporalAugmentation(speed=(0.5, 2.0))
    clip = np.arange(0, 400, 100) + 1000
    factors = np.array([np.ptp(temporal(clip, 3000, generator=gen(s))) / 300 for s in range(600)])
    assert factors.min() >= 0.49
    assert factors.max() <= 2.01
    assert abs(np.log(factors).mean()) < 0.06
    assert abs(np.log(factors).std() - np.log(4) / np.sqrt(12)) < 0.04


def test_jitter_moves_each_frame_within_its_own_step():
    temporal = TemporalAugmentation(jitter=1)
    moved = np.stack([temporal(CLIP, 100, generator=gen(s)) for s in range(300)])
    away = moved - CLIP
    assert away.min() == -2
    assert away.max() == 2
    assert (np.diff(moved) >= 0).all()
    assert len(np.unique(away, axis=0)) > 250
    assert np.abs(away.mean(0)).max() < 0.3
    half = np.stack([TemporalAugmentation(jitter=0.5)(CLIP, 100, generator=gen(s)) for s in range(100)]) - CLIP
    assert set(np.unique(half)) == {-1, 0, 1}


def test_clips_have_draws_of_their_own_and_seeds_repeat():
    temporal = TemporalAugmentation(jitter=1, speed=(0.5, 2), reverse=0.5)
    clips = np.stack([CLIP] * 6)
    result = temporal(clips, 200, generator=gen(1))
    assert result.shape == clips.shape
    assert len(np.unique(result, axis=0)) > 1
    np.testing.assert_array_equal(result, temporal(clips, 200, generator=gen(1)))


def test_everything_together_stays_inside():
    temporal = TemporalAugmentation(jitter=1, speed=(0.25, 4), reverse=0.5)
    for total in (1, 2, 17, 64, 300):
        for seed in range(50):
            result = temporal(np.linspace(0, total - 1, 16).astype(int), total, generator=gen(seed))
            assert result.min() >= 0
            assert result.max() < total
            steps = np.diff(result)
            assert (steps >= 0).all() or (steps <= 0).all()


@pytest.mark.parametrize(
    "options",
    [{"jitter": 1.5}, {"jitter": -1}, {"reverse": 2}, {"speed": (2, 0.5)}, {"speed": (0, 1)}, {"speed": 2.0},
     {"reverse": "yes"}, {"speed": (1, float("inf"))}],
)  # fmt: skip
def test_options_are_checked(options):
    with pytest.raises(VideoOptionError):
        TemporalAugmentation(**options)


@pytest.mark.parametrize("indices", [[], [0.5, 1], [3, 2, 1], [-1, 0], [98, 100], [[[0]]]])
def test_indices_are_checked(indices):
    with pytest.raises(FrameIndexError):
        TemporalAugmentation()(indices, 100)
