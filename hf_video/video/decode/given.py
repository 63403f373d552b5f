"""Videos as other libraries hand them over, as what the reader takes."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from hf_video.errors import VideoArrayError, VideoSourceError
from hf_video.video.decode.stills import Stills
from hf_video.video.frames.addresses import local_path, scheme_of
from hf_video.video.frames.background import WHITE
from hf_video.video.frames.rgb import array_of, array_to_rgb
from hf_video.video.frames.types import VideoFrames

AT_ONCE = 32  # frames that a decoder is asked for in one go


def plain_source(given: Any) -> Any:
    """What `given` stands for, and `given` itself where it stands for nothing else.

    A row, `{"video": ...}` or `{"bytes", "path"}`, is its bytes or its path. A decoded cell of a `datasets` Video
    column (a torchcodec `VideoDecoder`) is the file that it came from. A PIL image is a video of one frame, or of all
    that it has. torchcodec's `FrameBatch` is `VideoFrames`, or an array of clips; decord's and MXNet's arrays are
    numpy's; an open container of PyAV is its file. They are told by their classes' names: none of these packages is
    imported.

    Raises VideoSourceError for a row without a video, and for readers whose file can't be told.
    """
    if isinstance(given, Mapping):
        return plain_source(_of_row(given))
    if _is_of(given, "PIL", "Image"):
        return _of_image(given)
    if isinstance(given, (list, tuple)):
        # Rows stay rows: one that is wrong is the fault of one video. Images are frames, moving ones too.
        items = [one if isinstance(one, Mapping) or _is_of(one, "PIL", "Image") else plain_source(one) for one in given]
        return given if all(map(operator.is_, items, given)) else items
    if _is_of(given, "torchcodec", "VideoDecoder"):
        row = getattr(given, "_hf_encoded", None) or {}
        path = row.get("path")
        if row.get("bytes") is not None:
            return row["bytes"]
        return path if path and (os.path.exists(path) or scheme_of(path) in ("http", "https")) else given
    if _is_of(given, "torchcodec", "FrameBatch"):
        return _of_batch(given)
    if _is_of(given, "av", "InputContainer"):
        name = local_path(getattr(given, "name", "") or "").removeprefix("file:")
        if os.path.exists(name) or scheme_of(name):
            return name
        raise VideoSourceError("an open PyAV container of a file object is not read from its first byte: give the file")
    if _is_of(given, "decord", "VideoReader"):
        raise VideoSourceError(
            "a decord VideoReader is no source: give its file, or frames: reader.get_batch(indices).asnumpy()"
        )
    return given.asnumpy() if hasattr(given, "asnumpy") else given


def _of_image(image: Any) -> Any:
    """A still is a video of one frame. One that moves is its file, or copies of its frames: PIL has one at a time."""
    if getattr(image, "n_frames", 1) == 1 or image.format == "MPO":
        return [image]
    name = getattr(image, "filename", "")
    if name and os.path.isfile(name):
        return os.fsdecode(name)
    from PIL import ImageSequence

    return [frame.copy() for frame in ImageSequence.Iterator(image)]


def is_decoder(given: Any) -> bool:
    """Whether it is a torchcodec `VideoDecoder`."""
    return _is_of(given, "torchcodec", "VideoDecoder")


def _is_of(given: Any, package: str, name: str) -> bool:
    return any(kind.__name__ == name and kind.__module__.partition(".")[0] == package for kind in type(given).__mro__)


def _of_row(row: Mapping[str, Any]) -> Any:
    for name in ("video", "bytes", "path"):
        if row.get(name) is not None:
            return row[name]
    keys = ", ".join(sorted(map(str, row))) or "none"
    raise VideoSourceError(f"A dict is a row with a video where it has bytes, a path or a video; its keys are {keys}.")


def _of_batch(batch: Any) -> VideoFrames | np.ndarray:
    data = _channels_last(array_of(batch.data), "torchcodec's FrameBatch")
    if data.ndim != 4:
        return data
    seconds = np.asarray(array_of(batch.pts_seconds), np.float64)
    return VideoFrames(data=array_to_rgb(data), indices=np.arange(len(data)), seconds=seconds)


def _channels_last(pixels: np.ndarray, what: str) -> np.ndarray:
    """(..., height, width, 3) of that or of (..., 3, height, width)."""
    if (pixels.shape[-1] == 3) == (pixels.shape[-3] == 3):
        raise VideoArrayError(f"{what} has the shape {pixels.shape}: it can't be told where the channels are")
    return pixels if pixels.shape[-1] == 3 else np.moveaxis(pixels, -3, -1)


class DecoderVideo(Stills):
    """A torchcodec `VideoDecoder` whose file is not known: frames are what it decodes. It knows no times before it
    decodes, so that all frames are decoded once, and again where they are asked for."""

    codec = "torchcodec"

    def __init__(self, decoder: Any, *, background: tuple[int, int, int] = WHITE):
        count = len(decoder)
        super().__init__(count, 1.0, f"the {type(decoder).__name__} of {count} frames", background)
        self._decoder = decoder
        parts = [decoder.get_frames_in_range(i, min(i + AT_ONCE, count)) for i in range(0, count, AT_ONCE)]
        self.seconds = np.concatenate([np.asarray(array_of(part.pts_seconds), np.float64) for part in parts])
        self.end = float(self.seconds[-1]) + float(parts[-1].duration_seconds[-1])

    def pixels(self, index: int) -> np.ndarray:
        frame = self._decoder.get_frame_at(index).data
        return array_to_rgb(_channels_last(array_of(frame), self.label), background=self.background)


class TimedFrames(Stills):
    """`VideoFrames`, at their own times."""

    codec = "array"

    def __init__(self, frames: VideoFrames):
        super().__init__(len(frames), 1.0, f"the {len(frames)} frames")
        if not len(frames):
            raise VideoArrayError("VideoFrames without a frame came; a video has at least one")
        self._data = np.asarray(frames.data)
        order = np.argsort(frames.seconds, kind="stable")
        if (order != np.arange(len(frames))).any():
            raise VideoArrayError("VideoFrames that are read as a video must be in the order of their times")
        self.seconds = np.asarray(frames.seconds, np.float64)
        step = (self.seconds[-1] - self.seconds[0]) / max(len(frames) - 1, 1)
        self.end = float(self.seconds[-1]) + (float(step) or 1 / 25)

    def pixels(self, index: int) -> np.ndarray:
        return self._data[index]
