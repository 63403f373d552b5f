"""One job, many readers: open the file, find its length, read 16 uniform frames, close. (16, height, width, 3) uint8.

Libraries are imported inside, so that one that is missing costs only its own rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

FRAMES = 16
OURS, OURS_KEYFRAMES, OURS_TWICE = "hf_video", 'hf_video, snap="keyframe"', "hf_video, 2 threads"
STOCK = "transformers load_video"
TORCHCODEC, TORCHCODEC_APPROXIMATE, DECORD = "torchcodec exact", "torchcodec approximate", "decord"


def indices(total: int, frames: int = FRAMES) -> np.ndarray:
    """The same frames for everybody: the middles of equal parts."""
    return (2 * np.arange(frames) + 1) * total // (2 * frames)


def ours(path: Path, **options) -> np.ndarray:
    from hf_video.video import VideoReader

    with VideoReader(path, **options) as reader:
        return reader.get_frames(indices(reader.metadata.num_frames)).data


def keyframes(path: Path) -> np.ndarray:
    return ours(path, snap="keyframe")


def twice(path: Path) -> np.ndarray:
    return ours(path, num_threads=2)


def torchcodec(path: Path, seek_mode: str = "exact") -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), seek_mode=seek_mode, num_ffmpeg_threads=1, dimension_order="NHWC")
    return decoder.get_frames_at(indices(decoder.metadata.num_frames).tolist()).data.numpy()


def torchcodec_approximate(path: Path) -> np.ndarray:
    return torchcodec(path, "approximate")


def decord(path: Path) -> np.ndarray:
    from decord import VideoReader

    reader = VideoReader(str(path), num_threads=1)
    return reader.get_batch(indices(len(reader))).asnumpy()


def stock(path: Path, frames: int = FRAMES) -> np.ndarray:
    """transformers' own, on PyAV: it decodes from the first frame on, which also makes it the truth to compare with."""
    from transformers.video_utils import load_video

    def chosen(metadata, **_):
        return indices(metadata.total_num_frames, frames)

    return load_video(str(path), backend="pyav", sample_indices_fn=chosen)[0]


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    OURS: ours,
    TORCHCODEC: torchcodec,
    TORCHCODEC_APPROXIMATE: torchcodec_approximate,
    DECORD: decord,
    STOCK: stock,
    OURS_KEYFRAMES: keyframes,
    OURS_TWICE: twice,
}
NEEDS = {TORCHCODEC: "torchcodec", TORCHCODEC_APPROXIMATE: "torchcodec", DECORD: "decord"}
