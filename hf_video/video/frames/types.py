"""What a reader hands out: frames that know which ones they are and when they are shown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Union, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import torch
    from av.container import InputContainer
    from numpy.typing import DTypeLike
    from PIL.Image import Image


class FrameDecoder(Protocol):
    """torchcodec's `VideoDecoder`, which is also a decoded cell of a `datasets` Video column."""

    def __len__(self) -> int: ...

    def get_frame_at(self, index: int) -> Any: ...


class FrameTimes(Protocol):
    """What samplers know of a video, or of a part of one."""

    @property
    def metadata(self) -> VideoMetadata: ...

    @property
    def timestamps(self) -> np.ndarray: ...


class FrameReader(FrameTimes, Protocol):
    """A `VideoReader`, or what reads as one."""

    def get_frames(self, indices: Any) -> VideoFrames: ...


class PartOfVideo(Protocol):
    """A `VideoPart`."""

    @property
    def source(self) -> Any: ...

    @property
    def unit(self) -> str: ...


class FrameBatch(Protocol):
    """torchcodec's `FrameBatch`."""

    data: Any
    pts_seconds: Any


Frame = Union["Image", np.ndarray, "torch.Tensor"]
# Whatever can be read as a video; `VideoReader` says what each of them means.
VideoSource = Union[
    str, os.PathLike[str], bytes, bytearray, memoryview, BinaryIO, Frame, Sequence[Frame], Mapping[str, Any],
    "VideoFrames", PartOfVideo, FrameReader, FrameDecoder, FrameBatch, "InputContainer",
]  # fmt: skip


@runtime_checkable
class VideoList(Protocol):
    """Videos with a length: a list, or a data set of torch or of `datasets`."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> VideoSource: ...


Videos = VideoList | Iterable[VideoSource]


@dataclass(frozen=True)
class VideoStreamMetadata:
    """A video stream of a container as its header describes it.

    `index` is its number among all streams, as FFmpeg and torchcodec count; `height` and `width` in pixels, before
    rotation; `fps` in frames per second and `bit_rate` in bits per second, 0 and None where unknown. `default` is True
    if the container marks it as the one to play, `picture` if it is marked as a picture that goes with the video.
    """

    index: int
    codec: str
    height: int
    width: int
    fps: float
    bit_rate: int | None
    default: bool
    picture: bool

    def __str__(self) -> str:
        marks = ", default" * self.default + ", a picture" * self.picture
        return f"{self.index} ({self.codec}, {self.width}x{self.height}, {self.fps:g} fps{marks})"


VideoStream = VideoStreamMetadata  # the name in pickles of 0.1.0


@dataclass(frozen=True)
class VideoMetadata:
    """Describes a video, known before a frame is decoded.

    Attributes:
        num_frames: Number of frames that can be presented.
        fps: Their average rate in frames per second (`num_frames / duration`).
        duration: Seconds from the first frame's start to the last frame's end.
        height, width: Size in pixels **after** `rotation` has been applied.
        begin: Presentation time of frame 0 in seconds (0 for most files).
        rotation: Degrees clockwise: 0, 90, 180 or 270.
        codec: FFmpeg's short name (`"h264"`), or `"images"` / `"array"` for sources that were never encoded.
        source: Name of the source in messages.
        sample_aspect_ratio: Width of a pixel in heights as a player shows it (1 where the file doesn't say): the
            player shows width · sample_aspect_ratio by height, and `square_pixels=True` reads it so.
        rebuilt_timestamps: Whether the file's times contradict the order of its frames, so that all times were counted
            from the frame rate.
        stream: Number of the stream that is read; None where the source has no streams.
        streams: What the container says of all its video streams.
    """

    num_frames: int
    fps: float
    duration: float
    height: int
    width: int
    begin: float = 0.0
    rotation: int = 0
    codec: str = "array"
    source: str = ""
    sample_aspect_ratio: Fraction = Fraction(1)
    rebuilt_timestamps: bool = False
    stream: int | None = None
    streams: tuple[VideoStreamMetadata, ...] = ()


@dataclass(frozen=True)
class VideoFrames:
    """Some frames of a video. With `on_error="skip"` there may be fewer than were asked for.

    Attributes:
        data: uint8 RGB of shape (frames, height, width, 3).
        indices: Frame numbers in display order, int64 (frames,); with `snap="keyframe"` those of the keyframes read.
        seconds: Presentation times of these frames, float64 (frames,).
        repeated: With `on_error="repeat"`, the indices that show their nearest good neighbour.
    """

    data: np.ndarray
    indices: np.ndarray
    seconds: np.ndarray
    repeated: tuple[int, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.data)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is None:  # numpy 1 knows no "copy if needed" here
            return np.asarray(self.data, dtype=dtype)
        return np.array(self.data, dtype=dtype, copy=copy)
