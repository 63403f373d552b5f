"""Secrets in parts, of which some are enough (Shamir, 1979)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from hf_video.errors import FederatedError

# A Mersenne prime above 2^512: a secret of 32 or 64 bytes is one number of the field.
PRIME = 2**521 - 1


def split_secret(
    secret: int, shares: int, threshold: int, *, prime: int = PRIME, coefficients: Sequence[int] | None = None
) -> dict[int, int]:
    """Makes shares of a secret: points of a random polynomial whose value at 0 it is.

    Args:
        secret: From 0 to `prime` - 1.
        shares: How many are made, numbered from 1.
        threshold: How many give it back; fewer tell nothing.
        prime: Of the field.
        coefficients: The polynomial's other `threshold` - 1 coefficients, instead of a draw; for tests.

    Raises:
        FederatedError: A number has no meaning here.
    """
    if not 1 <= threshold <= shares < prime or not 0 <= secret < prime:
        raise FederatedError(
            f"A secret of the field is split into N shares of which T <= N give it back; {threshold} of {shares} came."
        )
    drawn = [secrets.randbelow(prime) for _ in range(threshold - 1)] if coefficients is None else list(coefficients)
    polynomial = [secret, *drawn]
    return {x: sum(c * pow(x, k, prime) for k, c in enumerate(polynomial)) % prime for x in range(1, shares + 1)}


def join_secret(shares: Mapping[int, int], threshold: int, *, prime: int = PRIME) -> int:
    """Gives a secret back from `threshold` of its shares or more, by Lagrange's interpolation at 0.

    Raises:
        FederatedError: There are fewer.
    """
    if len(shares) < threshold:
        raise FederatedError(f"{threshold} shares give the secret back, and {len(shares)} came.")
    points = sorted(shares.items())[:threshold]
    total = 0
    for x, y in points:
        above = below = 1
        for other, _ in points:
            if other != x:
                above, below = above * -other % prime, below * (x - other) % prime
        total += y * above * pow(below, -1, prime)
    return total % prime
