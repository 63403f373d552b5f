"""Extracts one vector per clip with any video model, ours or stock, as a probe, a search index or a clustering needs.

    features = extract_features(model, processor, rows, windows="2s/1s")
    features.embeddings     # float32 (vectors, D)
    features.names, features.seconds, features.labels

Videos are read as the classification pipeline reads them: decoded once, by our reader, frames chosen by our samplers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_video.base.loading import check_pair
from hf_video.base.modeling import inputs_for
from hf_video.clips.batching import VideoResult, read_each, run_videos
from hf_video.clips.read import clip_processor, read_events
from hf_video.clips.request import ClipRequest
from hf_video.data.rows import Skipped, VideoRow, plain_reason
from hf_video.errors import VideoError, check_choice, fault_kind
from hf_video.features.vectors import clip_vectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.data.types import FrameProcessor


@dataclass(frozen=True)
class Features:
    """Vectors of clips, in the order of the videos and, within one, of its windows.

    Args:
        embeddings: (N, D) float32.
        names: The N names of the videos.
        labels: (N,) int64, -1 where a video has no label or several.
        seconds: (N, 2) float64, the start and end that a vector stands for.
        skipped: The videos that could not be read.
    """

    embeddings: np.ndarray
    names: list[str]
    labels: np.ndarray
    seconds: np.ndarray
    skipped: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def join(cls, parts: Sequence[Features]) -> Features:
        """Concatenates several.

        Args:
            parts: One or more, of vectors of one length.

        Returns:
            All vectors in this order.
        """
        return cls(
            embeddings=np.concatenate([part.embeddings for part in parts]),
            names=[name for part in parts for name in part.names],
            labels=np.concatenate([part.labels for part in parts]),
            seconds=np.concatenate([part.seconds for part in parts]),
            skipped=[one for part in parts for one in part.skipped],
        )


def extract_features(
    model: PreTrainedModel,
    processor: FrameProcessor,
    rows: Iterable[VideoRow],
    *,
    windows: float | str | tuple[float, float] | None = None,
    views: str | tuple[int, int] | None = None,
    num_frames: int | None = None,
    sampler: str | Callable[..., Any] | None = None,
    sampler_options: dict[str, Any] | None = None,
    batch_size: int = 8,
    num_workers: int | None = None,
    device: str | torch.device | None = None,
    backend: str = "auto",
    snap: str | None = None,
    on_error: str = "skip",
    on_video: Callable[[], None] | None = None,
    compute: Callable[[PreTrainedModel, dict[str, torch.Tensor]], torch.Tensor] = clip_vectors,
    join_views: bool = False,
) -> Features:
    """Extracts the vectors of all clips of videos; several views of a window are averaged.

    Args:
        model: It is set to eval mode and back.
        processor: Its image or video processor.
        rows: The videos.
        windows: Length and step in seconds, such as "2s/1s"; without it a video gives one vector.
        views: Clips x crops of a window, such as "3x1".
        num_frames: Frames of a clip.
        sampler: What chooses the frames; `sampler_options` are its options.
        batch_size: Views in one forward, filled from several videos.
        num_workers: Processes that read. None: a thread of this one reads ahead; 0: nothing is read ahead.
        device: Where the model is moved to; None leaves it where it is.
        backend: Of `VideoReader`.
        snap: "keyframe" shows keyframes only; see `hf_video.clips.request.ClipRequest`.
        on_error: "skip" names videos that can't be read in `skipped`; "raise" raises.
        on_video: Called after each video.
        compute: What makes vectors (B, D) of the model and its inputs.
        join_views: Whether a window gets the vectors of all its views, one behind the other, instead of their mean.

    Raises:
        VideoOptionError, SamplingError: For options.
        CheckpointError: For a model without features.
    """
    check_choice("on_error", on_error, ("skip", "raise"))
    check_pair(model, processor, num_frames=num_frames)
    request = ClipRequest.resolve(
        processor,
        model.config,
        windows=windows,
        views=views,
        num_frames=num_frames,
        sampler=sampler,
        sampler_options=sampler_options,
        backend=backend,
        snap=snap,
    )
    rows = list(rows)
    read = functools.partial(read_events, request=request, process=clip_processor(processor))
    events = read_each([row.source for row in rows], read, num_workers)
    collected = _Collected(join_views)
    with ClipVectors(model, device, compute) as forward:
        for row, result in zip(rows, run_videos(events, forward, batch_size=batch_size), strict=True):
            if result.error is not None and on_error == "raise":
                raise result.error
            collected.add(row, result)
            if on_video is not None:
                on_video()
    return collected.features()


class _Collected:
    """Vectors as they come, video by video."""

    def __init__(self, join_views: bool) -> None:
        self.join_views = join_views
        self.vectors: list[np.ndarray] = []
        self.names: list[str] = []
        self.labels: list[int] = []
        self.seconds: list[tuple[float, float]] = []
        self.skipped: list[Skipped] = []

    def add(self, row: VideoRow, result: VideoResult) -> None:
        if result.error is not None:
            self.skipped.append(skipped_video(row.name, result.error, row.source))
            return
        for seen, vector in zip(result.seen, result.vectors(joined=self.join_views), strict=True):
            self.vectors.append(vector)
            self.names.append(row.name)
            self.labels.append(row.label if isinstance(row.label, int) else -1)
            self.seconds.append(seen.seconds)

    def features(self) -> Features:
        return Features(
            embeddings=np.stack(self.vectors) if self.vectors else np.zeros((0, 0), dtype=np.float32),
            names=self.names,
            labels=np.array(self.labels, dtype=np.int64),
            seconds=np.array(self.seconds, dtype=np.float64).reshape(-1, 2),
            skipped=self.skipped,
        )


def skipped_video(name: str, error: VideoError | OSError, source: object = None) -> Skipped:
    """Returns the record of a video that could not be read from `source`."""
    return Skipped(name=name, reason=plain_reason(error, source, name), kind=fault_kind(error))


class ClipVectors:
    """`with ClipVectors(model) as forward:` a function of model inputs -> float32 (B, D) on the CPU, what `compute`
    gives of them on the model's device, by default `clip_vectors`; the model is in eval mode meanwhile."""

    def __init__(
        self,
        model: PreTrainedModel,
        device: str | torch.device | None = None,
        compute: Callable[[PreTrainedModel, dict[str, torch.Tensor]], torch.Tensor] = clip_vectors,
    ) -> None:
        self.model = model if device is None else model.to(device)
        self._compute = compute
        self._training = model.training

    def __enter__(self) -> ClipVectors:
        self.model.eval()
        return self

    def __exit__(self, *_: object) -> None:
        self.model.train(self._training)

    @torch.inference_mode()
    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        device, dtype = self.model.device, self.model.dtype
        inputs = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in inputs.items()}
        return self._compute(self.model, inputs_for(self.model, inputs)).float().cpu()
