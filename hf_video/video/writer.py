"""Frames to a video file: one function, nothing half-written left behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import av
import numpy as np
from PIL import Image

from hf_video.errors import VideoArrayError, VideoWriteError, check_count
from hf_video.video.frames.pixels import is_uint16
from hf_video.video.frames.rgb import array_of, array_to_uint8, image_to_rgb
from hf_video.video.priority import own_priority

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hf_video.video.frames.types import Frame, VideoFrames
    from hf_video.video.sound import Sound

# suffix -> (FFmpeg muxer, codec when the caller names none)
CONTAINERS = {
    ".mp4": ("mp4", "h264"), ".m4v": ("mp4", "h264"), ".mov": ("mov", "h264"), ".mkv": ("matroska", "h264"),
    ".webm": ("webm", "vp9"), ".avi": ("avi", "h264"), ".ts": ("mpegts", "h264"), ".gif": ("gif", "gif"),
}  # fmt: skip
# A codec's common name -> encoders that write it, best first; any other name is taken as an encoder's own.
_ENCODERS = {
    "h264": ("libx264", "libopenh264", "h264_videotoolbox"), "h265": ("libx265",), "hevc": ("libx265",),
    "vp9": ("libvpx-vp9",), "vp8": ("libvpx",), "av1": ("libsvtav1", "libaom-av1"),
}  # fmt: skip
# Encoders that keep RGB as it is, where the caller names no pixel format. All others get yuv420p, which plays anywhere.
_PIXEL_FORMATS = {
    "libx264rgb": "rgb24", "ffv1": "bgr0", "png": "rgb24", "qtrle": "rgb24", "utvideo": "gbrp", "gif": "pal8",
}  # fmt: skip
_HAS_CRF = ("libx264", "libx264rgb", "libx265", "libvpx", "libvpx-vp9", "libsvtav1", "libaom-av1")
_X265_MIN_SIZE = 64  # measured: on 32x48 it writes past its buffers and takes the process down
_TIME_BASE = Fraction(1, 60_000)  # of frames at times of their own; MPEG-4's encoder takes none finer than 1/65535
# As far may times lie from those of one rate: files of Matroska round theirs to milliseconds.
_REGULAR = 0.0006
_GIF_MAX_FPS = 50  # a gif frame lasts whole hundredths of a second, and browsers slow anything under 2 of them to 10


def write_video(
    path: str | os.PathLike[str],
    frames: VideoFrames | Frame | Iterable[Frame],
    fps: float | Fraction | None = None,
    codec: str | None = None,
    *,
    seconds: ArrayLike | None = None,
    sound: Sound | None = None,
    crf: int | None = None,
    pixel_format: str | None = None,
    keyframe_interval: int | None = None,
    pad: str | None = None,
    options: Mapping[str, Any] | None = None,
    num_threads: int = 0,
) -> Path:
    """Encodes frames into a video file.

    The file appears whole or not at all: frames go to a temporary file beside it, which is renamed at the end.

    Args:
        path: Where to write. The suffix names the container: .mp4 .m4v .mov .mkv .webm .avi .ts .gif.
        frames: RGB frames: an array or tensor (frames, height, width, 3), a `VideoFrames`, or any iterable (a generator
            too, so that a long video needs no memory) of (height, width, 3) arrays, tensors or PIL images. Floats from
            0 to 1, other dtypes and PIL modes become 8-bit RGB as `hf_video.video.frames.rgb` says.
        fps: Frames per second; a `Fraction` is kept exactly (`Fraction(30000, 1001)`). None where `seconds` are given.
        codec: `"h264"`, `"h265"`, `"vp8"`, `"vp9"`, `"av1"`, `"ffv1"`, `"gif"`, or the name of one of FFmpeg's
            encoders. None takes h264, and vp9 for .webm and gif for .gif. `"ffv1"` (.mkv, .avi) and `"libx264rgb"`
            with `crf=0` (.mp4, .mkv, .mov) are lossless: the frames that were written are read back to the bit.
        seconds: In place of `fps` a time for each frame: when it begins, and at last when the last one ends,
            (frames + 1,), growing, from 0 up. Irregular ones are kept to 1/60000 s, or as exactly as the container can
            (.mkv and .webm 0.001 s, .gif 0.01 s; .avi has one rate and refuses them).
        sound: The sound of another file, written beside the frames (see `Sound`).
        crf: Constant quality, lower is better (x264: 0 to 51, default 23).
        pixel_format: FFmpeg's name, for instance `"yuv444p"`. Default yuv420p, RGB for the lossless codecs.
        keyframe_interval: Most frames from one keyframe to the next. Shorter makes seeking cheaper and files larger.
        pad: Pixel formats with halved colour (yuv420p) need even sizes. None raises for an odd size; `"edge"` repeats
            the last row or column, `"black"` adds a black one.
        options: Further options of the encoder, for instance `{"preset": "ultrafast"}`.
        num_threads: Encoder threads, 0 for as many as FFmpeg chooses.

    Returns:
        The path of the file.

    Raises:
        VideoArrayError: Frames have another shape, dtype or size, or there are none.
        VideoWriteError: The suffix, codec or an option is unknown, `fps` is not a rate above 0, `seconds` don't grow or
            are not as many as the frames, the folder doesn't exist, or the encoder refuses.

    Example:
        >>> write_video("clip.mp4", frames, fps=25)
        >>> write_video("exact.mkv", frames, fps=25, codec="ffv1")
    """
    path = Path(path)
    muxer, default_codec = _container(path)
    encoder = _encoder(codec or default_codec)
    pixel_format = pixel_format or _PIXEL_FORMATS.get(encoder, "yuv420p")
    if pad not in (None, "edge", "black"):
        raise VideoWriteError(f'pad={pad!r} is not known. Use None, "edge" or "black".')
    rate, time_base, ticks = _timing(fps, seconds, muxer)
    images = _rgb_frames(frames)
    first = next(images, None)
    if first is None:
        raise VideoArrayError("There are no frames to write. A video needs at least one.")
    settings = _encoder_options(encoder, muxer, crf, options)
    temporary = _temporary_beside(path)
    refusals = partial(_refusals, f"{path} could not be written by {encoder} as {pixel_format} in a {muxer} container")
    try:
        # The index in front lets a browser or a range request start before the whole file is there.
        muxer_options = {"movflags": "faststart"} if muxer in ("mp4", "mov") else {}
        with refusals():
            container = av.open(str(temporary), "w", format=muxer, options=muxer_options)
        with container:
            stream = _add_stream(container, encoder, rate, first.shape[:2], pixel_format, pad, settings)
            stream.codec_context.thread_count = num_threads
            if keyframe_interval is not None:
                stream.codec_context.gop_size = check_count("keyframe_interval", keyframe_interval, VideoWriteError)
            if time_base is not None:
                stream.codec_context.time_base = stream.time_base = time_base
            if sound is not None:
                sound.start_writing(container, muxer)
            lasting: dict[int, int] = {}  # ticks, by those of the frame's begin

            def mux(packets: list[av.Packet[Any]]) -> None:
                for packet in packets:  # encoders state no duration, and the last one can't be told from the times
                    packet.duration = lasting.pop(packet.pts, packet.duration)
                container.mux(packets)

            rows, columns = stream.height - first.shape[0], stream.width - first.shape[1]
            for number, image in enumerate(itertools.chain([first], images)):
                if rows or columns:
                    mode: Literal["edge", "constant"] = "edge" if pad == "edge" else "constant"
                    image = np.pad(image, ((0, rows), (0, columns), (0, 0)), mode=mode)
                if stream.pix_fmt == "pal8":
                    frame = _paletted(image)
                else:
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                    frame = frame.reformat(format=stream.pix_fmt, dst_colorspace="ITU601", interpolation="BICUBIC")
                frame.pts, frame.time_base = number, 1 / rate
                if ticks is not None:
                    if number + 1 >= len(ticks):
                        raise VideoWriteError(f"seconds= tells of {len(ticks) - 1} frames, and more came.")
                    frame.pts, frame.time_base = int(ticks[number]), time_base or 1 / rate
                    frame.duration = lasting[frame.pts] = int(ticks[number + 1] - ticks[number])
                with refusals(), own_priority():
                    packets = stream.encode(frame)  # opens the encoder, before the container does with its own options
                    if sound is not None:
                        sound.write_until(float(frame.pts * frame.time_base))
                    mux(packets)
                unknown = stream.codec_context.options if number == 0 else None  # PyAV leaves here what wasn't taken
                if unknown:
                    name = stream.codec_context.codec.name
                    raise VideoWriteError(f"The encoder {name} has no option {', '.join(sorted(unknown))}.")
            if ticks is not None and number + 2 != len(ticks):
                raise VideoWriteError(f"{number + 1} frames came, and seconds= tells of {len(ticks) - 1}.")
            with refusals():
                mux(stream.encode(None))
                if sound is not None:
                    sound.write_until(float("inf"))
        os.replace(temporary, path)
    finally:
        if sound is not None:
            sound.close()
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return path


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    """FFmpeg's errors in our words; what the caller's own generator raises never comes through here."""
    try:
        yield
    except av.FFmpegError as error:
        raise VideoWriteError(f"{what}: {error}. Check crf, pixel_format and options, or try another codec.") from error


def _container(path: Path) -> tuple[str, str]:
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError:
        known = " ".join(CONTAINERS)
        raise VideoWriteError(f"{path} ends in {path.suffix!r}, which names no container. Use {known}.") from None


def _encoder(codec: str) -> str:
    for name in _ENCODERS.get(codec, (codec,)):
        try:
            if av.codec.Codec(name, "w").type == "video":
                return name
        except ValueError:  # PyAV's UnknownCodecError is one
            continue
    known = ", ".join([*_ENCODERS, "ffv1", "gif"])
    raise VideoWriteError(f"This FFmpeg has no video encoder for codec={codec!r}. Known names: {known}.")


def _timing(
    fps: float | Fraction | None, seconds: ArrayLike | None, muxer: str
) -> tuple[Fraction, Fraction | None, np.ndarray | None]:
    """The rate, and for times of their own: the time base unless it is that of the rate, and the ticks in it."""
    if seconds is None:
        return _rate(fps, muxer), None, None
    if fps is not None:
        raise VideoWriteError("Both fps= and seconds= came; the times of frames follow from one of them.")
    times = np.asarray(seconds, np.float64)
    if times.ndim != 1 or len(times) < 2 or not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
        raise VideoWriteError(
            "seconds= must be the times at which frames begin and at last the end of the last one: (frames + 1,), from "
            "0 up, each greater than the one before."
        )
    steps = np.diff(times)
    mean = float(1 / steps[: max(len(steps) - 1, 1)].mean())  # the last frame may be shown for any time
    common = Fraction(round(mean)), Fraction(round(mean * 1.001) * 1000, 1001), Fraction(mean).limit_denominator(1001)
    for rate in filter(None, common):
        ticks = np.arange(len(times)) + round(times[0] * float(rate))
        # An avi can't begin a part of a frame late.
        late = ticks[0] / float(rate) - times[0] if muxer == "avi" else 0.0
        if np.abs(ticks / float(rate) - late - times)[:-1].max() <= _REGULAR:
            return _rate(rate, muxer), None, ticks
    if muxer == "avi":
        raise VideoWriteError("An avi has one frame rate, and these frames have times of their own. Use .mp4 or .mkv.")
    if muxer == "gif" and steps.min() < 1 / _GIF_MAX_FPS:
        shortest = f"{1 / _GIF_MAX_FPS:g} s at least"
        raise VideoWriteError(f"A gif shows a frame for {shortest}, and one of {steps.min():.3g} s came.")
    ticks = np.rint(times / float(_TIME_BASE)).astype(np.int64)
    if (np.diff(ticks) <= 0).any():
        raise VideoWriteError("seconds= holds frames that are less than 1/60000 s apart, which no container keeps.")
    return Fraction(float(1 / np.median(steps))).limit_denominator(1001), _TIME_BASE, ticks


def _rate(fps: float | Fraction | None, muxer: str) -> Fraction:
    try:
        rate = Fraction(fps).limit_denominator(100_000)
    except (TypeError, ValueError, OverflowError):
        rate = Fraction(0)
    if rate <= 0:
        raise VideoWriteError(f"fps={fps!r} is no frame rate. Give a number above 0, in frames per second.")
    if muxer == "gif" and rate > _GIF_MAX_FPS:
        raise VideoWriteError(
            f"A gif shows at most {_GIF_MAX_FPS} frames per second and fps={fps!r} came. Drop frames."
        )
    return rate


def _encoder_options(encoder: str, muxer: str, crf: int | None, options: Mapping[str, Any] | None) -> dict[str, str]:
    settings = {}
    if muxer == "avi":
        settings["bf"] = "0"  # avi stores no presentation times, so frames that are reordered are read out of order
    if encoder.startswith("libvpx") or encoder == "libaom-av1":
        settings["b"] = "0"  # without it crf is only a bound and the encoder aims at 200 kbit/s
    if encoder == "libx265":
        settings["x265-params"] = "log-level=error"
    if crf is not None:
        if encoder not in _HAS_CRF:
            raise VideoWriteError(
                f"The encoder {encoder} has no crf. Leave it out, or use one of {', '.join(_HAS_CRF)}."
            )
        settings["crf"] = str(crf)
    elif encoder.startswith("libvpx"):
        settings["crf"] = "31"
    settings.update({str(key): str(value) for key, value in (options or {}).items()})
    return settings


def _temporary_beside(path: Path) -> Path:
    """An empty file in the same folder: a rename is atomic only within one file system."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise VideoWriteError(f"Can't write into the folder {path.parent}: {error.strerror}. Make it first.") from error
    os.close(handle)
    umask = os.umask(0)  # mkstemp makes private files; a video should get the rights that open() gives
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)
    return Path(name)


