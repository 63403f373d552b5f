"""Random choices that depend on what is chosen for and on nothing else: not on workers, batch size or processes."""

from __future__ import annotations

import numpy as np
import torch


def sample_seed(seed: int, epoch: int, index: int, repeat: int = 0, purpose: int = 0) -> int:
    """A number from 0 to 2**63 - 1 for one sample; the same arguments give the same number, on every machine.

    `purpose` tells apart independent draws for the same sample (which frames, which crop, which replacement).
    """
    entropy = [int(part) for part in (seed, epoch, index, repeat, purpose)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int) -> torch.Generator:
    """A generator of its own, at this seed."""
    return torch.Generator().manual_seed(seed)
