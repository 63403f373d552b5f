"""The table of a video's frames: what is known of them before they are decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FrameTable:
    """`pts` (int64, in display order) names frames by timestamp; it is None if they can only be counted.

    `seconds` (float64) are presentation times, `keys` (int64) the indices of keyframes, `end` is when the last frame
    ends, in seconds. `access` says how to start at a keyframe: `seek` to it, `pass` over the packets before it, or
    decode from the `start`; `plain` is for streams with damage inside: decode from the start and skip nothing, because
    what is concealed depends on everything before it. `origin` is what the table was made from: `index`, `packets` or
    `decode`. `rebuilt` is True if the file's times contradict the decoder's order, so that `seconds` are counted from
    the rate.
    """

    pts: np.ndarray | None
    seconds: np.ndarray
    keys: np.ndarray
    end: float
    access: str
    origin: str
    rebuilt: bool = False

    def __len__(self) -> int:
        return len(self.seconds)

    def key_before(self, index: int) -> int:
        """Position in `keys` of the last keyframe at or before frame `index`."""
        return int(np.searchsorted(self.keys, index, side="right")) - 1

    def nearest_keyframes(self, indices: np.ndarray) -> np.ndarray:
        """For each frame index the keyframe whose time is nearest; of two equally near ones the earlier.

        A video without keyframes (some recordings refresh a part of every picture instead) keeps the frames asked
        for.
        """
        if not len(self.keys):
            return indices
        times = self.seconds[self.keys]
        after = np.clip(np.searchsorted(times, self.seconds[indices]), 0, len(times) - 1)
        before = np.maximum(after - 1, 0)
        goal = self.seconds[indices]
        nearer = np.where(goal - times[before] <= times[after] - goal, before, after)
        return self.keys[nearer]

    def corrected(self, seen: FrameTable) -> FrameTable:
        """This table, made from an index, after the packets were `seen`.

        Where they only lack some of the frames, the index was right and the file is damaged: frames keep their numbers,
        and the lost ones are found out when they are read.
        """
        if self.pts is None or seen.pts is None or len(seen) >= len(self) or not np.isin(seen.pts, self.pts).all():
            return seen
        keys = np.searchsorted(self.pts, seen.pts[seen.keys])
        return FrameTable(self.pts, self.seconds, keys, self.end, "plain", seen.origin)