def _rgb_frames(frames: VideoFrames | Frame | Iterable[Frame]) -> Iterator[np.ndarray]:
    """(height, width, 3) uint8 arrays, one by one, each checked against the first."""
    frames = getattr(frames, "data", frames) if hasattr(frames, "seconds") else frames  # VideoFrames
    if isinstance(frames, (str, bytes, os.PathLike, Mapping)) or not isinstance(frames, Iterable):
        raise VideoArrayError(
            f"frames is a {type(frames).__name__}. Give a (frames, height, width, 3) uint8 array or "
            "an iterable of frames."
        )
    shape = getattr(frames, "shape", None)
    if shape is not None and (len(shape) != 4 or shape[-1] != 3):
        raise VideoArrayError(_shape_message(f"frames has shape {tuple(shape)}", shape[1:] if len(shape) == 4 else ()))
    return _checked(array_to_uint8(array_of(frames)) if shape is not None else frames)


def _checked(frames: Iterable[Frame]) -> Iterator[np.ndarray]:
    shape = None
    depth = _Depth()
    for number, frame in enumerate(frames):
        image = image_to_rgb(frame) if isinstance(frame, Image.Image) else array_of(frame)
        if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
            raise VideoArrayError(_shape_message(f"Frame {number} has shape {image.shape}", image.shape))
        if shape is not None and image.shape != shape:
            raise VideoArrayError(
                f"Frame {number} is {image.shape[0]}x{image.shape[1]} and the first was {shape[0]}x{shape[1]} "
                "(height x width). All frames of a video have one size: resize them first."
            )
        shape = image.shape
        yield depth.to_uint8(image, number)


