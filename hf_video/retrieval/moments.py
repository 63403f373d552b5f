"""Moments, the results of a search, and how they are shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from hf_video.clips.overlaps import Stretch, join_overlapping
from hf_video.errors import VideoError, VideoOptionError
from hf_video.video.contact_sheet import SheetClip, contact_sheet
from hf_video.video.frames.times import TOLERANCE, frames_at
from hf_video.video.reader import VideoReader
from hf_video.video.writer import write_video

_GREY = np.full((1, 90, 160, 3), 128, np.uint8)


@dataclass(frozen=True)
class Moment:
    """From `start` to `end` seconds of the video `path`, the score being the cosine of its vector and the query's, or
    for fingerprints what `compare` gave; 1 is the most."""

    path: str
    start: float
    end: float
    score: float

    @property
    def seconds(self) -> tuple[float, float]:
        return self.start, self.end

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.score:.3f}  {self.start:7.2f}-{self.end:.2f} s  {self.path}"


def merge_overlapping(moments: Sequence[Moment]) -> list[Moment]:
    """Joins moments that overlap.

    Args:
        moments: Of one or several videos.

    Returns:
        Those of one video that overlap as one, with the best score among them; the best first.
    """
    return [Moment(*one) for one in join_overlapping([Stretch(m.path, m.start, m.end, m.score) for m in moments])]


def image_as_video(image: str | os.PathLike[str] | Image.Image) -> np.ndarray:
    """An image, a path or one of PIL, as a video of one frame, uint8 (1, height, width, 3). Raises VideoOptionError for
    a video, and what `VideoReader` raises."""
    with VideoReader([image] if isinstance(image, Image.Image) else image) as reader:
        if len(reader) != 1:
            raise VideoOptionError(f"{image} has {len(reader)} frames, so it is not an image; give it as a video.")
        return reader.get_frames([0]).data


def moment_frames(moment: Moment, *, count: int = 4, shortest_edge: int = 160) -> np.ndarray:
    """uint8 (count, height, width, 3): frames evenly spread over a moment. Raises what `VideoReader` raises."""
    with VideoReader(moment.path, shortest_edge=shortest_edge, on_error="repeat", square_pixels=True) as reader:
        times = moment.start + (np.arange(count) + 0.5) * (moment.end - moment.start) / count
        return reader.get_frames_at(np.clip(times, reader.timestamps[0], reader.timestamps[-1])).data


def sheet(moments: Sequence[Moment], *, title: str = "", columns: int = 2) -> Image.Image:
    """Draws of four frames of each moment, ranked, with name, seconds and score; grey where the file is gone."""
    clips = []
    for rank, moment in enumerate(moments, start=1):
        try:
            frames, gone = moment_frames(moment), ""
        except VideoError:
            frames, gone = _GREY, "  (can't be read any more)"
        note = f"{moment.start:.2f}-{moment.end:.2f} s   score {moment.score:.3f}{gone}"
        clips.append(SheetClip(frames, f"{rank}. {os.path.basename(moment.path)}", note))
    return contact_sheet(clips, columns=min(columns, len(clips)), cell=160, title=title)


def write_moment(moment: Moment, path: str | os.PathLike[str], *, shortest_edge: int = 360) -> None:
    """Writes a moment as a small video, without sound, that any browser plays."""
    with VideoReader(moment.path, on_error="repeat") as reader:
        known = reader.timestamps
        edge = min(shortest_edge, reader.metadata.height, reader.metadata.width)
        rate = reader.metadata.fps
        shown = np.flatnonzero((known >= moment.start - TOLERANCE) & (known < moment.end - TOLERANCE))
        shown = shown if len(shown) else frames_at(known, [moment.start])
    with VideoReader(moment.path, shortest_edge=edge, on_error="repeat", square_pixels=True) as reader:
        frames = (reader.get_frames(shown[i : i + 32]).data for i in range(0, len(shown), 32))
        write_video(path, (frame for part in frames for frame in part), min(rate, 60), "h264", pad="edge")
