"""Clips around key frames: which frames of a video belong to a moment of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hf_video.clips.request import STRIDE_NAMES, ClipRequest, Sampling, Views
from hf_video.errors import FrameIndexError, VideoOptionError
from hf_video.video.frames.times import frames_at
from hf_video.video.frames.types import FrameTimes
from hf_video.video.sampling.frame_sample import FrameSample, clock_of
from hf_video.video.sampling.samplers import at_fps, resolve


def frames_around(
    timestamps: np.ndarray, seconds: np.ndarray, num_frames: int, stride: float, fps: float | None = None
) -> np.ndarray:
    """Frames of clips with a key frame in their middle, as AVA's code takes them: key - T·stride/2 to key + T·stride/2,
    every `stride`-th; beyond the ends of the video its first or last frame.

    Args:
        timestamps: (N,), when each frame of the video is shown, in seconds.
        seconds: (K,), of the key frames.
        num_frames: T, frames of a clip.
        stride: Frames from one taken frame to the next: of the video, or of one with `fps` frames per second.
        fps: The rate that `stride` is counted in; None for the video's own frames.

    Returns:
        (K, T + 1), int64: the frames of each clip, and behind them its key frame.
    """
    keys = frames_at(timestamps, seconds)
    steps = np.arange(num_frames) * stride - int(num_frames * stride) // 2
    if fps is None:
        indices = (keys[:, None] + np.round(steps).astype(np.int64)).clip(0, len(timestamps) - 1)
    else:
        times = timestamps[keys][:, None] + steps / fps
        indices = frames_at(timestamps, times.clip(timestamps[0], timestamps[-1]).ravel()).reshape(times.shape)
    return np.concatenate((indices, keys[:, None]), axis=1).astype(np.int64)


@dataclass(frozen=True)
class KeyFrameSampling(Sampling):
    """A clip around each key frame, and the key frame behind its frames. `moments` gives their seconds from those at
    which a video begins and ends."""

    moments: Callable[[float, float], np.ndarray] | None = None

    def choose(self, video: FrameTimes, views: Views, seed: int | None = None) -> FrameSample:
        meta, starts = video.metadata, np.asarray(video.timestamps)
        begin, end = meta.begin, meta.begin + meta.duration
        seconds = np.array([begin]) if self.moments is None else np.asarray(self.moments(begin, end), dtype=np.float64)
        outside = seconds[(seconds < begin - 1e-6) | (seconds > end + 1e-6)]
        if len(outside):
            raise FrameIndexError(f"A key frame at {outside[0]:g} s: the video goes from {begin:g} to {end:g} s.")
        stride, fps = self.distance()
        indices = frames_around(starts, seconds.clip(starts[0], None), self.num_frames, stride, fps)
        clock = clock_of(starts, len(starts), meta.fps)
        clips = indices[:, :-1]
        spans = np.stack([clock.start(clips.min(1)), clock.end(clips.max(1))], axis=1)
        return FrameSample(indices, clock.start(indices), spans)

    def distance(self) -> tuple[float, float | None]:
        """Frames from one taken frame to the next, and the rate that they are counted in, None for the video's own."""
        if self.stride is not None:
            return self.stride, None
        function = resolve(self.sampler or "uniform")
        name = STRIDE_NAMES.get(function)
        if name is None or name not in self.options:
            raise VideoOptionError(
                f"The sampler {getattr(function, '__name__', function)!r} spreads frames over a whole video, and clips "
                "around key frames need a distance from frame to frame: pass frame_sampling_rate= (AVA: 2 for "
                "SlowFast, 16 for Slow, 4 for VideoMAE)."
            )
        return self.options[name], self.options.get("target_fps", 30.0) if function is at_fps else None


def every(step: float, begin: float, end: float) -> np.ndarray:
    """Seconds in the middle of stretches of `step` seconds, side by side from `begin` on; one of a shorter video."""
    count = max(int((end - begin) / step + 1e-6), 1)
    middle = min(step, end - begin) / 2
    return begin + middle + step * np.arange(count)


def just(seconds: tuple[float, ...], begin: float, end: float) -> np.ndarray:
    """These seconds, of whatever video."""
    return np.asarray(seconds, dtype=np.float64)


def around_key_frames(request: ClipRequest, moments: Callable[[float, float], np.ndarray]) -> ClipRequest:
    """The request for clips around key frames, each with its key frame behind its frames, by one decode."""
    if request.snap is not None:
        raise VideoOptionError(
            f"snap={request.snap!r} would show other frames than those around key frames: leave it out."
        )
    given = request.sampling
    sampling = KeyFrameSampling(given.num_frames, given.sampler, given.stride, given.options, moments=moments)
    sampling.distance()
    return replace(request, sampling=sampling, views=Views(), windows=None)
