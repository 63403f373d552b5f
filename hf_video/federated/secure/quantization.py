"""Numbers as whole numbers, whose masked sums are exact modulo 2^32."""

from __future__ import annotations

import numpy as np

from hf_video.errors import FederatedError, check_number

MODULUS_BITS = 32
MIN_CLIENTS = 3  # of two, each learns the other's part from the sum


def check_sum_fits(clients: int, bits: int, max_weight: int = 1) -> None:
    """Raises FederatedError where the sum of all clients could pass 2^32, and for fewer than three clients."""
    if clients < MIN_CLIENTS:
        raise FederatedError(
            f"A secure sum needs {MIN_CLIENTS} clients or more, and {clients} take part: of two, each learns the "
            "other's part."
        )
    if bits < 1 or clients * max_weight * (2**bits - 1) > 2**MODULUS_BITS - 1:
        fitting = int((2**MODULUS_BITS - 1) // (clients * max_weight) + 1).bit_length() - 1
        advice = f"use {fitting} bits or fewer" if fitting >= 1 else "use smaller weights or fewer clients"
        raise FederatedError(
            f"{clients} clients of weight up to {max_weight} with {bits} bits can pass the modulus 2^{MODULUS_BITS}: "
            f"{advice}."
        )


def quantize(values: np.ndarray, clip: float, bits: int) -> np.ndarray:
    """Clips to [-clip, clip] and rounds to 2^bits levels, halves to even; uint32 of the same shape."""
    check_number("clip", clip, FederatedError, above=0)
    levels = 2**bits - 1
    bounded = np.clip(np.asarray(values, dtype=np.float64), -clip, clip)
    return np.rint((bounded + clip) * levels / (2 * clip)).astype(np.uint32)


def dequantize_sum(total: np.ndarray, clip: float, bits: int, weight: float) -> np.ndarray:
    """The sum of clients' numbers from the sum of their levels; `weight` is the clients' number, or the sum of their
    weights."""
    return total.astype(np.float64) * (2 * clip / (2**bits - 1)) - weight * clip
