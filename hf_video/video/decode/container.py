"""Opening an encoded video with FFmpeg (PyAV), and closing it again whatever happens.

An unclosed PyAV container leaks its buffers and threads, and one that crosses a fork shares its file offset with the
parent (or hangs on threads that don't exist in the child). So containers live in `OpenVideo`, which closes them, and
`OpenVideo.usable()` says whether this process may still touch it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

import av
from av.stream import Disposition

from hf_video.errors import EmptyFileError, NotAVideoError, NoVideoStreamError, VideoOptionError, VideoSourceError
from hf_video.video.decode.http_file import HttpFile
from hf_video.video.frames.types import VideoStreamMetadata


@dataclass
class Media:
    """`kind` is `path`, `bytes` or `url`, `file` for a file object that is none of these (not picklable then), or
    `live` for a camera or stream, which `video/live/source.py` opens; `value` is the path, the bytes, the URL or the
    object; `label` names it in messages. `track` is the number of the stream to read, None for the main one."""

    kind: str
    value: Any
    label: str
    track: int | None = None
    _opened: HttpFile | None = field(default=None, repr=False, compare=False)

    def open(self) -> str | BinaryIO:
        """What FFmpeg opens. A path is marked as one, since `a:b.mp4` would be taken for a protocol."""
        if self.kind == "path":
            return f"file:{self.value}"
        return self.stream()

    def stream(self) -> BinaryIO:
        """A binary file object at the first byte, that the caller closes."""
        if self.kind == "path":
            return open(self.value, "rb")
        if self.kind == "bytes":
            return io.BytesIO(self.value)
        if self.kind == "url":
            opened, self._opened = self._opened, None
            if opened is None:
                return HttpFile(self.value)
            opened.seek(0)
            return opened
        return _Borrowed(self.value)

    def head(self, size: int = 256) -> bytes:
        """The first bytes.

        Raises `EmptyFileError` if there are none, `NotAVideoError` for what stands in the place of a video, such as an
        error page, and `VideoSourceError` if it can't be read.
        """
        try:
            file = self.stream()
            head = file.read(size)
        except OSError as error:
            raise VideoSourceError(f"{self.label} can't be read: {error.strerror or error}") from None
        if self.kind == "url" and head:
            self._opened = file  # the request that answered is used on
        else:
            file.close()
        if not head:
            raise EmptyFileError(f"{self.label} is empty (0 bytes); was it downloaded or copied completely?")
        if what := _stand_in(head):
            raise NotAVideoError(f"{self.label} {what}")
        return head

    def __getstate__(self) -> dict[str, Any]:
        kind, value = self.kind, self.value
        if kind == "file":
            with self.stream() as file:
                kind, value = "bytes", file.read()
        return {"kind": kind, "value": value, "label": self.label, "track": self.track, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Borrowed(io.RawIOBase):
    """Somebody's seekable file object, read from its first byte and left open. It has a place of its own, since another
    may read the same object: the frames of a video and its sound."""

    def __init__(self, file: BinaryIO):
        self._borrowed, self._place = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._borrowed.seek(self._place)
        data = self._borrowed.read(size)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            self._borrowed.seek(self._place)
        self._place = self._borrowed.seek(offset, whence)
        return self._place

    def tell(self) -> int:
        return self._place


def _stand_in(head: bytes) -> str | None:
    """What a file is that stands where a video should be, by its first bytes, and what to do; None for any other."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"version https://git-lfs.github.com/", b"version https://hawser.github.com/")):
        return "is a Git LFS pointer, not the video itself; fetch the files with `git lfs pull`"
    if re.match(rb"(\.\./)*(\.git)?/annex/objects/", start):
        return "is a git-annex pointer, not the video itself; fetch the file with `git annex get`"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!-- ")):
        return "is a web page (HTML), not a video: perhaps an error or a log-in page; open the address in a browser"
    if start.startswith((b"<?xml", b"<error>")) and b"<error" in start:
        return "is an error message of a server (XML), not a video; check the address and your access to it"
    if re.match(rb'\{\s*"(error|message|detail)"', start):
        return "is an error message of a server (JSON), not a video; check the address and your access to it"
    return None


def media_from_path(path: str) -> Media:
    return Media("path", os.path.abspath(path), path)


