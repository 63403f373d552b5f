"""`LiveVideo`: windows of a camera or stream, the newest first, however long the model takes for each."""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from hf_video.errors import VideoError, VideoOptionError, VideoSourceError, check_number
from hf_video.video.frames.pixels import FrameConverter, Sizing
from hf_video.video.frames.times import TOLERANCE, frames_during
from hf_video.video.frames.types import VideoFrames
from hf_video.video.live.source import LiveSource, live_media
from hf_video.video.live.stream_clock import StreamClock

MOST_BEHIND = 2.0  # seconds; a decoder that is later goes on with a keyframe that isn't
LONGEST_SKIP = 1.0  # seconds in which what waits is passed over; if it is no less then, the stream's clock goes wrong
MOST_BYTES = 1 << 30  # of frames that are held
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a stream that broke is opened again
CLOSING = 2.0  # seconds that `close` waits for a read; a silent stream's ends with its timeout


@dataclass
class _Held:
    index: int
    seconds: float
    pixels: np.ndarray
    shown: bool = False


class LiveVideo:
    """A camera, a network stream, or a file at its own speed, as windows that any pipeline takes:

        for labels in classify(LiveVideo("rtsp://camera/stream", window=2.0, step=0.5), num_workers=0):
            print(labels.seconds, labels[0]["label"])

    Iterating gives windows as `VideoFrames`, a new one every `step` seconds of the stream. A thread of its own reads,
    and keeps the newest frames alone: after a long computation the next window is the newest that is complete, and what
    lies between was dropped. `frames_read`, `frames_shown` (in at least one window) and `frames_dropped` count; those
    read are shown, dropped, or wait for their window to be complete. `packets_damaged` could not be decoded, so that
    their frames were never read. Memory does not grow with time. (A pipeline asks for the next window while the model
    has this one, which is one that is older then; with `num_workers=0` it doesn't.)

    **Times** are seconds since the first frame, by the times that the stream gives its frames, or by the clock where it
    gives none (Motion JPEG). `indices` count the frames that were read, so that a gap in them shows one in time; no
    window goes over a gap. Frames are upright, and changed in size, as `VideoReader`'s are.

    **A stream that breaks** is opened again, after half a second, then after twice as long each time, up to 30 s.
    Iterating ends with a file, after `seconds`, or with `close()`; the last window ends with the last frame.

    Args:
        source: A camera's number (0 is `/dev/video0`) or device, an address rtsp(s):// or http(s)://, or a file.
        window: Length of a window in seconds.
        step: Seconds from the start of a window to that of the next; None: one after the other.
        fps: Frames per second to keep: those on screen at these times, or None for all.
        realtime: Must be True for a file (or an address that has one), which is shown at its own speed.
        seconds: End after so many seconds by the clock; None: no end.
        retry: Seconds to try to open a stream again that broke; None: without end, 0: not at all.
        transport: How RTSP brings its packets: "tcp", or "udp" (less delay, and damage where one is lost).
        timeout: Seconds without a packet after which a stream is broken.
        size, shortest_edge, square_pixels: Of `VideoReader`.
        on_event: Called with a sentence when a stream breaks or is there again; None writes them to the log.

    Raises:
        VideoSourceError: There is no such camera, file or address, or nothing answers there.
        NotAVideoError, NoVideoStreamError: What answers is no video.
        VideoOptionError: Wrong options, or a file without `realtime`. While iterating, a window larger than 1 GiB.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | int,
        *,
        window: float = 2.0,
        step: float | None = None,
        fps: float | None = None,
        realtime: bool = False,
        seconds: float | None = None,
        retry: float | None = None,
        transport: str = "tcp",
        timeout: float = 10.0,
        size: tuple[int, int] | None = None,
        shortest_edge: int | None = None,
        square_pixels: bool = False,
        on_event: Callable[[str], None] | None = None,
    ):
        self.window = check_number("window", window, above=0, hint=" It is in seconds.")
        self.step = check_number("step", window if step is None else step, above=0, hint=" It is in seconds.")
        if self.step > self.window:
            raise VideoOptionError(f"step={self.step:g} must not exceed window={self.window:g}, or parts go unseen.")
        self._fps = check_number("fps", fps, above=0, optional=True, hint=" It is in frames per second.")
        self._retry = check_number("retry", retry, least=0, optional=True, hint=" It is in seconds.")
        check_number("seconds", seconds, above=0, optional=True)
        check_number("timeout", timeout, above=0, hint=" It is in seconds.")
        self._sizing = Sizing(size, shortest_edge, square_pixels)
        self._say = on_event or logging.getLogger(__name__).warning
        media = live_media(source)
        self.label = media.label
        self._open: Callable[[], LiveSource] = lambda: LiveSource(
            media, transport=transport, timeout=timeout, realtime=realtime
        )
        self._source = self._open()
        self._is_recording = self._source.is_recording
        self.frames_read = self.frames_shown = self.frames_dropped = self.reconnections = self.packets_damaged = 0
        self.broken: str | None = None  # why there is no stream at present
        self._clock = StreamClock(is_file=self._is_recording)
        self._frames: deque[_Held] = deque()
        self._origin: float | None = None  # where the windows begin: the first frame, or the first after a gap
        self._next = 0  # number of the next window from there
        self._index = 0  # of the next frame
        self._before: av.VideoFrame | None = None  # on screen, for `fps`
        self._latest: av.VideoFrame | None = None
        self._behind_since: float | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._end = math.inf if seconds is None else time.monotonic() + seconds
        self._thread = threading.Thread(target=self._run, name=f"LiveVideo {self.label}", daemon=True)
        self._thread.start()

    # -- for who watches ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[VideoFrames]:
        try:
            while frames := self._wait():
                yield VideoFrames(
                    data=np.stack([held.pixels for held in frames]),
                    indices=np.array([held.index for held in frames], np.int64),
                    seconds=np.array([held.seconds for held in frames]),
                )
        finally:
            self.close()

    def latency(self, seconds: float) -> float:
        """How long ago a frame was taken.

        What is the same for all frames (the way through camera, encoder and network) can't be known and isn't in it.

        Args:
            seconds: The frame's time in the stream, in seconds.

        Returns:
            Seconds.
        """
        return time.monotonic() - self._clock.taken(seconds)

    def picture(self) -> np.ndarray | None:
        """The newest frame as a player shows it.

        Returns:
            uint8 RGB (height, width, 3); None before the first frame.
        """
        latest = self._latest
        shown = Sizing(square_pixels=True)
        return None if latest is None else FrameConverter(shown, "exact", aspect=self._aspect).to_rgb(latest)

    def close(self) -> None:
        """Ends the reading; those that iterate come to the end."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSING)

    def __enter__(self) -> LiveVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self) -> list[_Held]:
        """The frames of the next window; none at the end."""
        with self._changed:
            while not self._stop.is_set():
                if self._error is not None:
                    raise self._error
                if frames := self._due():
                    return frames
                left = self._end - time.monotonic()
                if self._ended or left <= 0:
                    self._stop.set()
                    return self._rest()
                self._changed.wait(min(left, 1.0))
        return []

    def _due(self) -> list[_Held]:
        """The newest window that is complete and wasn't given."""
        if self._origin is None:
            return []
        known = self._frames[-1].seconds + (1 / self._fps if self._fps else 0)  # until then all frames are there
        full = known - self._origin - self.window
        number = math.floor(full / self.step + TOLERANCE)
        if number < self._next:
            return []
        self._next = number + 1
        start = self._origin + number * self.step
        return self._hand_out(start, start + self.window)

    def _rest(self) -> list[_Held]:
        """The window that ends with the last frame, where it shows one that no other did."""
        if all(held.shown for held in self._frames):
            return []
        first, last = self._frames[0].seconds, self._frames[-1].seconds
        end = last + (last - first) / max(len(self._frames) - 1, 1)
        return self._hand_out(end - self.window, math.inf)

    def _hand_out(self, start: float, stop: float) -> list[_Held]:
        first, last = frames_during(np.array([held.seconds for held in self._frames]), start, stop)
        for _ in range(first):
            self._let_go()
        frames = [self._frames[number] for number in range(last - first)]
        for held in frames:
            self.frames_shown += not held.shown
            held.shown = True
        return frames

    def _let_go(self) -> None:
        self.frames_dropped += not self._frames.popleft().shown

    # -- the thread that reads ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                why = self._read(self._source)
                if self._stop.is_set() or self._is_recording or not self._opens_again(why):
                    break
        except BaseException as error:
            self._error = error  # raised where somebody iterates
        finally:
            self._source.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read(self, source: LiveSource) -> str | None:
        """Takes frames until there are no more. Returns what broke; None for an end."""
        self._frame_seconds = 1 / float(source.stream.guessed_rate or 25)
        self._previous = -self._frame_seconds  # the stream's time of the last frame
        self._aspect = Fraction(source.stream.sample_aspect_ratio or 1)
        converter = FrameConverter(self._sizing, "exact", aspect=self._aspect)
        try:
            for packet in source.packets():
                if self._stop.is_set():
                    return None
                if self._passes_over(packet):
                    continue
                try:
                    for frame in source.decoder.decode(packet):
                        converter.coded_size = converter.coded_size or (frame.height, frame.width)
                        self._take(frame, converter)
                except av.FFmpegError:
                    self.packets_damaged += 1
        except av.error.ExitError:
            return "no packet came in time"
        except av.FFmpegError as error:
            # FFmpeg's word for the end of an answer over HTTP whose length wasn't said.
            if error.errno == errno.EIO and source.scheme.startswith("http"):
                return None
            return error.strerror
        return None

    def _passes_over(self, packet: av.Packet[Any]) -> bool:
        """Whether a packet waited too long to be decoded: the newest come first here too, from a keyframe on."""
        if packet.pts is None or packet.time_base is None or not self._source.keeps_time:
            return False
        now = time.monotonic()
        late = self._clock.lateness(float(packet.pts * packet.time_base), now)
        if self._behind_since is None:
            if late <= MOST_BEHIND:
                return False
            self._behind_since = now
        hopeless = now - self._behind_since > LONGEST_SKIP
        if not packet.is_keyframe or (late > MOST_BEHIND / 2 and not hopeless):
            with self._changed:
                self.frames_read += 1
                self.frames_dropped += 1
            return True
        self._behind_since = None
        self._source.decoder.flush_buffers()
        self._begin_anew()
        if hopeless:
            self._clock.restart()
        return False

    def _begin_anew(self) -> None:
        """After a gap: windows begin with the next frame."""
        with self._changed:
            while self._frames:
                self._let_go()
            self._origin = self._before = None

    def _take(self, frame: av.VideoFrame, converter: FrameConverter) -> None:
        seconds = self._clock.seconds(self._stated(frame), time.monotonic())
        if self._is_recording:
            self._stop.wait(max(self._clock.taken(seconds) - time.monotonic(), 0))
        self._latest = frame
        if self._fps is None:
            if (pixels := converter.to_rgb(frame)) is not None:
                self._add([seconds], pixels)
            return
        before, self._before = self._before, frame
        if before is None:
            self._first_tick, self._tick = seconds, 0
            return
        # What was on screen until now; of a long still no more than a window holds.
        stop = math.ceil((seconds - self._first_tick) * self._fps - TOLERANCE)
        start = max(self._tick, stop - math.ceil((self.window + self.step) * self._fps))
        self._tick = max(stop, self._tick)
        if start < stop and (pixels := converter.to_rgb(before)) is not None:
            self._add([self._first_tick + tick / self._fps for tick in range(start, stop)], pixels)

    def _stated(self, frame: av.VideoFrame) -> float | None:
        """The stream's own time of a frame; where one frame has none (often the first of RTSP), that of its rate."""
        if not self._source.keeps_time:
            return None
        if frame.pts is not None and frame.time_base is not None:
            self._previous = float(frame.pts * frame.time_base)
        else:
            self._previous += self._frame_seconds
        return self._previous

    def _add(self, times: list[float], pixels: np.ndarray) -> None:
        with self._changed:
            if self._origin is None:
                self._origin, self._next = times[0], 0
                self._index += self._index > 0  # a gap in the numbers
            for seconds in times:
                self._frames.append(_Held(self._index, seconds, pixels))
                self._index += 1
            self.frames_read += len(times)
            oldest = times[-1] - self.window - self.step
            while len(self._frames) > 1 and self._frames[1].seconds <= oldest:
                self._let_go()
            if pixels.nbytes * len(self._frames) > MOST_BYTES:
                raise VideoOptionError(
                    f"{self.label}: a window of {self.window:g} s at {pixels.shape[1]}x{pixels.shape[0]} pixels takes "
                    "more than 1 GiB: shorten it, or give fps= or shortest_edge=."
                )
            self._changed.notify_all()

    def _opens_again(self, why: str | None) -> bool:
        """Tries until the stream is there again. False where it was stopped, or gave up: an error if it broke."""
        self._begin_anew()
        self._clock.restart()
        self._source.close()
        began, wait = time.monotonic(), FIRST_WAIT
        while True:
            if self._retry is not None and time.monotonic() + wait > began + self._retry:
                if why is not None:
                    self._error = VideoSourceError(f"{self.label} broke off, and isn't back: {why}.")
                return False
            self.broken = why or "it ended"
            what = "broke off" if wait == FIRST_WAIT else "isn't back"
            self._say(f"{self.label} {what} ({self.broken}); it is opened again in {wait:g} s.")
            if self._stop.wait(wait):
                return False
            try:
                self._source = self._open()
            except VideoError as error:
                why, wait = str(error).removeprefix(f"{self.label} ").rstrip("."), min(2 * wait, LONGEST_WAIT)
                continue
            self.broken = None
            self.reconnections += 1
            self._say(f"{self.label} is there again.")
            return True
