"""Features of boxes: ROIAlign (He et al., 2017, arXiv:1703.06870), equal to detectron2's and torchvision's kernel."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def roi_align(
    features: torch.Tensor,
    boxes: torch.Tensor,
    output_size: int | tuple[int, int],
    *,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> torch.Tensor:
    """Averages bilinear samples on a regular grid in every bin of every box.

    Interpolation is separable: a bin's mean is a weighted sum over a few rows times a few columns. The bins of all
    boxes are one sum over bags of positions, so that time does not grow with the map, and no box has a copy of it.

    Args:
        features: (B, C, H, W), float.
        boxes: (N, 5): number in the batch, then x1, y1, x2, y2 in pixels of the input.
        output_size: bins, one number or (rows, columns).
        spatial_scale: what a pixel of the input is in positions of the map, such as 1/16.
        sampling_ratio: samples for each bin and axis; 0 or less takes as many as the bin has positions, rounded up.
        aligned: shift by half a position, as exact geometry wants it. Without it boxes have at least one position.

    Returns:
        (N, C, rows, columns) in the dtype of `features`. Boxes get no gradient.
    """
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    _, channels, height, width = features.shape
    numbers, corners = boxes[:, 0].long(), boxes[:, 1:].float() * spatial_scale - (0.5 if aligned else 0.0)
    size = corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = size.clamp_min(1.0)
    y, y_weights = axis_taps(corners[:, 1], size[:, 1], rows, height, sampling_ratio)
    x, x_weights = axis_taps(corners[:, 0], size[:, 0], columns, width, sampling_ratio)
    lines = (numbers[:, None, None] * height + y) * width
    places = lines[:, :, None, :, None] + x[:, None, :, None]  # (N, rows, columns, taps of y, taps of x)
    weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None]
    positions = features.permute(0, 2, 3, 1).reshape(-1, channels)
    bins = F.embedding_bag(
        places.flatten(3).flatten(0, 2),
        positions,
        mode="sum",
        per_sample_weights=weights.flatten(3).flatten(0, 2).to(positions.dtype),
    )
    return bins.view(boxes.shape[0], rows, columns, channels).permute(0, 3, 1, 2)


@torch.no_grad()
def axis_taps(
    start: torch.Tensor, size: torch.Tensor, bins: int, length: int, sampling_ratio: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions on a line that the mean of each box's bins reads, and their weights, both (N, bins, taps)."""
    width = size / bins
    if sampling_ratio > 0:
        counts, most = torch.full_like(size, sampling_ratio), sampling_ratio
    else:
        counts = width.ceil().clamp_min(0)
        most = F.pad(counts, (0, 1), value=1).max().long().item()  # at least 1, without boxes too
        torch._check(most >= 1)
    sample = torch.arange(most, device=start.device, dtype=start.dtype)
    inside = (sample + 0.5) / counts.clamp_min(1)[:, None]  # (N, most), as a fraction of a bin
    first = start[:, None] + torch.arange(bins, device=start.device) * width[:, None]
    place = first[:, :, None] + (inside * width[:, None])[:, None]  # (N, bins, most)
    counted = (sample < counts[:, None])[:, None] & (place >= -1) & (place <= length)
    place = place.clamp(0, length - 1)
    low = place.floor()
    high_weight = (place - low) * counted / counts.clamp_min(1)[:, None, None]
    low_weight = counted / counts.clamp_min(1)[:, None, None] - high_weight
    low = low.long()
    if sampling_ratio > 0:
        taps, weights = torch.cat((low, low + 1), dim=2), torch.cat((low_weight, high_weight), dim=2)
    else:  # samples are at most a position apart, so that they share their neighbours: most + 1 positions in a row
        taps = low[:, :, :1] + torch.arange(most + 1, device=start.device)
        weights = start.new_zeros(taps.shape)
        shift = (low - low[:, :, :1]).clamp(0, most)
        weights.scatter_add_(2, shift, low_weight).scatter_add_(2, (shift + 1).clamp_max(most), high_weight)
    return taps.clamp(0, length - 1), weights
