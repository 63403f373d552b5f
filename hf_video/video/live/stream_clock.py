"""The time line of a stream, and how far behind it we are."""

from __future__ import annotations

LONGEST_JUMP = 5.0  # seconds that a stream's own time may run ahead of ours; a longer jump is a new time line
DRIFT = 1e-4  # what two clocks differ by at most, in seconds a second


class StreamClock:
    """Gives the frames of a stream seconds that begin at 0 and ascend, over breaks too, and says when one was taken.

    A stream's own times count from anywhere, and begin anew when it is restarted; then our clock says how long the
    break was. When a frame was taken is known but for what is the same for all frames (the way through camera, encoder
    and network): the frame that came with the least delay is taken to have come at once, and others are later than it
    by as much as their own times say.

    Args:
        is_file: A file comes sooner than it is shown: its first frame is taken when it comes, and all others in their
            time after it, however long it shows one.
    """

    def __init__(self, *, is_file: bool = False):
        self._is_file = is_file
        self._longest_jump = float("inf") if is_file else LONGEST_JUMP
        self._shift: float | None = None  # from the stream's times to ours
        self._last: float | None = None
        self._arrived = self._offset = 0.0  # when the last frame came; from its seconds to our clock
        self._anchor: float | None = None  # the same before the first break, by which later breaks are measured

    def restart(self) -> None:
        """The stream broke: what comes next has times of its own."""
        self._shift = None

    def seconds(self, stated: float | None, now: float) -> float:
        """The seconds of a frame with this time of the stream (None: it has none), which came at `now` of our clock."""
        stated = now if stated is None else stated
        if self._last is None:
            self._shift, self._last, self._arrived, self._offset = -stated, 0.0, now, now
            return 0.0
        elapsed = max(now - self._arrived, 1e-3)
        seconds = None if self._shift is None else stated + self._shift
        if seconds is None or not self._last < seconds <= self._last + elapsed + self._longest_jump:
            self._anchor = self._offset if self._anchor is None else self._anchor
            seconds = max(now - self._anchor, self._last + 1e-3)
            self._shift = seconds - stated
            self._offset = self._offset if self._is_file else now - seconds
        if not self._is_file:
            self._offset = min(now - seconds, self._offset + DRIFT * elapsed)
        self._last, self._arrived = seconds, now
        return seconds

    def taken(self, seconds: float) -> float:
        """When the frame of these seconds was taken, by our clock."""
        return seconds + self._offset

    def lateness(self, stated: float, now: float) -> float:
        """Seconds since the frame with this time of the stream was taken; 0 where its time isn't known: before the
        first frame, and where the stream's times begin anew."""
        if self._shift is None or self._last is None or stated + self._shift <= self._last:
            return 0.0
        return now - self.taken(stated + self._shift)