def media_from_file(file: BinaryIO) -> Media:
    """A binary file object, read from its first byte whatever its position.

    One that stands for a file on disk is taken as that path: file objects share one offset between processes, paths
    don't. One that can't seek (a pipe, a response body) is read into memory.
    """
    name = getattr(file, "name", None)
    label = name if isinstance(name, str) else f"the {type(file).__name__} object"
    if isinstance(name, str) and os.path.isfile(name):
        with contextlib.suppress(OSError, AttributeError, ValueError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(name)):
                return media_from_path(name)
    seekable = getattr(file, "seekable", None)
    try:
        if seekable is not None and seekable():
            file.seek(0)
            if not isinstance(file.read(0), bytes):
                raise VideoSourceError(f"{label} is opened in text mode; open it with 'rb'")
            return Media("file", file, label)
        data = file.read()
    except (OSError, ValueError) as error:
        raise VideoSourceError(f"{label} can't be read: {error}") from None
    if not isinstance(data, bytes):
        raise VideoSourceError(f"{label} gives {type(data).__name__}, not bytes; open it in binary mode")
    return Media("bytes", data, label)


# A cover, a still, thumbnails along a film: pictures that go with a video.
PICTURE = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
PICTURE_CODECS = frozenset({"png", "mjpeg", "bmp", "tiff", "webp", "gif", "jpegls", "jpeg2000", "jpegxl"})
# Demuxers that accept anything, or that go and open other files: what they open is not a video.
NOT_VIDEOS = frozenset({"tty", "hls", "dash", "concat", "concatf", "lavfi", "sdp", "rtsp", "image2", "ffmetadata"})

# Containers of readers that were opened before a fork: freeing them here could wait for threads of the parent.
_inherited: list[object] = []


def open_container(media: Media) -> tuple[av.container.InputContainer, BinaryIO | None]:
    """FFmpeg's view of a file, and the file object behind it; the caller closes both. Raises NotAVideoError and
    VideoSourceError."""
    target = media.open()
    try:
        # Titles and comments in an old encoding are no reason to refuse a video.
        return av.open(target, metadata_errors="replace"), None if isinstance(target, str) else target
    except (av.FFmpegError, OSError, ValueError) as error:
        if not isinstance(target, str):
            target.close()
        if isinstance(error, (FileNotFoundError, PermissionError, ConnectionError)):
            raise VideoSourceError(f"{media.label} can't be opened: {error.strerror or error}") from None
        raise NotAVideoError(
            f"{media.label} is not a video that FFmpeg can open ({getattr(error, 'strerror', None) or error}); "
            "it may be another kind of file, or cut off before its header"
        ) from None


