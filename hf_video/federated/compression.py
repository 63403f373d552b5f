"""Fewer bytes on the way to the server: 8 bits for each number, or only the largest numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_video.errors import FederatedError, check_count


@dataclass(frozen=True)
class Int8Tensor:
    """A tensor as int8 numbers times one scale."""

    values: np.ndarray
    scale: float

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + 4

    def decode(self) -> np.ndarray:
        return self.values.astype(np.float64) * self.scale


def to_int8(tensor: np.ndarray) -> Int8Tensor:
    """Rounds a tensor to 255 levels from -max|x| to max|x|; the error is half a level at most.

    Raises:
        FederatedError: It holds numbers that are not finite.
    """
    tensor = np.asarray(tensor, dtype=np.float64)
    if not np.isfinite(tensor).all():
        raise FederatedError("A tensor with numbers that are not finite can't be compressed.")
    scale = float(np.abs(tensor).max(initial=0.0)) / 127
    return Int8Tensor(np.rint(tensor / scale if scale else tensor).astype(np.int8), scale)


@dataclass(frozen=True)
class SparseTensor:
    """Some numbers of a flat tensor, float32, and their places, int32 ascending."""

    indices: np.ndarray
    values: np.ndarray
    size: int

    @property
    def nbytes(self) -> int:
        return self.indices.nbytes + self.values.nbytes

    def decode(self) -> np.ndarray:
        dense = np.zeros(self.size)
        dense[self.indices] = self.values
        return dense


def top_k(update: np.ndarray, residual: np.ndarray | None, count: int) -> tuple[SparseTensor, np.ndarray]:
    """Keeps the `count` largest numbers of update + residual; what is not sent stays for the next round (error
    feedback, Stich et al., NeurIPS 2018).

    Args:
        update: Of one tensor, of any shape.
        residual: What earlier rounds left, of the same shape; None in the first one.
        count: Numbers to send.

    Returns:
        What is sent, of the flat tensor, and the next residual.
    """
    check_count("count", count, FederatedError, most=update.size)
    total = np.asarray(update, dtype=np.float64) + (0 if residual is None else residual)
    flat = total.ravel()
    # Stable, so that equal numbers are chosen by their place.
    indices = np.sort(np.argsort(-np.abs(flat), kind="stable")[:count]).astype(np.int32)
    left = flat.copy()
    values = flat[indices].astype(np.float32)
    left[indices] -= values
    return SparseTensor(indices, values, flat.size), left.reshape(total.shape)
