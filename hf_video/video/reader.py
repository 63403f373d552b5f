"""`VideoReader`: any source, exact frames by number or by second, and what is known of the video."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hf_video.errors import FrameIndexError, VideoOptionError, check_choice, check_count, check_number
from hf_video.video.decode.clip_frames import (
    apart_where_possible,
    clips_in_groups,
    clips_in_one_pass,
    damaged_video_error,
    empty_frames,
    groups_of,
    is_better_in_one_pass,
    nearest_good,
)
from hf_video.video.decode.sources import Source, open_source
from hf_video.video.frames.pixels import WHITE, Sizing, checked_background
from hf_video.video.frames.times import frames_at, plain_seconds
from hf_video.video.frames.types import VideoFrames, VideoMetadata, VideoSource


class VideoReader:
    """Reads frames of a video. The source is opened at once, so that a wrong one fails here.

    **Frame i is bit-identical to the i-th frame that a full sequential decode yields**, as RGB, turned upright where
    the file carries a display matrix. Indices may repeat, come in any order, and be negative (from the end). Only
    frames that have to be decoded are: from the nearest keyframe, without those that nothing refers to.

    Stills and arrays become 8-bit RGB by the rule of `hf_video.video.frames.rgb`. A frame of GIF, WebP or APNG that
    asks for 10 ms or less is shown for 100 ms, as in browsers.

    A reader can be pickled (source, options and the table of frames, not the open file) and used after a fork; it
    opens the source again there. `close()` it or use it in `with`. Threads may share one: they take turns.

    Args:
        source: A path (`str` or `Path`), `bytes`, a binary file object (read from its first byte), an http(s) URL, a
            folder of images (one per frame, in natural order of the names), a uint8 array or tensor of shape
            (frames, height, width, 3), a list of PIL images, `VideoFrames`, a row or decoded cell of a `datasets` Video
            column and other libraries' frames (`hf_video.video.decode.sources`), another `VideoReader`, or a
            `VideoPart` of any of these.
        size: (height, width) in pixels to which every frame is resized as soon as it is decoded.
        shortest_edge: In place of `size`: pixels of the shorter side; the longer one is `int(long * edge / short)`.
        on_error: For frames that can't be decoded: `"raise"` a `DamagedVideoError` that names them, `"skip"` them, or
            `"repeat"` the nearest good frame and name them in `.repeated`.
        snap: `"keyframe"`: instead of each frame asked for, read the keyframe nearest in time (cheap: one frame decoded
            for each). Results carry the indices and seconds really read.
        backend: `"pyav"`, `"torchcodec"` (only used for files on which it is exact; see `.backend`), or `"auto"`, which
            is pyav: it is exact on every file.
        num_threads: Threads of the decoder. One is best where other work fills the processor. More read frames from
            different stretches of a file between keyframes side by side, and help iterating over large frames. With 0
            FFmpeg chooses, and stretches are shared by all processors.
        fps: Frames per second of sources that carry no times (folder, array, list); None stands for 25.
        scaler: `"exact"`: antialiased, at most one level from PIL. `"swscale"`: within FFmpeg's conversion to RGB;
            cheaper from about 1080p on, up to tens of levels different at edges.
        square_pixels: True gives frames as wide as a player shows them, before `size` or `shortest_edge`: their own
            width times `metadata.sample_aspect_ratio`, rounded (a ratio beyond 16 is taken for damage). False gives the
            file's own pixels.
        background: (red, green, blue) from 0 to 255, or a colour's name, that shows where frames are transparent (GIF,
            WebP, PNG, ProRes 4444 and others).
        stream: Number of the stream to read, counted as in `metadata.streams`. None takes the one that FFmpeg takes for
            the main one, covers and other single pictures aside.

    Raises:
        VideoSourceError: The path is missing, the kind of source is unknown or the URL doesn't answer.
        EmptyFileError, NotAVideoError, NoVideoStreamError, NoFramesError: The file holds no video that can be read.
        VideoArrayError: The array, list or folder of images has frames of a wrong shape, dtype or size.
        VideoOptionError: An option has a value that is not listed here.
        BackendError: torchcodec was asked for and can't be loaded.
    """

    def __init__(
        self,
        source: VideoSource,
        *,
        size: tuple[int, int] | None = None,
        shortest_edge: int | None = None,
        on_error: str = "raise",
        snap: str | None = None,
        backend: str = "auto",
        num_threads: int = 1,
        fps: float | None = None,
        scaler: str = "exact",
        square_pixels: bool = False,
        background: tuple[int, int, int] | str = WHITE,
        stream: int | None = None,
    ):
        check_choice("on_error", on_error, ("raise", "skip", "repeat"))
        check_choice("snap", snap, (None, "keyframe"))
        check_choice("backend", backend, ("auto", "pyav", "torchcodec"))
        check_choice("scaler", scaler, ("exact", "swscale"))
        check_count("num_threads", num_threads, least=0, hint=" With 0 FFmpeg chooses.")
        check_count("stream", stream, least=0, optional=True, hint=" It is the number of a stream.")
        check_number("fps", fps, above=0, optional=True, hint=" It is in frames per second.")
        sizing = Sizing(size, shortest_edge, square_pixels)
        self._on_error = on_error
        self._snap = snap
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._metadata: VideoMetadata | None = None
        self._source: Source = open_source(
            source._source.again() if isinstance(source, VideoReader) else source,
            sizing=sizing, scaler=scaler, threads=num_threads, fps=fps, backend=backend,
            background=checked_background(background), stream=stream,
        )  # fmt: skip

    @property
    def metadata(self) -> VideoMetadata:
        """Frame count, average fps, duration, size after rotation, rotation and codec (see `VideoMetadata`).

        The height and width are the video's own, before `size` or `shortest_edge`.
        """
        with self._guard():
            if self._metadata is None:
                self._metadata = self._source.describe()
            return self._metadata

    @property
    def backend(self) -> str:
        """What decodes: `"pyav"`, `"torchcodec"`, or `"none"` for sources that were never encoded."""
        return self._source.backend

    @property
    def timestamps(self) -> np.ndarray:
        """Presentation time of every frame in seconds, float64 of shape (frames,)."""
        with self._guard():
            return self._source.seconds.copy()

    @property
    def end(self) -> float:
        """When the last frame ends, in seconds: known, as `timestamps` are, without decoding a frame."""
        with self._guard():
            return self._source.end

    def __len__(self) -> int:
        with self._guard():
            return len(self._source.seconds)

    def get_frames(self, indices: Iterable[int] | int | slice) -> VideoFrames:
        """Reads frames by number.

        Args:
            indices: Frame numbers in any order: a sequence, an integer array or tensor, one integer, or a slice.
                Repeated ones are read once and returned each time; negative ones count from the end.

        Returns:
            The frames in the order of `indices`: `data` is uint8 RGB of shape (len(indices), height, width, 3).

        Raises:
            FrameIndexError: A number is out of range, or no integer.
            DamagedVideoError: With `on_error="raise"`, a frame can't be decoded.
        """
        with self._guard():
            if self._snap is not None:
                return self._read(self.nearest_keyframes(indices))
            return self._read(_frame_numbers(indices, len(self), self._source.label))

    def get_frames_at(self, seconds: Iterable[float] | float) -> VideoFrames:
        """Reads the frames that are on screen at given times.

        Args:
            seconds: One time or several, in seconds of the file's own time line.

        Returns:
            One frame for each time, in their order.

        Raises:
            FrameIndexError: A time lies before the first frame, or at the end of the video or later.
            DamagedVideoError: With `on_error="raise"`, a frame can't be decoded.

        Frame i is shown from its own time until that of the next; the last until the end of the video. A time means the
        frame after it where it falls short of that one's by no more than its type can't tell apart (float32 at 700 s:
        0.00006 s) or than the decimals that all times are rounded to (two or more), at most by half a frame.
        """
        with self._guard():
            times, tolerance = plain_seconds(seconds)
            known, end = self._source.seconds, self._source.end
            begin = float(known[0])
            first = float(known[1] - known[0]) if len(known) > 1 else end - begin
            early = times >= begin - np.minimum(tolerance, first / 2)
            wrong = ~(early & ((times < end) | (np.abs(times - known[-1]) <= tolerance)))
            if wrong.any():
                raise FrameIndexError(
                    f"{self._source.label}: no frame is shown at {times[wrong][0]:g} s; "
                    f"the video runs from {begin:g} s to (not including) {end:g} s"
                )
            return self.get_frames(frames_at(known, times, tolerance))

    def nearest_keyframes(self, indices: Iterable[int] | int | slice) -> np.ndarray:
        """Which keyframes `snap="keyframe"` would read.

        Args:
            indices: Frame numbers, as in `get_frames`.

        Returns:
            For each of them the number of the keyframe nearest in time, int64 (len(indices),); where every frame stands
            alone (images, arrays), and in a video without keyframes, the number itself.

        Raises:
            FrameIndexError: As in `get_frames`.
        """
        with self._guard():
            return self._source.nearest_keyframes(_frame_numbers(indices, len(self), self._source.label))

    def frames_of_clips(self, clips: Iterable[np.ndarray], *, limit: int) -> Iterator[VideoFrames]:
        """Reads the frames of many clips; frames that clips share are decoded about once.

        Args:
            clips: Frame numbers of each clip, in arrays of shape (frames,).
            limit: Most frames in memory at once; a clip of more frames is held whole.

        Returns:
            For each clip its distinct frames in ascending order, as `get_frames` gives them.

        Raises:
            FrameIndexError, DamagedVideoError: As in `get_frames`.
        """
        clips = [np.unique(_frame_numbers(clip, len(self), self._source.label)) for clip in clips]
        if len(clips) == 1 and self._snap is None:
            return map(self.get_frames, clips)
        groups = groups_of(clips, limit)
        if self._snap is None and is_better_in_one_pass(self._source, groups, limit):
            return clips_in_one_pass(self._source, clips, self._on_error)
        return clips_in_groups(self.get_frames, apart_where_possible(self._source, groups))

    def __getitem__(self, index: int | slice) -> VideoFrames:
        return self.get_frames(index)

    def __iter__(self) -> Iterator[VideoFrames]:
        """Every frame in display order, one at a time (`data` is (1, height, width, 3)); one is in memory at once."""
        return self.chunks(1)

    def chunks(self, frames: int) -> Iterator[VideoFrames]:
        """Reads the whole video in display order with one sequential decode, holding one chunk in memory.

        Args:
            frames: Frames of a chunk; the last chunk may be shorter.

        Yields:
            `VideoFrames`, `data` uint8 RGB of shape (frames, height, width, 3). `on_error` applies, `snap` doesn't.

        Raises:
            VideoOptionError: `frames` is below 1.
            DamagedVideoError: With `on_error="raise"`, a frame can't be decoded.
        """
        if frames < 1:
            raise VideoOptionError(f"a chunk must have at least 1 frame, got {frames}")
        held: list[tuple[int, np.ndarray, bool]] = []
        for item in self._good_frames():
            held.append(item)
            if len(held) == frames:
                yield self._pack(held)
                held = []
        if held:
            yield self._pack(held)

    def _read(self, asked: np.ndarray) -> VideoFrames:
        source = self._source
        rows: dict[int, list[int]] = {}
        for row, index in enumerate(asked.tolist()):
            rows.setdefault(index, []).append(row)
        missing = set(rows)
        data: np.ndarray | None = None

        def deliver(index: int, pixels: np.ndarray) -> None:
            nonlocal data  # only the result itself and one frame are in memory
            if data is None:
                data = np.empty((len(asked), *pixels.shape), np.uint8)
            for row in rows[index]:
                data[row] = pixels
            missing.discard(index)

        source.fetch(sorted(rows), deliver, keyframes=self._snap is not None)
        lost = sorted(missing)
        if lost and self._on_error == "raise":
            raise damaged_video_error(source, lost)
        if lost and self._on_error == "repeat":
            for index in lost:
                deliver(index, nearest_good(source, index, set(lost)))
        elif lost:
            kept = ~np.isin(asked, lost)
            asked, data = asked[kept], data if data is None else data[kept]
        if data is None:
            data = empty_frames(source)
        repeated = tuple(lost) if self._on_error == "repeat" else ()
        return VideoFrames(data=data, indices=asked, seconds=source.seconds[asked], repeated=repeated)

    def _good_frames(self) -> Iterator[tuple[int, np.ndarray, bool]]:
        """(index, pixels, repeated) of every frame in order, with gaps treated as `on_error` says."""
        expected, latest = 0, None
        for index, pixels in self._source.frames():
            if index < expected:
                continue
            yield from self._gap(range(expected, index), latest if latest is not None else pixels)
            yield index, pixels, False
            expected, latest = index + 1, pixels
        yield from self._gap(range(expected, len(self)), latest)

    def _gap(self, gap: range, pixels: np.ndarray | None) -> Iterator[tuple[int, np.ndarray, bool]]:
        if not gap or self._on_error == "skip":
            return
        if self._on_error == "raise" or pixels is None:
            raise damaged_video_error(self._source, list(gap))
        for index in gap:
            yield index, pixels, True

    def _pack(self, held: list[tuple[int, np.ndarray, bool]]) -> VideoFrames:
        indices = np.array([index for index, _, _ in held], np.int64)
        return VideoFrames(
            data=np.stack([pixels for _, pixels, _ in held]),
            indices=indices,
            seconds=self._source.seconds[indices],
            repeated=tuple(index for index, _, repeated in held if repeated),
        )

    def _guard(self) -> threading.RLock:
        # A lock that some thread of the parent held at the fork would never be released here.
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.RLock()
        return self._lock

    def close(self) -> None:
        """Closes the source. Reading again opens it again."""
        with self._guard():
            self._source.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        with self._guard():
            return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_pid")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pid, self._lock = os.getpid(), threading.RLock()

    def __repr__(self) -> str:
        return f"VideoReader({self._source.label!r})"


def _frame_numbers(indices: Iterable[int] | int | slice, count: int, label: str) -> np.ndarray:
    """`indices` as non-negative int64 array, or `FrameIndexError`."""
    if isinstance(indices, slice):
        return np.arange(*indices.indices(count), dtype=np.int64)
    if isinstance(indices, Iterable) and not hasattr(indices, "__array__"):
        indices = list(indices)
    try:
        numbers = np.atleast_1d(np.asarray(indices))
    except (TypeError, ValueError):
        numbers = np.empty(0, object)
    if numbers.size == 0 and numbers.dtype != object:
        return np.empty(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise FrameIndexError(f"frame indices must be whole numbers in one dimension, got {indices!r:.100}")
    numbers = numbers.astype(np.int64)
    wrong = (numbers < -count) | (numbers >= count)
    if wrong.any():
        raise FrameIndexError(
            f"{label} has {count} frames: index {numbers[wrong][0]} is out of range, "
            f"allowed are {-count} to {count - 1}"
        )
    return np.where(numbers < 0, numbers + count, numbers)