class _Depth:
    """Frames one by one as uint8: what a `uint16` says is white can change only with its first frame of 16 bits."""

    def __init__(self) -> None:
        self._deep = self._plain = False

    def to_uint8(self, image: np.ndarray, number: int) -> np.ndarray:
        if is_uint16(image):
            self._deep = self._deep or image.max() > 255
            if self._deep and self._plain:
                raise VideoArrayError(
                    f"Frame {number} is uint16 beyond 255, and frames before it were taken for 0..255, as they went no "
                    "further. Give the frames as uint8, or all of them in one array."
                )
            self._plain = self._plain or (not self._deep and image.max() > 0)
        try:
            return array_to_uint8(image, deep=self._deep)
        except VideoArrayError as error:
            raise VideoArrayError(f"Frame {number}: {error}") from None


def _shape_message(came: str, frame_shape: tuple[int, ...]) -> str:
    hint = " It looks channels-first: permute the channels to the end." if tuple(frame_shape)[:1] == (3,) else ""
    return f"{came}, and RGB frames of (height, width, 3) are needed.{hint}"


def _add_stream(
    container: av.container.OutputContainer,
    encoder: str,
    rate: Fraction,
    shape: tuple[int, int],
    pixel_format: str,
    pad: str | None,
    settings: dict[str, str],
) -> av.VideoStream:
    height, width = _even(shape, pixel_format, pad)
    if encoder == "libx265" and min(height, width) < _X265_MIN_SIZE:
        raise VideoWriteError(
            f"libx265 is not safe below {_X265_MIN_SIZE} pixels a side and the frames are {height}x{width}. Use h264."
        )
    try:
        chroma = av.VideoFormat(pixel_format, width, height)
    except ValueError:
        raise VideoWriteError(
            f"pixel_format={pixel_format!r} is not known to FFmpeg. Try yuv420p or yuv444p."
        ) from None
    allowed = [f.name for f in av.codec.Codec(encoder, "w").video_formats or []]
    if allowed and pixel_format not in allowed:
        raise VideoWriteError(f"{encoder} can't write {pixel_format}. It writes {', '.join(allowed)}.")
    try:
        stream = container.add_stream(encoder, rate=rate, options=settings)
    except ValueError as error:
        raise VideoWriteError(f"{error}. Use another codec (None picks a fitting one) or another suffix.") from None
    stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
    if not chroma.is_rgb and pixel_format != "pal8":
        # The conversion below is BT.601 limited; players guess from the height unless the file says so.
        stream.codec_context.colorspace = 6
        stream.codec_context.color_range = 1
    return stream


