"""Layers that see no frame behind the one at hand, so that a stream is seen frame by frame (MoViNets, Kondratyuk et
al., 2021, arXiv:2103.11511, section 3.2): zeros before the first frame and none behind the last, and means of what came
so far. MoViNet's means are of the whole stream; these forget what lies further back than a clip of the training is
long, so that a stream has no end. On such clips the two are one.

A layer takes a `stream`, where it keeps what the next frames need, and goes on from there; without one a clip begins.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.errors import ModelInputError

Stream = dict[nn.Module, torch.Tensor]


def with_past(x: torch.Tensor, frames: int, layer: nn.Module, stream: Stream | None) -> torch.Tensor:
    """Puts the frames before a clip in front of it.

    Args:
        x: (B, D, T, H, W).
        frames: How many.
        layer: Whose input this is.
        stream: Has the last frames of the layer's input, unless it begins, and gets the new ones.

    Returns:
        (B, D, frames + T, H, W); what was before the first frame of all is zeros.

    Raises:
        ModelInputError: The frames before had another shape.
    """
    joined = after_past(x, layer, stream)
    x = F.pad(x, (0, 0, 0, 0, frames, 0)) if joined is None else joined
    if stream is not None:
        stream[layer] = x[:, :, x.shape[2] - frames :].clone()
    return x


def after_past(x: torch.Tensor, layer: nn.Module, stream: Stream | None) -> torch.Tensor | None:
    """The frames that the stream keeps for a layer, and the new ones behind them; None where it begins."""
    if stream is None or layer not in stream:
        return None
    past = stream[layer]
    if past[:, :, 0].shape != x[:, :, 0].shape:
        raise ModelInputError(
            f"The frames before had maps of (batch, channels, rows, columns) = {tuple(past[:, :, 0].shape)}, and these "
            f"have {tuple(x[:, :, 0].shape)}: begin another stream, with an empty dict."
        )
    return torch.cat([past, x], dim=2)


def running_mean(x: torch.Tensor, frames: int, layer: nn.Module, stream: Stream | None) -> torch.Tensor:
    """Averages each frame with those before it.

    Args:
        x: (B, D, T, 1, 1).
        frames: How many count, with the one at hand; fewer where the clip or stream begins.
        layer: Whose input this is.
        stream: See `with_past`.

    Returns:
        (B, D, T, 1, 1).
    """
    joined = after_past(x, layer, stream)
    seen = x if joined is None else joined
    if stream is not None and frames > 1:
        stream[layer] = seen[:, :, -(frames - 1) :].clone()
    sums = F.pad(seen, (0, 0, 0, 0, frames - 1, 0)).unfold(2, frames, 1).sum(-1)
    counts = torch.arange(1, seen.shape[2] + 1, device=x.device).clamp(max=frames)
    return (sums / counts.to(x.dtype).view(-1, 1, 1))[:, :, seen.shape[2] - x.shape[2] :]
