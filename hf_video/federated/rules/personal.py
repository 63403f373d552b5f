"""Models of the clients' own: FedBN, FedPer, FedRep, Ditto, APFL, Per-FedAvg, Reptile, and adaptation after training.

A rule says which tensors travel, how a client trains in a round, what it keeps on its disk, and what its own model is
then. It takes no steps itself: `train` does, with the client's videos, batches and optimiser.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from torch.func import functional_call

from hf_video.errors import FederatedError, check_count, check_number, check_switch
from hf_video.federated.keys import KeyPolicy
from hf_video.federated.rules.corrections import GradientTerm, ProximalTerm, Tensors


class Train(Protocol):
    """Takes steps on the client's videos.

    Args:
        module: What is trained: the model, or a module around it whose loss is what the rule asks for.
        steps: Steps of the optimiser; by default those of a round.
        term: What is added to the gradients before each step.
        learning_rate: Makes them steps of plain SGD; by default the client's optimiser takes them.
        own: Whether it is the client's own model, which the strategy's terms don't concern.
    """

    def __call__(
        self,
        module: nn.Module,
        *,
        steps: int | None = None,
        term: GradientTerm | None = None,
        learning_rate: float | None = None,
        own: bool = False,
    ) -> None: ...


@torch.no_grad()
def load_tensors(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copies tensors into those of a model, by name; others stay as they are."""
    state = model.state_dict()
    for name, value in tensors.items():
        state[name].copy_(value)


def copied_tensors(model: nn.Module, names: list[str]) -> Tensors:
    """Copies of tensors of a model."""
    state = model.state_dict()
    return {name: state[name].detach().clone() for name in names}


def trained_names(model: nn.Module) -> list[str]:
    """Names of the parameters that are trained, and of the buffers beside them."""
    return KeyPolicy("trainable").names(model)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


class PersonalRule:
    """Base class: tensors that don't travel stay with the client, and are trained together with the rest."""

    name: ClassVar[str] = ""
    travels: ClassVar[str] = "all"  # see `KeyPolicy`
    changes_model: ClassVar[bool] = False  # whether `make_personal` does anything
    trainings: ClassVar[int] = 1  # of what is sent, in a round
    begins_with_mean: ClassVar[bool] = False  # whether a client that is new begins with what others keep

    def local_round(self, model: nn.Module, kept: Tensors, train: Train) -> Tensors:
        """Trains a client for one round.

        Args:
            model: Holds what the server sent, and the client's own tensors that don't travel; afterwards both as they
                go on.
            kept: What this returned in the client's last round; {} in its first.
            train: Takes the steps.

        Returns:
            What the client keeps beside the tensors that don't travel.
        """
        train(model)
        return {}

    def make_personal(self, model: nn.Module, kept: Tensors, train: Train) -> None:
        """Turns the server's model, which `model` holds beside the client's own tensors, into the client's own."""


class FedBN(PersonalRule):
    """Parameters and statistics of batch norms stay with the client (Li et al., ICLR 2021, algorithm 1); a client that
    is new begins with `mean_of_kept`."""

    name, travels, begins_with_mean = "fedbn", "without_batch_norms", True


class FedLN(PersonalRule):
    """As FedBN, with the layer norms of transformers."""

    name, travels, begins_with_mean = "fedln", "without_layer_norms", True


class FedPer(PersonalRule):
    """The head stays with the client (Arivazhagan et al., 2019, algorithm 1)."""

    name, travels = "fedper", "body"


class FedRep(PersonalRule):
    """The head stays with the client, and is trained before the body (Collins et al., ICML 2021, algorithm 1).

    Args:
        head_steps: Steps of the head under the body that was sent; by default as many as a round has.
        body_steps: Steps of the body under the head that was found; by default as many as a round has.
    """

    name, travels, trainings = "fedrep", "body", 2

    def __init__(self, head_steps: int | None = None, body_steps: int | None = None) -> None:
        for name, steps in (("head_steps", head_steps), ("body_steps", body_steps)):
            if steps is not None:
                check_count(name, steps, FederatedError)
        self.head_steps, self.body_steps = head_steps, body_steps

    def local_round(self, model: nn.Module, kept: Tensors, train: Train) -> Tensors:
        body = set(KeyPolicy("body").names(model))
        trained = trained_parameters(model)
        try:
            for part_is_body, steps in ((False, self.head_steps), (True, self.body_steps)):
                for name, parameter in trained.items():
                    parameter.requires_grad_((name in body) == part_is_body)
                train(model, steps=steps)
        finally:
            for parameter in trained.values():
                parameter.requires_grad_(True)
        return {}


