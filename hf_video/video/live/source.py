"""Opening a camera or a network stream with FFmpeg."""

from __future__ import annotations

import glob
import os
import re
import socket
import stat
import sys
import urllib.parse
from typing import TYPE_CHECKING, BinaryIO

import av
from av.format import Flags

from hf_video.errors import NotAVideoError, VideoOptionError, VideoSourceError, check_choice
from hf_video.video.decode.container import NOT_VIDEOS, Media, OpenVideo, media_from_path
from hf_video.video.frames.addresses import local_path, missing_path, scheme_of

if TYPE_CHECKING:
    from av.container import InputContainer

SCHEMES = ("rtsp", "rtsps", "http", "https")
TRANSPORTS = ("tcp", "udp")
# user:password@, also where the password has an @ or a / in it; and parameters such as ?pwd=….
SECRETS = re.compile(
    r"(?<=//)(?:[^/\s]*|[^/\s]*:\S*)(?=@)|(?<=[?&])(?P<name>[^=&\s]*(?:pass|pwd|token|secret|key|auth)[^=&\s]*=)[^&\s]+",
    re.IGNORECASE,
)


def without_password(text: str) -> str:
    """A text whose addresses have *** in the place of `user:password`, and of parameters that are named as secrets."""
    return SECRETS.sub(lambda found: (found["name"] or "") + "***", text)


def live_media(source: str | os.PathLike[str] | int) -> Media:
    """What a camera's number, a device, an address or a path means; "live" is the kind of all but a file.

    Raises VideoSourceError for a camera, file or kind of address that there is not.
    """
    text = f"{source}" if isinstance(source, int) else os.fsdecode(source)
    if re.fullmatch(r"\d+", text):
        return _camera(f"/dev/video{int(text)}")
    scheme = scheme_of(text)
    if scheme in SCHEMES:
        _check_host(text)
        return Media("live", text, without_password(text))
    path = local_path(text)
    if scheme_of(path):
        raise VideoSourceError(
            f"{without_password(text)!r}: of addresses only {', '.join(f'{one}://' for one in SCHEMES)} and file:// "
            "are watched, besides cameras (0, /dev/video0) and files."
        )
    if path.startswith("/dev/"):
        return _camera(path)
    if not os.path.exists(path):
        raise missing_path(path)
    if os.path.isdir(path):
        raise VideoSourceError(f"{path!r} is a folder: give a camera, an address or one video file.")
    return media_from_path(path)


def _camera(device: str) -> Media:
    if sys.platform != "linux":
        raise VideoSourceError(f"{device}: cameras are read by Video4Linux, on Linux alone. Give a stream's address.")
    if not os.path.exists(device) or not stat.S_ISCHR(os.stat(device).st_mode):
        found = ", ".join(sorted(glob.glob("/dev/video*"))) or "none"
        raise VideoSourceError(f"{device} is no camera of this machine; it has: {found}.")
    return Media("live", device, device)


def _check_host(address: str) -> None:
    """FFmpeg says "Input/output error" of a host that there is not."""
    try:
        parts = urllib.parse.urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may hold a part of the password
        raise VideoSourceError(
            f"{without_password(address)!r} is no address: scheme://user:password@host:port/path is one. Write "
            "%2F, %3F, %23 and %5B for / ? # [ in a password."
        ) from None
    try:
        socket.getaddrinfo(host or "", port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoSourceError(
            f"{without_password(address)!r}: the host {host!r} is not found ({reason}); check its name and the network."
        ) from None


class LiveSource(OpenVideo):
    """An open camera, stream or file, whose packets come as they are made.

    Args:
        media: Of `live_media`.
        transport: How RTSP brings its packets: "tcp" or "udp".
        timeout: Seconds without a packet after which a stream is broken.
        realtime: Whether a recording is meant to be shown at its own speed.

    Raises:
        VideoOptionError: A recording without `realtime`.
        VideoSourceError: Nothing answers there, or it may not be opened.
        NotAVideoError, NoVideoStreamError: What answers is no video.
    """

    refused = NOT_VIDEOS - {"rtsp"}

    def __init__(self, media: Media, *, transport: str = "tcp", timeout: float = 10.0, realtime: bool = False):
        self._transport = check_choice("transport", transport, TRANSPORTS)
        self._timeout = timeout
        self.scheme = scheme_of(str(media.value)) if media.kind == "live" else ""
        super().__init__(media, strict=False)
        if self.is_recording and not realtime:
            self.close()
            raise VideoOptionError(
                f"{media.label} is a recording, not live: realtime=True (--realtime) shows it at its own speed; "
                "`hf-video classify` and the pipelines read it whole."
            )

    @property
    def is_recording(self) -> bool:
        """A file, or an address that has one and says how long it is. (An RTSP server keeps a recording's pace.)"""
        assert self.container is not None
        return self.media.kind != "live" or (self.scheme.startswith("http") and self.container.duration is not None)

    @property
    def keeps_time(self) -> bool:
        """Whether times come with the frames; those of a live stream of bare pictures (Motion JPEG) FFmpeg counts at a
        rate of its own."""
        assert self.container is not None
        return self.is_recording or Flags.no_timestamps not in Flags(self.container.format.flags)

    def _open(self, media: Media) -> tuple[InputContainer, BinaryIO | None]:
        if media.kind != "live":
            return super()._open(media)
        options = {"rtsp_transport": self._transport} if self.scheme.startswith("rtsp") else {}
        form = None if self.scheme else "v4l2"
        try:
            opened = av.open(
                media.value, format=form, options=options, timeout=self._timeout, metadata_errors="replace"
            )
            return opened, None
        except (av.FFmpegError, OSError, ValueError) as error:
            # Not the error's own text, which has the whole address.
            reason = getattr(error, "strerror", None) or type(error).__name__
            if isinstance(error, av.error.ExitError):
                reason = f"no answer in {self._timeout:g} s"
            if isinstance(error, (av.error.InvalidDataError, av.error.DemuxerNotFoundError)):
                raise NotAVideoError(f"{media.label} answers, but what comes is not a video ({reason}).") from None
            hint = ""
            if isinstance(error, PermissionError) and not self.scheme:
                hint = " Cameras are for the group 'video': add the user to it."
            elif isinstance(error, av.error.HTTPUnauthorizedError):
                hint = " Write the address as scheme://user:password@host."
            raise VideoSourceError(f"{media.label} can't be opened: {reason}.{hint}") from None
