"""What a site agrees to, whatever the server asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_video.errors import FederatedError, check_count

if TYPE_CHECKING:
    from hf_video.federated.config import FederatedConfig


@dataclass(frozen=True)
class SiteLimits:
    """What a site agrees to; a message that asks for more is refused and trains nothing.

    Args:
        rounds: No more than these in one federation.
        strategies: Names of rules of the server; none others.
        clients: No round with fewer clients, so that an aggregate hides one site's part.
        secure: Whether the federation must use secure aggregation or encryption.
        privacy: Whether it must have a guarantee of differential privacy.

    Raises:
        FederatedError: A value that can't be.
    """

    rounds: int | None = None
    strategies: tuple[str, ...] | None = None
    clients: int | None = None
    secure: bool = False
    privacy: bool = False

    def __post_init__(self) -> None:
        for name in ("rounds", "clients"):
            check_count(f"limits: {name}", getattr(self, name), FederatedError, optional=True)
        if self.strategies is not None:
            if isinstance(self.strategies, str):
                raise FederatedError(f"limits: strategies is a list, and the text {self.strategies!r} came.")
            object.__setattr__(self, "strategies", tuple(self.strategies))
        for name in ("secure", "privacy"):
            if not isinstance(getattr(self, name), bool):
                raise FederatedError(f"limits: {name} must be true or false, and {getattr(self, name)!r} came.")

    def check(self, config: FederatedConfig, round_number: int) -> None:
        """Raises FederatedError where a message asks for more than the site agrees to.

        Args:
            config: What the server says that the federation is.
            round_number: The round of the message; 0 where it is none.
        """
        from hf_video.federated.config import parse_options

        strategy, _ = parse_options("strategy", config.strategy)
        most = max(config.rounds, round_number)
        refused = {
            f"{most} rounds, and at most {self.rounds} are agreed": self.rounds is not None and most > self.rounds,
            f"the strategy {strategy!r}, and agreed are {', '.join(self.strategies or ())}": (
                self.strategies is not None and strategy not in self.strategies
            ),
            f"rounds of {config.min_clients} clients, and at least {self.clients} are agreed": (
                self.clients is not None and config.min_clients < self.clients
            ),
            "updates that the server can read, and only secure aggregation is agreed": (
                self.secure and config.secure_options() is None
            ),
            "training without differential privacy, and only private training is agreed": (
                self.privacy and config.privacy is None
            ),
        }
        for reason, is_refused in refused.items():
            if is_refused:
                raise FederatedError(f"The site's limits refuse {reason}.")
