"""Clips to read: textures that pan under moving discs, with grain, so that a codec has as much to do as with a camera.

Encoded once with hf_video's own writer and kept in a cache folder. The 5-minute files repeat one encoded stretch
(packets with shifted times, no second encoding): a decoder's work for a frame is the same in each repetition, and
making them takes seconds instead of minutes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from hf_video.video import write_video

RECIPE = 1  # part of the file names: raise it when the content or the encoder's settings change
FPS = 30


@dataclass(frozen=True)
class Recipe:
    """`frames` encoded, then the whole repeated `times` times. `gop` must divide `frames` where it is repeated."""

    name: str
    height: int
    width: int
    frames: int
    gop: int = 250
    times: int = 1
    preset: str = "medium"

    @property
    def long(self) -> bool:
        return self.times > 1


FULL = {
    "short": Recipe("10 s 640x480", 480, 640, 300),
    "small": Recipe("10 s 340x256", 256, 340, 300),
    "long30": Recipe("5 min 720p, gop 30", 720, 1280, 1500, gop=30, times=6, preset="veryfast"),
    "long250": Recipe("5 min 720p, gop 250", 720, 1280, 1500, gop=250, times=6, preset="veryfast"),
}
QUICK = {
    "short": Recipe("2 s 160x120", 120, 160, 60),
    "small": Recipe("2 s 128x96", 96, 128, 60),
    "long30": Recipe("12 s 320x180, gop 30", 180, 320, 60, gop=30, times=6, preset="veryfast"),
    "long250": Recipe("12 s 320x180, gop 60", 180, 320, 60, gop=60, times=6, preset="veryfast"),
}


def clip(recipe: Recipe, cache: Path) -> Path:
    """The file of a recipe, made if the cache hasn't got it."""
    cache.mkdir(parents=True, exist_ok=True)
    stem = f"v{RECIPE}-{recipe.height}p-{recipe.frames}x{recipe.times}-gop{recipe.gop}-{recipe.preset}"
    path = cache / f"{stem}.mp4"
    if path.exists():
        return path
    print(f"  encoding {recipe.name} into {path}", flush=True)
    options = {"preset": recipe.preset, "bf": "3"}
    if recipe.long:
        options["sc_threshold"] = "0"  # keyframes only where the gop says, so that every repetition is alike
    stretch = cache / f"{stem}.part{os.getpid()}.mp4"
    write_video(
        stretch,
        content(recipe.frames, recipe.height, recipe.width),
        FPS,
        crf=23,
        keyframe_interval=recipe.gop,
        options=options,
    )
    if recipe.long:
        whole = cache / f"{stem}.whole{os.getpid()}.mp4"
        repeat(stretch, whole, recipe.times, recipe.frames)
        stretch.unlink()
        stretch = whole
    os.replace(stretch, path)
    return path


def content(frames: int, height: int, width: int, seed: int = 0) -> Iterator[np.ndarray]:
    """(height, width, 3) uint8 frames, one by one."""
    random = np.random.default_rng(seed)
    margin = 96
    ground = _texture(random, height + 2 * margin, width + 2 * margin)
    sprites = [_texture(random, height // 3, height // 3) for _ in range(4)]
    disc = _disc(height // 3)
    # Grain that changes from frame to frame is what keeps B-frames and residuals from being empty.
    grain = [random.normal(0, 3, (height, width, 1)).astype(np.int16) for _ in range(7)]
    speeds = random.uniform(0.5, 1.5, (len(sprites), 2))
    for number, noise in zip(range(frames), itertools.cycle(grain), strict=False):
        y = int(margin * (1 + np.sin(number / 37)))
        x = int(margin * (1 + np.sin(number / 53 + 1)))
        frame = ground[y : y + height, x : x + width] + noise
        for sprite, (down, across) in zip(sprites, speeds, strict=True):
            top = int((height - len(disc)) * (0.5 + 0.5 * np.sin(number * down / 20)))
            left = int((width - len(disc)) * (0.5 + 0.5 * np.sin(number * across / 25 + down)))
            place = frame[top : top + len(disc), left : left + len(disc)]
            np.copyto(place, sprite, where=disc)
        yield frame.clip(0, 255).astype(np.uint8)


def _texture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Colour noise of several sizes summed, int16 (height, width, 3): coarse patches with fine detail."""
    total = np.full((height, width, 3), 128.0)
    for cell, strength in ((64, 40), (16, 25), (4, 15), (1, 6)):
        shape = (height // cell + 1, width // cell + 1, 3)
        noise = random.normal(0, strength, shape).repeat(cell, axis=0).repeat(cell, axis=1)
        total += noise[:height, :width]
    return total.clip(0, 255).astype(np.int16)


def _disc(size: int) -> np.ndarray:
    y, x = np.ogrid[:size, :size]
    return (((y - size / 2) ** 2 + (x - size / 2) ** 2) < (size / 2) ** 2)[:, :, None]


def repeat(source: Path, target: Path, times: int, frames: int) -> None:
    """`target` shows `source`, of `frames` frames, `times` times over. Its stretches begin with keyframes and refer to
    nothing outside (x264's closed gops), so packets may follow each other with shifted times."""
    with av.open(str(target), "w") as output:
        stream = None
        for number in range(times):
            with av.open(str(source)) as part:
                video = part.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                shift = round(number * frames / FPS / video.time_base)
                for packet in part.demux(video):
                    if packet.dts is None:  # the demuxer's end mark
                        continue
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = stream
                    output.mux(packet)
