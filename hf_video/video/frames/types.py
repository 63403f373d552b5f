"""What a reader hands out: frames that know which ones they are and when they are shown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Union

import numpy as np

if TYPE_CHECKING:
    import torch
    from av.container import InputContainer
    from numpy.typing import DTypeLike
    from PIL.Image import Image

    from hf_video.video.frames.part import VideoPart
    from hf_video.video.reader import VideoReader


class FrameDecoder(Protocol):
    """torchcodec's `VideoDecoder`, which is also a decoded cell of a `datasets` Video column."""

    def __len__(self) -> int: ...

    def get_frame_at(self, index: int) -> Any: ...


class FrameBatch(Protocol):
    """torchcodec's `FrameBatch`."""

    data: Any
    pts_seconds: Any


Frame = Union["Image", np.ndarray, "torch.Tensor"]
# Whatever can be read as a video; `VideoReader` says what each of them means.
VideoSource = Union[
    str, os.PathLike[str], bytes, bytearray, memoryview, BinaryIO, Frame, Sequence[Frame], Mapping[str, Any],
    "VideoFrames", "VideoPart", "VideoReader", FrameDecoder, FrameBatch, "InputContainer",
]  # fmt: skip


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
    """What is known of a video before a frame is decoded.

    `num_frames` counts frames that can be presented; `fps` is their average rate in frames per second
    (`num_frames / duration`); `duration` is in seconds, from the first frame's start to the last frame's end;
    `begin` is the presentation time of frame 0 in seconds (0 for most files);
    `height` and `width` are in pixels **after** `rotation` (degrees clockwise: 0, 90, 180, 270) has been applied;
    `sample_aspect_ratio` is how many times as wide as high these pixels are shown (1 where the file doesn't say): a
    player shows width · sample_aspect_ratio by height, and `square_pixels=True` reads it so;
    `codec` is FFmpeg's short name (`"h264"`), or `"images"` / `"array"` for sources that were never encoded;
    `rebuilt_timestamps` is True where the file's times contradict the order of its frames, so that all times were
    counted from the frame rate;
    `stream` is the number of the stream that is read and `streams` what the container says of all its video streams.
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
    """Some frames of a video.

    `data` is uint8 RGB of shape (frames, height, width, 3); `indices` (int64) are their numbers in display order and
    `seconds` (float64) their presentation times; both have shape (frames,). With `on_error="skip"` there may be fewer
    frames than were asked for; with `"repeat"`, `repeated` names the indices that show their nearest good neighbour.
    With `snap="keyframe"` indices and seconds are those of the keyframes that were really read.
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
