"""Temporal segments: the points that predict them, targets, overlaps, and what predictions mean on the grid.

All positions are in units of the feature grid, segments are (start, end).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def pyramid_points(
    lengths: Sequence[int], strides: Sequence[int], ranges: Sequence[tuple[float, float]], device: torch.device
) -> torch.Tensor:
    """(points, 4): position on the grid, the shortest and longest distance its level answers for, and its stride, for
    all levels one after another. Position i of a level lies at i · stride."""
    levels = [
        torch.stack(
            [torch.arange(length, device=device, dtype=torch.float32) * stride]
            + [torch.full((length,), float(value), device=device) for value in (low, high, stride)],
            dim=1,
        )
        for length, stride, (low, high) in zip(lengths, strides, ranges, strict=True)
    ]
    return torch.cat(levels)


@torch.no_grad()
def assign_targets(
    points: torch.Tensor, segments: torch.Tensor, labels: torch.Tensor, num_classes: int, radius: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each point should predict (ActionFormer, section 3.4; FCOS's assignment in one dimension).

    A point answers for a segment that it lies in, within `radius` strides of the segment's centre (None: anywhere in
    it), if the farther boundary is within its level's range. Of several it takes the shortest; those within .001 of
    the shortest all give their class.

    Args:
        points: (P, 4), of `pyramid_points`.
        segments: (N, 2), on the grid.
        labels: (N,), class numbers.
        num_classes: classes of the model.
        radius: in strides, or None.

    Returns:
        Classes (P, num_classes) of 0 and 1, and distances to start and end (P, 2) in strides, of any value where the
        point has no class.
    """
    if not len(segments):
        return points.new_zeros(len(points), num_classes), points.new_zeros(len(points), 2)
    position, low, high, stride = points[:, :, None].unbind(1)
    start, end = segments[:, 0], segments[:, 1]
    distances = torch.stack((position - start, end - position), dim=-1)
    if radius is None:
        inside = distances.amin(-1) > 0
    else:
        center = 0.5 * (start + end)
        left = position - torch.maximum(center - stride * radius, start)
        right = torch.minimum(center + stride * radius, end) - position
        inside = torch.minimum(left, right) > 0
    farther = distances.amax(-1)
    chosen = inside & (farther >= low) & (farther <= high)
    lengths = (end - start).expand(len(points), -1).masked_fill(~chosen, torch.inf)
    shortest, first = lengths.min(dim=1)
    equal = (lengths <= shortest[:, None] + 1e-3) & (lengths < torch.inf)
    classes = (equal.to(points.dtype) @ F.one_hot(labels, num_classes).to(points.dtype)).clamp_(max=1.0)
    return classes, distances[torch.arange(len(points), device=points.device), first] / stride


def segment_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every pair of segments, (N, 2) and (M, 2) -> (N, M)."""
    shared = torch.minimum(first[:, None, 1], second[:, 1]) - torch.maximum(first[:, None, 0], second[:, 0])
    shared = shared.clamp_min(0)
    lengths = (first[:, 1] - first[:, 0])[:, None] + (second[:, 1] - second[:, 0])
    return shared / (lengths - shared)


def offset_iou(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Intersection over union of segments around one point, given as distances (…, 2) to start and end."""
    shared = torch.minimum(predicted, target).sum(-1)
    return shared / (predicted.sum(-1) + target.sum(-1) - shared).clamp_min(1e-8)


def center_distance_iou_loss(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - IoU + (distance of the centres / length of the hull)² for segments around one point, (…, 2) -> (…,)
    (distance-IoU, Zheng et al., AAAI 2020, in one dimension)."""
    hull = torch.maximum(predicted, target).sum(-1).clamp_min(1e-8)
    centers = 0.5 * (predicted[..., 1] - predicted[..., 0] - target[..., 1] + target[..., 0])
    return 1.0 - offset_iou(predicted, target) + (centers / hull).square()


def sigmoid_focal_loss(
    logits: torch.Tensor, targets: torch.Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Focal loss (Lin et al., 2017, arXiv:1708.02002) of every entry, in float32, not reduced."""
    logits, targets = logits.float(), targets.float()
    probability = logits.sigmoid()
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    missed = probability + targets - 2 * probability * targets  # 1 - the probability of what is right
    return loss * missed.pow(gamma) * (alpha * targets + (1 - alpha) * (1 - targets))
