"""From features to events: what a detector finds in a sequence, in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from hf_video.base.detection.modeling import Segments, TemporalDetector
from hf_video.base.detection.types import Detection
from hf_video.clips.grid import FeatureGrid
from hf_video.data.sources.event_files import ScoredEvent
from hf_video.data.sources.events import EventRow
from hf_video.errors import DataError, MetricError
from hf_video.features.feature_windows import FeatureWindows, by_score
from hf_video.features.sequences import FeatureSequence, check_sequence
from hf_video.layers.temporal_nms import fuse_class_scores

if TYPE_CHECKING:
    from hf_video.base.detection.configuration import TemporalDetectionConfig

Found = TypeVar("Found", Detection, ScoredEvent)


@torch.inference_mode()
def find_events(
    model: TemporalDetector,
    sequence: FeatureSequence,
    *,
    config: TemporalDetectionConfig | None = None,
    class_scores: Mapping[str, float] | None = None,
    top_classes: int = 2,
    window: int | None = None,
) -> list[Detection]:
    """Finds the events of one video.

    Args:
        model: ActionFormer or TriDet, in eval mode.
        sequence: the video's features.
        config: whose fields decide which segments are kept and how they are merged; None for the model's.
        class_scores: what a classifier says of the whole video, shares of 1 by class name: its best `top_classes`
            take the place of the detector's own (see `name_events`).
        top_classes: of these.
        window: steps of the grid that the detector sees at once (see `FeatureWindows`); None for the whole video.

    Returns:
        Events by score, the best first, in seconds within the video.

    Raises:
        VideoOptionError: a window that the detector can't have.
        DataError: features of another encoder or grid than the detector was trained on.
        MetricError: class scores that are negative or not finite.
    """
    config = config or model.config
    check_sequence(sequence, config)
    if window is not None:
        windows = FeatureWindows(model, window, config)
        found = by_score([windows.push(sequence.vectors), windows.close()])
    else:
        if config.fixed_length:
            sequence = sequence.resized(config.max_length)
        weight = next(model.parameters())
        features = torch.from_numpy(np.array(sequence.vectors))[None].to(weight.device, weight.dtype)
        (found,) = model.find_segments(model(features, return_dict=True), config)
    events = to_detections(found, sequence.to_seconds(found.segments.double()), config.id2label)
    if class_scores is None:
        return events
    return name_events(events, class_scores, top_classes=top_classes, max_events=config.max_detections)


def to_detections(found: Segments, seconds: np.ndarray, names: Mapping[int, str]) -> list[Detection]:
    """The segments of a video with the names of their classes and their (N, 2) seconds."""
    return [
        Detection(names[label], score, float(start), float(end))
        for label, score, (start, end) in zip(found.labels.tolist(), found.scores.tolist(), seconds, strict=True)
    ]


def name_events(
    events: Sequence[Found], class_scores: Mapping[str, float], *, top_classes: int = 2, max_events: int = 200
) -> list[Found]:
    """Gives the events of one video, found without classes, those that a classifier sees in it.

    Args:
        events: of whatever label.
        class_scores: of the whole video, shares of 1 by class name.
        top_classes: how many classes each event becomes one of; see `fuse_class_scores`.
        max_events: how many of them, the best, before that.

    Returns:
        Events by score, the best first.

    Raises:
        MetricError: no scores, or some that are negative or not finite.
    """
    values, names = np.array(list(class_scores.values()), dtype=np.float64), list(class_scores)
    if not len(values) or not np.isfinite(values).all() or (values < 0).any():
        raise MetricError(f"The scores of a video's classes must be 0 or more, and {dict(class_scores)!r} came.")
    scores = np.array([one.score for one in events], dtype=np.float64)
    kept, labels, fused = fuse_class_scores(scores, values, top_classes=top_classes, max_segments=max_events)
    named = [
        replace(events[number], label=names[label], score=float(score))
        for number, label, score in zip(kept.tolist(), labels.tolist(), fused, strict=True)
    ]
    return sorted(named, key=lambda one: -one.score)


def load_sequence(row: EventRow, grid: FeatureGrid | None) -> FeatureSequence:
    """Ready-made features of a video, a `.npy` of (time, columns) or what `FeatureSequence.save` wrote.

    Args:
        row: of the file.
        grid: of a `.npy`; its rate, else that of the row, is the video's.

    Raises:
        DataError: the file can't be read, lies on another grid, or nothing says how its vectors lie in time.
    """
    if row.source.endswith(".safetensors"):
        found = FeatureSequence.load(row.source)
        if grid is not None and replace(grid, fps=found.grid.fps) != found.grid:
            raise DataError(f"{row.source} lies on the grid {found.grid}, and {grid} was asked for: leave it out.")
        return found
    try:
        vectors = np.load(row.source, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{row.source} can't be read as a NumPy array: {error}") from error
    if grid is None:
        raise DataError(f'{row.source} does not say which frames its vectors saw: give the grid, such as "16/4@30".')
    rate = grid.fps or row.fps
    if rate is None:
        raise DataError(
            f'{row.name} has no "fps" in the annotations: put it there, or give it with the grid, such as {grid}@30.'
        )
    try:
        return FeatureSequence.from_array(vectors, grid, rate, row.duration)
    except DataError as error:
        raise DataError(f"{row.source}: {error}") from error