class Ditto(PersonalRule):
    """Beside the common model w each client has one of its own, v, that is held near it (Li et al., ICML 2021,
    algorithm 1): v -= rate · (g(v) + lam · (v - w_t)).

    Args:
        lam: Weight of lam / 2 · |v - w_t|².
        personal_steps: Steps of v in a round; by default as many as the common model takes.
    """

    name, changes_model = "ditto", True

    def __init__(self, lam: float = 0.1, personal_steps: int | None = None) -> None:
        self.lam = check_number("lam", lam, FederatedError, least=0)
        self.personal_steps = personal_steps
        if personal_steps is not None:
            check_count("personal_steps", personal_steps, FederatedError)

    def local_round(self, model: nn.Module, kept: Tensors, train: Train) -> Tensors:
        names = trained_names(model)
        term = ProximalTerm(trained_parameters(model), self.lam)  # around w_t, which the model holds now
        received = copied_tensors(model, names)
        train(model)
        sent = copied_tensors(model, names)
        load_tensors(model, kept or received)
        train(model, steps=self.personal_steps, term=term, own=True)
        own = copied_tensors(model, names)
        load_tensors(model, sent)
        return own

    def make_personal(self, model: nn.Module, kept: Tensors, train: Train) -> None:
        load_tensors(model, kept)


class AroundModel(nn.Module):
    """Base class of modules that a Trainer trains in place of a model. Its optimiser groups their parameters as those
    of `described_by`."""

    _shared_model: nn.Module

    @property
    def described_by(self) -> nn.Module:
        """w, which is trained in place."""
        return self._shared_model

    @property
    def config(self) -> Any:
        """The model's."""
        return getattr(self._shared_model, "config", None)


class MixedModel(AroundModel):
    """The loss f(w) + f(alpha · v + (1 - alpha) · w), where the second term leaves w alone: its gradients are those by
    which APFL moves w, v and alpha, each at the values before the step.

    Args:
        model: w, which is trained in place.
        own: v.
        alpha: Share of v.
    """

    def __init__(self, model: nn.Module, own: Tensors, alpha: float) -> None:
        super().__init__()
        self._shared_model = model
        # Frozen parameters are the same tensors in both.
        self._own_model = copy.deepcopy(model, {id(one): one for one in model.parameters() if not one.requires_grad})
        load_tensors(self.own, own)
        self.alpha = torch.tensor(float(alpha), dtype=torch.float64)
        self.accepts_loss_kwargs = _accepts_loss_kwargs(model)

    @property
    def own(self) -> nn.Module:
        """v."""
        return self._own_model

    def mixed(self) -> Tensors:
        """alpha · v + (1 - alpha) · w of the parameters that are trained."""
        shared = dict(self.described_by.named_parameters())
        return {
            name: self.alpha.to(own) * own + (1 - self.alpha.to(own)) * shared[name].detach()
            for name, own in trained_parameters(self.own).items()
        }

    def forward(self, **inputs: Any) -> Any:
        outputs = functional_call(self.own, self.mixed(), kwargs=inputs)
        outputs["loss"] = outputs["loss"] + self.described_by(**inputs)["loss"]
        return outputs


class AlphaStep(GradientTerm):
    """Moves the alpha of a `MixedModel` against its gradient in the first step of a round, within [0, 1]."""

    def __init__(self, mixture: MixedModel, rate: float) -> None:
        self.mixture, self.rate = mixture, rate
        mixture.alpha.requires_grad_(rate > 0)

    def add(self) -> None:
        alpha = self.mixture.alpha
        if alpha.grad is not None:
            self.mixture.alpha = (alpha.detach() - self.rate * alpha.grad).clamp(0, 1)


class APFL(PersonalRule):
    """Each client's model is a mixture of the common one and of one of its own (Deng et al., 2020, algorithm 1).

    Args:
        alpha: Share of the client's own model at first.
        alpha_rate: How fast a client moves its alpha, once a round (equation 11); 0 leaves it.
    """

    name, changes_model = "apfl", True
    ALPHA = "apfl.alpha"

    def __init__(self, alpha: float = 0.5, alpha_rate: float = 0.1) -> None:
        self.alpha = check_number("alpha", alpha, FederatedError, least=0, most=1)
        self.alpha_rate = check_number("alpha_rate", alpha_rate, FederatedError, least=0)

    def local_round(self, model: nn.Module, kept: Tensors, train: Train) -> Tensors:
        mixture = self._mixture(model, kept)
        train(mixture, term=AlphaStep(mixture, self.alpha_rate))
        return {**copied_tensors(mixture.own, trained_names(mixture.own)), self.ALPHA: mixture.alpha.detach()}

    def make_personal(self, model: nn.Module, kept: Tensors, train: Train) -> None:
        mixture = self._mixture(model, kept)
        buffers = {name: one for name, one in mixture.own.named_buffers() if name in kept}
        load_tensors(model, {**mixture.mixed(), **buffers})

    def _mixture(self, model: nn.Module, kept: Tensors) -> MixedModel:
        own = {name: value for name, value in kept.items() if name != self.ALPHA}
        return MixedModel(model, own, float(kept.get(self.ALPHA, self.alpha)))


