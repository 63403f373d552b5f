"""A full inspection and a fingerprint from one opening and one decode of a file: what `hf-video check` does with each.

Only for files on which nothing is found: all others are inspected, and looked at, by `inspect_video` and `fingerprint`,
so that what is reported does not depend on the way.
"""

from __future__ import annotations

import os
from typing import Any

import av
import numpy as np
from PIL import Image

from hf_video.data.check.fingerprint import FRAMES, SIDE, middles
from hf_video.data.sources.inspection import Inspection, decode_strictly, stated_more
from hf_video.errors import VideoError
from hf_video.video.decode.container import OpenVideo
from hf_video.video.decode.media import media_from_path
from hf_video.video.decode.packets import build_table
from hf_video.video.decode.sources import is_encoded
from hf_video.video.frames.pixels import Painter, Sizing, clockwise_degrees, display_matrix

# Demuxers that stand before the first packet again after seeking to the first frame.
REWINDING = ("mov", "matroska")


def inspect_and_print(source: Any) -> tuple[Inspection, np.ndarray] | None:
    """A sound file's `inspect_video(source, level="full")` and `fingerprint(source)`; None for one that is no path, or
    where anything is out of the ordinary."""
    if not isinstance(source, str) or not os.path.isfile(source):
        return None
    video = None
    try:
        media = media_from_path(source)
        if not is_encoded(media):
            return None
        video = OpenVideo(media)
        return _look(video, media.label, os.path.getsize(source))
    except (VideoError, av.FFmpegError, OSError, ValueError, IndexError):
        return None
    finally:
        if video is not None:
            video.close()


def _look(video: OpenVideo, label: str, size: int) -> tuple[Inspection, np.ndarray] | None:
    table = build_table(video, label)
    if table.pts is None or not len(table):
        return None
    if video.touched:
        if video.kind.startswith(REWINDING):
            video.seek(int(table.pts[0]))
        else:
            video.reopen(strict=True)
    gallery = _Gallery(len(table))
    if decode_strictly(video, gallery.add):
        return None
    # In this order and no other: then frame i is what every way of reading takes for it.
    if gallery.stamps != table.pts.tolist() or gallery.prints is None:
        return None
    begin = float(table.seconds[0])
    height, width = gallery.size
    facts = {
        "frames": len(table),
        "fps": len(table) / (table.end - begin) if table.end > begin else 0.0,
        "seconds": table.end - begin,
        "height": height,
        "width": width,
        "codec": video.decoder.codec.canonical_name,
    }
    if stated_more(video.container, video.stream, facts, size):
        return None
    return Inspection(**facts), gallery.prints


class _Gallery:
    """Sees all frames of a video in order: their times, the size of the first, and the small pictures of a print."""

    def __init__(self, count: int):
        self.stamps: list[int | None] = []
        self.size = (0, 0)
        self.prints: np.ndarray | None = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
        self._places: dict[int, list[int]] = {}
        for place, index in enumerate(middles(count).tolist()):
            self._places.setdefault(index, []).append(place)
        self._painter = Painter(Sizing(), "exact")

    def add(self, frame: av.VideoFrame) -> None:
        index = len(self.stamps)
        self.stamps.append(frame.pts)
        if index == 0:
            height, width = frame.height, frame.width
            self._painter.coded_size = height, width
            self.size = (width, height) if clockwise_degrees(display_matrix(frame)) in (90, 270) else (height, width)
        if index != 0 and index not in self._places:
            return
        pixels = self._painter.rgb(frame)
        if pixels is None:
            self.prints = None
        elif index in self._places and self.prints is not None:
            # torch's kernel, by which readers resize, is at most one level away from PIL's.
            height, width = pixels.shape[:2]
            picture = Image.frombuffer("RGB", (width, height), np.ascontiguousarray(pixels), "raw", "RGB", 0, 1)
            self.prints[self._places[index]] = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
