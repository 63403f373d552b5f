"""Clips with a flash and a beep at the same moments, and ways to find both in a file again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16_000  # of the sound
FLASHES = (0.5, 1.3)  # seconds; each lasts `LIT`
LIT = 0.2


def picture(second: float, height: int, width: int, aspect: float = 1.0) -> np.ndarray:
    """A frame whose disc is round where a player shows a pixel `aspect` times as wide as high, with a red corner at the
    top left, and a white frame while it flashes."""
    y, x = np.mgrid[:height, :width]
    frame = np.full((height, width, 3), 70, np.uint8)
    frame[((x - width / 2) * aspect) ** 2 + (y - height / 2) ** 2 < (0.3 * height) ** 2] = (60, 200, 90)
    frame[: height // 6, : width // 6] = (220, 30, 30)
    if any(at <= second < at + LIT for at in FLASHES):
        frame[: height // 2, width // 2 :] = 255
    return frame


def beeps(seconds: float) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    heard = sum(((times >= at) & (times < at + LIT)) for at in FLASHES)
    return (0.6 * np.sin(2 * np.pi * 1000 * times) * heard).astype(np.float32)


def write(
    path: Path,
    times: np.ndarray,
    *,
    size: tuple[int, int] = (120, 160),
    aspect: Fraction = Fraction(1),
    rotation: int | None = None,
    audio: str | None = "aac",
    begin: float = 0.0,
) -> Path:
    """Frames at `times` (the last one an end), `begin` seconds late, as its sound is. `rotation` turns what was drawn
    upright, as a phone that was held so."""
    base = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        rate = 48_000 if audio == "libopus" else RATE
        sound = container.add_stream(audio, rate=rate, layout="mono") if audio else None
        turned = rotation in (90, -90)
        stream.height, stream.width = size[::-1] if turned else size
        stream.pix_fmt, stream.codec_context.sample_aspect_ratio = "yuv420p", aspect
        stream.codec_context.time_base = stream.time_base = base
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if sound is not None:
            samples = beeps(float(times[-1]))
            for start in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = start + round(begin * RATE)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        for second in times[:-1]:
            pixels = picture(float(second), *size, float(aspect))
            # `rotation` degrees counter-clockwise are what a player undoes.
            pixels = np.ascontiguousarray(np.rot90(pixels, -(rotation or 0) // 90))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round((float(second) + begin) / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def lit(frames: np.ndarray) -> np.ndarray:
    """Which frames (T, H, W, 3) flash."""
    height, width = frames.shape[1:3]
    return frames[:, height // 8 : height // 4, 5 * width // 8 : 7 * width // 8].mean((1, 2, 3)) > 200


def first_beeps(path: Path) -> list[float]:
    """When beeps begin, in seconds of the file, and 0 samples before the file's sound count as silence."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", RATE)
        heard, begin = [], None
        for frame in container.decode(audio=0):
            begin = float(frame.pts * frame.time_base) if begin is None else begin
            heard += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        heard += [part.to_ndarray()[0] for part in resampler.resample(None)]
    loud = np.abs(np.concatenate(heard)) > 0.15
    loud = np.convolve(loud, np.ones(RATE // 100), "same") > 0
    return [begin + i / RATE for i in np.flatnonzero(np.diff(loud.astype(int)) == 1)]
