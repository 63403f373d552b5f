"""A video with something drawn onto every frame: the same frames at the same times, with the same sound."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm
from transformers.utils import logging

from hf_video.errors import VideoWriteError
from hf_video.video.frames.types import VideoMetadata, VideoSource
from hf_video.video.reader import VideoReader
from hf_video.video.sound import Sound
from hf_video.video.writer import write_video


@dataclass(frozen=True)
class DrawnVideo:
    """A video that was written: its `path`, how many `frames` it has, their (height, width) in pixels as `size`, and
    what became of each track of sound (see `hf_video.video.Sound`)."""

    path: Path
    frames: int
    size: tuple[int, int]
    sound: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrawnOn:
    """What a drawer is told of the video: `metadata` as the reader knows it, (height, width) in pixels of the frames
    that it gets as `size`, `begin` and `end` in seconds of the source, and `shift`, the seconds that are added to them
    in the file that is written."""

    metadata: VideoMetadata
    size: tuple[int, int]
    begin: float
    end: float
    shift: float = 0.0


Draw = Callable[[Image.Image, float], Image.Image]


def draw_on_video(
    source: VideoSource,
    path: str | os.PathLike[str],
    drawer: Callable[[DrawnOn], Draw],
    *,
    codec: str | None = None,
    crf: int | None = None,
    options: Mapping[str, Any] | None = None,
    on_error: str = "raise",
    fps: float | None = None,
) -> DrawnVideo:
    """Writes a video anew with something drawn onto every frame.

    Frames come upright, and with square pixels, so that they look in every player as the source does. Each keeps its
    own time, also where the rate varies, and the sound stays in sync with them. A source that begins late (most
    recordings of television) is moved as a whole, so that its first picture or sound is at 0. One frame is in memory
    at once.

    Args:
        source: What `VideoReader` reads.
        path: The file to write; its suffix names the container, as in `write_video`.
        drawer: Is called once, with what is known of the video, and returns what draws: a function from an RGB image of
            PIL and the seconds of the source at which it is shown to the image to write, all of one size.
        codec, crf, options: Of `write_video`.
        on_error: "raise" or "repeat": damaged frames show their nearest good neighbour.
        fps: Frames per second of a source without times.

    Returns:
        What was written.

    Raises:
        VideoWriteError: The file is the source itself, or can't be written (see `write_video`).
        VideoError: The source can't be read (see `VideoReader`).
    """
    named = source if isinstance(source, (str, os.PathLike)) else ""
    if os.path.exists(named) and os.path.exists(path) and os.path.samefile(named, path):
        raise VideoWriteError(f"{os.fspath(path)} is the video that is read. Write to another file.")
    with VideoReader(source, square_pixels=True, on_error=on_error, fps=fps) as reader:
        seconds = np.append(reader.timestamps, reader.end)
        with closing(Sound(reader)) as sound:
            starts = [seconds[0], *([] if sound.start is None else [sound.start])]
            shift = -seconds[0] if seconds[0] < 0 else -max(0.0, min(starts))
            sound.shift = shift = float(shift)
            size = reader.get_frames(0).data.shape[1:3]
            draw = drawer(DrawnOn(reader.metadata, size, float(seconds[0]), float(seconds[-1]), shift))
            images = _drawn(reader, draw, len(seconds) - 1)
            written = write_video(
                path, images, codec=codec, crf=crf, options=options, seconds=seconds + shift, sound=sound, pad="edge"
            )
    return DrawnVideo(written, len(seconds) - 1, size, sound.tracks)


def _drawn(reader: VideoReader, draw: Draw, total: int) -> Iterator[Image.Image]:
    shown = logging.is_progress_bar_enabled()
    for frames in tqdm(reader, total=total, desc="drawing", unit="frame", disable=None if shown else True):
        yield draw(Image.fromarray(frames.data[0]), float(frames.seconds[0]))
