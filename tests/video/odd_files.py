"""Encodes the files that video readers get wrong, small, with PyAV alone.

`ODD` maps a name to a function `(path without ending) -> path` that writes one file. Frames carry their number as a
pattern of blocks (`stamp`), so that a test can see *which* frame came, whatever the codec did to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from hf_video.video.priority import own_priority

WIDTH, HEIGHT, COUNT = 64, 48, 72
BITS = 8


def stamp(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame (height, width, 3) whose upper half shows `number` in binary, over a moving background."""
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack([(x * 3 + number * 5) % 256, (y * 5 + number * 3) % 256, (x + y + 7 * number) % 256], -1)
    frame = (frame // 2 + 64).astype(np.uint8)
    for bit in range(BITS):
        left, right = width * bit // BITS, width * (bit + 1) // BITS
        frame[: height // 2, left:right] = 230 if number >> bit & 1 else 20
    return frame


def read_stamp(frame: np.ndarray) -> int:
    """The number that `stamp` wrote, from a frame that was encoded and decoded."""
    height, width = frame.shape[:2]
    number = 0
    for bit in range(BITS):
        left, right = width * bit // BITS, width * (bit + 1) // BITS
        block = frame[height // 8 : height * 3 // 8, left + 2 : right - 2]
        number |= int(block.mean() > 125) << bit
    return number


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    format: str | None = None,
    pix_fmt: str = "yuv420p",
    frames: Iterable[np.ndarray] | None = None,
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 30),
    rate: int = 30,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    audio: str | None = None,
    cover: bool = False,
    matrix: tuple[int, ...] | None = None,
    rotation: int | None = None,
    shift: int = 0,
    drop_packets: int = 0,
    gop: int = 12,
) -> Path:
    """One file. `shift` moves the timestamps of packets (in ticks) after encoding; `drop_packets` leaves out the
    first ones, as a recording that is joined midway does."""
    frames = [stamp(i) for i in range(COUNT)] if frames is None else list(frames)
    height, width = frames[0].shape[:2]
    # Nothing random in the file: a test that overwrites bytes of it overwrites the same ones in every run.
    muxing = {"fflags": "+bitexact", **(container_options or {})}
    with av.open(str(path), "w", format=format, options=muxing) as container:
        sound = container.add_stream("aac", rate=8000, layout="mono") if audio == "first" else None
        picture = _cover(container) if cover else None
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        stream.options = options or {}
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        packets = []
        for number, pixels in enumerate(frames):
            source = "rgba" if pixels.shape[-1] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(pixels, format=source).reformat(format=pix_fmt)
            frame.pts = number if pts is None else pts[number]
            frame.time_base = time_base
            with own_priority():
                packets += stream.encode(frame)
        packets += stream.encode(None)
        if picture is not None:
            container.mux(picture)
        if sound is not None:
            container.mux(_tone(sound, len(frames) / rate))
        for packet in packets[drop_packets:]:
            if shift:
                ticks = round(shift * time_base / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            container.mux(packet)
    return path


def _tone(stream: av.AudioStream, seconds: float) -> list[av.Packet]:
    samples = np.sin(np.arange(int(8000 * seconds)) * 0.3).astype(np.float32)
    packets = []
    for start in range(0, len(samples) - 1024, 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, start
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _cover(container: av.container.OutputContainer) -> av.Packet:
    stream = container.add_stream("mjpeg", rate=1)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
    stream.disposition = 0x400
    frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 99, np.uint8), format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    packet = (stream.encode(frame) + stream.encode(None))[0]
    return packet


def x264(**extra: str) -> dict[str, str]:
    # x264's assembly code does not write the same file in every run, even with one thread.
    return {"preset": "fast", "crf": "18", "bf": "3", "x264-params": "asm=0", **extra}


def _irregular(count: int = COUNT) -> list[int]:
    """Times in ms of a camera that drops frames: steps between 11 and 120."""
    steps = np.random.default_rng(3).integers(11, 120, count)
    return np.cumsum(steps).tolist()


def _big(count: int = COUNT) -> list[np.ndarray]:
    return [stamp(i, 64, 96) for i in range(count)]


def _raw(base: Path, codec: str, ending: str, **options: str) -> Path:
    return encode(base.with_suffix(ending), codec, format=ending[1:], options=options)


def bare_copied(base: Path, ending: str, codec: str = "libx264", rate: int = 30, **options: str) -> Path:
    """A bare stream put into a container with decoding times as presentation times, as copying tools do it."""
    raw = {"libx264": ".h264", "libx265": ".hevc", "mpeg2video": ".m2v", "mpeg4": ".m4v"}[codec]
    bare = encode(base.with_suffix(raw), codec, format=None if raw == ".m2v" else raw[1:], rate=rate, options=options)
    path = base.with_suffix(ending)
    with av.open(str(bare)) as source, av.open(str(path), "w", options={"fflags": "+bitexact"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.time_base = Fraction(1, rate)
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.pts = packet.dts = number
            packet.duration, packet.time_base, packet.stream = 1, Fraction(1, rate), stream
            target.mux(packet)
    return path


def copied(source: Path, path: Path) -> Path:
    """The packets of a file in another container."""
    with av.open(str(source)) as given, av.open(str(path), "w", options={"fflags": "+bitexact"}) as target:
        stream = target.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


def _two_sizes(base: Path) -> Path:
    """mpeg-ts made of two encodings of different size, joined byte by byte."""
    first = encode(base.with_suffix(".a.ts"), frames=[stamp(i) for i in range(36)], options=x264())
    second = encode(
        base.with_suffix(".b.ts"), frames=[stamp(i, 64, 96) for i in range(36, COUNT)], options=x264(), shift=36
    )
    return _join(base.with_suffix(".ts"), first, second)


def _time_jumps_back(base: Path) -> Path:
    """Two recordings joined whose second one starts at an earlier time."""
    first = encode(base.with_suffix(".a.ts"), frames=[stamp(i) for i in range(36)], options=x264(), shift=900)
    second = encode(base.with_suffix(".b.ts"), frames=[stamp(i) for i in range(36, COUNT)], options=x264())
    return _join(base.with_suffix(".ts"), first, second)


def _join(target: Path, *parts: Path) -> Path:
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def _without_index(base: Path, codec: str, **options: str) -> Path:
    """An avi whose recording was never closed: no idx1 chunk, length fields of zero frames."""
    whole = encode(base.with_suffix(".whole.avi"), codec, options=options).read_bytes()
    path = base.with_suffix(".avi")
    path.write_bytes(whole[: whole.rindex(b"idx1")])
    return path


def _cut(base: Path, ending: str, share: float, **arguments: object) -> Path:
    whole = encode(base.with_suffix(".whole" + ending), **arguments).read_bytes()
    path = base.with_suffix(ending)
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def _corrupt(base: Path, ending: str, seed: int, hits: int = 12, **arguments: object) -> Path:
    """Bytes overwritten in the middle half of the file (headers are at the ends)."""
    data = bytearray(encode(base.with_suffix(".whole" + ending), **arguments).read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(len(data) // 4, len(data) * 3 // 4, hits):
        data[place] = rng.integers(256)
    path = base.with_suffix(ending)
    path.write_bytes(data)
    return path


def _lost_sample(base: Path) -> Path:
    """An mp4 in which one sample in the middle is zeros: the decoder can't make a frame of it."""
    path = encode(base.with_suffix(".mp4"), options=x264(bf="0"), container_options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][30]
        place, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    return path


def _gif(base: Path, frames: list[np.ndarray], pix_fmt: str = "rgb8") -> Path:
    return encode(base.with_suffix(".gif"), "gif", pix_fmt=pix_fmt, frames=frames, rate=25, time_base=Fraction(1, 25))


def _alpha_gif(base: Path) -> Path:
    """Frames with see-through parts, as PIL writes them."""
    from PIL import Image

    frames = []
    for number in range(40):
        rgba = np.dstack([stamp(number), np.full((HEIGHT, WIDTH), 255, np.uint8)])
        rgba[HEIGHT // 2 :, (number % WIDTH) :, 3] = 0
        frames.append(Image.fromarray(rgba, "RGBA"))
    path = base.with_suffix(".gif")
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, disposal=2)
    return path


def _two_videos(base: Path) -> Path:
    path = base.with_suffix(".mkv")
    with av.open(str(path), "w") as container:
        streams = []
        for height, width in ((HEIGHT, WIDTH), (64, 96)):
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt, stream.options = width, height, "yuv420p", x264()
            streams.append(stream)
        for stream in streams:
            for number in range(COUNT):
                image = stamp(number, stream.height, stream.width)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    return path


def _late_last_frame(base: Path) -> Path:
    """Equal steps but for the last frame, which comes a second later: decoding times alone don't show it."""
    return encode(base.with_suffix(".mp4"), pts=[*range(COUNT - 1), COUNT + 29], options=x264())


def _mirror(base: Path) -> Path:
    """The mirrored picture of a front camera."""
    one = 1 << 16
    return encode(base.with_suffix(".mp4"), matrix=(-one, 0, 0, 0, one, 0, 0, 0, 1 << 30), options=x264())


def _mp4(base: Path, codec: str = "libx264", **arguments: object) -> Path:
    return encode(base.with_suffix(".mp4"), codec, **{"options": x264(), **arguments})


X265 = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:keyint=12:pools=none"}
_X265_OPEN = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=4:keyint=12:open-gop=1:pools=none"}
_X265_LAYERS = {
    "preset": "ultrafast",
    "x265-params": "log-level=none:bframes=4:keyint=24:b-pyramid=1:temporal-layers=3:pools=none",
}
_VP8 = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "cpu-used": "4", "b": "200k"}
_VP9 = {**_VP8, "row-mt": "0"}
_AV1 = {"preset": "12", "svtav1-params": "lp=1"}

ODD: dict[str, Callable[[Path], Path]] = {
    "h264_b": _mp4,
    "h264_faststart": lambda b: _mp4(b, container_options={"movflags": "faststart"}),
    "h264_one_keyframe": lambda b: _mp4(b, gop=250),
    "h264_open_gop": lambda b: _mp4(b, options=x264(**{"x264-params": "open-gop=1:b-pyramid=normal:keyint=16"})),
    "h264_open_gop_mkv": lambda b: encode(
        b.with_suffix(".mkv"), options=x264(**{"x264-params": "open-gop=1:b-pyramid=normal:keyint=16"})
    ),
    "h264_intra_refresh": lambda b: _mp4(b, options=x264(**{"x264-params": "intra-refresh=1:keyint=16:bframes=0"})),
    "h264_interlaced": lambda b: _mp4(b, options=x264(**{"x264-params": "interlaced=1:tff=1"})),
    "h264_10bit": lambda b: _mp4(b, pix_fmt="yuv420p10le"),
    "h264_444_odd_size": lambda b: _mp4(b, pix_fmt="yuv444p", frames=[stamp(i, 49, 65) for i in range(COUNT)]),
    "h264_vfr_mp4": lambda b: _mp4(b, pts=_irregular(), time_base=Fraction(1, 1000)),
    "h264_vfr_mkv": lambda b: encode(
        b.with_suffix(".mkv"), pts=_irregular(), time_base=Fraction(1, 1000), options=x264()
    ),
    "h264_late_last": _late_last_frame,
    "h264_late_start_mp4": lambda b: _mp4(b, shift=45),
    "h264_late_start_mkv": lambda b: encode(b.with_suffix(".mkv"), options=x264(), shift=45),
    "h264_negative_start_mkv": lambda b: encode(
        b.with_suffix(".mkv"), options=x264(), shift=-10, container_options={"avoid_negative_ts": "disabled"}
    ),
    "h264_edit_list": lambda b: _mp4(b, shift=-17, container_options={"avoid_negative_ts": "disabled"}),
    "h264_fragmented": lambda b: _mp4(b, container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "h264_mkv": lambda b: encode(b.with_suffix(".mkv"), options=x264()),
    "h264_live_mkv": lambda b: encode(b.with_suffix(".mkv"), options=x264(), container_options={"live": "1"}),
    "vp9_ivf": lambda b: encode(b.with_suffix(".ivf"), "libvpx-vp9", options=_VP9),
    "h264_ts": lambda b: encode(b.with_suffix(".ts"), options=x264()),
    "h264_open_gop_ts": lambda b: encode(
        b.with_suffix(".ts"), options=x264(**{"x264-params": "open-gop=1:b-pyramid=normal:keyint=16"})
    ),
    "h264_ts_joined_midway": lambda b: encode(b.with_suffix(".ts"), options=x264(), drop_packets=5),
    "h264_mkv_joined_midway": lambda b: encode(b.with_suffix(".mkv"), options=x264(), drop_packets=5),
    "h264_mp4_joined_midway": lambda b: _mp4(b, drop_packets=5),
    "h264_open_mkv_joined_midway": lambda b: encode(
        b.with_suffix(".mkv"), options=x264(**{"x264-params": "open-gop=1:b-pyramid=normal:keyint=8"}), drop_packets=5
    ),
    "h264_flv": lambda b: encode(b.with_suffix(".flv"), options=x264()),
    "h264_avi_b": lambda b: encode(b.with_suffix(".avi"), options=x264()),
    "h264_avi_no_b": lambda b: encode(b.with_suffix(".avi"), options=x264(bf="0")),
    **{
        f"h264_bare_in_{ending}": (lambda b, e=ending: bare_copied(b, f".{e}", preset="fast", bf="3"))
        for ending in ("mp4", "mov", "mkv", "flv", "nut", "avi")
    },
    "hevc_bare_in_mp4": lambda b: bare_copied(b, ".mp4", "libx265", **X265),
    "mpeg2_bare_in_mp4": lambda b: bare_copied(b, ".mp4", "mpeg2video", bf="2"),
    "mpeg4_bare_in_mp4": lambda b: bare_copied(b, ".mp4", "mpeg4", bf="2"),
    "h264_ts_in_avi": lambda b: copied(encode(b.with_suffix(".ts"), options=x264()), b.with_suffix(".avi")),
    "h264_raw": lambda b: _raw(b, "libx264", ".h264", preset="fast", bf="3"),
    "hevc_raw": lambda b: _raw(b, "libx265", ".hevc", **X265),
    "h264_audio_first": lambda b: _mp4(b, audio="first"),
    "h264_cover_first": lambda b: _mp4(b, cover=True),
    "h264_mirrored": _mirror,
    "h264_two_sizes": _two_sizes,
    "h264_time_jumps_back": _time_jumps_back,
    "two_video_streams": _two_videos,
    "mpeg4_avi": lambda b: encode(b.with_suffix(".avi"), "mpeg4"),
    "mpeg4_avi_b": lambda b: encode(b.with_suffix(".avi"), "mpeg4", options={"bf": "2"}),
    "mpeg4_avi_no_index": lambda b: _without_index(b, "mpeg4"),
    "mpeg4_avi_b_no_index": lambda b: _without_index(b, "mpeg4", bf="2"),
    "mpeg4_mp4_b": lambda b: _mp4(b, "mpeg4", options={"bf": "2"}),
    "mjpeg_avi": lambda b: encode(b.with_suffix(".avi"), "mjpeg", pix_fmt="yuvj420p"),
    "mpeg1_ps": lambda b: encode(b.with_suffix(".mpg"), "mpeg1video", options={"bf": "2"}),
    "mpeg2_ps": lambda b: encode(b.with_suffix(".mpg"), "mpeg2video", options={"bf": "2"}),
    "mpeg2_ts": lambda b: encode(b.with_suffix(".ts"), "mpeg2video", options={"bf": "2"}),
    "mpeg2_ts_joined_midway": lambda b: encode(b.with_suffix(".ts"), "mpeg2video", options={"bf": "2"}, drop_packets=5),
    "hevc_mp4": lambda b: _mp4(b, "libx265", options=X265),
    "hevc_10bit": lambda b: _mp4(b, "libx265", options=X265, pix_fmt="yuv420p10le"),
    "hevc_open_gop": lambda b: _mp4(b, "libx265", options=_X265_OPEN),
    "hevc_open_gop_ts": lambda b: encode(b.with_suffix(".ts"), "libx265", options=_X265_OPEN),
    "hevc_open_joined_midway": lambda b: encode(b.with_suffix(".ts"), "libx265", options=_X265_OPEN, drop_packets=14),
    "hevc_temporal_layers": lambda b: _mp4(b, "libx265", options=_X265_LAYERS),
    "vp8_webm": lambda b: encode(b.with_suffix(".webm"), "libvpx", options=_VP8),
    "vp9_webm": lambda b: encode(b.with_suffix(".webm"), "libvpx-vp9", options=_VP9),
    "av1_mp4": lambda b: _mp4(b, "libsvtav1", options=_AV1),
    "av1_webm": lambda b: encode(b.with_suffix(".webm"), "libsvtav1", options=_AV1),
    "wmv": lambda b: encode(b.with_suffix(".wmv"), "wmv2"),
    "ffv1_mkv": lambda b: encode(b.with_suffix(".mkv"), "ffv1", pix_fmt="yuv444p"),
    "prores_mov": lambda b: encode(b.with_suffix(".mov"), "prores_ks", pix_fmt="yuv422p10le"),
    "png_mov": lambda b: encode(b.with_suffix(".mov"), "png", pix_fmt="rgb24"),
    "gif": lambda b: _gif(b, [stamp(i) for i in range(COUNT)]),
    "gif_alpha": _alpha_gif,
    "gif_one_frame": lambda b: _gif(b, [stamp(5)]),
    "three_frames": lambda b: _mp4(b, frames=[stamp(i) for i in range(3)]),
    "one_frame": lambda b: _mp4(b, frames=[stamp(0)]),
    "cut_mp4": lambda b: _cut(b, ".mp4", 0.7, options=x264(), container_options={"movflags": "faststart"}),
    "cut_mkv": lambda b: _cut(b, ".mkv", 0.7, options=x264()),
    "cut_ts": lambda b: _cut(b, ".ts", 0.7, options=x264()),
    "cut_avi": lambda b: _cut(b, ".avi", 0.7, codec="mpeg4"),
    "cut_fragmented": lambda b: _cut(
        b, ".mp4", 0.7, options=x264(), container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    **{f"rotated_{angle}": (lambda b, a=angle: _mp4(b, rotation=a)) for angle in (90, 180, -90)},
}

# Damaged inside: every frame that a sequential decode gives has to be the same here too.
DAMAGED: dict[str, Callable[[Path], Path]] = {
    f"corrupt_{name}_{seed}": (lambda b, a=arguments, s=seed: _corrupt(b, a[0], s, **a[1]))
    for name, arguments in {
        "h264_mp4": (".mp4", {"options": x264(), "container_options": {"movflags": "faststart"}}),
        "h264_mkv": (".mkv", {"options": x264(), "gop": 36}),
        "h264_ts": (".ts", {"options": x264()}),
        "mpeg4_mp4": (".mp4", {"codec": "mpeg4", "container_options": {"movflags": "faststart"}}),
        "hevc_mp4": (".mp4", {"codec": "libx265", "options": X265, "container_options": {"movflags": "faststart"}}),
    }.items()
    for seed in range(3)
}
lost_sample = _lost_sample
