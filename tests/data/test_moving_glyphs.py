"""The generated clips: their class is in the order of frames and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from hf_video.data.moving_glyphs import DIRECTIONS, OPPOSITE, SHAPES, moving_glyph, moving_glyphs, write_moving_glyphs
from hf_video.video import VideoReader


def displacement(frames: np.ndarray) -> tuple[int, int]:
    """The shift (rows, columns) on the torus that best carries each frame into the next."""
    grey = frames.astype(np.float64).mean(-1)
    grey -= grey.mean((1, 2), keepdims=True)
    spectrum = np.fft.fft2(grey)
    correlation = np.fft.ifft2(spectrum[1:] * spectrum[:-1].conj()).real.sum(0)
    size = correlation.shape[0]
    shift = np.unravel_index(correlation.argmax(), correlation.shape)
    return tuple(int((s + size // 2) % size - size // 2) for s in shift)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_clip_moves_where_its_label_says(direction):
    clip = moving_glyph(direction, np.random.default_rng(3), speed=8)
    assert clip.frames.shape == (8, 64, 64, 3)
    assert clip.frames.dtype == np.uint8
    assert displacement(clip.frames) == tuple(8 * d for d in DIRECTIONS[direction])
    assert displacement(clip.frames[::-1]) == tuple(8 * d for d in DIRECTIONS[OPPOSITE[direction]])
    assert clip.caption == f"a {clip.color} {clip.shape} moving {direction}"


def test_the_same_seed_gives_the_same_clips_and_classes_are_balanced():
    first, second, other = moving_glyphs(40, seed=5), moving_glyphs(40, seed=5), moving_glyphs(40, seed=6)
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].frames, other[0].frames)
    counts = {d: sum(c.direction == d for c in first) for d in DIRECTIONS}
    assert set(counts.values()) == {10}
    assert len({c.shape for c in moving_glyphs(200)}) == len(SHAPES)


def test_single_frames_of_the_classes_look_alike():
    """Mean places of glyphs at a fixed frame don't depend on the class: a linear look at one frame sees nothing."""
    means = {d: [] for d in DIRECTIONS}
    for clip in moving_glyphs(400, seed=1, num_frames=4, noise=0):
        means[clip.direction].append(clip.frames[2].astype(float).mean(-1))
    pictures = np.stack([np.mean(m, axis=0) for m in means.values()])
    between = pictures.std(0).mean()
    within = np.mean([np.std(m, axis=0).mean() for m in means.values()]) / 10  # of a mean of 100 clips
    assert between < 1.5 * within


def test_files_are_written_under_their_labels(tmp_path):
    paths = write_moving_glyphs(tmp_path, 4, seed=2, fps=8)
    assert [p.parent.name for p in paths] == list(DIRECTIONS)
    for path, clip in zip(paths, moving_glyphs(4, seed=2), strict=True):
        with VideoReader(path) as reader:
            assert len(reader) == 8
            assert reader.metadata.fps == pytest.approx(8)
            assert displacement(reader.get_frames(range(8)).data) == displacement(clip.frames)
