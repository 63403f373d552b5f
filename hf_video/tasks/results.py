"""What classification returns: stock transformers' lists of `{"score", "label"}` that also know what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hf_video.errors import VideoError
from hf_video.video.frame_sample import FrameSample


class Predictions(list):
    """`[{"score": float, "label": str}, ...]`, best first: equal to such a list, and written to JSON as one.

    `seconds` is (start, end) of everything that was seen, the last frame's own duration included, and `clips` the
    same for each clip; `indices` (clips, frames) are the frames; `repeated` names damaged ones that were replaced by
    their nearest good neighbour (`on_error="repeat"`).
    """

    def __init__(self, items: Sequence[dict[str, Any]], *, sample: FrameSample, repeated: Sequence[int] = ()):
        super().__init__(items)
        self.indices: np.ndarray = sample.indices
        self.clips: list[tuple[float, float]] = [(float(a), float(b)) for a, b in sample.spans]
        self.seconds: tuple[float, float] = (min(a for a, _ in self.clips), max(b for _, b in self.clips))
        self.repeated: tuple[int, ...] = tuple(sorted(repeated))


def best(scores: torch.Tensor, labels: Mapping[int, str], top_k: int | None) -> list[dict[str, Any]]:
    """The `top_k` highest of `scores` (classes,), all of them with None or where there are fewer."""
    count = len(scores) if top_k is None else min(top_k, len(scores))
    values, ids = scores.topk(count)
    return [
        {"score": value, "label": labels.get(i, f"LABEL_{i}")}
        for value, i in zip(values.tolist(), ids.tolist(), strict=True)
    ]


def error_entry(error: VideoError) -> dict[str, str]:
    """What stands in a result list for a file that could not be read, with `bad_files="report"`."""
    return {"error": type(error).__name__, "message": str(error)}
