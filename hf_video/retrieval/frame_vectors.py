"""Vectors of moments from a model that encodes every frame for itself: where moments share frames, as those of
keyframes do, each frame is encoded once."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_video.clips.batching import run_videos
from hf_video.clips.read import Event, SeenWindows
from hf_video.features.extraction import ClipVectors
from hf_video.layers.linear import is_untouched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOGETHER = 64  # windows whose frames' vectors are joined at once


def encodes_frames_apart(model: PreTrainedModel) -> bool:
    """Whether `moment_vectors` may stand for the model's vectors of whole clips; a hook would have to see these."""
    return (
        getattr(model, "frames_per_state", None) == 1
        and not model.keeps_past
        and "segment_features" in inspect.signature(model.get_video_features).parameters
        and is_untouched(model, type(model))
    )


def moment_vectors(
    model: PreTrainedModel, events: Iterable[Event], batch_size: int | None
) -> tuple[np.ndarray, SeenWindows]:
    """Vectors of a video's windows, the mean of the views of each, from its frames.

    Args:
        model: One that `encodes_frames_apart`.
        events: Of a request for `single_frames`.
        batch_size: Frames of a forward.

    Returns:
        (N, D) float32, and the windows.

    Raises:
        VideoError: The video's fault.
    """
    with ClipVectors(model, compute=_states) as forward:
        (frames,) = run_videos([events], forward, batch_size=batch_size)
    if frames.error is not None:
        raise frames.error
    seen = frames.seen
    numbers = seen.frames
    states = torch.stack([frames.views(place) for place in range(len(numbers))])  # (frames, crops, D)
    vectors = []
    with ClipVectors(model, compute=_joined) as forward:
        for start in range(0, len(seen), TOGETHER):
            part = seen[start : start + TOGETHER]
            shown = np.stack([np.searchsorted(numbers, one.sample.indices) for one in part])  # (windows, clips, T)
            clips = states[torch.from_numpy(shown)].movedim(2, 3)  # (windows, clips, crops, T, D)
            joined = forward({"segment_features": clips.flatten(0, 2)})
            vectors.append(joined.unflatten(0, (len(part), -1)).mean(1).numpy())
    return np.concatenate(vectors), seen


def _states(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.encode_states(**inputs)[:, 0]


def _joined(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.get_video_features(**inputs, return_dict=True).embedding
