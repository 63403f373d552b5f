"""The sound of one file beside the frames of another: packets as they are where the container takes them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any, BinaryIO

import av

from hf_video.errors import VideoWriteError
from hf_video.video.decode.container import open_container
from hf_video.video.decode.sources import encoded_media

if TYPE_CHECKING:
    from hf_video.video.frames.types import VideoSource

logger = logging.getLogger(__name__)

# Of each container the codecs whose packets players read in it, and the encoder for all other sound.
_PCM = ("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_u8")
_CODECS: dict[str, tuple[tuple[str, ...], str]] = {
    "mp4": (("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"), "aac"),
    "mov": (("aac", "mp3", "ac3", "eac3", "alac", *_PCM), "aac"),
    "matroska": (("aac", "mp2", "mp3", "ac3", "eac3", "alac", "flac", "opus", "vorbis", "dts", "truehd", *_PCM), "aac"),
    "webm": (("opus", "vorbis"), "libopus"),
    "avi": (("mp2", "mp3", "ac3", "pcm_s16le", "pcm_u8"), "pcm_s16le"),  # all others begin early, which avi can't say
    "mpegts": (("aac", "mp2", "mp3", "ac3", "eac3"), "aac"),
}


class Sound:
    """All sound tracks of a file, for one call of `write_video(..., sound=)`.

    Packets are copied where the container takes their codec, else decoded and encoded anew (to AAC; .webm: Opus, .avi:
    PCM). Times stay those of the file, `shift` seconds later, so that sound and frames that were in sync stay so. It is
    read bit by bit beside the frames: memory does not grow with the length. Where the file can't be read on, the log
    has a warning with the time, and the rest is silent.

    Args:
        source: What `VideoReader` reads. A source that has no sound (frames, a `VideoPart`, a silent film) is fine.
        shift: Seconds that are added to all times; may be negative.

    Attributes:
        start: When the first track begins, in seconds of the file; None without sound.
        tracks: After writing, what became of each track: `"aac copied"`, `"pcm_s16le became aac"`, `"wmav2 left out: a
            gif has no sound"`.

    Raises:
        VideoSourceError, NotAVideoError: The file can't be opened.
    """

    def __init__(self, source: VideoSource, *, shift: float = 0.0):
        self.shift = shift
        self.tracks: tuple[str, ...] = ()
        self._container: av.container.InputContainer | None = None
        self._file: BinaryIO | None = None
        media = encoded_media(source)
        if media is not None:
            self._container, self._file = open_container(media)
        streams = self._container.streams.audio if self._container is not None else ()
        starts = [float(s.start_time * (s.time_base or 1)) for s in streams if s.start_time is not None]
        self.start = min(starts) if starts else (0.0 if streams else None)
        self._label = "" if media is None else media.label
        self._pending: Iterator[tuple[float, av.Packet[Any]]] = iter(())
        self._next: tuple[float, av.Packet[Any]] | None = None
        self._target: av.container.OutputContainer | None = None
        self._encoded: dict[int, av.AudioStream] = {}
        self._copied: dict[int, av.AudioStream] = {}
        self._last: dict[int, tuple[int, int]] = {}  # of each copied track the last packet's time, and its end

    def start_writing(self, target: av.container.OutputContainer, muxer: str) -> None:
        """Adds a track for each of the file's to a container.

        Args:
            target: The container, whose header is not written yet.
            muxer: FFmpeg's name of its format.

        Raises:
            VideoWriteError: It was called before: the file has been read.
        """
        if self._target is not None:
            raise VideoWriteError("This Sound was written already; make a new one for each file.")
        self._target = target
        streams = () if self._container is None else self._container.streams.audio
        copied, encoder = _CODECS.get(muxer, ((), ""))
        said = []
        for stream in streams:
            context: av.AudioCodecContext | None = stream.codec_context  # None without a decoder
            name = "unknown" if context is None else context.codec.canonical_name
            if not encoder:
                said.append(f"{name} left out: a {muxer} has no sound")
            elif name in copied:
                self._copied[stream.index] = target.add_stream_from_template(stream)
                said.append(f"{name} copied")
            elif context is None:
                said.append("a track left out: this FFmpeg has no decoder for it")
            else:
                self._encoded[stream.index] = made = _encoder(target, encoder, context)
                said.append(f"{name} became {made.codec_context.codec.canonical_name}")
        self.tracks = tuple(said)
        self._pending = self._packets()
        self._next = next(self._pending, None)

    def write_until(self, seconds: float) -> None:
        """Writes what is heard up to a time.

        Args:
            seconds: Of the target; infinity writes to the very end.
        """
        if self._target is None:
            return
        while self._next is not None and self._next[0] <= seconds:
            self._write(self._next[1], self._target)
            self._next = next(self._pending, None)
        if seconds == float("inf"):
            for stream in self._encoded.values():
                self._target.mux(stream.encode(None))

    def _packets(self) -> Iterator[tuple[float, av.Packet[Any]]]:
        """(seconds of the target, packet), in the order of the file, to its end or where it can't be read on."""
        wanted = {**self._copied, **self._encoded}
        if self._container is None or not wanted:
            return
        for stream in self._container.streams:
            if stream.index not in wanted and hasattr(stream, "discard"):
                stream.discard = type(stream.discard)["all"]
        latest = 0.0
        try:
            for packet in self._container.demux([one for one in self._container.streams.audio if one.index in wanted]):
                if packet.size:
                    ticks = packet.dts if packet.dts is not None else packet.pts
                    latest = latest if ticks is None else float(ticks * _base(packet)) + self.shift
                    yield latest, packet
        except IndexError:  # streams that appear late trip PyAV at the end
            return
        except av.FFmpegError as error:
            logger.warning(
                f"The sound of {self._label} can't be read on after {latest - self.shift:.2f} s ({error.strerror}): "
                "the rest is silent."
            )

    def _write(self, packet: av.Packet[Any], target: av.container.OutputContainer) -> None:
        index = packet.stream.index
        if index in self._copied:
            moved = round(Fraction(self.shift) / _base(packet))
            packet.pts = None if packet.pts is None else packet.pts + moved
            packet.dts = packet.pts if packet.dts is None else packet.dts + moved
            packet.stream = self._copied[index]
            if packet.dts is not None:
                last, end = self._last.get(index, (packet.dts - 1, packet.dts))
                if packet.dts <= last:  # joined recordings go back in time, which no container takes
                    packet.pts = packet.dts = end
                long = max(packet.duration or 0, ceil(Fraction(1, 8000) / _base(packet)))
                self._last[index] = packet.dts, packet.dts + long
                target.mux(packet)
            return
        with contextlib.suppress(av.error.InvalidDataError):  # a damaged packet is heard as a gap
            for frame in packet.decode():
                assert isinstance(frame, av.AudioFrame)
                if frame.pts is not None:
                    frame.pts += round(Fraction(self.shift) / _base(frame))
                target.mux(self._encoded[index].encode(frame))

    def close(self) -> None:
        """Closes the file."""
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._file is not None:
            self._file.close()
            self._file = None


def _base(timed: av.Packet[Any] | av.AudioFrame) -> Fraction:
    return timed.time_base or Fraction(1)


def _encoder(target: av.container.OutputContainer, name: str, source: av.AudioCodecContext) -> av.AudioStream:
    """An encoder for sound of a rate that it takes, in stereo at most."""
    rates = av.codec.Codec(name, "w").audio_rates
    rate = source.sample_rate if not rates or source.sample_rate in rates else 48_000
    stream = target.add_stream(name, rate=rate, layout="mono" if source.layout.nb_channels == 1 else "stereo")
    assert isinstance(stream, av.AudioStream)
    return stream
