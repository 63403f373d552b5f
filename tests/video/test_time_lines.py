"""Sheets of time lines: bars stand at their seconds, never touch, and labels and ticks can be read."""

from __future__ import annotations

import numpy as np
import pytest

from hf_video.errors import VideoArrayError
from hf_video.video.time_lines import TimeBar, TimeLine, lanes, time_line_sheet

FRAMES = np.full((6, 24, 32, 3), (200, 0, 255), np.uint8)  # a colour that nothing else has


@pytest.mark.parametrize("length", [1.0, 60.0, 5 * 3600.0])
def test_bars_stand_at_their_seconds_and_never_touch(length):
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, length, 200)
    bars = [TimeBar("ab"[i % 2], s, min(s + rng.exponential(length / 50), length)) for i, s in enumerate(starts)]
    found = lanes(bars, 0.0, length, 1000)
    assert sum(len(lane) for _, lane in found) == 200
    for label, lane in found:
        for row, left, right, bar in lane:
            assert bar.label == label
            assert 0 <= left < right <= 999
            assert left == pytest.approx(bar.start / length * 1000, abs=3)
            assert right == pytest.approx(max(bar.end / length * 1000 - 1, left + 2), abs=1)
            others = [(a, b) for at, a, b, other in lane if at == row and other is not bar]
            assert all(b + 1 < left or right + 1 < a for a, b in others)


def test_a_sheet_shows_frames_bars_and_text():
    line = TimeLine("match.mp4", FRAMES, 0.0, 10.0, [TimeBar("jump", 2.5, 5.0), TimeBar("throw", 9.99, 10.0)])
    sheet = np.asarray(time_line_sheet([line]))
    thumbs = (sheet == (200, 0, 255)).all(-1)
    left, right = thumbs.any(0).nonzero()[0][[0, -1]]
    blue = (sheet == (31, 111, 180)).all(-1)[:, left:].any(0).nonzero()[0] / (right - left)
    assert blue.min() == pytest.approx(0.25, abs=0.01)
    assert blue.max() == pytest.approx(0.5, abs=0.01)
    orange = (sheet == (196, 78, 18)).all(-1)[:, left:].any(0)
    assert 3 <= orange.sum() <= 4
    taller = time_line_sheet([line, TimeLine("other.mp4", FRAMES, 0.0, 7200.0)])
    assert taller.height > len(sheet)
    assert np.array_equal(np.asarray(taller)[: len(sheet)], sheet)


def test_no_video_and_no_time():
    with pytest.raises(VideoArrayError, match="at least one"):
        time_line_sheet([])
    assert time_line_sheet([TimeLine("one frame", FRAMES[:1], 0.0, 0.0, [TimeBar("jump", 0.0, 0.0)])]).height > 50
