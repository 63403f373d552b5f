"""Videos at a small size, for loaders: a decoder's work grows with pixels, and recipes crop 224 of 256."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import av

from hf_video.data.rows import ListedVideo, Skipped, plain_reason
from hf_video.data.sources.inspection import in_threads
from hf_video.errors import HFVideoError, VideoWriteError, check_count, fault_kind
from hf_video.video.frames.pixels import shortest_edge_size
from hf_video.video.reader import VideoReader
from hf_video.video.writer import write_video

# A keyframe each second or so: reading 16 frames of ten seconds then decodes little besides.
KEYFRAME_INTERVAL = 30
CHUNK = 16


def transcode_videos(
    videos: Sequence[ListedVideo], folder: str | os.PathLike[str], *, short_side: int = 256, crf: int = 20
) -> tuple[int, int, list[Skipped]]:
    """Writes each video as H.264 without sound into `folder`, under its own name with .mp4: the short side at most
    `short_side` pixels, every frame and the average frame rate kept, damaged frames replaced by their neighbours.

    Files appear whole or not at all, and those that are there are left as they are, so it can be stopped and started
    again. Works on all cores. Returns how many were written, how many were there, and what failed.
    Raises VideoOptionError for a `short_side` below 16.
    """
    check_count("short_side", short_side, least=16, unit="pixels")
    targets = _targets(videos, Path(folder))
    left = [number for number, target in enumerate(targets) if not target.exists()]
    results = in_threads(lambda i: _one(videos[i], targets[i], short_side, crf), left, "re-encoding")
    failed = [one for one in results if one is not None]
    return len(left) - len(failed), len(videos) - len(left), failed


def _targets(videos: Sequence[ListedVideo], folder: Path) -> list[Path]:
    """Where each goes. Two videos whose names differ only in their endings keep those."""
    names = [video.name.lstrip("/").replace("..", "_") for video in videos]
    stems = [os.path.splitext(name)[0] for name in names]
    counts = Counter(stems)
    return [
        folder / (f"{name}.mp4" if counts[stem] > 1 else f"{stem}.mp4") for name, stem in zip(names, stems, strict=True)
    ]


def _one(video: ListedVideo, target: Path, short_side: int, crf: int) -> Skipped | None:
    try:
        with VideoReader(video.source) as whole:
            about = whole.metadata
        height, width = about.height, about.width
        if min(height, width) > short_side:
            height, width = shortest_edge_size(height, width, short_side)
        size = max(height // 2 * 2, 2), max(width // 2 * 2, 2)  # H.264 halves colour
        target.parent.mkdir(parents=True, exist_ok=True)
        with VideoReader(video.source, size=size, on_error="repeat") as reader:
            frames = (frame for chunk in reader.chunks(CHUNK) for frame in chunk.data)
            write_video(
                target,
                frames,
                about.fps,
                crf=crf,
                keyframe_interval=KEYFRAME_INTERVAL,
                options={"preset": "fast"},
                num_threads=1,
            )
    except (HFVideoError, OSError, av.FFmpegError) as error:
        cause = error.__context__ if isinstance(error, VideoWriteError) else error
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise  # the disk's fault, and the next video's too
        return Skipped(video.name, plain_reason(error, video.source, video.name), fault_kind(error))
    return None
