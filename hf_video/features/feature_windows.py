"""Events of features that come bit by bit, or of videos much longer than those in training: a detector sees windows of
them, and what it finds in one window is joined to what is open from those before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_video.base.detection.modeling import Segments
from hf_video.errors import VideoOptionError, check_count
from hf_video.layers.segments import segment_iou

if TYPE_CHECKING:
    from hf_video.base.detection.configuration import TemporalDetectionConfig
    from hf_video.base.detection.modeling import TemporalDetector


class FeatureWindows:
    """Finds the events of one sequence in windows that overlap by half; the last one ends with the sequence.

    Segments of a window end with it. They are compared (`nms` and the fields beside it) with those that are open from
    earlier windows, and with events that were given out: a better one of these lowers their scores as it would have
    then. An event is given out when no later window can see its end, which is after at most one window. What was given
    out depends on nothing that comes later, so that vectors may come one by one or all at once.

    Args:
        model: ActionFormer or TriDet, in eval mode.
        steps: of a window, in steps of the feature grid; 2 or more.
        config: whose fields decide which segments are kept and how they are merged; None for the model's.

    Raises:
        VideoOptionError: `steps`, or a detector for which every video is stretched to one length.
    """

    def __init__(self, model: TemporalDetector, steps: int, config: TemporalDetectionConfig | None = None) -> None:
        check_count("window", steps, least=2, hint=" It is in steps of the feature grid.")
        self.model, self.steps, self.config = model, steps, config or model.config
        if self.config.fixed_length:
            raise VideoOptionError("The detector stretches every video to one length: it can't see it in windows.")
        self.hop = steps // 2
        self.reach = 0.5 * self.config.feature_frames / self.config.feature_stride  # of a clip around its position
        self._vectors: list[np.ndarray] = []  # from step `_first` on
        self._first = 0
        self._start: int | None = None  # of the latest window that was seen
        # Segments in steps from the start of that window, float64: those that may still change, and those given out
        # that overlap them.
        self._open, self._given = _nothing(), _nothing()

    @property
    def start(self) -> int:
        """Where the latest window that was seen begins."""
        return self._start or 0

    def push(self, vectors: np.ndarray) -> Segments:
        """Takes the next vectors (T, D); returns the events that are known now, in steps from the first vector."""
        found = []
        for vector in vectors:
            start = 0 if self._start is None else self._start + self.hop
            if self._first + len(self._vectors) == start + self.steps:  # the last window is left to `close`
                found.append(self._see(start))
            self._vectors.append(vector)
        return _joined(found)

    def close(self) -> Segments:
        """Returns the events that are left."""
        count = self._first + len(self._vectors)
        return self._see(max(count - self.steps, 0), last=True) if count else _nothing()

    @torch.inference_mode()
    def _see(self, start: int, *, last: bool = False) -> Segments:
        window = self._vectors[start - self._first :][: self.steps]
        weight = next(self.model.parameters())
        features = torch.from_numpy(np.stack(window))[None].to(weight.device, weight.dtype)
        (new,) = self.model.candidates(self.model(features, return_dict=True), self.config)
        bounds = new.segments.double().clamp(-self.reach, len(window) - 1 + self.reach)
        new = _chosen(Segments(bounds, new.scores, new.labels), bounds[:, 1] - bounds[:, 0] > self.config.min_length)
        moved = start - self.start
        for earlier in (self._open, self._given):
            earlier.segments -= moved
        pool = _joined([self._open, new])
        lowered = self._lowered(pool)
        merged = self.model.merge(Segments(lowered.segments.float(), lowered.scores, lowered.labels), self.config)
        merged.segments = merged.segments.double()
        end = np.inf if last else self.hop - self.reach
        closed = _chosen(merged, merged.segments[:, 1] <= end)
        self._open = _chosen(pool, pool.segments[:, 1] > end)
        given = _joined([self._given, closed])
        begin = self._open.segments[:, 0].min() if len(self._open.scores) else torch.tensor(end)
        self._given = _chosen(given, given.segments[:, 1] > begin)
        self._start = start
        del self._vectors[: start - self._first]
        self._first = start
        return Segments(closed.segments + start, closed.scores, closed.labels)

    def _lowered(self, pool: Segments) -> Segments:
        """Scores of a pool as the events that were given out leave them, each where it is the better one."""
        config, scores = self.config, pool.scores.clone()
        for number in self._given.scores.argsort(descending=True).tolist():
            overlap = segment_iou(self._given.segments[number : number + 1], pool.segments)[0].to(scores.dtype)
            factor = torch.exp(-overlap.square() / config.nms_sigma)
            if config.nms != "soft":
                factor = ((overlap < config.nms_iou_threshold) | torch.tensor(config.nms == "none")).to(scores.dtype)
            same = torch.tensor(config.class_agnostic_nms) | (pool.labels == self._given.labels[number])
            scores = torch.where(same & (self._given.scores[number] >= scores), scores * factor, scores)
        return _chosen(Segments(pool.segments, scores, pool.labels), scores >= config.nms_min_score)


def by_score(parts: list[Segments]) -> Segments:
    """Segments of several pushes, the best first."""
    joined = _joined(parts)
    return _chosen(joined, joined.scores.argsort(descending=True, stable=True))


def _nothing() -> Segments:
    return Segments(torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0), torch.zeros(0, dtype=torch.long))


def _joined(parts: list[Segments]) -> Segments:
    parts = [_nothing(), *parts]
    return Segments(*(torch.cat([getattr(one, name) for one in parts]) for name in ("segments", "scores", "labels")))


def _chosen(found: Segments, kept: torch.Tensor) -> Segments:
    return Segments(found.segments[kept], found.scores[kept], found.labels[kept])
