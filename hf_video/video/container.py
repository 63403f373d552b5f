"""Opening an encoded video with FFmpeg (PyAV), and closing it again whatever happens.

An unclosed PyAV container leaks its buffers and threads, and one that crosses a fork shares its file offset with the
parent (or hangs on threads that don't exist in the child). So containers live in `OpenVideo`, which closes them, and
`OpenVideo.usable()` says whether this process may still touch it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import av

from hf_video.errors import NotAVideoError, NoVideoStreamError, VideoSourceError

if TYPE_CHECKING:
    from hf_video.video.media import Media

ATTACHED_PICTURE = 0x400
# Demuxers that accept anything, or that go and open other files: what they open is not a video.
NOT_VIDEOS = frozenset({"tty", "hls", "dash", "concat", "concatf", "lavfi", "sdp", "rtsp", "image2", "ffmetadata"})

# Containers of readers that were opened before a fork: freeing them here could wait for threads of the parent.
_inherited: list[object] = []


class OpenVideo:
    """One open container with its first real video stream and a decoder of `threads` threads (1 is right for reading
    single frames; 0 lets FFmpeg choose).

    With `strict=True` the decoder reports what it would otherwise conceal, so that a damaged file is noticed.
    Raises `NotAVideoError`, `NoVideoStreamError` or `VideoSourceError`.
    """

    def __init__(self, media: Media, *, threads: int = 1, strict: bool = True):
        self.pid = os.getpid()
        self.media = media
        self.threads = threads
        self.container = self._file = None
        self._start(strict)

    def _start(self, strict: bool) -> None:
        media, threads = self.media, self.threads
        self.strict = strict
        self.touched = False
        self.container = self._open(media)
        try:
            self.stream = self._pick(media)
            self.decoder = self.stream.codec_context
            # As the header has it; the decoder's own changes with every frame of another size.
            self.stated_size = self.decoder.height, self.decoder.width
            self.decoder.thread_count = threads
            if threads != 1:
                self.decoder.thread_type = "AUTO"
            if strict:
                self.decoder.options = {"err_detect": "explode"}
        except BaseException:
            self.close()
            raise

    def _open(self, media: Media) -> av.container.InputContainer:
        target = media.open()
        if not isinstance(target, str):
            self._file = target
        try:
            # Titles and comments in an old encoding are no reason to refuse a video.
            return av.open(target, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            self._close_file()
            if isinstance(error, (FileNotFoundError, PermissionError, ConnectionError)):
                raise VideoSourceError(f"{media.label} can't be opened: {error.strerror or error}") from None
            raise NotAVideoError(
                f"{media.label} is not a video that FFmpeg can open ({getattr(error, 'strerror', None) or error}); "
                "it may be another kind of file, or cut off before its header"
            ) from None

    def _pick(self, media: Media) -> av.video.stream.VideoStream:
        kind = self.container.format.name
        if NOT_VIDEOS & set(kind.split(",")):
            raise NotAVideoError(f"{media.label} is not a video (FFmpeg takes it for {kind})")
        streams = self.container.streams
        real = [s for s in streams.video if not int(s.disposition) & ATTACHED_PICTURE]
        if not real:
            found = ", ".join(sorted({s.type for s in streams})) or "no stream at all"
            if streams.video:
                found = found.replace("video", "only cover art")
            raise NoVideoStreamError(f"{media.label} has no video stream (found: {found})")
        chosen = real[0]
        if chosen.codec_context is None:
            raise NotAVideoError(f"{media.label} is in a video format that this build of FFmpeg has no decoder for")
        for other in streams:
            if other is not chosen and hasattr(other, "discard"):
                other.discard = type(other.discard)["all"]
        return chosen

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

    def __del__(self) -> None:
        if getattr(self, "container", None) is not None:
            self.close()
