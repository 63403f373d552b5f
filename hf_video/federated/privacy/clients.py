"""Client-level privacy: whether a client took part can't be told from the model.

Each client's whole change is clipped to one norm, the mean is over the *expected* number of clients with equal weights,
and the server adds Gaussian noise (McMahan et al., ICLR 2018). The norm may follow the clients' own (Andrew et al.,
NeurIPS 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hf_video.errors import FederatedError, check_number
from hf_video.federated.arrays import Arrays, is_floating, narrowed, widened


def update_norm(update: Arrays) -> float:
    """L2 norm over all floating tensors together."""
    return math.sqrt(sum(float((widened(one) ** 2).sum()) for one in update.values() if is_floating(one)))


def clip_update(update: Arrays, clip: float) -> tuple[Arrays, float]:
    """Scales an update down to the norm `clip` where it is longer; returns it in float64, and the norm it had."""
    norm = update_norm(update)
    scale = min(1.0, clip / norm) if norm > 0 else 1.0
    return {name: widened(one) * scale for name, one in update.items() if is_floating(one)}, norm


def private_mean(
    updates: Mapping[str, Arrays],
    clip: float,
    noise_multiplier: float,
    expected_clients: float,
    generator: np.random.Generator,
) -> Arrays:
    """The noisy mean of clipped updates, float64.

    Args:
        updates: By client, of the same tensors.
        clip: L2 norm that no client's update passes.
        noise_multiplier: Deviation of the noise on the *sum*, in units of `clip`.
        expected_clients: Rate of sampling times all clients. Dividing by who answered would tell who did.
        generator: Of the noise. Outside of tests it must be seeded by the system (`np.random.default_rng()`).

    Raises:
        FederatedError: A number has no meaning here.
    """
    check_number("clip", clip, FederatedError, above=0)
    check_number("noise_multiplier", noise_multiplier, FederatedError, least=0)
    check_number("expected_clients", expected_clients, FederatedError, above=0)
    if not updates:
        raise FederatedError("There are no updates: a round without clients still needs the names of tensors.")
    clipped = {client: clip_update(update, clip)[0] for client, update in updates.items()}
    names = clipped[min(clipped)]
    deviation = noise_multiplier * clip
    return {
        name: (
            sum(clipped[client][name] for client in sorted(clipped))
            + deviation * generator.standard_normal(names[name].shape)
        )
        / expected_clients
        for name in names
    }


def add_update(arrays: Arrays, update: Arrays) -> Arrays:
    """A model moved by a float64 update, in its own dtypes."""
    return {name: narrowed(widened(one) + update[name], one) if name in update else one for name, one in arrays.items()}


@dataclass(frozen=True)
class AdaptiveClip:
    """A clipping norm that follows a quantile of the clients' norms (Andrew et al., algorithm 1).

    Args:
        clip: The norm of the next round.
        quantile: Share of clients that should stay unclipped (γ of the paper).
        learning_rate: η of the paper.
        count_noise: Deviation of the noise on the number of unclipped clients (σ_b).
    """

    clip: float = 0.1
    quantile: float = 0.5
    learning_rate: float = 0.2
    count_noise: float = 0.0

    def unclipped_fraction(self, norms: Mapping[str, float], expected_clients: float, noise: float) -> float:
        """Noisy share of clients whose update was not longer than `clip`; `noise` is standard normal."""
        return (sum(norm <= self.clip for norm in norms.values()) + self.count_noise * noise) / expected_clients

    def following(self, fraction: float) -> AdaptiveClip:
        """The norm after a round: it grows while fewer than the quantile are unclipped."""
        return replace(self, clip=self.clip * math.exp(-self.learning_rate * (fraction - self.quantile)))

    def noise_of_sum(self, noise_multiplier: float) -> float:
        """The noise multiplier of the updates that, with the noisy count, makes `noise_multiplier` together.

        Raises:
            FederatedError: The count alone tells more than that allows.
        """
        if self.count_noise <= noise_multiplier / 2:
            raise FederatedError(
                f"count_noise={self.count_noise} must be above noise_multiplier / 2 = {noise_multiplier / 2}, or the "
                "number of unclipped clients tells more than the noise allows."
            )
        return (noise_multiplier**-2 - (2 * self.count_noise) ** -2) ** -0.5