class AdaptedModel(AroundModel):
    """The loss of a model after one step of its own: f(w - rate · g(w; D1); D2), where D1 is the first half of the
    batch and D2 the rest. A batch of one video is both.

    Args:
        model: w, which is trained in place.
        rate: Of the step inside.
        second_order: Whether the gradient sees through that step (MAML); without, it is g(w - …; D2) itself.
    """

    def __init__(self, model: nn.Module, rate: float, second_order: bool = False) -> None:
        super().__init__()
        self._shared_model, self.rate, self.second_order = model, rate, second_order
        self.accepts_loss_kwargs = False  # each half has a mean of its own

    def forward(self, **inputs: Any) -> Any:
        rows = max(len(value) for value in inputs.values() if isinstance(value, torch.Tensor) and value.ndim)
        half = max(rows // 2, 1)
        first, second = (
            {name: value[part] if _has_rows(value, rows) else value for name, value in inputs.items()}
            for part in (slice(half), slice(half if rows > 1 else 0, None))
        )
        parameters = trained_parameters(self.described_by)
        loss = self.described_by(**first)["loss"]
        gradients = torch.autograd.grad(
            loss, list(parameters.values()), create_graph=self.second_order, allow_unused=True
        )
        moved = {
            name: one if gradient is None else one - self.rate * gradient
            for (name, one), gradient in zip(parameters.items(), gradients, strict=True)
        }
        return functional_call(self.described_by, moved, kwargs=second)


class LocalAdaptation(PersonalRule):
    """The common model is trained for some more steps by each client when the rounds are over, or before it is tested
    ("fine-tuning": Yu et al., "Salvaging federated learning by local adaptation", 2020).

    Args:
        steps: How many; by default as many as a round has.
        rate: Of plain SGD; by default the client's optimiser takes the steps.
    """

    name, changes_model = "adapt", True

    def __init__(self, steps: int | None = None, rate: float | None = None) -> None:
        if steps is not None:
            check_count("steps", steps, FederatedError)
        self.steps = steps
        self.rate = None if rate is None else check_number("rate", rate, FederatedError, above=0)

    def make_personal(self, model: nn.Module, kept: Tensors, train: Train) -> None:
        train(model, steps=self.steps, learning_rate=self.rate, own=True)


class Reptile(LocalAdaptation):
    """A model from which few steps lead to each client's own (Nichol et al., 2018, algorithm 2); the server's part is
    `ReptileServer` of `server_optimizers`."""

    name = "reptile"


class PerFedAvg(LocalAdaptation):
    """A model that is good after one step of a client (Fallah et al., NeurIPS 2020, algorithm 1).

    Args:
        alpha: Rate of that step; that of the clients' optimiser is beta of the paper.
        steps: Steps that make the client's own model; the paper takes one.
        second_order: The gradient with the Hessian, which the paper's HF variant approximates; the first-order variant
            (FO) leaves it out.
    """

    name = "perfedavg"

    def __init__(self, alpha: float = 0.01, steps: int = 1, *, second_order: bool = False) -> None:
        super().__init__(steps, alpha)
        self.second_order = check_switch("second_order", second_order, FederatedError)

    def local_round(self, model: nn.Module, kept: Tensors, train: Train) -> Tensors:
        train(AdaptedModel(model, self.rate, self.second_order))
        return {}


RULES: dict[str, type[PersonalRule]] = {
    rule.name: rule for rule in (FedBN, FedLN, FedPer, FedRep, Ditto, APFL, PerFedAvg, Reptile, LocalAdaptation)
}


def mean_of_kept(kept: Mapping[str, Tensors]) -> Tensors:
    """What a new client begins with: the mean over the known clients of what they kept, such as their batch norms.

    Args:
        kept: By client.

    Returns:
        Means, computed in float64; of counts the largest.

    Raises:
        FederatedError: Nobody is known, or clients kept different tensors.
    """
    if not kept:
        raise FederatedError("No client is known yet from whose tensors a new one could begin.")
    first = next(iter(kept.values()))
    if odd := next((client for client, own in kept.items() if own.keys() != first.keys()), None):
        raise FederatedError(f"Client {odd!r} kept other tensors than the rest.")
    means = {}
    for name, like in first.items():
        values = torch.stack([kept[client][name].cpu() for client in sorted(kept)])
        means[name] = values.double().mean(0).to(like.dtype) if like.is_floating_point() else values.amax(0)
    return means


def _has_rows(value: object, rows: int) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == rows


def _accepts_loss_kwargs(model: nn.Module) -> bool:
    """Whether a Trainer may hand the model the number of items in the batch."""
    kinds = {one.kind for one in inspect.signature(model.forward).parameters.values()}
    return bool(getattr(model, "accepts_loss_kwargs", inspect.Parameter.VAR_KEYWORD in kinds))
