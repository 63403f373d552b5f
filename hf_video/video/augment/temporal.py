"""Augmentation in time: frame numbers in, frame numbers out, before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_video.errors import FrameIndexError, VideoOptionError, check_number
from hf_video.video.augment.checks import checked_range, numpy_generator
from hf_video.video.augment.labels import REVERSE_WORDS, directed_labels, quoted

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class TemporalAugmentation:
    """Changes which frames a sampler chose: first the speed, then the jitter, then the direction.

        speed    #---#---#---#        #------#------#------#     twice the span from the same middle
        jitter   #---#---#---#        -#--#----#---#             each frame within its own step
        reverse  0 4 8 12             12 8 4 0

    Args:
        jitter: 0 to 1: how much of its own step a frame may move within: by up to half a step, times this. The order of
            frames stays.
        reverse: Probability that the clip is played backwards. See `for_labels`.
        speed: (low, high): the span of the clip is multiplied by a factor between them, uniform in the logarithm, so
            that 0.5 and 2 are as likely. A clip can't span more than its video: there the factor is as large as the
            video allows, and a clip that would begin or end outside of it is moved inside.

    Raises:
        VideoOptionError: A value lies outside of what is written here.
    """

    _: KW_ONLY
    jitter: float = 0.0
    reverse: float = 0.0
    speed: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_number("jitter", self.jitter, least=0, most=1)
        check_number("reverse", self.reverse, least=0, most=1)
        if self.speed is not None:
            object.__setattr__(self, "speed", checked_range("speed", self.speed, 0, float("inf")))

    def for_labels(self, labels: Sequence[str]) -> TemporalAugmentation:
        """Checks that no label becomes wrong.

        Args:
            labels: The classes' names.

        Returns:
            This augmentation.

        Raises:
            VideoOptionError: Clips may be reversed and a class has a direction in time or space, such as "opening" or
                "left":
                backwards it is another class.
        """
        directed = directed_labels(labels, words=REVERSE_WORDS) if self.reverse else []
        if directed:
            raise VideoOptionError(
                f"Playing clips backwards would make labels wrong: {quoted(directed)}. Use reverse=0."
            )
        return self

    def __call__(self, indices: ArrayLike, total: int, *, generator: torch.Generator | None = None) -> np.ndarray:
        """Moves the frame numbers of clips; each clip has its own draw.

        Args:
            indices: Whole numbers (T,) or (clips, T), rising within each clip.
            total: Frames of the video.
            generator: Source of chance; None takes torch's global generator.

        Returns:
            int64 of the same shape, within the video.

        Raises:
            FrameIndexError: `indices` are something else, or lie outside of the video.
        """
        clips = _checked(indices, total)
        rng = numpy_generator(generator)
        places = clips.reshape(-1, clips.shape[-1]).astype(np.float64)
        if self.speed is not None:
            low, high = np.log(self.speed)
            places = _faster(places, np.exp(rng.uniform(low, high, size=len(places))), total)
        if self.jitter:
            # Frames from one to the next, on average; a clip of one frame has a step of 1.
            intervals = places.shape[-1] - 1
            step = (places[:, -1:] - places[:, :1]) / intervals if intervals else np.ones((len(places), 1))
            places = places + step * self.jitter * rng.uniform(-0.5, 0.5, size=places.shape)
        # Of unevenly spaced frames jitter may exchange two.
        moved = np.sort(np.clip(np.floor(places + 0.5), 0, total - 1).astype(np.int64))
        backwards = rng.random(len(moved)) < self.reverse
        return np.where(backwards[:, None], moved[:, ::-1], moved).reshape(clips.shape)


def _faster(places: np.ndarray, factors: np.ndarray, total: int) -> np.ndarray:
    """Clips (n, T) with their spans multiplied about their middles, inside of the video."""
    first, last = places[:, :1], places[:, -1:]
    factors = np.minimum(factors[:, None], (total - 1) / np.maximum(last - first, 1e-9))
    middle = (first + last) / 2
    places = middle + (places - middle) * factors
    places = places - np.minimum(places[:, :1], 0)
    return places - np.maximum(places[:, -1:] - (total - 1), 0)


def _checked(indices: ArrayLike, total: int) -> np.ndarray:
    clips = np.asarray(indices)
    if clips.ndim not in (1, 2) or clips.size == 0 or clips.dtype.kind not in "iu":
        raise FrameIndexError(
            f"indices must be whole numbers (frames,) or (clips, frames); {clips.dtype} {clips.shape} came."
        )
    if clips.min() < 0 or clips.max() >= total or (np.diff(clips) < 0).any():
        raise FrameIndexError(
            f"indices must rise within 0 to {total - 1} and don't: from {clips.min()} to {clips.max()}."
        )
    return clips
