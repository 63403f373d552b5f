"""Which frames to look at: functions from a frame count to frame numbers.

Every sampler takes the number of frames first (or a `VideoMetadata`, which brings the rate with it), everything else
by keyword, and returns a `FrameSample`: the indices and the seconds they show. The same seed gives the same indices,
and no index ever leaves the video. A video with fewer frames than asked for is a named choice, never a surprise:

    short="repeat_last"   0 1 2 2 2 2      what the official loaders do with a strided clip
    short="loop"          0 1 2 0 1 2
    short="error"         raises ShortVideoError
    short="stretch"       0 0 1 1 2 2      samplers that spread over the whole video; their default

In the pictures each character is a frame, `#` one that is taken and `|` the border of a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hf_video.video.frames.types import FrameTimes

from hf_video.errors import SamplingError, check_choice, check_count, check_number, unknown_name
from hf_video.video.frames.types import VideoMetadata
from hf_video.video.sampling.frame_sample import (
    SHORT_STRIDED,
    FrameSample,
    Seed,
    adaptive,
    fold_short,
    make_sample,
    random_segments,
    read_total,
    uniform,
    uniform_views,
)


def center(
    total: int | VideoMetadata,
    num_frames: int,
    *,
    stride: int = 1,
    short: str = "repeat_last",
    fps: float | None = None,
    timestamps: Sequence[float] | None = None,
) -> FrameSample:
    """Takes one clip from the middle of the video, every `stride`-th frame.

        --------#--#--#--#--------   T=4, stride=3

    The clip spans (T-1)·stride + 1 frames and starts at floor((N - span) / 2), at 0 where the video is shorter.

    Args:
        total, num_frames, stride, short, fps, timestamps: As in `dense`, and so what is raised.
    """
    n, clock = read_total(total, fps, timestamps)
    check_choice("short", short, SHORT_STRIDED, SamplingError)
    t, s = check_count("num_frames", num_frames, SamplingError), check_count("stride", stride, SamplingError)
    span = (t - 1) * s + 1
    start = max(n - span, 0) // 2
    steps = fold_short(np.arange(t, dtype=np.int64), -(-n // s), short, t) if n < span else np.arange(t, dtype=np.int64)
    return make_sample(start + steps * s, clock, short=n < span)


def dense(
    total: int | VideoMetadata,
    num_frames: int,
    *,
    stride: int = 1,
    num_clips: int = 1,
    start: str = "spread",
    seed: Seed = None,
    short: str = "repeat_last",
    fps: float | None = None,
    timestamps: Sequence[float] | None = None,
) -> FrameSample:
    """Takes clips of frames that are `stride` frames apart.

        video            ---------------------------
        stride=3         #--#--#--#--#--#--#--#--#--   the L = ceil(N/stride) frames that clips are cut from
        spread, 3 clips  1--1--1--1
                                 2--2--2--2
                                       3--3--3--3      first clip at the start, last at the end
        random, 1 clip   ---#--#--#--#--------------   anywhere, for training

    `"spread"` is VideoMAE's test protocol (MCG-NJU/VideoMAE, kinetics.py): clip k starts at
    int(k · max((L - T)/(K - 1), 0)) in the strided list; a single clip is taken from its middle. `"random"` draws each
    clip's first frame from all that fit, and returns the clips in order of time.

    Args:
        total: Frames in the video (N), or its `VideoMetadata`.
        num_frames: Frames of a clip (T).
        stride: Frames from one to the next.
        num_clips: Clips (K).
        start: `"spread"` or `"random"`.
        seed: For `"random"`: an int, a numpy `Generator`, or None for a new draw every time.
        short: `"repeat_last"`, `"loop"` or `"error"`: see the top of this file.
        fps, timestamps: Frames per second, or the seconds of all N frames; only needed for `.seconds`.

    Returns:
        Indices of shape (K, T), and the seconds at which these frames are shown.

    Raises:
        SamplingError, NoFramesError, ShortVideoError: As in `uniform`.
    """
    n, clock = read_total(total, fps, timestamps)
    check_choice("short", short, SHORT_STRIDED, SamplingError)
    t, s, k = (
        check_count("num_frames", num_frames, SamplingError),
        check_count("stride", stride, SamplingError),
        check_count("num_clips", num_clips, SamplingError),
    )
    check_choice("start", start, ("spread", "random"), SamplingError)
    steps = np.arange(t, dtype=np.int64)
    length = -(-n // s)
    if length < t:
        folded = fold_short(steps, length, short, t) * s
        return make_sample(np.tile(folded, (k, 1)), clock, short=True)
    if start == "random":
        last = n - ((t - 1) * s + 1)
        first = np.sort(np.random.default_rng(seed).integers(0, last + 1, size=k))
    elif k == 1:
        first = np.array([(length - t) // 2 * s])
    else:
        # In floating point on purpose: where (L-T)/(K-1) does not divide, truncation decides which frame it is.
        first = np.array([int(j * max((length - t) / (k - 1), 0)) * s for j in range(k)])
    return make_sample(first[:, None] + steps * s, clock, short=False)


def at_fps(
    total: int | VideoMetadata,
    num_frames: int,
    *,
    rate: float,
    target_fps: float = 30.0,
    num_clips: int = 1,
    start: str = "begin",
    seed: Seed = None,
    short: str = "repeat_last",
    fps: float | None = None,
    timestamps: Sequence[float] | None = None,
) -> FrameSample:
    """Takes clips of one length in *seconds* whatever the video's rate: T frames, `rate` apart at `target_fps`.

        60 fps   #-------#-------#-------#    rate 4 at 30 fps: 0.13 s from frame to frame
        30 fps   #---#---#---#
        15 fps   #-#-#-#

    As in TimeSformer and SlowFast (facebookresearch/TimeSformer, datasets/decoder.py): the clip is
    rate·T·fps/target_fps frames long, and `linspace(start, start + length - 1, T)`, in float32 and truncated, gives
    its frames. With room = max(N - length, 0), clip k of K starts at

        begin    room · k/K                     theirs: one clip begins with the video, the last one ends before it
        spread   k · floor(room / (K-1))        SlowFast's USE_OFFSET_SAMPLING (MViT): from start to end; a single clip
                                                at floor(room / 2), in the middle
        center   room · (k + 1/2)/K
        random   anywhere

    Args:
        rate: Frames at `target_fps` from one taken frame to the next (32 in 8x32).
        target_fps: The rate that `rate` is counted in, frames per second.
        fps: The video's own rate, frames per second; not needed with a `VideoMetadata`.
        start: Where the clips lie, as above.
        total, num_frames, num_clips, seed, short, timestamps: As in `dense`, and so the result and what is raised.

    Raises:
        SamplingError: Nothing says how fast the video is.
    """
    n, clock = read_total(total, fps, timestamps)
    check_choice("short", short, SHORT_STRIDED, SamplingError)
    t, k = check_count("num_frames", num_frames, SamplingError), check_count("num_clips", num_clips, SamplingError)
    check_choice("start", start, ("begin", "spread", "center", "random"), SamplingError)
    if clock is None:
        raise SamplingError("at_fps needs to know how fast the video is: pass fps=, timestamps= or a VideoMetadata.")
    check_number("rate", rate, SamplingError, above=0)
    check_number("target_fps", target_fps, SamplingError, above=0)
    length = rate * t * clock.fps / target_fps
    room = max(n - length, 0)
    first: np.ndarray
    if start == "random":
        first = np.sort(np.random.default_rng(seed).uniform(0, room, size=k))
    elif start == "spread":
        first = np.arange(k) * (room // (k - 1)) if k > 1 else np.array([room // 2])
    else:
        first = room * (np.arange(k) + (0.5 if start == "center" else 0.0)) / k
    index = np.stack([_truncated_linspace(f, f + length - 1, t) for f in first])
    outside = index.max() >= n
    return make_sample(
        fold_short(np.maximum(index, 0), n, short, t) if outside else np.maximum(index, 0), clock, short=outside
    )


def _truncated_linspace(first: float, last: float, count: int) -> np.ndarray:
    """`torch.linspace(first, last, count).long()` to the bit: float32, counted from the nearer end, fused multiply-add.

    The official loaders truncate its result, so a last bit decides between two frames.
    """
    first, last = np.float32(first), np.float32(last)
    step = np.float64((last - first) / np.float32(max(count - 1, 1)))
    i = np.arange(count, dtype=np.float64)
    values = np.where(i < count // 2, np.float64(first) + step * i, np.float64(last) - step * (count - 1 - i))
    if count == 1:
        values = np.array([first], dtype=np.float64)
    return values.astype(np.float32).astype(np.int64)


# The samplers by the names that `sampler=` and `--sampler` take.
SAMPLERS: dict[str, Callable[..., FrameSample]] = {
    "uniform": uniform,
    "random": random_segments,
    "center": center,
    "dense": dense,
    "at_fps": at_fps,
    "uniform_views": uniform_views,
    "adaptive": adaptive,
}


def resolve(sampler: str | Callable[..., FrameSample]) -> Callable[..., FrameSample]:
    """Finds a sampler.

    Args:
        sampler: A name of `SAMPLERS`, or a callable, which is returned as it is.

    Returns:
        The sampler.

    Raises:
        SamplingError: There is no such name; says the nearest.
    """
    if callable(sampler):
        return sampler
    if isinstance(sampler, str) and sampler in SAMPLERS:
        return SAMPLERS[sampler]
    raise SamplingError(unknown_name("There is no sampler", sampler, SAMPLERS, cutoff=0.4, also=", or any callable"))


def sample_video(
    reader: FrameTimes, num_frames: int, *, sampler: str | Callable[..., FrameSample] = "uniform", **options: Any
) -> FrameSample:
    """Apply a sampler to an open `VideoReader`, with the reader's own clock; `adaptive` measures the motion first.

        sample = sample_video(reader, 16, sampler="dense", stride=4, num_clips=5)
        frames = reader.get_frames(sample.indices.ravel())

    Args:
        reader: The open video.
        num_frames: Frames of each clip.
        sampler: Name in `SAMPLERS`, or a callable.
        options: Options of the sampler.

    Returns:
        Indices of shape (clips, frames), and when these frames are shown, in seconds.

    Raises:
        SamplingError: The sampler is unknown, has no such option, or chooses frames that the video hasn't.

    A callable of your own gets `(number of frames, num_frames, **options)` and returns indices. Errors of a sampler
    come through.
    """
    function = resolve(sampler)
    if function is adaptive and "energy" not in options:
        from hf_video.video.sampling.motion import motion_energy

        options["energy"] = motion_energy(reader)  # type: ignore[arg-type]
    if function not in SAMPLERS.values():
        return _checked(function(reader.metadata.num_frames, num_frames, **options), reader)
    try:
        return function(reader.metadata, num_frames, **{"timestamps": reader.timestamps, **options})
    except TypeError as error:
        raise SamplingError(f"The sampler {function.__name__} does not take these options: {error}.") from error


def _checked(chosen: FrameSample | ArrayLike, reader: FrameTimes) -> FrameSample:
    """The answer of a sampler that isn't ours: a FrameSample or bare indices, (frames,) or (clips, frames)."""
    indices = chosen.indices if isinstance(chosen, FrameSample) else np.atleast_2d(np.asarray(chosen))
    total = reader.metadata.num_frames
    whole = indices.size and indices.ndim == 2 and np.issubdtype(indices.dtype, np.integer)
    if not whole or indices.min() < 0 or indices.max() >= total:
        raise SamplingError(
            f"A sampler must return whole numbers from 0 to {total - 1}, of shape (frames,) or (clips, frames); "
            f"this one returned {indices.dtype} of shape {indices.shape}"
            + (f" from {indices.min()} to {indices.max()}." if indices.size else ".")
        )
    if isinstance(chosen, FrameSample) and chosen.seconds is not None:
        return chosen
    _, clock = read_total(reader.metadata, None, reader.timestamps)
    return make_sample(indices, clock, short=False)
