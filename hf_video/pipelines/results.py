"""What classification returns: stock transformers' lists of `{"score", "label"}` that also know what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hf_video.errors import CheckpointError
from hf_video.video.sampling.frame_sample import FrameSample


class Predictions(list[dict[str, Any]]):
    """`[{"score": float, "label": str}, ...]`, best first: equal to such a list, and written to JSON as one.

    `seconds` is (start, end) of everything that was seen, the last frame's own duration included, and `clips` the
    same for each clip; `indices` (clips, frames) are the frames; `repeated` names damaged ones that were replaced by
    their nearest good neighbour (`on_error="repeat"`).
    """

    def __init__(self, items: Sequence[dict[str, Any]], *, sample: FrameSample, repeated: Iterable[int] = ()):
        super().__init__(items)
        self.indices: np.ndarray = sample.indices
        self.clips: list[tuple[float, float]] = [(float(a), float(b)) for a, b in sample.spans]
        self.seconds: tuple[float, float] = (min(a for a, _ in self.clips), max(b for _, b in self.clips))
        self.repeated: tuple[int, ...] = tuple(sorted(repeated))


def thresholds_of(config: Any, classes: int) -> list[float]:
    """From which score on a class counts as shown: the configuration's `label_thresholds`, one for each class, else a
    half. Raises CheckpointError for another number of them."""
    found = getattr(config, "label_thresholds", None)
    if found is None:
        return [0.5] * classes
    if len(found) != classes:
        raise CheckpointError(f"The model's label_thresholds are {len(found)}, and it has {classes} classes.")
    return [float(one) for one in found]


def best(
    scores: torch.Tensor, labels: Mapping[int, str], top_k: int | None, thresholds: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """The `top_k` highest of `scores` (classes,), all of them with None or where there are fewer; with `thresholds`,
    one a class, only those that reach theirs."""
    count = len(scores) if top_k is None else min(top_k, len(scores))
    values, ids = scores.topk(count)
    return [
        {"score": value, "label": labels.get(i, f"LABEL_{i}")}
        for value, i in zip(values.tolist(), ids.tolist(), strict=True)
        if thresholds is None or value >= thresholds[i]
    ]
