"""Losses where a label is known for a whole video (a bag of segments) and not for its segments: anomaly detection by
multiple instance learning."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional as F


def pool_segments(features: torch.Tensor, count: int = 32) -> torch.Tensor:
    """(T, D) -> (count, D): means of `count` stretches of a video; a video of fewer vectors repeats them (RTFM's
    `process_feat`)."""
    edges = np.linspace(0, len(features), count + 1, dtype=int)
    return torch.stack([features[a : max(b, a + 1)].mean(0) for a, b in pairwise(edges)])


def ranking_loss(normal: torch.Tensor, abnormal: torch.Tensor) -> torch.Tensor:
    """Sultani et al., equation 7 as their code has it: the hinge over all pairs of videos' highest scores, summed over
    abnormal videos and averaged over normal ones. Scores (N, T) and (A, T), masked ones at most 0."""
    return F.relu(1 - abnormal.amax(1)[None] + normal.amax(1)[:, None]).sum(1).mean()


def smoothness(scores: torch.Tensor, mask: torch.Tensor, *, across_videos: bool = False) -> torch.Tensor:
    """Sum of squared differences of neighbouring scores (B, T), where `mask` (B, T) is True. `across_videos` also
    counts the step from the end of a video to the start of the next in the batch, as RTFM's code does."""
    if across_videos:
        return scores[mask].diff().square().sum()
    return (scores.diff(dim=1) * (mask[:, 1:] & mask[:, :-1])).square().sum()


def magnitude_loss(normal: torch.Tensor, abnormal: torch.Tensor, margin: float) -> torch.Tensor:
    """RTFM, equation 6 as its code has it: the mean of the selected features (N, k, D) of an abnormal video is to be
    `margin` long, that of a normal video short; the n-th of both are taken together."""
    long, short = abnormal.mean(1).norm(dim=1), normal.mean(1).norm(dim=1)
    return ((margin - long).abs() + short).square().mean()


def top_mean(scores: torch.Tensor, lengths: torch.Tensor, share: int = 16) -> torch.Tensor:
    """(B, T) or (B, T, C) -> (B,) or (B, C): the mean of the highest int(length / share + 1) scores of each video, for
    each class on its own (VadCLIP)."""
    return torch.stack(
        [
            one[:length].topk(length // share + 1, dim=0).values.mean(0)
            for one, length in zip(scores, lengths.tolist(), strict=True)
        ]
    )


def bag_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """VadCLIP's losses. With logits (B, T) and labels (B,), 1 for abnormal videos: binary cross-entropy of the mean of
    the highest scores. With logits (B, T, C) and labels (B, C), one or several of them 1: cross-entropy of the means of
    the highest logits of each class, labels brought to the sum 1."""
    if logits.ndim == 2:
        return F.binary_cross_entropy(top_mean(logits.sigmoid(), lengths), labels.to(logits.dtype))
    labels = labels / labels.sum(1, keepdim=True)
    return -(labels * top_mean(logits, lengths).log_softmax(1)).sum(1).mean()
