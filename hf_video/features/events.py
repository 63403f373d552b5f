"""From features to events: what a detector finds in a sequence, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_video.base.detection.modeling import TemporalDetector
from hf_video.base.detection.types import Detection
from hf_video.errors import MetricError
from hf_video.features.sequences import FeatureSequence, check_sequence
from hf_video.layers.temporal_nms import fuse_class_scores

if TYPE_CHECKING:
    from hf_video.base.detection.configuration import TemporalDetectionConfig


@torch.inference_mode()
def find_events(
    model: TemporalDetector,
    sequence: FeatureSequence,
    *,
    config: TemporalDetectionConfig | None = None,
    class_scores: Mapping[str, float] | None = None,
    top_classes: int = 2,
) -> list[Detection]:
    """Finds the events of one video.

    Args:
        model: ActionFormer or TriDet, in eval mode.
        sequence: the video's features.
        config: whose fields decide which segments are kept and how they are merged; None for the model's.
        class_scores: what a classifier says of the whole video, shares of 1 by class name: its best `top_classes`
            take the place of the detector's own (see `fuse_class_scores`).
        top_classes: of these.

    Returns:
        Events by score, the best first, in seconds within the video.

    Raises:
        DataError: features of another encoder or grid than the detector was trained on.
        MetricError: class scores that are negative or not finite.
    """
    config = config or model.config
    check_sequence(sequence, config)
    if config.fixed_length:
        sequence = sequence.resized(config.max_length)
    weight = next(model.parameters())
    features = torch.from_numpy(np.array(sequence.vectors))[None].to(weight.device, weight.dtype)
    (found,) = model.find_segments(model(features, return_dict=True), config)
    names: Mapping[int, str] | list[str] = config.id2label
    segments, scores, labels = found.segments.double().numpy(), found.scores.double().numpy(), found.labels.numpy()
    if class_scores is not None:
        values, names = np.array(list(class_scores.values()), dtype=np.float64), list(class_scores)
        if not len(values) or not np.isfinite(values).all() or (values < 0).any():
            raise MetricError(f"The scores of a video's classes must be 0 or more, and {dict(class_scores)!r} came.")
        most = config.max_detections
        kept, labels, scores = fuse_class_scores(scores, values, top_classes=top_classes, max_segments=most)
        best = np.argsort(-scores, kind="stable")
        segments, labels, scores = segments[kept][best], labels[best], scores[best]
    return [
        Detection(names[int(label)], float(score), float(start), float(end))
        for label, score, (start, end) in zip(labels, scores, sequence.to_seconds(segments), strict=True)
    ]
