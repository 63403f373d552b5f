"""Whatever a person hands over as "a video" or "some videos", as clips of one shape."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from hf_video.errors import VideoArrayError, VideoOptionError, VideoSourceError
from hf_video.video.decode.sources import is_decoder, plain_source
from hf_video.video.decode.stills import DEFAULT_FPS
from hf_video.video.frames.part import VideoPart
from hf_video.video.frames.pixels import is_uint16
from hf_video.video.frames.rgb import array_to_uint8, image_to_rgb
from hf_video.video.frames.types import Frame, VideoFrames, VideoMetadata, VideoSource
from hf_video.video.sampling.samplers import sample_video

if TYPE_CHECKING:
    from hf_video.video.reader import VideoReader
    from hf_video.video.sampling.frame_sample import FrameSample

_FORMS = (
    "a path, URL, bytes, file object, VideoReader or VideoFrames; a list of PIL images or of (H, W, 3) or (3, H, W) "
    "arrays; an array or tensor (frames, height, width, 3) or (frames, 3, height, width); or a list or 5-d array of "
    "those"
)


@dataclass(frozen=True)
class Clip:
    """One clip: `frames` (T, H, W, 3), uint8, or float32 where floats came; which frames of the source they are
    (`indices`, int64 (T,)) and when they are shown (`seconds`, float64 (T,), None if unknown), and what is known of the
    source (`fps`, `span` in seconds)."""

    frames: torch.Tensor
    indices: np.ndarray
    seconds: np.ndarray | None = None
    span: tuple[float, float] | None = None
    fps: float | None = None


@dataclass(frozen=True)
class SamplingPlan:
    """How sources are read. `num_frames` frames by `sampler`; where that is None, `fps` frames for each second; with
    `whole`, every frame. `arrays` says that ready-made frames are sampled too. `resize` are `VideoReader`'s `size` or
    `shortest_edge`: the same pixels as resizing afterwards, without ever holding the large ones."""

    num_frames: int | None = None
    sampler: Any = "uniform"
    options: Mapping[str, Any] = field(default_factory=dict)
    fps: float | None = None
    arrays: bool = False
    whole: bool = False
    resize: Mapping[str, Any] = field(default_factory=dict)


def split_videos(videos: VideoSource | Sequence[VideoSource]) -> list[Any]:
    """The single videos in `videos`, unread. Raises VideoSourceError or VideoArrayError for what is none."""
    videos = plain_source(videos)
    kind = _kind(videos)
    if kind in ("source", "clip"):
        return [videos]
    if kind == "frame":
        return [[videos]]
    if kind == "batch":
        return list(videos)
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        raise VideoArrayError(f"An array of shape {tuple(videos.shape)} is not a video. Give {_FORMS}.")
    if not isinstance(videos, Sequence):
        raise VideoSourceError(f"A {type(videos).__name__} is not a video. Give {_FORMS}.")
    if len(videos) == 0:
        raise VideoArrayError("The list is empty: there is no video and no frame in it.")
    kinds = {_kind(item) for item in videos}
    if kinds == {"frame"}:
        return [videos]
    if kinds <= {"source", "clip", "list"}:
        return list(videos)
    names = sorted({type(item).__name__ for item in videos})
    raise VideoArrayError(f"The list mixes things that make no video together ({', '.join(names)}). Give {_FORMS}.")


def load_clips(video: VideoSource, plan: SamplingPlan, *, layout: str | None = None) -> list[Clip]:
    """One video of `split_videos` as clips: one, or several where the sampler takes several.

    `layout` is `"channels_first"`, `"channels_last"` or None to tell by the channel count. Raises VideoArrayError
    (shapes, dtypes), VideoOptionError (nothing says how many frames), and what reading and sampling raise.
    """
    video = plain_source(video)
    if _kind(video) == "source":
        return _read_source(video, plan)
    frames = frames_to_tensor(video, layout=layout)
    known = video.seconds if isinstance(video, VideoFrames) else None
    if not plan.arrays:
        numbers = video.indices if isinstance(video, VideoFrames) else np.arange(len(frames))
        span = (float(known.min()), float(known.max())) if known is not None and len(known) else None
        return [Clip(frames, np.asarray(numbers, dtype=np.int64), known, span)]
    return _sample_array(frames, known, plan)


def _read_source(video: VideoSource, plan: SamplingPlan) -> list[Clip]:
    from hf_video.video.reader import VideoReader

    opened = contextlib.nullcontext(video) if isinstance(video, VideoReader) else VideoReader(video, **plan.resize)
    with opened as reader:
        sample = _sample(reader, plan)
        read, shape = reader.get_frames(sample.indices.ravel()), sample.indices.shape
        skipped = sample.indices.size - read.indices.size
        if skipped:
            raise VideoArrayError(
                f"{reader!r} skipped {skipped} damaged frames, so its clips are incomplete. "
                'Open it with on_error="repeat".'
            )
        frames = torch.from_numpy(read.data).reshape(*shape, *read.data.shape[1:])
        indices, seconds = read.indices.reshape(shape), read.seconds.reshape(shape)
        return _clips(frames, indices, seconds, sample.spans, reader.metadata.fps)


def _sample_array(frames: torch.Tensor, seconds: np.ndarray | None, plan: SamplingPlan) -> list[Clip]:
    from hf_video.video.reader import VideoReader

    pixels = frames if frames.dtype == torch.uint8 else (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    options = dict(plan.options) if seconds is None else {"timestamps": seconds, **plan.options}
    rgb = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].expand(-1, -1, -1, 3)
    with VideoReader(rgb) as reader:  # which frames to take doesn't depend on further channels
        sample = _sample(reader, plan, options)
    shown, spans = (sample.seconds, sample.spans) if seconds is not None else (None, None)
    return _clips(frames[torch.from_numpy(sample.indices)], sample.indices, shown, spans, None)


def _sample(reader: VideoReader, plan: SamplingPlan, options: Mapping[str, Any] | None = None) -> FrameSample:
    if plan.whole:
        return sample_video(reader, reader.metadata.num_frames, sampler="uniform", mode="floor")
    count = plan.num_frames
    if count is None:
        if plan.fps is None:
            raise VideoOptionError(
                "How many frames should be taken? Pass num_frames= (a model's is model.config.num_frames), or fps=."
            )
        count = max(int(reader.metadata.duration * plan.fps), 1)
    return sample_video(reader, count, sampler=plan.sampler, **(plan.options if options is None else options))


def _clips(
    frames: torch.Tensor, indices: np.ndarray, seconds: np.ndarray | None, spans: np.ndarray | None, fps: float | None
) -> list[Clip]:
    return [
        Clip(
            frames[k],
            indices[k],
            None if seconds is None else seconds[k],
            None if spans is None else (float(spans[k][0]), float(spans[k][1])),
            fps,
        )
        for k in range(len(indices))
    ]


def _kind(item: object) -> str:
    """ "source", "clip", "frame", "batch", "list" or "unknown"."""
    if isinstance(item, VideoFrames):
        return "clip"
    if isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview, Mapping)) or is_source(item):
        return "source"
    if isinstance(item, Image.Image):
        return "frame"
    if isinstance(item, (np.ndarray, torch.Tensor)):
        return {2: "frame", 3: "frame", 4: "clip", 5: "batch"}.get(item.ndim, "unknown")
    return "list" if isinstance(item, (list, tuple)) else "unknown"


def is_source(item: object) -> bool:
    """Whether it is an open reader, a decoder, a file object or a part of a video."""
    return hasattr(item, "get_frames") or hasattr(item, "read") or is_decoder(item) or isinstance(item, VideoPart)


def frames_to_tensor(
    video: VideoFrames | np.ndarray | torch.Tensor | Sequence[Frame], *, layout: str | None = None
) -> torch.Tensor:
    """One clip of ready-made frames as (T, H, W, 3), uint8 or float32 (floats keep their values)."""
    frames = video.data if isinstance(video, VideoFrames) else video
    tensor = _tensor(frames) if isinstance(frames, (np.ndarray, torch.Tensor)) else _stack(frames)
    if 0 in tensor.shape:
        raise VideoArrayError(f"A clip of shape {tuple(tensor.shape)} has no pixels.")
    return _channels_last(_pixels(tensor), layout)


def next_frames(
    frames: VideoFrames | np.ndarray | torch.Tensor | Sequence[Frame],
    seconds: float | Sequence[float] | np.ndarray | None,
    *,
    last: float,
    distance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The next frames of a stream, and when they are shown.

    Args:
        frames: (T, H, W, 3) or (T, 3, H, W), one frame (H, W, 3), `VideoFrames`, or a list of images.
        seconds: (T,); None takes those of `VideoFrames`, and else counts on.
        last: When the frame before them is shown, -inf where there is none.
        distance: Seconds from one frame to the next, where they are counted.

    Returns:
        (T, H, W, 3), uint8 or float32, and (T,) float64.

    Raises:
        VideoArrayError: What is no video, and times that are not as many or do not ascend.
    """
    if isinstance(frames, (np.ndarray, torch.Tensor)) and frames.ndim == 3:
        frames = frames[None]
    pixels = frames_to_tensor(frames).cpu().numpy()
    if seconds is None and isinstance(frames, VideoFrames):
        seconds = frames.seconds
    if seconds is None:
        begin = 0.0 if last == -np.inf else last + distance
        seconds = begin + np.arange(len(pixels)) * distance
    times = np.atleast_1d(np.asarray(seconds, dtype=np.float64))
    if times.shape != (len(pixels),) or not np.isfinite(times).all() or (np.diff([last, *times]) <= 0).any():
        raise VideoArrayError(
            f"{len(pixels)} frames came with the seconds {times.tolist()[:5]}, after {last:g}: give each frame its "
            "second, later than all before."
        )
    return pixels, times


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


