"""Sizes of a detector that suit the events it is trained on: its grid, levels and length, and the scale of features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hf_video.base.detection.configuration import TemporalDetectionConfig
from hf_video.base.detection.modeling import TemporalDetector
from hf_video.clips.grid import FeatureGrid
from hf_video.data.sources.events import EventRow
from hf_video.errors import ConfigError
from hf_video.features.sequences import FeatureSequence
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig

# Fields that are fitted where neither recipe nor user sets them.
FITTED = ("max_length", "branch_layers")
PIECE = 512  # steps of a training sample, where no event is longer than half of that
STEPS = 3  # of the grid that a short event spans
SHORT = 0.05  # share of events that may be shorter
LEVELS = (2, 7)  # halvings, at least and at most
TRIES = 256
WINDOW = (128, 768)  # frames of a window, at least and at most


def fit_grid(own: FeatureGrid, num_frames: int, rows: Sequence[EventRow]) -> FeatureGrid:
    """The grid of an encoder, finer where events are short: `STEPS` steps for the shortest of them, and clips no longer
    than twice those, as far as a clip's `num_frames` allow it.

    Args:
        own: the encoder's own clip, a quarter of it apart, in frames of the video.
        num_frames: frames that the encoder takes.
        rows: videos to train on.
    """
    lengths = [(event.end - event.start) * row.fps for row in rows if row.fps for event in row.events]
    if not lengths:
        return own
    short = float(np.quantile(lengths, SHORT))
    span = int(min(own.num_frames, max(num_frames, round(2 * short))))
    return replace(own, num_frames=span, stride=max(int(min(span / 4, short / STEPS)), 1))


def fit_windows(encoder: VideoMAEConfig, rows: Sequence[EventRow]) -> dict[str, int]:
    """`num_frames` of a window, `feature_stride` and `branch_layers` of a detector that sees frames: `STEPS` of the
    encoder's time steps for a short event, and windows of twice the longest event, from `WINDOW[0]` to `WINDOW[1]`
    frames and no longer than the longest video.

    Args:
        encoder: whose `num_frames` windows are multiples of.
        rows: videos to train on.
    """
    spans = [(event.end - event.start) * row.fps for row in rows if row.fps for event in row.events]
    videos = [row.duration * row.fps for row in rows if row.fps and row.duration]
    stride = max(int(np.quantile(spans, SHORT) / (STEPS * encoder.patch[0])), 1) if spans else 1
    longest = max(spans, default=float(WINDOW[0])) / stride
    frames = min(max(2 * longest, WINDOW[0]), WINDOW[1], max(videos, default=np.inf) / stride)
    low, high = LEVELS
    return {
        "num_frames": max(math.ceil(frames / encoder.num_frames), 1) * encoder.num_frames,
        "feature_stride": stride,
        "branch_layers": min(max(math.ceil(math.log2(max(longest, 4) / 4)), low), high),
    }


def fit_to_events(
    config_class: type[TemporalDetectionConfig],
    values: Mapping[str, Any],
    sequences: Sequence[FeatureSequence],
    rows: Sequence[EventRow],
) -> TemporalDetectionConfig:
    """A configuration with `values`, and what they leave open: as many levels as the longest event needs (a level
    answers for distances up to 4 · 2^level), and the length of the longest video, at most `PIECE` or twice the longest
    event, as a multiple that the levels' windows allow.

    Raises:
        ConfigError: values that make no model.
    """
    values = dict(values)
    spans = [
        float(np.diff(sequence.to_steps((event.start, event.end)))[0])
        for row, sequence in zip(rows, sequences, strict=True)
        for event in row.events
    ]
    longest = max(*spans, 4.0, 4.0)
    if "branch_layers" not in values and "regression_ranges" not in values:
        low, high = LEVELS
        values["branch_layers"] = min(max(math.ceil(math.log2(longest / 4)), low), high)
    if "max_length" in values:
        return config_class(**values)
    step = 2 ** values.get("branch_layers", config_class.branch_layers)
    wanted = -(-min(max(map(len, sequences)), max(PIECE, math.ceil(2 * longest))) // step)
    for tries in range(wanted, wanted + TRIES):
        try:
            return config_class(**values, max_length=tries * step)
        except ConfigError as error:
            fault = error
            if "max_length" not in str(error):
                raise
    raise fault


def set_scale(model: TemporalDetector, sequences: Sequence[FeatureSequence]) -> None:
    """Measures mean and deviation of each column over all videos, for a model that standardizes features. A constant
    column has no say."""
    if not model.config.standardize_features:
        return
    count = sum(map(len, sequences))
    mean = sum(one.vectors.sum(0, dtype=np.float64) for one in sequences) / count
    variance = sum(np.square(one.vectors - mean).sum(0, dtype=np.float64) for one in sequences) / count
    std = np.sqrt(variance)
    std[std <= 1e-6 * np.abs(mean).clip(1e-6)] = np.inf
    embeddings = model.base_model.embeddings
    with torch.no_grad():
        embeddings.feature_mean.copy_(torch.from_numpy(mean))
        embeddings.feature_std.copy_(torch.from_numpy(std))
