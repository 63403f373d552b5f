"""Optimisers on the server, whose gradient is what clients changed: FedAvgM, FedAdagrad, FedAdam, FedYogi, Reptile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from hf_video.errors import FederatedError, check_number
from hf_video.federated.arrays import Arrays, is_floating, narrowed, widened
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, ServerState


class ServerOptimizer(AggregationStrategy):
    """The mean change of the clients' models as the gradient of an optimiser on the server; subclasses have `step`.

    Args:
        learning_rate: Of the server.
    """

    slot_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, learning_rate: float, weighting: str = "examples") -> None:
        super().__init__(weighting)
        self.learning_rate = check_number("learning_rate", learning_rate, FederatedError, above=0)

    def initial(self, slot: str, like: np.ndarray) -> np.ndarray:
        return np.zeros(like.shape)

    def step(self, change: np.ndarray, slots: dict[str, np.ndarray], round_number: int) -> np.ndarray:
        """What is added to the model, of the mean change of one tensor, float64; `slots` are changed in place."""
        raise NotImplementedError(f"{type(self).__name__} has no step.")

    def combine(self, state: ServerState, results: Mapping[str, ClientResult]) -> tuple[Arrays, dict[str, Arrays]]:
        mean, arrays = self.mean(results), {}
        weights = self.weights(results)
        total = sum(weights.values())
        slots: dict[str, Arrays] = {slot: {} for slot in self.slot_names}
        for name, before in state.arrays.items():
            if not is_floating(before):
                arrays[name] = mean[name]
                continue
            old = widened(before)
            change = sum(
                (widened(results[client].arrays[name]) - old) * (weights[client] / total) for client in sorted(weights)
            )
            own = {
                slot: np.array(state.slots[slot][name]) if slot in state.slots else self.initial(slot, before)
                for slot in self.slot_names
            }
            arrays[name] = narrowed(old + self.step(np.asarray(change), own, state.round + 1), before)
            for slot, value in own.items():
                slots[slot][name] = value
        return arrays, slots


class FedAvgM(ServerOptimizer):
    """Momentum on the server (Hsu et al., 2019): v = momentum · v + change, w += learning_rate · v."""

    name, slot_names = "fedavgm", ("velocity",)

    def __init__(self, learning_rate: float = 1.0, momentum: float = 0.9, weighting: str = "examples") -> None:
        super().__init__(learning_rate, weighting)
        self.momentum = check_number("momentum", momentum, FederatedError, least=0, below=1)

    def step(self, change: np.ndarray, slots: dict[str, np.ndarray], round_number: int) -> np.ndarray:
        slots["velocity"] *= self.momentum
        slots["velocity"] += change
        return self.learning_rate * slots["velocity"]


class AdaptiveServerOptimizer(ServerOptimizer):
    """Reddi et al. (ICLR 2021), algorithm 2: m = beta_1 m + (1 - beta_1) change; w += learning_rate · m / (√v + tau),
    where v begins at tau² and nothing corrects for the beginning. Subclasses say how v moves.

    Args:
        learning_rate: Of the server.
        beta_1, beta_2: Of both moments.
        tau: Adaptivity.
        flower: Flower 1.42's variant: v begins at 0, FedAdam corrects by powers of round + 1, FedAdagrad has no
            first moment.
    """

    slot_names = ("first_moment", "second_moment")

    def __init__(
        self,
        learning_rate: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-3,
        *,
        flower: bool = False,
        weighting: str = "examples",
    ) -> None:
        super().__init__(learning_rate, weighting)
        self.beta_1 = check_number("beta_1", beta_1, FederatedError, least=0, below=1)
        self.beta_2 = check_number("beta_2", beta_2, FederatedError, least=0, below=1)
        self.tau = check_number("tau", tau, FederatedError, above=0)
        self.flower = flower

    def initial(self, slot: str, like: np.ndarray) -> np.ndarray:
        return np.full(like.shape, 0.0 if self.flower or slot == "first_moment" else self.tau**2)

    def second_moment(self, moment: np.ndarray, square: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} has no second moment.")

    def rate(self, round_number: int) -> float:
        return self.learning_rate

    def step(self, change: np.ndarray, slots: dict[str, np.ndarray], round_number: int) -> np.ndarray:
        slots["first_moment"] = self.beta_1 * slots["first_moment"] + (1 - self.beta_1) * change
        slots["second_moment"] = self.second_moment(slots["second_moment"], change**2)
        return self.rate(round_number) * slots["first_moment"] / (np.sqrt(slots["second_moment"]) + self.tau)


class FedAdagrad(AdaptiveServerOptimizer):
    """v += change²."""

    name = "fedadagrad"

    def __init__(self, learning_rate: float = 0.1, beta_1: float = 0.9, **options: float) -> None:
        super().__init__(learning_rate, 0.0 if options.get("flower") else beta_1, **options)

    def second_moment(self, moment: np.ndarray, square: np.ndarray) -> np.ndarray:
        return moment + square


class FedAdam(AdaptiveServerOptimizer):
    """v = beta_2 v + (1 - beta_2) change²."""

    name = "fedadam"

    def rate(self, round_number: int) -> float:
        if not self.flower:
            return self.learning_rate
        power = round_number + 1
        return self.learning_rate * math.sqrt(1 - self.beta_2**power) / (1 - self.beta_1**power)

    def second_moment(self, moment: np.ndarray, square: np.ndarray) -> np.ndarray:
        return self.beta_2 * moment + (1 - self.beta_2) * square


class FedYogi(AdaptiveServerOptimizer):
    """v -= (1 - beta_2) change² · sign(v - change²)."""

    name = "fedyogi"

    def second_moment(self, moment: np.ndarray, square: np.ndarray) -> np.ndarray:
        return moment - (1 - self.beta_2) * square * np.sign(moment - square)


class ReptileServer(ServerOptimizer):
    """w += learning_rate · (mean of the clients' models - w), all clients alike (Nichol et al., 2018, algorithm 2; the
    rate is eps of the paper)."""

    name = "reptile"

    def __init__(self, learning_rate: float = 0.5, weighting: str = "uniform") -> None:
        super().__init__(learning_rate, weighting)

    def step(self, change: np.ndarray, slots: dict[str, np.ndarray], round_number: int) -> np.ndarray:
        return self.learning_rate * change