class OpenVideo:
    """One open container with one video stream (`media.track`, or the one that FFmpeg takes for the main one, pictures
    aside) and a decoder of `threads` threads (1 is right for reading single frames; 0 lets FFmpeg choose).

    With `strict=True` the decoder reports what it would otherwise conceal, so that a damaged file is noticed.
    Raises `NotAVideoError`, `NoVideoStreamError` or `VideoSourceError`.
    """

    refused: ClassVar[frozenset[str]] = NOT_VIDEOS

    def __init__(self, media: Media, *, threads: int = 1, strict: bool = True):
        self.pid = os.getpid()
        self.media = media
        self.threads = threads
        self.container: av.container.InputContainer | None = None
        self._file: BinaryIO | None = None
        self._index: int | None = None
        self._start(strict)

    def _start(self, strict: bool) -> None:
        media, threads = self.media, self.threads
        self.strict = strict
        self.touched = False
        self.container, self._file = self._open(media)
        try:
            if self._index is None:
                self._index = self._choose()
                if self.touched:
                    self.reopen()
                    return
            self.stream = self._prepare(self._index)
            self.decoder = decoder_of(self.stream)
            # As the header has it; the decoder's own changes with every frame of another size.
            self.stated_size = self.stream.codec_context.height, self.stream.codec_context.width
            self.decoder.thread_count = threads
            if threads != 1:
                self.decoder.thread_type = "AUTO"
            # Where each packet stands alone, what a decoder makes of it is what a sequential decode makes of it.
            if strict and not self.decoder.codec.intra_only:
                self.decoder.options = {"err_detect": "explode"}
        except BaseException:
            self.close()
            raise

    def _open(self, media: Media) -> tuple[av.container.InputContainer, BinaryIO | None]:
        return open_container(media)

    def _choose(self) -> int:
        """Index of the stream to read: the one that was named, else FFmpeg's choice (flagged as default, with more than
        a few frames, of the highest bit rate), unless that is a picture."""
        label, kind, streams = self.media.label, self.container.format.name, self.container.streams
        if self.refused & set(kind.split(",")):
            raise NotAVideoError(f"{label} is not a video (FFmpeg takes it for {kind})")
        if self.media.track is not None:
            return self._named(self.media.track)
        uncovered = [s for s in streams.video if not s.disposition & Disposition.attached_pic]
        if not uncovered:
            found = ", ".join(sorted({s.type for s in streams})) or "no stream at all"
            if streams.video:
                found = found.replace("video", "only cover art")
            raise NoVideoStreamError(f"{label} has no video stream (found: {found})")
        known = [s for s in uncovered if s.codec_context is not None] or uncovered
        films = [s for s in known if not s.disposition & PICTURE] or known
        moving = [s for s in films if s.codec_context and s.codec_context.name not in PICTURE_CODECS] or films
        best = streams.best("video")
        if best in films and (best in moving or not self._is_single(best)):
            return best.index
        return max(moving, key=_rank).index

    def _named(self, index: int) -> int:
        streams = self.container.streams
        if index < len(streams) and streams[index].type == "video":
            return index
        found = "; ".join(map(str, self.streams())) or "none"
        wrong = f"stream {index} is {streams[index].type}" if index < len(streams) else f"there is no stream {index}"
        raise VideoOptionError(f"{self.media.label}: {wrong}. Its video streams are: {found}")

    def _is_single(self, stream: av.video.stream.VideoStream) -> bool:
        """Whether a stream has one packet at most; all packets up to its second one are read to find out."""
        self.touched = True
        try:
            found = (packet for packet in self.container.demux(stream) if packet.size)
            return next(found, None) is None or next(found, None) is None
        except (av.FFmpegError, IndexError):
            return False

    def _prepare(self, index: int) -> av.video.stream.VideoStream:
        """The stream, with all others switched off."""
        streams = self.container.streams
        chosen = streams[index]
        if chosen.codec_context is None:
            label = self.media.label
            raise NotAVideoError(f"{label} is in a video format that this build of FFmpeg has no decoder for")
        for other in streams:
            if other is not chosen and hasattr(other, "discard"):
                other.discard = type(other.discard)["all"]
        return chosen

    def streams(self) -> list[VideoStreamMetadata]:
        """What the container says of its video streams."""
        return [_described(stream) for stream in self.container.streams.video]

    @property
    def kind(self) -> str:
        """FFmpeg's name of the container format, such as `matroska,webm`."""
        return self.container.format.name

    def usable(self) -> bool:
        return self.container is not None and self.pid == os.getpid()

    def packets(self) -> Iterator[av.Packet]:
        """Packets of the video stream from the present position; the last one is empty and drains the decoder."""
        self.touched = True
        try:
            yield from self.container.demux(self.stream)
        except IndexError:
            # Streams that appear late (joined recordings) trip PyAV when it drains the others, after ours.
            return

    def frames(self) -> Generator[av.VideoFrame, None, None]:
        """Every frame from the present position, as a plain sequential decode yields them; packets that can't be
        decoded are passed over, and a cut-off end is the end."""
        try:
            for packet in self.packets():
                with contextlib.suppress(av.FFmpegError):
                    yield from self.decoder.decode(packet)
        except av.FFmpegError:
            with contextlib.suppress(av.FFmpegError):
                yield from self.decoder.decode(None)

    def seek(self, pts: int) -> None:
        """Go to the last keyframe that the demuxer knows at or before `pts`; the decoder forgets what it held."""
        self.touched = True
        self.container.seek(pts, stream=self.stream, backward=True)

    def reopen(self, *, strict: bool | None = None) -> None:
        """Stand before the first packet again, with a decoder that has seen nothing."""
        self.close()
        self._start(self.strict if strict is None else strict)

    def close(self) -> None:
        container, self.container = self.container, None
        if container is None:
            return
        if self.pid != os.getpid():
            _inherited.append((container, self._file))
            return
        container.close()
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # When Python exits, the names of this module may be gone already; the process takes everything with it.
        if not is_finalizing() and getattr(self, "container", None) is not None:
            self.close()


def _rank(stream: av.video.stream.VideoStream) -> tuple[bool, int, int]:
    context = stream.codec_context
    return bool(stream.disposition & Disposition.default), (context and context.bit_rate) or 0, -stream.index


def _described(stream: av.video.stream.VideoStream) -> VideoStreamMetadata:
    context = stream.codec_context  # None where this build of FFmpeg has no decoder
    return VideoStreamMetadata(
        index=stream.index,
        codec="unknown" if context is None else context.codec.canonical_name,
        height=0 if context is None else context.height,
        width=0 if context is None else context.width,
        fps=float(stream.guessed_rate or 0),
        bit_rate=None if context is None else context.bit_rate,
        default=bool(stream.disposition & Disposition.default),
        picture=bool(stream.disposition & PICTURE),
    )


def decoder_of(stream: av.video.stream.VideoStream) -> av.VideoCodecContext:
    """The stream's own decoder; for VP8 and VP9 with opacity, which Matroska stores beside the pictures, libvpx's:
    FFmpeg's own ones pass over it."""
    context = stream.codec_context
    library = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.name)
    if library is None or stream.metadata.get("alpha_mode") != "1":
        return context
    try:
        return av.CodecContext.create(library, "r")
    except ValueError:  # a build of FFmpeg without it: the colours, without the opacity
        return context
