"""Features of boxes: ROIAlign (He et al., 2017, arXiv:1703.06870), equal to detectron2's and torchvision's kernel."""

from __future__ import annotations

import torch


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

    Interpolation is separable: each box has one matrix of weights for rows and one for columns, so that all boxes are
    two batched products, whatever their sizes.

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
    numbers, corners = boxes[:, 0].long(), boxes[:, 1:].float() * spatial_scale - (0.5 if aligned else 0.0)
    size = corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = size.clamp_min(1.0)
    vertical = axis_weights(corners[:, 1], size[:, 1], rows, features.shape[2], sampling_ratio)
    horizontal = axis_weights(corners[:, 0], size[:, 0], columns, features.shape[3], sampling_ratio)
    maps = features.permute(0, 2, 3, 1)[numbers]  # (N, H, W, C)
    lines = (vertical.to(maps.dtype) @ maps.flatten(2)).unflatten(2, maps.shape[2:])  # (N, rows, W, C)
    return (horizontal.to(maps.dtype)[:, None] @ lines).permute(0, 3, 1, 2)


@torch.no_grad()
def axis_weights(start: torch.Tensor, size: torch.Tensor, bins: int, length: int, sampling_ratio: int) -> torch.Tensor:
    """Weights (N, bins, length) of a line's positions in the means of each box's bins, along one axis."""
    width = size / bins
    counts = torch.full_like(size, sampling_ratio) if sampling_ratio > 0 else width.ceil().clamp_min(0)
    most = max(int(counts.max()), 1) if len(counts) else 1
    sample = torch.arange(most, device=start.device, dtype=start.dtype)
    inside = (sample + 0.5) / counts.clamp_min(1)[:, None]  # (N, most), as a fraction of a bin
    first = start[:, None] + torch.arange(bins, device=start.device) * width[:, None]
    place = first[:, :, None] + (inside * width[:, None])[:, None]  # (N, bins, most)
    counted = (sample < counts[:, None])[:, None] & (place >= -1) & (place <= length)
    place = place.clamp(0, length - 1)
    low = place.floor().long()
    high = (low + 1).clamp_max(length - 1)
    share = place - low
    value = counted / counts.clamp_min(1)[:, None, None]
    weights = start.new_zeros(len(start), bins, length)
    return weights.scatter_add_(2, low, (1 - share) * value).scatter_add_(2, high, share * value)
