"""From whatever the user holds to one interface the reader works on: `Source`."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.errors import NotAVideoError, VideoArrayError, VideoOptionError, VideoSourceError
from hf_video.video.decode.container import Media, media_from_file, media_from_path
from hf_video.video.decode.encoded import DeliverPixels, EncodedSource
from hf_video.video.decode.stills import DEFAULT_FPS, AnimatedImage, ArrayVideo, ImageFolder, Stills, images_from_list
from hf_video.video.decode.torchcodec_backend import TorchcodecSource
from hf_video.video.frames.addresses import local_path, missing_path, scheme_of
from hf_video.video.frames.part import PartSource, VideoPart
from hf_video.video.frames.pixels import WHITE, Sizing
from hf_video.video.frames.rgb import array_of, array_to_rgb
from hf_video.video.frames.types import VideoFrames, VideoMetadata, VideoSource

if TYPE_CHECKING:
    from PIL import Image

AT_ONCE = 32  # frames that a decoder is asked for in one go


def plain_source(source: Any) -> Any:
    """What `source` stands for, and `source` itself where it stands for nothing else.

    A row, `{"video": ...}` or `{"bytes", "path"}`, is its bytes or its path. A decoded cell of a `datasets` Video
    column (a torchcodec `VideoDecoder`) is the file that it came from. A PIL image is a video of one frame, or of all
    that it has. torchcodec's `FrameBatch` is `VideoFrames`, or an array of clips; decord's and MXNet's arrays are
    numpy's; an open container of PyAV is its file. Class names tell them apart: none of these packages is imported.

    Raises VideoSourceError for a row without a video, and for readers whose file is not known.
    """
    if isinstance(source, Mapping):
        video = next((source[key] for key in ("video", "bytes", "path") if source.get(key) is not None), None)
        if video is None:
            keys = ", ".join(sorted(map(str, source))) or "none"
            raise VideoSourceError(
                f"A dict is a row with a video where it has bytes, a path or a video; its keys are {keys}."
            )
        return plain_source(video)
    if _is_of(source, "PIL", "Image"):
        return _of_image(source)
    if isinstance(source, (list, tuple)):
        # Rows stay rows: one that is wrong is the fault of one video. Images are frames, moving ones too.
        items = [s if isinstance(s, Mapping) or _is_of(s, "PIL", "Image") else plain_source(s) for s in source]
        return source if all(map(operator.is_, items, source)) else items
    if _is_of(source, "torchcodec", "VideoDecoder"):
        row = getattr(source, "_hf_encoded", None) or {}
        path = row.get("path")
        if row.get("bytes") is not None:
            return row["bytes"]
        return path if path and (os.path.exists(path) or scheme_of(path) in ("http", "https")) else source
    if _is_of(source, "torchcodec", "FrameBatch"):
        data = _channels_last(array_of(source.data), "torchcodec's FrameBatch")
        if data.ndim != 4:
            return data
        seconds = np.asarray(array_of(source.pts_seconds), np.float64)
        return VideoFrames(data=array_to_rgb(data), indices=np.arange(len(data)), seconds=seconds)
    if _is_of(source, "av", "InputContainer"):
        name = local_path(getattr(source, "name", "") or "").removeprefix("file:")
        if os.path.exists(name) or scheme_of(name):
            return name
        raise VideoSourceError("an open PyAV container of a file object is not read from its first byte: give the file")
    if _is_of(source, "decord", "VideoReader"):
        raise VideoSourceError(
            "a decord VideoReader is no source: give its file, or frames: reader.get_batch(indices).asnumpy()"
        )
    return source.asnumpy() if hasattr(source, "asnumpy") else source


def _of_image(image: Image.Image) -> str | list[Image.Image]:
    """A still is a video of one frame. One that moves is its file, or copies of its frames: PIL has one at a time."""
    if getattr(image, "n_frames", 1) == 1 or image.format == "MPO":
        return [image]
    name = getattr(image, "filename", "")
    if name and os.path.isfile(name):
        return os.fsdecode(name)
    from PIL import ImageSequence

    return [frame.copy() for frame in ImageSequence.Iterator(image)]


def is_decoder(source: object) -> bool:
    """Whether it is a torchcodec `VideoDecoder`."""
    return _is_of(source, "torchcodec", "VideoDecoder")


def _is_of(source: object, package: str, name: str) -> bool:
    return any(kind.__name__ == name and kind.__module__.partition(".")[0] == package for kind in type(source).__mro__)


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


# Text files that name other media: FFmpeg would follow them, out of the file that was given.
PLAYLIST_HEADS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"[playlist]")
STILL_HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*")
# Motion JPEG streams begin like a JPEG image.
MOTION_JPEG_ENDINGS = (".mjpg", ".mjpeg")
# The name that the opacity of an AVIF has, in its first bytes. FFmpeg hands it out as a picture of its own.
AVIF_OPACITY, AVIF_HEADER = b"auxiliary:alpha", 1 << 16


class StillSource:
    """A source of ready pixels."""

    backend = "none"

    def __init__(self, stills: Stills, source: Any, *, sizing: Sizing):
        self._stills = stills
        self._given = source
        self._sizing = sizing
        self.label = stills.label
        self.seconds = stills.seconds
        self.end = stills.end

    def target(self, height: int, width: int) -> tuple[int, int]:
        return self._sizing.target(height, width)

    def describe(self) -> VideoMetadata:
        height, width = self._stills.pixels(0).shape[:2]
        count = len(self.seconds)
        return VideoMetadata(
            num_frames=count, fps=count / self.end, duration=self.end, height=height, width=width,
            codec=self._stills.codec, source=self.label,
        )  # fmt: skip

    def nearest_keyframes(self, indices: np.ndarray) -> np.ndarray:
        return indices  # every frame stands alone

    def fetch(self, indices: list[int], deliver: DeliverPixels, *, keyframes: bool = False) -> None:
        self._stills.fetch(indices, lambda index, pixels: deliver(index, self._sizing.apply(pixels)))

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        for index, pixels in self._stills.frames():
            yield index, self._sizing.apply(pixels)

    def decoded_for(self, indices: list[int]) -> int:
        return 0

    def again(self) -> Any:
        return self._given

    def close(self) -> None:
        self._stills.close()


Source = EncodedSource | StillSource | PartSource


def open_source(
    source: VideoSource | Media,
    *,
    sizing: Sizing,
    scaler: str,
    threads: int,
    fps: float | None,
    backend: str,
    background: tuple[int, int, int] = WHITE,
    stream: int | None = None,
) -> Source:
    """The `Source` for what the user gave. Raises as `VideoReader` documents."""
    if isinstance(source, VideoPart):
        whole = open_source(
            source.source, sizing=sizing, scaler=scaler, threads=threads, fps=fps, backend=backend,
            background=background, stream=stream,
        )  # fmt: skip
        return PartSource(whole, source)
    source = plain_source(source)
    if isinstance(source, (str, os.PathLike)) and not os.path.exists(source):
        source = local_path(source)
    rate = fps or DEFAULT_FPS
    stills = _stills(source, rate, background)
    if stills is None:
        media = source if isinstance(source, Media) else media_of(source)
        if stream is not None:
            media = dataclasses.replace(media, track=stream)
        if is_encoded(media):
            encoded = TorchcodecSource if backend == "torchcodec" else EncodedSource
            return encoded(media, scaler=scaler, threads=threads, sizing=sizing, background=background)
        stills, source = AnimatedImage(media, rate, background=background), media
    if stream is not None:
        raise VideoOptionError(f"{stills.label} is no container of streams; leave out stream={stream}")
    return StillSource(stills, source, sizing=sizing)


def encoded_media(source: VideoSource) -> Media | None:
    """The file of a source that FFmpeg reads, with all of its streams; None for frames, stills and parts."""
    opened = getattr(source, "_source", source)  # of a VideoReader
    given: Any = opened.again() if isinstance(opened, Source) else plain_source(opened)
    if isinstance(given, (VideoPart, VideoFrames, np.ndarray, list, tuple)) or is_decoder(given) or is_tensor(given):
        return None
    if isinstance(given, (str, os.PathLike)) and os.path.isdir(given):
        return None
    media = given if isinstance(given, Media) else media_of(given)
    return media if is_encoded(media) else None


def is_encoded(media: Media) -> bool:
    """Whether FFmpeg reads it, and not PIL.

    PIL reads still images, and an animated WebP or AVIF with opacity, which FFmpeg can't play.
    Raises what `Media.head` raises, and `NotAVideoError` for playlists.
    """
    head, name = media.head(), media.label.lower()
    if head.lstrip().startswith(PLAYLIST_HEADS):
        raise NotAVideoError(f"{media.label} is a playlist, not a video; give one of the files that it names")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return False
    if head[4:8] == b"jP  ":
        return head[20:24] != b"jp2 "  # Motion JPEG 2000
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return AVIF_OPACITY not in media.head(AVIF_HEADER)
    if head.startswith(STILL_HEADS):
        return name.endswith(MOTION_JPEG_ENDINGS)
    return not name.endswith(".tga")  # which says nothing of itself at its beginning


def _stills(source: Any, fps: float, background: tuple[int, int, int]) -> Stills | None:
    """Sources that hold ready frames, or None."""
    if isinstance(source, VideoFrames):
        return TimedFrames(source)
    if is_decoder(source):
        return DecoderVideo(source, background=background)
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        return ImageFolder(os.fsdecode(source), fps, background=background)
    if isinstance(source, np.ndarray) or is_tensor(source):
        return ArrayVideo(source, fps, background=background)
    if isinstance(source, (list, tuple)):
        return images_from_list(list(source), fps, background=background)
    return None


def is_tensor(source: object) -> bool:
    """Whether this is a torch tensor, by its class. Torch among the loaded modules may be half of itself, while
    another thread imports it."""
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(source).__mro__)


def media_of(source: Any) -> Media:
    """The encoded video that a path, an address, bytes or a file object stand for. Raises VideoSourceError for others,
    and for a path where nothing is."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Media("bytes", bytes(source), f"the buffer of {len(source)} bytes")
    if isinstance(source, (str, os.PathLike)):
        text = os.fsdecode(source)
        if not os.path.exists(text):
            text = local_path(text)
        if os.path.exists(text):
            return media_from_path(text)
        scheme = scheme_of(text)
        if scheme in ("http", "https"):
            return Media("url", text, text)
        if scheme:
            raise VideoSourceError(
                f"{text!r}: of addresses only http://, https:// and file:// are read; download it first"
            )
        raise missing_path(text)
    if hasattr(source, "read"):
        return media_from_file(source)
    raise VideoSourceError(
        f"a {type(source).__name__} is not a video source; give a path, bytes, a binary file object, an http(s) URL, "
        "a folder of images, a uint8 array (frames, height, width, 3) or a list of PIL images"
    )
