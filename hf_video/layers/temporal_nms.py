"""Merging of overlapping temporal segments: hard and soft non-maximum suppression, and voting.

Soft suppression is Bodla et al. (ICCV 2017, arXiv:1704.04503) with a Gaussian, in the order in which ActionFormer's and
TriDet's extension works, so that equal scores come out alike.
"""

from __future__ import annotations

import numpy as np
import torch

from hf_video.layers.segments import segment_iou

EPSILON = np.float32(1e-6)  # what the official code adds to every length


def merge_segments(
    segments: torch.Tensor,
    scores: torch.Tensor,
    labels: torch.Tensor,
    *,
    method: str = "soft",
    sigma: float = 0.5,
    iou_threshold: float = 0.1,
    min_score: float = 0.001,
    class_agnostic: bool = False,
    voting_threshold: float = 0.75,
    max_segments: int = 200,
    voting: str = "score_iou",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One video's segments without those that say the same.

    Args:
        segments, scores, labels: (N, 2), (N,), (N,), on the CPU.
        method: "soft" (scores fall by exp(-IoU² / `sigma`); `iou_threshold` has no effect) or "hard" (what overlaps by
            `iou_threshold` or more goes).
        min_score: segments whose score falls below it go.
        class_agnostic: compare segments of all classes; else each class by itself.
        voting_threshold: with `class_agnostic`, boundaries become the mean of all input segments that overlap by this
            much or more; 0 leaves them.
        max_segments: of each class, and of all.
        voting: weights of that mean: "score_iou" (ActionFormer) or "score" (TriDet).

    Returns:
        Segments, scores and labels, best first.
    """
    if not len(segments):
        return segments, scores, labels
    groups = (
        [torch.arange(len(labels))] if class_agnostic else [(labels == one).nonzero()[:, 0] for one in labels.unique()]
    )
    parts = []
    for group in groups:
        if method == "soft":
            kept, values = soft_nms(segments[group], scores[group], sigma, min_score, max_segments)
        else:
            kept = hard_nms(segments[group], scores[group], iou_threshold, min_score)[:max_segments]
            values = scores[group][kept]
        parts.append((segments[group][kept], values, labels[group][kept]))
    merged, values, classes = (torch.cat(one) for one in zip(*parts, strict=True))
    if class_agnostic and voting_threshold > 0:
        merged = vote(merged, segments, scores, voting_threshold, voting)
    order = values.sort(descending=True)[1][:max_segments]
    return merged[order], values[order], classes[order]


def soft_nms(
    segments: torch.Tensor, scores: torch.Tensor, sigma: float, min_score: float, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the kept segments, (N, 2) -> (K,), best first, and their lowered scores. The best that is left is
    taken whatever its score; the others' scores fall, and below `min_score` they go."""
    pairs = segments.detach().float().numpy()
    start, end = pairs[:, 0].copy(), pairs[:, 1].copy()
    length, left = end - start + EPSILON, scores.detach().float().numpy().copy()
    number, count = np.arange(len(left)), len(left)
    kept, values = [], []
    columns = (start, end, length, left, number)
    sigma, low = np.float32(sigma), np.float32(min_score)
    for place in range(min(most, count) if most > 0 else count):
        if place >= count:
            break
        best = place + int(left[place:count].argmax())
        for column in columns:
            column[place], column[best] = column[best], column[place]
        kept.append(int(number[place]))
        values.append(left[place])
        rest = slice(place + 1, count)
        shared = np.minimum(end[place], end[rest]) - np.maximum(start[place], start[rest])
        shared = np.maximum(shared, np.float32(0))
        overlap = shared / (length[place] + length[rest] - shared)
        left[rest] *= np.exp(-(overlap * overlap) / sigma)
        # A segment that goes is replaced by the last one: survivors from the end fill the holes, last one first.
        stays = left[rest] >= low
        survivors = int(stays.sum())
        holes = place + 1 + np.flatnonzero(~stays[:survivors])
        fill = place + 1 + survivors + np.flatnonzero(stays[survivors:])[::-1]
        for column in columns:
            column[holes] = column[fill]
        count = place + 1 + survivors
    return torch.tensor(kept, dtype=torch.long), torch.from_numpy(np.asarray(values, dtype=np.float32))


def hard_nms(segments: torch.Tensor, scores: torch.Tensor, iou_threshold: float, min_score: float) -> torch.Tensor:
    """Numbers of the kept segments, best first: none overlaps a better one by `iou_threshold` or more."""
    allowed = (scores > min_score).nonzero()[:, 0] if min_score > 0 else torch.arange(len(scores))
    order = allowed[scores[allowed].sort(descending=True)[1]]
    start, end = segments[order].float().numpy().T
    length, alive, kept = end - start + EPSILON, np.ones(len(order), dtype=bool), []
    for place in range(len(order)):
        if alive[place]:
            kept.append(place)
            shared = np.minimum(end[place], end[place + 1 :]) - np.maximum(start[place], start[place + 1 :])
            shared = np.maximum(shared, np.float32(0))
            overlap = shared / (length[place] + length[place + 1 :] - shared)
            alive[place + 1 :] &= overlap < np.float32(iou_threshold)
    return order[torch.tensor(kept, dtype=torch.long)]


def vote(
    merged: torch.Tensor, segments: torch.Tensor, scores: torch.Tensor, threshold: float, weights: str
) -> torch.Tensor:
    """Boundaries (K, 2) as the weighted mean of all `segments` that overlap by `threshold` or more."""
    overlap = segment_iou(merged, segments)
    weight = (overlap >= threshold).to(scores.dtype) * scores
    weight = weight * overlap if weights == "score_iou" else weight
    return (weight / weight.sum(1, keepdim=True)) @ segments


def fuse_class_scores(
    scores: np.ndarray, class_scores: np.ndarray, *, top_classes: int = 2, max_segments: int = 200
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives class-agnostic segments the classes of their video, as a classifier sees it: a segment becomes one for each
    of the best classes, its score the square root of both scores' product (ActionFormer's `postprocess_results`).

    Args:
        scores: (N,) of one video's segments.
        class_scores: (C,) of the video, shares of 1.
        top_classes: how many classes.
        max_segments: segments that are kept, the best ones, before they are multiplied.

    Returns:
        Numbers of segments (K,), classes (K,) and scores (K,), float64: class by class, the best first.
    """
    scores, class_scores = np.asarray(scores, dtype=np.float64), np.asarray(class_scores, dtype=np.float64)
    kept = np.argsort(scores)[::-1][:max_segments]
    classes = np.argsort(class_scores)[::-1][:top_classes]
    fused = np.sqrt(class_scores[classes][:, None] * scores[kept])
    return np.tile(kept, len(classes)), np.repeat(classes, len(kept)), fused.flatten()
