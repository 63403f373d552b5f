"""What FedProx, SCAFFOLD and FedDyn add to a client's gradients.

A term is added to `parameter.grad` once for each step of the optimiser, after micro-batches were accumulated: a term in
the loss would count once for each micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hf_video.errors import FederatedError

Parameters = Mapping[str, torch.nn.Parameter]
Tensors = dict[str, torch.Tensor]


class GradientTerm:
    """Base class: `add` is called before each step of the optimiser, `finish` after the last one.

    Args:
        parameters: Those that are trained, by name, with the values that the server sent.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.received = {name: one.detach().clone() for name, one in parameters.items()}

    def term(self, name: str) -> torch.Tensor:
        """What is added to the gradient of a parameter."""
        raise NotImplementedError(f"{type(self).__name__} has no term.")

    @torch.no_grad()
    def add(self) -> None:
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                parameter.grad += self.term(name).to(parameter.grad)


class ProximalTerm(GradientTerm):
    """mu · (w - w_t), the gradient of mu / 2 · |w - w_t|² (FedProx, equation 2)."""

    def __init__(self, parameters: Parameters, mu: float) -> None:
        super().__init__(parameters)
        self.mu = mu

    def term(self, name: str) -> torch.Tensor:
        return self.mu * (self.parameters[name].detach() - self.received[name])


class ControlTerm(GradientTerm):
    """c - c_i, the server's control variate less the client's own (SCAFFOLD, algorithm 1).

    Args:
        parameters: See `GradientTerm`.
        server, client: Control variates by name; None for the client's first round.
    """

    def __init__(self, parameters: Parameters, server: Tensors, client: Tensors | None = None) -> None:
        super().__init__(parameters)
        self.server = server
        self.client = client or {name: torch.zeros_like(one) for name, one in server.items()}

    def term(self, name: str) -> torch.Tensor:
        return self.server[name] - self.client[name]

    def finish(self, steps: int, learning_rate: float) -> tuple[Tensors, Tensors]:
        """Returns the client's next control variates, c_i - c + (w_t - w) / (steps · learning_rate), and their change.

        Raises:
            FederatedError: No step was taken.
        """
        if steps < 1:
            raise FederatedError("SCAFFOLD needs a client that took a step.")
        following = {
            name: self.client[name] - self.server[name] + (self.received[name] - one.detach()) / (steps * learning_rate)
            for name, one in self.parameters.items()
        }
        return following, {name: value - self.client[name] for name, value in following.items()}


class DynamicTerm(GradientTerm):
    """alpha · (w - w_t) - h_i, where h_i gathers what a client moved in earlier rounds (FedDyn, algorithm 1)."""

    def __init__(self, parameters: Parameters, alpha: float, gathered: Tensors | None = None) -> None:
        super().__init__(parameters)
        self.alpha = alpha
        self.gathered = gathered or {name: torch.zeros_like(one) for name, one in self.received.items()}

    def term(self, name: str) -> torch.Tensor:
        return self.alpha * (self.parameters[name].detach() - self.received[name]) - self.gathered[name]

    def finish(self) -> Tensors:
        """Returns h_i of the next round."""
        return {
            name: self.gathered[name] - self.alpha * (one.detach() - self.received[name])
            for name, one in self.parameters.items()
        }
