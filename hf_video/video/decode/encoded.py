"""Exact frames of a video that FFmpeg decodes, while decoding as few of them as possible.

`SegmentReader` reads what is asked for from keyframe to keyframe. Whatever does not go as the table says (a timestamp
that is not in it, frames out of order, a decoder that reports an error) is decoded from the start and counted, which is
right by definition.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from hf_video.errors import FrameIndexError, NoFramesError
from hf_video.video.decode.container import Media, OpenVideo
from hf_video.video.decode.frame_table import REORDER, FrameTable, build_table
from hf_video.video.decode.segments import (
    Deliver,
    SegmentReader,
    WrongTableError,
    read_side_by_side,
    segments,
)
from hf_video.video.decode.stills import browser_delays
from hf_video.video.frames.pixels import (
    WHITE,
    FrameConverter,
    Sizing,
    clockwise_degrees,
    display_matrix,
    upright_aspect,
)
from hf_video.video.frames.types import VideoMetadata

# A short video whose frames had to be decoded to be counted is kept decoded, up to so many bytes, so that counting
# and reading cost one decode together.
KEPT_BYTES = 48 << 20


class _Kept:
    """Decoded frames of a short video, or none if they are too large to keep."""

    def __init__(self) -> None:
        self.frames: list[av.VideoFrame] = []
        self._room = KEPT_BYTES

    def add(self, frame: av.VideoFrame) -> None:
        self._room -= sum(plane.buffer_size for plane in frame.planes)
        if self._room < 0:
            self.frames = []
        else:
            self.frames.append(frame)


class EncodedVideo:
    """An encoded video: its frame table, and frames by index.

    `table` may be given if it is known already (from an earlier reader of the same source).
    """

    _segment_reader: SegmentReader | None = None

    def __init__(self, media: Media, *, threads: int = 1, table: FrameTable | None = None):
        self.media = media
        self.threads = threads
        self._table = table
        self._video: OpenVideo | None = None
        self._kept = _Kept()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_video": None, "_segment_reader": None, "_kept": _Kept()}

    @property
    def video(self) -> OpenVideo:
        """The open container of this process; after a fork or `close`, a new one."""
        if self._video is None or not self._video.usable():
            self._release()
            # One thread: with several, FFmpeg decodes less of a cut-off end.
            self._video = OpenVideo(self.media)
        return self._video

    @property
    def table(self) -> FrameTable:
        if self._table is None:
            self._make_table()
        return self._table

    def _make_table(self, *, trust_index: bool = True) -> None:
        self._kept, self._segment_reader = _Kept(), None
        promised = self._table
        table = build_table(self.video, self.media.label, trust_index=trust_index, on_frame=self._kept.add)
        table = table if promised is None else promised.corrected(table)
        if self.video.decoder is not self.video.stream.codec_context:
            # Opacity has keyframes of its own, which the container doesn't list.
            table = dataclasses.replace(table, access="plain")
        self._table = table

    def _correct_table(self, last: int) -> None:
        """Make the table from the packets; raises `FrameIndexError` if frame `last` turns out not to be there."""
        self._make_table(trust_index=False)
        if last >= len(self.table):
            raise FrameIndexError(
                f"{self.media.label}: its index promises more frames than the {len(self.table)} that are there; "
                f"frame {last} is not"
            )

    def _reader(self) -> SegmentReader:
        video = self.video
        if self._segment_reader is None:
            self._segment_reader = SegmentReader(video, self.table)
        return self._segment_reader

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec (not of the library that decodes it)."""
        return self.video.decoder.codec.canonical_name

    @property
    def stated_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the container's header states, before rotation."""
        return self.video.stated_size

    def close(self) -> None:
        self._release()
        self._kept = _Kept()

    def _release(self) -> None:
        self._segment_reader = None
        if self._video is not None:
            self._video.close()
            self._video = None

    def fetch(self, indices: list[int], deliver: Deliver) -> None:
        """Call `deliver(index, frame)` for each of the sorted, distinct `indices`.

        An index may be delivered twice; the second frame is the right one. One that can't be decoded is not delivered.
        """
        if self.table.pts is None:
            if len(self._kept.frames) == len(self.table):
                for index in indices:
                    deliver(index, self._kept.frames[index])
            else:
                self._from_start(indices, deliver)
            return
        if self.table.access == "plain":
            self._from_start(indices, deliver)
            return
        doubtful: list[int] = []
        parts = segments(self.table, indices)
        threads = self.threads or os.cpu_count() or 1
        try:
            # A file object has one place for all threads, a server is asked by one connection, and what is passed over
            # would be passed over by each.
            if threads > 1 and self.table.access == "seek" and self.media.kind in ("path", "bytes"):
                doubtful = read_side_by_side(self._reader(), parts, threads, deliver)
            else:
                for key, part in parts:
                    doubtful += self._reader().read(key, part, deliver)
        except WrongTableError:
            self._correct_table(indices[-1])
            self.fetch(indices, deliver)
            return
        if doubtful:
            self._from_start(doubtful, deliver)

    def decoded_for(self, indices: list[int]) -> int:
        """How many frames `fetch` has to go through for these sorted indices, in frames decoded."""
        table = self.table
        if table.pts is None or table.access == "plain":
            return 0 if table.pts is None and len(self._kept.frames) == len(table) else indices[-1] + 1
        parts = segments(table, indices)
        decoded = sum(part[-1] + 1 - int(table.keys[key]) for key, part in parts)
        # Packets that are passed over are cheap, not free.
        return decoded + (int(table.keys[parts[0][0]]) // 8 if table.access == "pass" else 0)

    def in_order(self, last: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """(index, frame) of a sequential decode that goes as far as frame `last`, in a container of its own."""
        if self.table.origin == "index":
            self._correct_table(last)
        with contextlib.closing(OpenVideo(self.media, threads=self.threads, strict=False)) as video:
            yield from self._numbered(video, self.table)

    def nearest_keyframes(self, indices: np.ndarray) -> np.ndarray:
        """For each frame index that of the keyframe nearest in time; see `FrameTable.nearest_keyframes`."""
        keys = self.table.nearest_keyframes(indices)
        if self.table.origin == "index" and not all(map(self._reader().confirms, set(keys.tolist()))):
            self._correct_table(int(indices.max()))
            keys = self.table.nearest_keyframes(indices)
        return keys

    def fetch_keyframes(self, indices: list[int], deliver: Deliver) -> None:
        """As `fetch`, for indices that are all keyframes: of each of them one packet is decoded."""
        table = self.table
        if table.pts is None or table.access in ("start", "plain"):
            self.fetch(indices, deliver)
            return
        left = []
        for index in indices:
            frame = self._reader().keyframe(index)
            if frame is None:
                left.append(index)
            else:
                deliver(index, frame)
        if left:
            self.fetch(left, deliver)

    def frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """(index, frame) of a sequential decode, in a container of its own so that `fetch` may be called meanwhile."""
        if self.table.origin == "index":
            # A decode of everything is worth the certainty that one pass over the packets gives.
            self._make_table(trust_index=False)
        table = self.table
        with contextlib.closing(OpenVideo(self.media, threads=self.threads, strict=False)) as video:
            yield from self._numbered(video, table)

    def first_frame(self) -> av.VideoFrame | None:
        """The first frame that can be decoded, or None."""
        found: list[av.VideoFrame] = []
        self.fetch([0], lambda _, frame: found.append(frame))
        if found:
            return found[-1]
        return next((frame for _, frame in self.frames()), None)

    def starts_cleanly(self, index: int) -> bool:
        """Whether keyframe `index` can be decoded from its own packet alone."""
        return self._reader().keyframe(index) is not None

    def _numbered(self, video: OpenVideo, table: FrameTable) -> Generator[tuple[int, av.VideoFrame], None, None]:
        by_pts = None if table.pts is None else {int(p): i for i, p in enumerate(table.pts)}
        for count, frame in enumerate(video.frames()):
            index = count if by_pts is None else by_pts.get(frame.pts)
            if index is not None and index < len(table):
                yield index, frame

    def _from_start(self, indices: list[int], deliver: Deliver) -> None:
        left, last = set(indices), max(indices, default=-1)
        self.video.reopen(strict=False)
        with contextlib.closing(self._numbered(self.video, self.table)) as numbered:
            for index, frame in numbered:
                if index in left:
                    left.discard(index)
                    deliver(index, frame)
                if not left or index >= last + REORDER:  # damaged streams give frames in disorder
                    break
        self._release()


DeliverPixels = Callable[[int, np.ndarray], None]


class EncodedSource:
    """A source that FFmpeg decodes."""

    backend = "pyav"
    _converter: FrameConverter | None = None

    def __init__(
        self, media: Media, *, sizing: Sizing, scaler: str, threads: int, background: tuple[int, int, int] = WHITE
    ):
        self.label = media.label
        self._background = background
        self._video = EncodedVideo(media, threads=threads)
        self._sizing = sizing
        self._scaler = scaler
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
            codec=self._video.codec, source=self.label, rebuilt_timestamps=self._video.table.rebuilt,
            stream=self._video.video.stream.index, streams=tuple(self._video.video.streams()),
            sample_aspect_ratio=upright_aspect(self._aspect, self._turned()),
        )  # fmt: skip

    def _turned(self) -> bool:
        return self._first_frame()[2] in (90, 270)

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

    def _new_converter(self) -> FrameConverter:
        return FrameConverter(self._sizing, self._scaler, background=self._background, aspect=self._aspect)

    def _to_rgb(self, converter: FrameConverter, frame: av.VideoFrame) -> np.ndarray | None:
        if converter.coded_size is None:
            converter.coded_size = self._coded_size(frame)
        return converter.to_rgb(frame)

    def fetch(self, indices: list[int], deliver: DeliverPixels, *, keyframes: bool = False) -> None:
        converter = self._converter = self._converter or self._new_converter()

        def convert(index: int, frame: av.VideoFrame) -> None:
            pixels = self._to_rgb(converter, frame)
            if pixels is not None:
                deliver(index, pixels)

        (self._video.fetch_keyframes if keyframes else self._video.fetch)(indices, convert)

    def _coded_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """The size of the first frame. A frame of the size that the header states needs no look at the first one."""
        if self._first is not None:
            return self._first[:2]
        if (frame.height, frame.width) == self._video.stated_size:
            return frame.height, frame.width
        own = EncodedVideo(self._video.media, threads=1, table=self._video.table)  # with a container of its own
        with contextlib.closing(own):
            first = own.first_frame()
        return (first.height, first.width) if first is not None else (frame.height, frame.width)

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        converter = self._new_converter()
        for index, frame in self._video.frames():
            pixels = self._to_rgb(converter, frame)
            if pixels is not None:
                yield index, pixels

    def decoded_for(self, indices: list[int]) -> int:
        """How many frames `fetch` decodes for these sorted numbers."""
        return self._video.decoded_for(indices)

    def in_order(self, indices: list[int]) -> Iterator[tuple[int, np.ndarray | None]]:
        """(index, pixels) of these sorted, distinct frames from one sequential decode; None for those that can't be
        decoded."""
        converter = self._new_converter()
        left, ready = deque(indices), dict.fromkeys(indices)
        for index, frame in self._video.in_order(indices[-1]):
            if converter.coded_size is None:
                converter.coded_size = self._coded_size(frame)
            if index in ready:
                ready[index] = self._to_rgb(converter, frame)
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
        return {**self.__dict__, "_converter": None}
