"""Rules of the server: whom a round asks, what it tells them, and what becomes of their answers.

A rule knows nothing of the engine that carries messages. Its state is arrays and numbers alone, so that a server that
was stopped goes on with what it had saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from hf_video.errors import FederatedError, check_choice, check_number
from hf_video.federated.arrays import Arrays, check_arrays, is_floating, narrowed, weighted_mean, widened

WEIGHTINGS = ("examples", "uniform")


@dataclass(frozen=True)
class ServerState:
    """What a server needs to go on after `round` rounds.

    Args:
        arrays: The model's tensors that travel.
        round: Rounds that are done.
        slots: What the rule keeps, float64 arrays by slot and tensor, such as a momentum.
    """

    arrays: Arrays
    round: int = 0
    slots: Mapping[str, Arrays] = field(default_factory=dict)


@dataclass(frozen=True)
class ClientResult:
    """What a client answers after its local training.

    Args:
        arrays: Its tensors.
        num_examples: Videos it trained on.
        steps: Local steps it took (FedNova).
        loss: Mean loss of the model it was sent, before its steps (q-FedAvg).
        control: Change of its control variates (SCAFFOLD).
        metrics: Numbers to report.
    """

    arrays: Arrays
    num_examples: int
    steps: int | None = None
    loss: float | None = None
    control: Arrays | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class AggregationStrategy:
    """Base class, and FedAvg (McMahan et al., AISTATS 2017, algorithm 1): the mean of the clients' models.

    Args:
        weighting: "examples" weighs clients by their videos, "uniform" all alike.
    """

    name: ClassVar[str] = "fedavg"
    needs: ClassVar[tuple[str, ...]] = ()  # fields of ClientResult that must be there

    def __init__(self, weighting: str = "examples") -> None:
        self.weighting = check_choice("weighting", weighting, WEIGHTINGS, FederatedError)

    def select(self, clients: Sequence[str], fraction: float, round_number: int, seed: int) -> list[str]:
        """Draws the clients of a round, `fraction` of them and at least one, in the order of names.

        Raises:
            FederatedError: There are no clients, or the fraction is not in (0, 1].
        """
        check_number("fraction", fraction, FederatedError, above=0, most=1)
        if not clients:
            raise FederatedError("There are no clients.")
        count = max(round(fraction * len(clients)), 1)
        drawn = np.random.default_rng([seed, round_number]).choice(sorted(clients), count, replace=False)
        return sorted(drawn.tolist())

    def client_settings(self, state: ServerState) -> dict[str, float]:
        """What clients are told besides the model."""
        return {}

    def client_arrays(self, state: ServerState) -> Arrays | None:
        """Arrays that clients are sent besides the model."""
        return None

    def aggregate(self, state: ServerState, results: Mapping[str, ClientResult]) -> ServerState:
        """Makes the next state of the answers, by client.

        Raises:
            FederatedError: There are none, one can't be used, or a rule lacks what it needs of one.
        """
        if not results:
            raise FederatedError(f"No client answered in round {state.round + 1}.")
        for client in sorted(results):
            result = results[client]
            check_arrays(client, result.arrays, state.arrays)
            if result.num_examples <= 0:
                raise FederatedError(f"Client {client!r} says that it trained on {result.num_examples} videos.")
            if absent := [name for name in self.needs if getattr(result, name) is None]:
                raise FederatedError(f"{self.name} needs {absent[0]!r} of each client, and {client!r} sent none.")
        arrays, slots = self.combine(state, results)
        return replace(state, arrays=arrays, slots={**state.slots, **slots}, round=state.round + 1)

    def combine(self, state: ServerState, results: Mapping[str, ClientResult]) -> tuple[Arrays, dict[str, Arrays]]:
        """The next model and what changed of the slots; subclasses have their own."""
        return self.mean(results), {}

    def weights(self, results: Mapping[str, ClientResult]) -> dict[str, float]:
        return {client: one.num_examples if self.weighting == "examples" else 1.0 for client, one in results.items()}

    def mean(self, results: Mapping[str, ClientResult]) -> Arrays:
        return weighted_mean({client: one.arrays for client, one in results.items()}, self.weights(results))


class FedProx(AggregationStrategy):
    """FedAvg of models that are held near the one they were sent (Li et al., MLSys 2020, equation 2). Clients that
    could not take all steps answer what they have.

    Args:
        mu: Weight of mu / 2 · |w - w_t|²; `ProximalTerm` adds its gradient.
    """

    name = "fedprox"

    def __init__(self, mu: float = 0.01, weighting: str = "examples") -> None:
        super().__init__(weighting)
        self.mu = check_number("mu", mu, FederatedError, least=0)

    def client_settings(self, state: ServerState) -> dict[str, float]:
        return {"proximal_mu": self.mu}


class QFedAvg(AggregationStrategy):
    """Fairness by loss (Li et al., ICLR 2020, q-FFL, algorithm 2): clients with a higher loss count more.

    Args:
        q: 0 is a uniform mean; the higher, the more even the clients' losses.
        lipschitz: L of the paper, 1 / the clients' learning rate.
    """

    name, needs = "qfedavg", ("loss",)

    def __init__(self, q: float = 0.2, lipschitz: float = 10.0) -> None:
        super().__init__("uniform")
        self.q = check_number("q", q, FederatedError, least=0)
        self.lipschitz = check_number("lipschitz", lipschitz, FederatedError, above=0)

    def combine(self, state: ServerState, results: Mapping[str, ClientResult]) -> tuple[Arrays, dict[str, Arrays]]:
        names = [name for name, array in state.arrays.items() if is_floating(array)]
        total, curvature = {name: np.zeros(state.arrays[name].shape) for name in names}, 0.0
        for client in sorted(results):
            loss = float(results[client].loss or 0.0) + 1e-10
            pull = {
                name: self.lipschitz * (widened(state.arrays[name]) - widened(results[client].arrays[name]))
                for name in names
            }
            square = sum(float((one**2).sum()) for one in pull.values())
            curvature += self.q * loss ** (self.q - 1) * square + self.lipschitz * loss**self.q
            for name in names:
                total[name] += loss**self.q * pull[name]
        mean = self.mean(results)
        moved = {
            name: narrowed(widened(state.arrays[name]) - total[name] / curvature, state.arrays[name]) for name in names
        }
        return {name: moved.get(name, mean[name]) for name in state.arrays}, {}


class FedNova(AggregationStrategy):
    """Clients' changes are divided by their steps before they are averaged, so that those who take more steps do not
    pull the optimum to theirs (Wang et al., NeurIPS 2020, equation 5, for plain SGD)."""

    name, needs = "fednova", ("steps",)

    def combine(self, state: ServerState, results: Mapping[str, ClientResult]) -> tuple[Arrays, dict[str, Arrays]]:
        weights, mean = self.weights(results), self.mean(results)
        total = sum(weights.values())
        steps = {client: int(one.steps or 0) for client, one in results.items()}
        if min(steps.values()) < 1:
            raise FederatedError(f"fednova needs clients that took a step: {steps!r}.")
        effective = sum(weights[client] / total * steps[client] for client in sorted(results))
        arrays = {}
        for name, before in state.arrays.items():
            if not is_floating(before):
                arrays[name] = mean[name]
                continue
            old = widened(before)
            direction = sum(
                weights[client] / total * (old - widened(results[client].arrays[name])) / steps[client]
                for client in sorted(results)
            )
            arrays[name] = narrowed(old - effective * direction, before)
        return arrays, {}


class Scaffold(AggregationStrategy):
    """Control variates against the drift of clients (Karimireddy et al., ICML 2020, algorithm 1, option II).

    Args:
        num_clients: All clients of the federation, N of the paper; a round may ask fewer.
        learning_rate: Of the server.
    """

    name, needs = "scaffold", ("control",)

    def __init__(self, num_clients: int, learning_rate: float = 1.0) -> None:
        super().__init__("uniform")
        self.num_clients = num_clients
        self.learning_rate = check_number("learning_rate", learning_rate, FederatedError, above=0)

    def client_arrays(self, state: ServerState) -> Arrays | None:
        if "control" in state.slots:
            return dict(state.slots["control"])
        return {name: np.zeros(array.shape) for name, array in state.arrays.items() if is_floating(array)}

    def combine(self, state: ServerState, results: Mapping[str, ClientResult]) -> tuple[Arrays, dict[str, Arrays]]:
        mean, control = self.mean(results), self.client_arrays(state) or {}
        arrays = {
            name: narrowed(widened(before) + self.learning_rate * (widened(mean[name]) - widened(before)), before)
            if is_floating(before)
            else mean[name]
            for name, before in state.arrays.items()
        }
        changed = {}
        for name, value in control.items():
            moved = sum(widened((results[client].control or {})[name]) for client in sorted(results))
            changed[name] = value + moved / self.num_clients
        return arrays, {"control": changed}


class FedDyn(AggregationStrategy):
    """Dynamic regularisation (Acar et al., ICLR 2021, algorithm 1).

    Args:
        num_clients: All clients of the federation.
        alpha: Weight of the regularisation; `DynamicTerm` has the clients' part.
    """

    name = "feddyn"

    def __init__(self, num_clients: int, alpha: float = 0.1) -> None:
        super().__init__("uniform")
        self.num_clients = num_clients
        self.alpha = check_number("alpha", alpha, FederatedError, above=0)

    def client_settings(self, state: ServerState) -> dict[str, float]:
        return {"dynamic_alpha": self.alpha}

    def combine(self, state: ServerState, results: Mapping[str, ClientResult]) -> tuple[Arrays, dict[str, Arrays]]:
        mean, arrays, drift = self.mean(results), {}, {}
        for name, before in state.arrays.items():
            if not is_floating(before):
                arrays[name] = mean[name]
                continue
            old, new = widened(before), widened(mean[name])
            kept = state.slots["drift"][name] if "drift" in state.slots else np.zeros(before.shape)
            drift[name] = kept - self.alpha * (new - old) * len(results) / self.num_clients
            arrays[name] = narrowed(new - drift[name] / self.alpha, before)
        return arrays, {"drift": drift}
