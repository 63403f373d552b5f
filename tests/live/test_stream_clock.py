"""The time line of a stream, by a clock of the tests."""

from __future__ import annotations

import pytest

from hf_video.video.live.stream_clock import StreamClock


def test_a_steady_stream_begins_at_zero_and_is_late_by_what_waited():
    clock = StreamClock()
    assert [clock.seconds(50 + 0.1 * i, 1000 + 0.1 * i) for i in range(5)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert clock.taken(0.4) == pytest.approx(1000.4)
    # A stall of 3 seconds, after which what waited comes at once.
    assert [clock.seconds(50.5 + 0.1 * i, 1003.5 + 0.001 * i) for i in range(5)] == pytest.approx(
        [0.5, 0.6, 0.7, 0.8, 0.9]
    )
    assert 1003.5 - clock.taken(0.5) == pytest.approx(3, abs=1e-3)
    assert clock.lateness(51.0, 1003.51) == pytest.approx(2.51, abs=1e-3)


def test_the_first_frames_may_be_the_late_ones():
    """What an open stream had in store comes late; the least delay is what counts."""
    clock = StreamClock()
    clock.seconds(0.0, 10.0)
    for i in range(1, 20):
        clock.seconds(0.1 * i, 10 + 0.01 * i)
    assert clock.taken(0.0) == pytest.approx(10 - 19 * 0.09, abs=1e-2)


@pytest.mark.parametrize("stated", [0.0, 49.0, 5000.0, None])
def test_times_that_begin_anew_go_on_by_the_clock(stated):
    clock = StreamClock()
    for i in range(3):
        clock.seconds(50 + 0.1 * i, 1000 + 0.1 * i)
    assert clock.seconds(stated, 1002.2) == pytest.approx(2.2)
    following = None if stated is None else stated + 0.1
    assert clock.seconds(following, 1002.3) == pytest.approx(2.3)
    clock.restart()
    assert clock.seconds(50.3, 1007.3) == pytest.approx(7.3)
    assert clock.taken(7.3) == pytest.approx(1007.3)


def test_what_begins_anew_is_not_late():
    """Else its packets would be passed over."""
    clock = StreamClock()
    assert clock.lateness(5.0, 1000.0) == 0
    clock.seconds(500.0, 1000.0)
    assert clock.lateness(3.0, 1000.1) == 0
    assert clock.lateness(500.1, 1003.1) == pytest.approx(3.0)
    clock.restart()
    assert clock.lateness(500.2, 1003.2) == 0


def test_clocks_that_drift_are_no_delay():
    """A camera whose clock is 50 millionths slow would seem 4 seconds late after a day."""
    clock = StreamClock()
    for i in range(86400):
        clock.seconds(i * (1 - 5e-5), float(i))
    assert 86399 - clock.taken(86399 * (1 - 5e-5)) < 0.01


def test_a_file_may_show_one_frame_for_long():
    clock = StreamClock(is_file=True)
    assert [clock.seconds(stated, 10.0) for stated in (0.0, 60.0, 60.1)] == pytest.approx([0, 60, 60.1])
    assert clock.taken(60.1) == pytest.approx(70.1)
