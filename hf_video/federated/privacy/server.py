"""Rounds with client-level privacy: the server's part."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hf_video.federated.arrays import Arrays, is_floating, widened
from hf_video.federated.privacy.accounting import Release
from hf_video.federated.privacy.clients import AdaptiveClip, add_update, private_mean, update_norm
from hf_video.federated.privacy.ledger import PrivacyLedger
from hf_video.federated.privacy.policy import PrivacyPolicy
from hf_video.federated.privacy.statement import PrivacyStatement
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, ServerState

SLOT = "privacy"  # of the server's state: the clip that a round ended with
MEAN = "private mean"


class ClientLevelPrivacy:
    """Makes the rounds of a rule that averages private: clients are drawn on their own, each with the chance
    `fraction`; their changes are clipped, all floating tensors together; and the rule gets the noisy mean over the
    expected number of clients, as if it were one client's answer (McMahan et al., ICLR 2018). Counts stay as they are.

    Args:
        policy: Of the unit "client".
        num_clients: All of the federation.
        fraction: Chance of a client to be asked; 1 asks all.
        ledger: Of the server.
        generator: Of draws and noise; one with a seed that is known is for tests and voids the guarantee.

    Raises:
        FederatedError: δ is too large for so few clients.
    """

    def __init__(
        self,
        policy: PrivacyPolicy,
        num_clients: int,
        fraction: float,
        ledger: PrivacyLedger,
        generator: np.random.Generator | None = None,
    ) -> None:
        policy.check_units(num_clients)
        self.policy, self.num_clients, self.fraction, self.ledger = policy, num_clients, fraction, ledger
        self.known_seed = generator is not None
        self.generator = generator or np.random.default_rng(secrets.randbits(128))

    def begin_round(self, rounds_left: int) -> None:
        """Settles the noise, and tells before anything is asked whether a round more is within the target.

        Raises:
            FederatedError: It is not.
        """
        self.policy = self.ledger.settle_noise(self.policy, [Release(self.fraction, rounds_left)])
        self.ledger.check(self.policy, [Release(self.fraction, 1)])

    def select(self, clients: Sequence[str]) -> list[str]:
        """Those that a round asks, in the order of names; there may be none."""
        return [name for name in sorted(clients) if self.generator.random() < self.fraction]

    def aggregate(
        self, strategy: AggregationStrategy, state: ServerState, results: Mapping[str, ClientResult]
    ) -> ServerState:
        """The next state. The ledger has the round before the new model is anywhere."""
        updates = {client: change(state.arrays, one.arrays) for client, one in results.items()}
        expected, noise = self.fraction * self.num_clients, self.policy.noise_multiplier or 0.0
        kept = state.slots.get(SLOT, {})
        clip = float(kept["clip"]) if "clip" in kept else self.policy.clip
        slots = {}
        if self.policy.adaptive_quantile is not None:
            # The count's own noise: a twentieth of the clients (the paper's), and enough to leave some for the sum.
            rule = AdaptiveClip(
                clip, self.policy.adaptive_quantile, self.policy.adaptive_rate, max(expected / 20, noise)
            )
            norms = {client: update_norm(update) for client, update in updates.items()}
            fraction = rule.unclipped_fraction(norms, expected, self.generator.standard_normal() if noise else 0.0)
            slots = {SLOT: {"clip": np.asarray(rule.following(fraction).clip)}}
            noise = rule.noise_of_sum(noise) if noise else 0.0
        nothing = {name: np.zeros(one.shape) for name, one in state.arrays.items() if is_floating(one)}
        mean = private_mean(updates or {MEAN: nothing}, clip, noise, expected, self.generator)
        self.ledger.record(self.policy, Release(self.fraction, 1), self.num_clients)
        result = ClientResult(add_update(state.arrays, mean), num_examples=1)
        after = strategy.aggregate(state, {MEAN: result})
        return replace(after, slots={**after.slots, **slots})

    def spent(self) -> float:
        """ε of the rounds so far."""
        return self.ledger.spent(self.policy)

    def statement(self) -> PrivacyStatement:
        """What may be said of the rounds so far."""
        return PrivacyStatement(
            self.policy, self.ledger.releases("client"), self.num_clients, known_seed=self.known_seed
        )


def change(before: Arrays, after: Arrays) -> Arrays:
    """What floating tensors differ by, float64."""
    return {name: widened(after[name]) - widened(one) for name, one in before.items() if is_floating(one)}
