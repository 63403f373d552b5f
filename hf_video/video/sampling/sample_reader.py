"""A sampler applied to an open video: by name or by hand, with the video's own clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hf_video.errors import SamplingError
from hf_video.video.sampling.frame_sample import FrameSample, make_sample, read_total
from hf_video.video.sampling.samplers import SAMPLERS, adaptive, resolve


def sample_video(
    reader: Any, num_frames: int, *, sampler: str | Callable[..., FrameSample] = "uniform", **options: Any
) -> FrameSample:
    """Apply a sampler to an open `VideoReader`, with the reader's own clock; `adaptive` measures the motion first.

        sample = sample_video(reader, 16, sampler="dense", stride=4, num_clips=5)
        frames = reader.get_frames(sample.indices.ravel())

    A callable of your own gets `(number of frames, num_frames, **options)` and returns indices. `options` go to the
    sampler; its errors come through, and an option that it does not have is a SamplingError.
    """
    function = resolve(sampler)
    if function is adaptive and "energy" not in options:
        from hf_video.video.sampling.motion import motion_energy

        options["energy"] = motion_energy(reader)
    if function not in SAMPLERS.values():
        return _checked(function(reader.metadata.num_frames, num_frames, **options), reader)
    try:
        return function(reader.metadata, num_frames, **{"timestamps": reader.timestamps, **options})
    except TypeError as error:
        raise SamplingError(f"The sampler {function.__name__} does not take these options: {error}.") from error


def _checked(chosen: Any, reader: Any) -> FrameSample:
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
