"""What a person hands to a pipeline: one video or many, and one interface to read any of them.

A list is ambiguous by nature; the rule is `hf_video.video.inputs.split_videos`: images (PIL, or arrays of one frame)
are the frames of one video, everything else (paths, URLs, bytes, clips, lists of images) are videos of a batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch

from hf_video.errors import VideoSourceError
from hf_video.video.decode.sources import plain_source
from hf_video.video.frames.types import VideoFrames, VideoMetadata
from hf_video.video.inputs import frames_to_tensor, is_source, split_videos
from hf_video.video.reader import VideoReader

DEFAULT_FPS = 25.0


class MemoryVideo:
    """Frames that are in memory already, with the interface of a `VideoReader`.

    `frames` is `VideoFrames`, a (frames, height, width, 3) or (frames, 3, height, width) array or tensor (uint8, or
    float from 0 to 1), or a list of images. Without times of their own they are `fps` frames per second.
    Raises VideoArrayError.
    """

    def __init__(self, frames: Any, *, fps: float | None = None):
        # The tensor may lie on an accelerator; processors work on the CPU.
        self._data = frames_to_tensor(frames).cpu().numpy()
        count, height, width = self._data.shape[:3]
        rate = float(fps or DEFAULT_FPS)
        self.timestamps = np.arange(count) / rate
        if isinstance(frames, VideoFrames) and len(frames.seconds) == count:
            self.timestamps = np.asarray(frames.seconds, dtype=np.float64)
            spread = float(self.timestamps[-1] - self.timestamps[0])
            rate = (count - 1) / spread if spread > 0 else rate
        begin = float(self.timestamps[0])
        end = float(self.timestamps[-1]) + 1 / rate
        self.metadata = VideoMetadata(
            num_frames=count, fps=rate, duration=end - begin, height=height, width=width, begin=begin
        )

    def get_frames(self, indices: Any) -> VideoFrames:
        """As `VideoReader.get_frames`; `data` keeps the dtype that came."""
        indices = np.asarray(indices, dtype=np.int64)
        return VideoFrames(data=self._data[indices], indices=indices, seconds=self.timestamps[indices])


@contextlib.contextmanager
def open_video(source: Any, *, fps: float | None = None, **options: Any) -> Iterator[VideoReader | MemoryVideo]:
    """A reader for one video of any form; closed afterwards if it was opened here.

    `options` go to `VideoReader` (`on_error`, `backend`). Raises what `VideoReader` and `MemoryVideo` raise.
    """
    source = plain_source(source)
    if isinstance(source, VideoReader) or (hasattr(source, "get_frames") and hasattr(source, "timestamps")):
        yield source
    elif isinstance(source, (VideoFrames, np.ndarray, torch.Tensor, list, tuple)):
        yield MemoryVideo(source, fps=fps)
    else:
        with VideoReader(source, fps=fps, **options) as reader:
            yield reader


def videos_of(inputs: Any) -> tuple[str, Any]:
    """What `inputs` is: ("one", video), ("list", videos) or ("stream", iterable of videos, maybe endless).

    A generator, an iterator or a dataset is a stream. Raises VideoSourceError for what is none of them.
    """
    inputs = inputs if isinstance(inputs, Mapping) else plain_source(inputs)
    if isinstance(inputs, (str, os.PathLike, bytes, bytearray, memoryview, Mapping, VideoFrames)) or is_source(inputs):
        return "one", inputs
    if isinstance(inputs, (list, tuple)) and all(isinstance(one, Mapping) for one in inputs):
        return "list", list(inputs)  # rows; or none at all
    if isinstance(inputs, (list, tuple, np.ndarray, torch.Tensor)):
        videos = split_videos(inputs)
        one = inputs.ndim != 5 if hasattr(inputs, "ndim") else videos[0] is inputs
        return ("one", videos[0]) if one else ("list", videos)
    if isinstance(inputs, Iterable) or (hasattr(inputs, "__getitem__") and isinstance(inputs, Sized)):
        return "stream", inputs
    raise VideoSourceError(
        f"A {type(inputs).__name__} is no video. Give a path, URL, bytes, a file object, an array "
        "(frames, height, width, 3), a list of PIL images, a folder of images, a VideoReader, or a list, generator or "
        "dataset of these."
    )


def each(videos: Any) -> Iterator[Any]:
    """The videos of a list, iterator or dataset, one by one (torch datasets need not raise IndexError at their end)."""
    if hasattr(videos, "__getitem__") and isinstance(videos, Sized):
        return (videos[i] for i in range(len(videos)))
    return iter(videos)