def _tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        if array.dtype not in (torch.bool, torch.uint16, torch.uint32, torch.uint64):  # torch can do little with these
            return array.detach()
        array = array.detach().cpu().numpy()
    if array.dtype.kind not in "uifb":
        raise VideoArrayError(f"Frames of dtype {array.dtype} came; uint8 (0 to 255) or float (0 to 1) is needed.")
    if array.dtype == bool or is_uint16(array):
        array = array_to_uint8(array)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy())


def _stack(frames: Sequence[Frame]) -> torch.Tensor:
    if len(frames) == 0:
        raise VideoArrayError("A clip without a single frame came.")
    wrong = [type(f).__name__ for f in frames if _kind(f) != "frame"]
    if wrong:
        raise VideoArrayError(f"A {wrong[0]} stands among the frames of a clip. Give {_FORMS}.")
    arrays = [image_to_rgb(f) if isinstance(f, Image.Image) else f for f in frames]
    first = arrays[0]
    for number, array in enumerate(arrays):
        if tuple(array.shape) != tuple(first.shape):
            raise VideoArrayError(
                f"Frame {number} of a clip has shape {tuple(array.shape)} and the first {tuple(first.shape)}. All "
                "frames of a clip have one size: resize them first."
            )
    if all(isinstance(array, np.ndarray) for array in arrays):
        return _tensor(np.stack(arrays))
    if all(array.dtype == torch.uint16 for array in arrays):  # which value is white, all of them say together
        return _tensor(np.stack([array.detach().cpu().numpy() for array in arrays]))
    return torch.stack([_tensor(array) for array in arrays])


