"""`count_repetitions`: how often something is done again and again in a video, and how fast, without training."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from hf_video.base.detection.repetitions import Repetitions, find_repetitions
from hf_video.clips.read import frames_of_clips, open_video
from hf_video.errors import VideoOptionError, is_number
from hf_video.features.sequence_encoder import SequenceEncoder
from hf_video.features.vectors import unit_length
from hf_video.video.frames.times import frames_at
from hf_video.video.inputs import frames_to_tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.clips.grid import GridLike
    from hf_video.data.types import FrameProcessor
    from hf_video.video.frames.types import FrameReader, VideoSource

SIDE = 24  # pixels of the small grey pictures
RATE = 15.0  # of them in a second, at most
FRAMES_HELD = 256
GREY = torch.tensor([0.299, 0.587, 0.114])
GRID = "0.4s/0.1s"  # of a model: clips must be shorter than what is counted


@dataclass(frozen=True)
class RepetitionCount:
    """How often something was repeated in a video.

    Args:
        count: of all stretches together; 0 where nothing is repeated.
        period: mean seconds of one repetition, None without any.
        spans: the stretches, each with start, end, count, period and confidence.
    """

    count: int
    period: float | None
    spans: list[Repetitions]

    @property
    def confidence(self) -> float:
        """From 0 to 1, the mean of the stretches' by their counts; 0 without any."""
        return sum(one.confidence * one.count for one in self.spans) / self.count if self.count else 0.0


def count_repetitions(
    video: VideoSource,
    model: str | os.PathLike[str] | PreTrainedModel | None = None,
    processor: FrameProcessor | None = None,
    *,
    grid: GridLike = GRID,
    periods: tuple[float, float] = (0.2, 30.0),
    device: str | None = None,
    backend: str = "auto",
    fps: float | None = None,
) -> RepetitionCount:
    """Counts what is repeated in a video: push-ups, turns of a wheel, strokes. Nothing is trained; see
    `hf_video.base.detection.repetitions` for how.

        found = hf_video.count_repetitions("workout.mp4")
        found.count, found.period           # 24, 1.7
        for span in found.spans: print(span.start, span.end, span.count)

    A stretch counts from two repetitions on, pauses between stretches don't. One repetition ends when the picture is as
    it was at its start, so that a left and a right step are one. A camera that moves hides small motions: a `model`
    that sees what is done rather than where may help then.

    Args:
        video: in any form that pipelines take.
        model: a folder, a name on the Hub, or a loaded model with its `processor`, whose vectors are compared. None
            compares small grey pictures of the whole frame, at most 15 a second.
        processor: of a loaded model.
        grid: of the model's clips, see `parse_grid`. They should be shorter than one repetition.
        periods: shortest and longest that is counted, in seconds.
        device: of the model.
        backend: of `VideoReader`.
        fps: frames per second of videos without times.

    Raises:
        VideoOptionError: for options.
        CheckpointError: for a model without vectors.
        VideoError: what reading raises; damaged frames are replaced by their neighbours.
    """
    numbers = list(periods) if isinstance(periods, (tuple, list)) else []
    if len(numbers) != 2 or not all(map(is_number, numbers)) or not 0 < numbers[0] < numbers[1]:
        raise VideoOptionError(
            f"periods={periods!r} must be the shortest and the longest in seconds, such as (0.5, 10)."
        )
    if model is None:
        if processor is not None:
            raise VideoOptionError("processor= goes with model=; without a model small pictures are compared.")
        with open_video(video, fps=fps, on_error="repeat", backend=backend, size=(SIDE, SIDE)) as opened:
            vectors, rate, begin = _pictures(opened)
        noise = float(vectors.shape[1])  # one grey level in each pixel
    else:
        encoder = SequenceEncoder(
            model, processor, grid=grid, device=device, backend=backend, fps=fps, on_error="repeat"
        )
        sequence = encoder(video)
        middles = sequence.seconds.mean(axis=1)
        rate = 1 / float(np.median(np.diff(middles))) if len(middles) > 1 else 1.0
        vectors, begin, noise = unit_length(sequence.vectors), float(middles[0]), 0.0
    spans = find_repetitions(vectors, rate, start=begin, periods=(numbers[0], numbers[1]), noise=noise)
    count = sum(one.count for one in spans)
    period = sum(one.period * one.count for one in spans) / count if count else None
    return RepetitionCount(count, period, spans)


def _pictures(video: FrameReader) -> tuple[np.ndarray, float, float]:
    """Small grey pictures (T, pixels) float32 at a constant rate, that rate, and the seconds of the first."""
    meta = video.metadata
    rate = meta.fps / math.ceil(meta.fps / RATE - 1e-6)
    # In the middle of a frame: a time that is rounded shows no other one.
    begin = meta.begin + 0.5 / meta.fps
    asked = frames_at(video.timestamps, begin + np.arange(max(int(meta.duration * rate + 1e-6), 1)) / rate)
    pictures = []
    clips = np.split(asked, range(FRAMES_HELD, len(asked), FRAMES_HELD))
    for wanted, frames in zip(clips, frames_of_clips(video, clips, FRAMES_HELD), strict=True):
        pixels = frames_to_tensor(frames.data)
        grey = pixels.float() @ GREY * (255 if pixels.is_floating_point() else 1)
        small = F.interpolate(grey[:, None], size=(SIDE, SIDE), mode="area").flatten(1).numpy()
        pictures.append(small[np.searchsorted(frames.indices, wanted)])
    return np.concatenate(pictures), rate, begin
