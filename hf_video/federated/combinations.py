"""What can't go together, each with the sentence that says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hf_video.errors import FederatedError

SINGLE_ANSWERS = ("median", "trimmed_mean", "krum")
MEANS = ("fedavg", "fedprox")  # whose server has nothing to do but to add


@dataclass(frozen=True)
class Combination:
    """The choices of a federation that others may exclude.

    Args:
        strategy: Name of the server's rule.
        secure: "secagg", "he" or None.
        compression: Such as "int8"; None for none.
        privacy: The unit, "video" or "client"; None for no guarantee.
        personal: Name of the personal rule; None for none.
        clients: How many a round asks; None where it is not known yet.
        max_update_norm: Whether the server refuses changes that are too large.
        server_evaluation: Whether the server measures the model itself.
        trains_batch_norms: Whether the model has batch norms that learn from a batch.
    """

    strategy: str = "fedavg"
    secure: str | None = None
    compression: str | None = None
    privacy: str | None = None
    personal: str | None = None
    clients: int | None = None
    max_update_norm: bool = False
    server_evaluation: bool = False
    trains_batch_norms: bool = False


RULES: tuple[tuple[Callable[[Combination], bool], str], ...] = (
    # -- secure sums of either kind: the server has no client's answer --
    (
        lambda it: it.secure and it.strategy in SINGLE_ANSWERS,
        "{strategy} compares the answers of clients, and under secure={secure} the server sees their sum alone: use "
        "fedavg, and hold changes by the clip of secagg.",
    ),
    (
        lambda it: it.secure and it.strategy == "qfedavg",
        "qfedavg weighs clients by their losses, which under secure={secure} no server may see: use fedavg.",
    ),
    (
        lambda it: it.secure and it.strategy == "fednova",
        "fednova needs each client's number of steps in the clear, which secure={secure} hides: use fedavg or fedprox.",
    ),
    (
        lambda it: it.secure and it.strategy == "scaffold",
        "scaffold's clients send control variates in the clear, which tell as much as their gradients: under "
        "secure={secure} use fedavg or fedprox.",
    ),
    (
        lambda it: it.secure and it.strategy == "feddyn",
        "feddyn's server counts clients alike, and under secure={secure} it has one weighted sum: use fedprox.",
    ),
    (
        lambda it: it.secure and it.compression is not None,
        "compression={compression} has no place in a secure sum, whose numbers are rounded by secure={secure} itself: "
        "leave it out.",
    ),
    (
        lambda it: it.secure and it.max_update_norm,
        "max_update_norm asks for the norm of each client's change, which under secure={secure} no server sees: leave "
        "it out.",
    ),
    (
        lambda it: it.secure and it.privacy == "client",
        "Client-level privacy clips each client's change at the server, which under secure={secure} sees none of them: "
        "use privacy=video:…, which is the clients' own.",
    ),
    (
        lambda it: it.secure == "secagg" and it.clients is not None and it.clients < 3,
        "secagg with {clients} clients hides nothing, since of two each learns the other's part from the sum: a round "
        "must ask three or more.",
    ),
    # -- homomorphic encryption: the server has no model either --
    (
        lambda it: it.secure == "he" and it.strategy not in MEANS,
        "{strategy} makes more of the clients' answers than their mean, and under secure=he the server can't open "
        "them: use fedavg or fedprox, or secagg.",
    ),
    (
        lambda it: it.secure == "he" and it.server_evaluation,
        "A server can't measure a model that it can't open: under secure=he clients evaluate, so give it no test "
        "videos.",
    ),
    (
        lambda it: it.secure == "he" and it.clients is not None and it.clients < 2,
        "The encrypted sum of one client is that client's model: a round must ask two or more.",
    ),
    # -- privacy --
    (
        lambda it: it.privacy is not None and it.trains_batch_norms,
        "Batch norms that learn mix the videos of a batch, so that privacy={privacy} bounds the influence of none: "
        "freeze them, or use a model with other norms.",
    ),
    (
        lambda it: (
            it.privacy == "client" and it.strategy in (*SINGLE_ANSWERS, "qfedavg", "fednova", "scaffold", "feddyn")
        ),
        "Client-level privacy is proven for the mean of clipped changes, and {strategy} makes another use of them: use "
        "fedavg, fedprox or a server optimizer.",
    ),
    # -- models of the clients' own --
    (
        lambda it: it.privacy == "video" and it.personal in ("apfl", "perfedavg"),
        "{personal} trains with a loss of two models, whose gradients are not those of one video: under privacy=video "
        "use ditto, fedper or adapt.",
    ),
    (
        lambda it: it.strategy in ("scaffold", "feddyn") and it.personal in ("fedrep", "apfl", "perfedavg", "reptile"),
        "{strategy} counts every step of the model that is sent as a plain one, and {personal} takes others: use "
        "fedavg or fedprox.",
    ),
)


def find_conflicts(combination: Combination) -> list[str]:
    """Why these choices can't go together, a sentence for each reason; empty where they can."""
    return [sentence.format(**vars(combination)) for applies, sentence in RULES if applies(combination)]


def check_combination(combination: Combination) -> None:
    """Raises FederatedError, which says why, where choices can't go together."""
    if conflicts := find_conflicts(combination):
        raise FederatedError(" ".join(conflicts))
