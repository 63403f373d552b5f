"""From whatever the user holds to one interface the reader works on: `Source`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from hf_video.errors import NotAVideoError, VideoOptionError, VideoSourceError
from hf_video.video.decode.encoded import DeliverPixels, EncodedSource
from hf_video.video.decode.given import DecoderVideo, TimedFrames, is_decoder, plain_source
from hf_video.video.decode.media import Media, media_from_bytes, media_from_file, media_from_path, media_from_url
from hf_video.video.decode.stills import (
    DEFAULT_FPS,
    AnimatedImage,
    ArrayVideo,
    ImageFolder,
    Stills,
    images_from_list,
)
from hf_video.video.decode.torchcodec_backend import TorchcodecSource
from hf_video.video.frames.addresses import local_path, missing_path, scheme_of, stand_in
from hf_video.video.frames.background import WHITE
from hf_video.video.frames.part import PartSource, VideoPart
from hf_video.video.frames.pixels import Sizing
from hf_video.video.frames.types import VideoFrames, VideoMetadata

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

    def __init__(self, stills: Stills, given: Any, *, sizing: Sizing):
        self._stills = stills
        self._given = given
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

    def fetch(self, wanted: list[int], deliver: DeliverPixels, *, keyframes: bool = False) -> None:
        self._stills.fetch(wanted, lambda index, pixels: deliver(index, self._sizing.apply(pixels)))

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        for index, pixels in self._stills.frames():
            yield index, self._sizing.apply(pixels)

    def decoded_for(self, wanted: list[int]) -> int:
        return 0

    def again(self) -> Any:
        return self._given

    def close(self) -> None:
        self._stills.close()


Source = EncodedSource | StillSource | PartSource


def open_source(
    given: Any,
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
    if isinstance(given, VideoPart):
        whole = open_source(
            given.source, sizing=sizing, scaler=scaler, threads=threads, fps=fps, backend=backend,
            background=background, stream=stream,
        )  # fmt: skip
        return PartSource(whole, given)
    given = plain_source(given)
    rate = fps or DEFAULT_FPS
    stills = _stills(given, rate, background)
    if stills is None:
        media = given if isinstance(given, Media) else media_of(given)
        if stream is not None:
            media = dataclasses.replace(media, track=stream)
        if is_encoded(media):
            return _encoded(media, backend, scaler=scaler, threads=threads, sizing=sizing, background=background)
        stills, given = AnimatedImage(media, rate, background=background), media
    if stream is not None:
        raise VideoOptionError(f"{stills.label} is no container of streams; leave out stream={stream}")
    return StillSource(stills, given, sizing=sizing)


def is_encoded(media: Media) -> bool:
    """Whether FFmpeg reads it, and not PIL. Raises `EmptyFileError`, and `NotAVideoError` for playlists."""
    return not _is_still(media, media.head())


def _encoded(media: Media, backend: str, **options: Any) -> EncodedSource:
    if backend != "torchcodec":
        return EncodedSource(media, **options)
    return TorchcodecSource(media, **options)


def _stills(given: Any, fps: float, background: tuple[int, int, int]) -> Stills | None:
    """Sources that hold ready frames, or None."""
    if isinstance(given, VideoFrames):
        return TimedFrames(given)
    if is_decoder(given):
        return DecoderVideo(given, background=background)
    if isinstance(given, (str, os.PathLike)) and os.path.isdir(folder := local_path(given)):
        return ImageFolder(folder, fps, background=background)
    if isinstance(given, np.ndarray) or is_tensor(given):
        return ArrayVideo(given, fps, background=background)
    if isinstance(given, (list, tuple)):
        return images_from_list(list(given), fps, background=background)
    return None


def is_tensor(given: Any) -> bool:
    """Whether this is a torch tensor, told by its class. Torch among the loaded modules may be half of itself, while
    another thread imports it."""
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(given).__mro__)


def media_of(given: Any) -> Media:
    if isinstance(given, (bytes, bytearray, memoryview)):
        return media_from_bytes(given)
    if isinstance(given, (str, os.PathLike)):
        return _named_media(local_path(given))
    if hasattr(given, "read"):
        return media_from_file(given)
    raise VideoSourceError(
        f"a {type(given).__name__} is not a video source; give a path, bytes, a binary file object, an http(s) URL, "
        "a folder of images, a uint8 array (frames, height, width, 3) or a list of PIL images"
    )


def _named_media(text: str) -> Media:
    if os.path.exists(text):
        return media_from_path(text)
    scheme = scheme_of(text)
    if scheme in ("http", "https"):
        return media_from_url(text)
    if scheme:
        raise VideoSourceError(f"{text!r}: of addresses only http://, https:// and file:// are read; download it first")
    raise missing_path(text)


def _is_still(media: Media, head: bytes) -> bool:
    """Whether PIL has to read it: a still image, or an animated webp or AVIF with opacity, which FFmpeg can't play.

    Raises `NotAVideoError` for playlists, and for what stands in the place of a video.
    """
    if what := stand_in(head):
        raise NotAVideoError(f"{media.label} {what}")
    if head.lstrip().startswith(PLAYLIST_HEADS):
        raise NotAVideoError(f"{media.label} is a playlist, not a video; give one of the files that it names")
    name = media.label.lower()
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return True
    if head[4:8] == b"jP  ":
        return head[20:24] == b"jp2 "  # and no Motion JPEG 2000
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return AVIF_OPACITY in media.head(AVIF_HEADER)
    if head.startswith(STILL_HEADS):
        return not name.endswith(MOTION_JPEG_ENDINGS)
    return name.endswith(".tga")  # which says nothing of itself at its beginning
