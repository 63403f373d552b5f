"""A video that FFmpeg decodes, as a `Source`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from hf_video.errors import NoFramesError
from hf_video.video.decode.decoding import EncodedVideo
from hf_video.video.decode.media import Media
from hf_video.video.decode.packets import REORDER
from hf_video.video.decode.stills import browser_delays
from hf_video.video.frames.background import WHITE
from hf_video.video.frames.pixels import Painter, Sizing, clockwise_degrees, display_matrix, upright_aspect
from hf_video.video.frames.types import VideoMetadata

DeliverPixels = Callable[[int, np.ndarray], None]


class EncodedSource:
    """A source that FFmpeg decodes."""

    backend = "pyav"

    def __init__(
        self, media: Media, *, sizing: Sizing, scaler: str, threads: int, background: tuple[int, int, int] = WHITE
    ):
        self.label = media.label
        self._background = background
        self._video = EncodedVideo(media, threads=threads)
        self._sizing = sizing
        self._scaler = scaler
        self._painter: Painter | None = None
        self._first: tuple[int, int, int] | None = None  # coded height, width, rotation of the first frame
        self._interlaced = False
        opened = self._video.video  # a wrong file is refused now
        self._animation = opened.kind == "gif" or opened.container.metadata.get("major_brand") == "avis"
        self._aspect = Fraction(opened.stream.sample_aspect_ratio or 1)

    @property
    def seconds(self) -> np.ndarray:
        return self._shown()[0]

    @property
    def end(self) -> float:
        return self._shown()[1]

    def _shown(self) -> tuple[np.ndarray, float]:
        """When frames are shown, and when the last one ends: as the file says, or as browsers show an animation."""
        table = self._video.table
        if not self._animation:
            return table.seconds, table.end
        ends = float(table.seconds[0]) + np.cumsum(browser_delays(np.diff(np.append(table.seconds, table.end))))
        return np.append(table.seconds[:1], ends[:-1]), float(ends[-1])

    def target(self, height: int, width: int) -> tuple[int, int]:
        return self._sizing.target(height, width, upright_aspect(self._aspect, self._turned()))

    def describe(self) -> VideoMetadata:
        seconds, end = self.seconds, self.end
        height, width, rotation = self._first_frame()
        if self._turned():
            height, width = width, height
        duration = end - float(seconds[0])
        return VideoMetadata(
            num_frames=len(seconds), fps=len(seconds) / duration if duration > 0 else 0.0, duration=duration,
            height=height, width=width, begin=float(seconds[0]), rotation=rotation,
            codec=self._codec(), source=self.label, rebuilt_timestamps=self._video.table.rebuilt,
            stream=self._video.video.stream.index, streams=tuple(self._video.video.streams()),
            sample_aspect_ratio=upright_aspect(self._aspect, self._turned()),
        )  # fmt: skip

    def _turned(self) -> bool:
        return self._first_frame()[2] in (90, 270)

    def _codec(self) -> str:
        return self._video.codec

    def _first_frame(self) -> tuple[int, int, int]:
        # The display matrix and the true size are only certain on a decoded frame.
        if self._first is None:
            frame = self._video.first_frame()
            if frame is None:
                raise NoFramesError(f"{self.label}: not one frame of its video stream can be decoded")
            self._first = frame.height, frame.width, clockwise_degrees(display_matrix(frame))
            self._interlaced = frame.interlaced_frame
        return self._first

    def nearest_keyframes(self, indices: np.ndarray) -> np.ndarray:
        return self._video.nearest_keyframes(indices)

    def _new_painter(self) -> Painter:
        return Painter(self._sizing, self._scaler, background=self._background, aspect=self._aspect)

    def _brush(self) -> Painter:
        if self._painter is None:
            self._painter = self._new_painter()
        return self._painter

    def fetch(self, wanted: list[int], deliver: DeliverPixels, *, keyframes: bool = False) -> None:
        painter = self._brush()

        def paint(index: int, frame: Any) -> None:
            if painter.coded_size is None:
                painter.coded_size = self._coded_size(frame)
            pixels = painter.rgb(frame)
            if pixels is not None:
                deliver(index, pixels)

        (self._video.fetch_keyframes if keyframes else self._video.fetch)(wanted, paint)

    def _coded_size(self, frame: Any) -> tuple[int, int]:
        """The size of the first frame. A frame of the size that the header states needs no look at the first one."""
        if self._first is not None:
            return self._first[:2]
        if (frame.height, frame.width) == self._video.stated_size:
            return frame.height, frame.width
        with_own_container = EncodedVideo(self._video.media, threads=1, table=self._video.table)
        try:
            first = with_own_container.first_frame()
        finally:
            with_own_container.close()
        return (first.height, first.width) if first is not None else (frame.height, frame.width)

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        painter = self._new_painter()
        for index, frame in self._video.frames():
            if painter.coded_size is None:
                painter.coded_size = self._coded_size(frame)
            pixels = painter.rgb(frame)
            if pixels is not None:
                yield index, pixels

    def decoded_for(self, wanted: list[int]) -> int:
        """How many frames `fetch` decodes for these sorted numbers."""
        return self._video.decoded_for(wanted)

    def in_order(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray | None]]:
        """(index, pixels) of these sorted, distinct frames from one sequential decode; None for those that can't be
        decoded."""
        painter = self._new_painter()
        left, ready = deque(wanted), dict.fromkeys(wanted)
        for index, frame in self._video.in_order(wanted[-1]):
            if painter.coded_size is None:
                painter.coded_size = self._coded_size(frame)
            if index in ready:
                ready[index] = painter.rgb(frame)
            # Damaged streams give frames in disorder: one that is missing may still come.
            while left and (ready[left[0]] is not None or index >= left[0] + REORDER):
                yield left[0], ready.pop(left.popleft())
            if not left:
                return
        for index in left:
            yield index, ready[index]

    def again(self) -> Media:
        return self._video.media

    def close(self) -> None:
        self._video.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_painter": None}
