"""The frames that the authors' own test code takes, where no sampler of `hf_video.video.sampling` takes the same.

The functions are samplers: (frames of the video, frames of a clip) to frame numbers (clips, frames).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hf_video.clips.request import Sampling, Views
from hf_video.errors import VideoError
from hf_video.video.sampling.frame_sample import FrameSample

if TYPE_CHECKING:
    from hf_video.video.frames.types import FrameTimes

# Frames of a video that is taken as one clip: a minute at 25 a second is 0.9 GB of 224 x 224 pixels.
LONGEST_WHOLE = 1500


def centered_clips(total: int, num_frames: int, *, stride: int = 1, num_clips: int = 1) -> np.ndarray:
    """mmaction2 of 2021, SampleFrames in test mode: of K equal parts of all places where a clip could begin, it begins
    in the middle; all clips at 0 where none fits, and the video is then shown again from its start."""
    part = max(total - num_frames * stride + 1, 0) / num_clips
    starts = (np.arange(num_clips) * part + part / 2).astype(np.int64)
    return (starts[:, None] + np.arange(num_frames) * stride) % total


def linspaced_clips(total: int, num_frames: int, *, stride: int = 1, num_clips: int = 1) -> np.ndarray:
    """DMVR (ViViT), sample_linspace_sequence: K starts from 0 to N - T·stride, truncated; one clip from the middle. A
    video that is too short is shown again from its start."""
    room = max(total - num_frames * stride, 0)
    starts = np.linspace(0, room, num_clips, dtype=np.float32).astype(np.int64) if num_clips > 1 else [room // 2]
    return (np.asarray(starts)[:, None] + np.arange(num_frames) * stride) % total


def whole_steps(total: int, num_frames: int, *, num_clips: int = 1, flow_length: int = 0) -> np.ndarray:
    """bryanyzhu/two-stream-pytorch, Video{Spatial,Temporal}Prediction: `num_clips` (or, of one clip, `num_frames`)
    frames, i·step, from the first one on, where step is a whole number: (N - 1) // (K - 1) for frames, (N - L) // K for
    stacks of L fields."""
    count = num_clips * num_frames
    step = (total - flow_length) // count if flow_length else (total - 1) // max(count - 1, 1)
    return np.minimum(np.arange(count) * max(step, 0), total - 1).reshape(num_clips, num_frames)


def clips_of_parts(total: int, num_frames: int, *, stride: int = 1, num_clips: int = 1) -> np.ndarray:
    """V-JEPA 2, VideoDataset with overlap allowed: a clip of T·stride frames from each of K equal parts of the video.
    Where the parts are shorter, clips begin at equal whole steps, so that the last ends with the video; one that is
    longer than the video shows its last frames again. The frames of a clip lie a little more than `stride` apart: they
    are spread over it with both ends. The authors draw a clip's place in its part; here it is the middle."""
    length, part = num_frames * stride, total // num_clips
    if part > length:
        start = (part - length) // 2
        frames = np.linspace(start, start + length, num_frames).clip(max=start + length - 1)
        return frames.astype(np.int64) + np.arange(num_clips)[:, None] * part
    last = min(length, total) - 1
    frames = np.full(num_frames, float(last))
    frames[: last // stride] = np.linspace(0, last, last // stride)
    step = (total - length) // (num_clips - 1) if total > length else 0
    return frames.clip(0, max(last - 1, 0)).astype(np.int64) + np.arange(num_clips)[:, None] * step


@dataclass(frozen=True)
class WholeVideo(Sampling):
    """All of a video at `options["target_fps"]` frames a second, as one clip (I3D). Raises VideoError for one that
    gives more than `LONGEST_WHOLE` frames."""

    def choose(self, video: FrameTimes, views: Views, seed: int | None = None) -> FrameSample:
        fps = self.options["target_fps"]
        count = max(round(video.metadata.duration * fps), 1)
        if count > LONGEST_WHOLE:
            raise VideoError(
                f"Seen whole, {video.metadata.duration:.0f} seconds are {count} frames at {fps} a second, and "
                f"{LONGEST_WHOLE} are allowed. Cut the video, or use clips: protocol 10x1."
            )
        steps = Sampling(count, "at_fps", options={"rate": 1, **self.options})
        return replace(steps.choose(video, Views()), short=False)
