"""A picture of the events of videos: frames, a line of time, and bars."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hf_video.base.detection.types import Detection
from hf_video.errors import check_count
from hf_video.video.reader import VideoReader
from hf_video.video.time_lines import TimeBar, TimeLine, time_line_sheet

if TYPE_CHECKING:
    from PIL import Image


def event_sheet(
    found: Mapping[str | os.PathLike[str], Sequence[Detection]], *, frames: int = 12, backend: str = "auto"
) -> Image.Image:
    """Draws events: videos one below the other, each label with a lane of its own.

        event_sheet({"match.mp4": detect("match.mp4", threshold=0.5)}).save("events.png")

    Args:
        found: for each video, by its path or URL, its events.
        frames: of each video, evenly spread.
        backend: of `VideoReader`.

    Returns:
        A picture 1,280 pixels wide.

    Raises:
        VideoArrayError: no video at all; and what `VideoReader` raises.
    """
    check_count("frames", frames)
    lines = []
    for path, events in found.items():
        with VideoReader(path, shortest_edge=96, backend=backend, on_error="repeat") as reader:
            total, meta = len(reader.timestamps), reader.metadata
            middles = meta.begin + (np.arange(frames) + 0.5) / frames * meta.duration
            shown = np.searchsorted(reader.timestamps, middles, side="right").clip(1, total) - 1
            pixels = reader.get_frames(shown).data
        bars = [
            TimeBar(one.label, one.start, one.end, f"{one.score:.0%}" if 0 <= one.score <= 1 else "") for one in events
        ]
        lines.append(TimeLine(os.fspath(path), pixels, meta.begin, meta.begin + meta.duration, bars))
    return time_line_sheet(lines)