def _even(shape: tuple[int, int], pixel_format: str, pad: str | None) -> tuple[int, int]:
    height, width = shape
    step_w = 2 if any(s in pixel_format for s in ("420", "422", "nv12", "nv21", "nv16")) else 1
    step_h = 2 if any(s in pixel_format for s in ("420", "440", "nv12", "nv21")) else 1
    even = height + height % step_h, width + width % step_w
    if even != (height, width) and pad is None:
        raise VideoArrayError(
            f"Frames of {height}x{width} (height x width) can't be written as {pixel_format}, which needs even sizes. "
            f'Pass pad="edge" or pad="black" to write {even[0]}x{even[1]}, crop the frames, or keep the size with '
            'pixel_format="yuv444p" (which not every player shows).'
        )
    return even


def _paletted(image: np.ndarray) -> av.VideoFrame:
    """256 colours chosen for this very frame; exact where the frame has no more than that."""
    picture = Image.fromarray(image).quantize(colors=256, dither=Image.Dither.FLOYDSTEINBERG)
    colours = np.array(picture.getpalette(), dtype=np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 4), dtype=np.uint8)  # alpha first
    palette[:, 0] = 255
    palette[: len(colours), 1:] = colours
    return av.VideoFrame.from_ndarray((np.asarray(picture), palette), format="pal8")
