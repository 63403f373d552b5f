"""The result of a sampler, and the samplers that spread a clip over the whole video (`samplers` says how)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_video.errors import (
    NoFramesError,
    SamplingError,
    ShortVideoError,
    check_choice,
    check_count,
    check_number,
    is_whole,
)
from hf_video.video.frames.types import VideoMetadata

Seed = int | np.random.Generator | None
SHORT_STRIDED = ("repeat_last", "loop", "error")
SHORT_SPREAD = ("stretch", *SHORT_STRIDED)


@dataclass(frozen=True)
class FrameSample:
    """What a sampler chose.

    Attributes:
        indices: Frame numbers, int64 (clips, frames); one clip is (1, frames).
        seconds: When each of these frames is first shown, float64 (clips, frames); None without a rate or timestamps.
        spans: From when to when each clip looks, the last frame's own duration included, float64 (clips, 2), or None.
        short: Whether the video had fewer frames than the sampler needed, so that some are there twice.
    """

    indices: np.ndarray
    seconds: np.ndarray | None = None
    spans: np.ndarray | None = None
    short: bool = False

    @property
    def num_clips(self) -> int:
        return self.indices.shape[0]

    @property
    def num_frames(self) -> int:
        """Frames in each clip."""
        return self.indices.shape[1]

    def __len__(self) -> int:
        return self.indices.size


@dataclass(frozen=True)
class Clock:
    """When frames are shown, in seconds: from a rate, or from the timestamps of all of them."""

    fps: float
    begin: float = 0.0
    starts: np.ndarray | None = None

    def start(self, indices: np.ndarray) -> np.ndarray:
        return self.begin + indices / self.fps if self.starts is None else self.starts[indices]

    def end(self, indices: np.ndarray) -> np.ndarray:
        if self.starts is None:
            return self.begin + (indices + 1) / self.fps
        ends = np.append(self.starts[1:], self.starts[-1] + 1 / self.fps)
        return ends[indices]


def read_total(
    total: int | VideoMetadata, fps: float | None, timestamps: Sequence[float] | np.ndarray | None
) -> tuple[int, Clock | None]:
    begin = 0.0
    if isinstance(total, VideoMetadata):
        fps, begin, total = fps or total.fps or None, total.begin, total.num_frames
    if not is_whole(total):
        raise SamplingError(f"total={total!r} must be a frame count (an int) or a VideoMetadata.")
    if total < 1:
        raise NoFramesError(f"The video has {total} frames, so there is nothing to sample.")
    if timestamps is not None:
        return int(total), clock_of(np.asarray(timestamps, dtype=np.float64), int(total), fps)
    if fps is None:
        return int(total), None
    check_number("fps", fps, SamplingError, above=0, hint=" It is in frames per second.")
    return int(total), Clock(float(fps), begin)


def clock_of(starts: np.ndarray, total: int, fps: float | None) -> Clock:
    if starts.shape != (total,) or (np.diff(starts) < 0).any():
        raise SamplingError(
            f"timestamps must hold the seconds of all {total} frames in display order; shape {starts.shape} came."
        )
    if not fps:
        fps = (total - 1) / (starts[-1] - starts[0]) if total > 1 and starts[-1] > starts[0] else 1.0
    return Clock(float(fps), float(starts[0]), starts)


def fold_short(steps: np.ndarray, length: int, short: str, needed: int) -> np.ndarray:
    """Bring positions beyond a video of `length` steps back into it, as `short` says."""
    if short == "error":
        raise ShortVideoError(
            f"The video gives {length} frames at this stride where {needed} are needed. Take fewer frames or a smaller "
            'stride, or allow short="repeat_last" or short="loop".'
        )
    return np.minimum(steps, length - 1) if short == "repeat_last" else steps % length


def make_sample(indices: np.ndarray, clock: Clock | None, *, short: bool) -> FrameSample:
    indices = np.atleast_2d(np.asarray(indices, dtype=np.int64))
    if clock is None:
        return FrameSample(indices, short=bool(short))
    spans = np.stack([clock.start(indices.min(1)), clock.end(indices.max(1))], axis=1)
    return FrameSample(indices, clock.start(indices), spans, bool(short))


def uniform(
    total: int | VideoMetadata,
    num_frames: int,
    *,
    mode: str = "segment_center",
    short: str = "stretch",
    fps: float | None = None,
    timestamps: Sequence[float] | None = None,
) -> FrameSample:
    """Spreads one clip evenly over the whole video.

        segment_center  |--#--|--#--|--#--|--#--|   floor((2i+1)N / 2T): the middle of T equal segments (TSN)
        floor           |#----|#----|#----|#----|   floor(iN / T): the first frame of each
        end_to_end       #------#-----#------#      floor(i(N-1) / (T-1)): both ends; T=1 takes frame 0
        rounded_center   |--#--|--#--|--#--|--#--|   floor((b(i) + b(i+1)) / 2) with whole borders
                                                    b(i) = round(i(N-1) / T): SlowFast's datasets/ssv2.py

    Args:
        total: Frames in the video (N), or its `VideoMetadata`.
        num_frames: Frames to take (T).
        mode: Which of the four.
        short: See `hf_video.video.sampling.samplers`.
        fps, timestamps: Frames per second, or the seconds of all N frames; only needed for `.seconds`.

    Returns:
        Indices of shape (1, T), and the seconds at which these frames are shown.

    Raises:
        SamplingError: An argument has another value than those listed.
        NoFramesError: The video has no frame.
        ShortVideoError: With `short="error"`, the video has fewer frames than are needed.
    """
    n, clock = read_total(total, fps, timestamps)
    check_choice("short", short, SHORT_SPREAD, SamplingError)
    t = check_count("num_frames", num_frames, SamplingError)
    check_choice("mode", mode, ("segment_center", "floor", "end_to_end", "rounded_center"), SamplingError)
    i = np.arange(t, dtype=np.int64)
    if n < t and short != "stretch":
        return make_sample(fold_short(i, n, short, t), clock, short=True)
    if mode == "segment_center":
        i = (2 * i + 1) * n // (2 * t)
    elif mode == "floor":
        i = i * n // t
    elif mode == "rounded_center":
        borders = np.round((n - 1) / t * np.arange(t + 1)).astype(np.int64)
        i = (borders[:-1] + borders[1:]) // 2
    else:
        i = i * (n - 1) // max(t - 1, 1)
    return make_sample(i, clock, short=n < t)


def random_segments(
    total: int | VideoMetadata,
    num_frames: int,
    *,
    seed: Seed = None,
    short: str = "stretch",
    fps: float | None = None,
    timestamps: Sequence[float] | None = None,
) -> FrameSample:
    """Draws one frame from each of T equal segments, in order: `uniform` for training (TSN).

        |-#---|----#|#----|---#-|

    Segment i holds the frames from floor(iN/T) up to floor((i+1)N/T), at least one.

    Args:
        seed: An int, a numpy `Generator` (which moves on), or None for a new draw every time.
        total, num_frames, short, fps, timestamps: As in `uniform`, and so the result and what is raised.
    """
    n, clock = read_total(total, fps, timestamps)
    check_choice("short", short, SHORT_SPREAD, SamplingError)
    t = check_count("num_frames", num_frames, SamplingError)
    i = np.arange(t, dtype=np.int64)
    if n < t and short != "stretch":
        return make_sample(fold_short(i, n, short, t), clock, short=True)
    first = i * n // t
    width = np.maximum((i + 1) * n // t - first, 1)
    return make_sample(first + np.random.default_rng(seed).integers(0, width), clock, short=n < t)


def adaptive(
    total: int | VideoMetadata,
    num_frames: int,
    *,
    energy: Sequence[float] | np.ndarray,
    uniform_share: float = 0.25,
    short: str = "stretch",
    fps: float | None = None,
    timestamps: Sequence[float] | None = None,
) -> FrameSample:
    """Takes more frames where more moves.

        energy   ....:|||:..........:||:....
        taken    #----####-----#----###----#

    Walks through the video at a speed that falls where `energy` is high, and takes a frame at equal intervals of that
    walk: the (i + 1/2)/T quantiles of the energy's running sum. Constant energy is exactly `uniform(mode=
    "segment_center")`. Where the video has enough frames no frame is taken twice.

    Args:
        energy: (N,) how much changes at each frame, 0 or more, in any unit; `motion_energy` measures it.
        uniform_share: Part of the frames, 0 to 1, that is spread evenly, so that a still passage is seen too.
        total, num_frames, short, fps, timestamps: As in `uniform`, and so the result and what is raised.
    """
    n, clock = read_total(total, fps, timestamps)
    check_choice("short", short, SHORT_SPREAD, SamplingError)
    t = check_count("num_frames", num_frames, SamplingError)
    weight = np.asarray(energy, dtype=np.float64)
    if weight.shape != (n,) or not np.isfinite(weight).all() or (weight < 0).any():
        raise SamplingError(
            f"energy must hold one finite number, 0 or more, for each of the {n} frames; shape {weight.shape} came."
        )
    check_number("uniform_share", uniform_share, SamplingError, least=0, most=1)
    if n < t or np.ptp(weight) == 0 or uniform_share == 1:
        return uniform(total, t, short=short, fps=fps, timestamps=timestamps)
    weight = uniform_share / n + (1 - uniform_share) * weight / weight.sum()
    cumulative = np.cumsum(_capped(weight, 1 / t))
    index = np.searchsorted(cumulative, (np.arange(t) + 0.5) / t * cumulative[-1], side="right")
    # The cap leaves one sample a frame but for rounding; this makes "no frame twice" hold to the letter.
    step = np.arange(t, dtype=np.int64)
    return make_sample(np.clip(np.maximum.accumulate(index - step), 0, n - t) + step, clock, short=False)


def _capped(weight: np.ndarray, cap: float) -> np.ndarray:
    """The weights, summing to 1, with none above `cap`: what is cut off goes to the others in proportion."""
    weight = weight / weight.sum()
    full = np.zeros(len(weight), dtype=bool)
    while (over := (weight > cap * (1 + 1e-12)) & ~full).any():
        full |= over
        rest = weight[~full].sum()
        left = 1 - cap * full.sum()
        if left <= 0 or not (~full).any():
            return np.where(full, cap, 0.0)
        weight = np.where(full, cap, weight * (left / rest) if rest > 0 else left / (~full).sum())
    return weight


def uniform_views(
    total: int | VideoMetadata,
    num_frames: int,
    *,
    num_clips: int = 2,
    short: str = "stretch",
    fps: float | None = None,
    timestamps: Sequence[float] | None = None,
) -> FrameSample:
    """Takes several clips that each cover the whole video, shifted against one another by a part of a segment.

        segments   |-----|-----|-----|
        clip 1      1     1     1
        clip 2         2     2     2

    VideoMAE's test protocol on Something-Something v2 (MCG-NJU/VideoMAE, ssv2.py): with tick = N/T all
    int(tick·(x + j/K)) are sorted and view k is every K-th of them from k on.

    Args:
        num_clips: Clips (K); the result has indices of shape (K, T).
        total, num_frames, short, fps, timestamps: As in `uniform`, and so what is raised.
    """
    n, clock = read_total(total, fps, timestamps)
    check_choice("short", short, SHORT_SPREAD, SamplingError)
    t, k = check_count("num_frames", num_frames, SamplingError), check_count("num_clips", num_clips, SamplingError)
    if n < t and short != "stretch":
        return make_sample(np.tile(fold_short(np.arange(t, dtype=np.int64), n, short, t), (k, 1)), clock, short=True)
    # floor(tick·(x + j/K)) = floor(N·(Kx + j) / (K·T)): already in order, and exact
    return make_sample((np.arange(t * k, dtype=np.int64) * n // (k * t)).reshape(t, k).T, clock, short=n < t)
