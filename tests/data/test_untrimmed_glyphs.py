"""Generated videos of minutes: events are where their annotations say, and nothing moves along elsewhere."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from hf_video.data.untrimmed_glyphs import (
    EVENTS,
    event_path,
    untrimmed_glyphs,
    write_event_clips,
    write_untrimmed_glyphs,
)
from hf_video.video import VideoReader


def moved_pixels(frames: np.ndarray) -> np.ndarray:
    """For each pair of frames the pixels that differ by more than noise."""
    return (np.abs(np.diff(frames.astype(int), axis=0)).max(-1) > 40).sum((1, 2))


@pytest.mark.parametrize("label", EVENTS)
def test_more_pixels_change_inside_events_than_elsewhere(label):
    made = untrimmed_glyphs(30, np.random.default_rng(3), fps=10, noise=2, labels=[label])
    assert made.frames.shape == (300, 64, 64, 3)
    assert made.frames.dtype == np.uint8
    assert {one.label for one in made.events} == {label}
    assert all(0.5 <= round(one.end - one.start, 6) <= 8 and one.end <= 30 for one in made.events)
    assert all(after.start - before.end >= 0.5 - 1e-9 for before, after in pairwise(made.events))
    inside = np.zeros(299, dtype=bool)
    for one in made.events:
        inside[round(one.start * 10) : round(one.end * 10) - 1] = True
    moved = moved_pixels(made.frames)
    assert np.median(moved[inside]) > 1.5 * np.median(moved[~inside])


def test_paths_are_what_the_labels_say():
    right, circle = (event_path(label, 11, size=64, fps=10) for label in ("right", "clockwise"))
    np.testing.assert_allclose(np.diff(right, axis=0), [[0, 8]] * 10)
    np.testing.assert_allclose(circle[0], circle[10], atol=1e-9)
    assert circle[2, 0] > circle[0, 0]  # from the right side of the circle downwards: y grows
    assert circle[2, 1] < circle[0, 1]
    np.testing.assert_allclose(circle[:, 0], -event_path("anticlockwise", 11, size=64, fps=10)[:, 0], atol=1e-9)


def test_files_and_annotations_agree_and_come_from_the_seed(tmp_path):
    path = write_untrimmed_glyphs(tmp_path / "a", 3, 5, minutes=(0.1, 0.2), test=1)
    again = write_untrimmed_glyphs(tmp_path / "b", 3, 5, minutes=(0.1, 0.2), test=1)
    assert path.read_bytes() == again.read_bytes()
    database = json.loads(path.read_text())["database"]
    assert [one["subset"] for one in database.values()] == ["training", "training", "validation"]
    for name, one in database.items():
        assert VideoReader(str(tmp_path / "a" / f"{name}.mp4")).metadata.duration == pytest.approx(
            one["duration"], abs=0.01
        )
        assert all(event["segment"][1] <= one["duration"] for event in one["annotations"])


def test_clips_show_one_event_each_or_none(tmp_path):
    paths = write_event_clips(tmp_path, 14, num_frames=8)
    assert sorted({path.parent.name for path in paths}) == sorted((*EVENTS, "background"))
    moved = {path.parent.name: moved_pixels(VideoReader(str(path))[:].data).mean() for path in paths[7:]}
    assert moved["background"] < min(value for name, value in moved.items() if name != "background")
