"""Clips that show few frames many times, as those of keyframes do: each frame is processed once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


class KeptFrames:
    """Model inputs of clips, frame by frame, for a processor to which each frame of a clip stands for itself. What a
    frame became is kept for the next clip.

    Args:
        process: From frames (T, H, W, 3) to inputs (rows, T, ...), by name.
    """

    def __init__(self, process: Callable[[np.ndarray], dict[str, torch.Tensor]]):
        self._process = process
        self._kept: dict[int, dict[str, torch.Tensor]] = {}

    def inputs(self, frames: np.ndarray, indices: np.ndarray, needed: np.ndarray) -> dict[str, torch.Tensor]:
        """What `process` gives of the frames that a clip needs: the distinct ones are `frames`, and `indices` (K,)
        their ascending numbers. A clip of one frame takes the memory of one."""
        kept = self._kept
        self._kept = {
            index: kept[index] if index in kept else self._process(frames[place : place + 1])
            for place, index in enumerate(indices.tolist())
        }
        shown = [self._kept[index] for index in needed.tolist()]
        if len(indices) == 1:
            return {name: value.expand(-1, len(shown), *value.shape[2:]) for name, value in shown[0].items()}
        return {name: torch.cat([one[name] for one in shown], dim=1) for name in shown[0]}