def _pixels(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype == torch.uint8:
        return tensor
    if tensor.is_complex():
        raise VideoArrayError(f"Frames of dtype {tensor.dtype} came; uint8 (0 to 255) or float (0 to 1) is needed.")
    low, high = (float(v) for v in tensor.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise VideoArrayError("The frames hold NaN or infinity. Mend the pixels before processing them.")
    if tensor.is_floating_point():
        return tensor.to(torch.float32)
    if low < 0 or high > 255:
        raise VideoArrayError(f"Whole-number pixels must lie in 0..255; they run from {low:g} to {high:g}.")
    return tensor.to(torch.uint8)


def _channels_last(tensor: torch.Tensor, layout: str | None) -> torch.Tensor:
    if tensor.ndim != 4:
        raise VideoArrayError(f"A clip of shape {tuple(tensor.shape)} came. Give {_FORMS}.")
    if layout is None:
        first, last = tensor.shape[1] == 3, tensor.shape[3] == 3
        if first and last:
            raise VideoArrayError(
                f"It can't be told which dimension of {tuple(tensor.shape)} holds the channels: pass "
                'input_data_format="channels_first" or "channels_last".'
            )
        if not (first or last):
            raise VideoArrayError(
                f"A clip of shape {tuple(tensor.shape)} came, and (frames, height, width, 3) or (frames, 3, height, "
                "width) is needed. Three channels: repeat a grey one three times, drop an alpha channel. For a model "
                'of another number of channels pass input_data_format="channels_first" or "channels_last".'
            )
        layout = "channels_first" if first else "channels_last"
    return tensor.movedim(1, -1) if layout == "channels_first" else tensor
