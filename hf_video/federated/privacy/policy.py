"""`PrivacyPolicy`: what is protected, how well, and by which numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from hf_video.errors import FederatedError, check_choice, check_count, check_number, unknown_name
from hf_video.federated.privacy.accounting import ACCOUNTANTS, Release, composed_epsilon, noise_for

UNITS = ("video", "client")
BATCH_NORMS = ("refuse", "freeze")
# Short names, as in "video:eps=8,delta=1e-5,clip=1.0".
SHORT = {"eps": "epsilon", "noise": "noise_multiplier", "sigma": "noise_multiplier"}


@dataclass(frozen=True)
class PrivacyPolicy:
    """What a training promises: that a model tells little of whether one video, or one client, took part.

    Args:
        unit: "video" (DP-SGD on each client) or "client" (clients' whole changes are clipped, the server adds noise).
        epsilon: ε that may not be passed. Without `noise_multiplier` the noise is computed from it.
        delta: δ that ε is told at, less than 1 / units.
        clip: L2 norm to which a video's gradient or a client's change is clipped.
        noise_multiplier: Deviation of the noise of a step or round, in units of `clip`; 0 is no privacy.
        accountant: "prv" or "rdp", see `composed_epsilon`.
        adaptive_quantile: Of the clients' norms, which the clip then follows from round to round (`AdaptiveClip`); None
            keeps it as it is.
        adaptive_rate: How fast it follows.
        batch_norms: "refuse" a model with batch norms in training, or "freeze" their statistics.

    Raises:
        FederatedError: A number has no meaning, or there is neither `epsilon` nor `noise_multiplier`.
    """

    unit: str
    epsilon: float | None = None
    delta: float = 1e-5
    clip: float = 1.0
    noise_multiplier: float | None = None
    accountant: str = "prv"
    adaptive_quantile: float | None = None
    adaptive_rate: float = 0.2
    batch_norms: str = "refuse"

    def __post_init__(self) -> None:
        check_choice("unit", self.unit, UNITS, FederatedError)
        check_choice("accountant", self.accountant, ACCOUNTANTS, FederatedError)
        check_choice("batch_norms", self.batch_norms, BATCH_NORMS, FederatedError)
        check_number("epsilon", self.epsilon, FederatedError, above=0, optional=True)
        check_number("delta", self.delta, FederatedError, above=0, below=1)
        check_number("clip", self.clip, FederatedError, above=0)
        check_number("noise_multiplier", self.noise_multiplier, FederatedError, least=0, optional=True)
        check_number("adaptive_quantile", self.adaptive_quantile, FederatedError, above=0, below=1, optional=True)
        check_number("adaptive_rate", self.adaptive_rate, FederatedError, above=0)
        if self.epsilon is None and self.noise_multiplier is None:
            raise FederatedError("Privacy needs epsilon, such as 8, or noise_multiplier, such as 1.")
        if self.unit == "video" and self.adaptive_quantile is not None:
            raise FederatedError("adaptive_quantile follows clients' norms: it is of the unit client.")

    @classmethod
    def parse(cls, text: str | Mapping[str, Any] | PrivacyPolicy) -> PrivacyPolicy:
        """Reads "video:eps=8,delta=1e-5,clip=1.0", or a mapping with the names of the arguments.

        Raises:
            FederatedError: A name that there is not, or a value that is no number.
        """
        if isinstance(text, PrivacyPolicy):
            return text
        if isinstance(text, str):
            unit, _, rest = text.partition(":")
            pairs = [part.partition("=") for part in rest.split(",") if part.strip()]
            if bare := next((name for name, equals, _ in pairs if not equals), None):
                raise FederatedError(f"privacy={text!r}: {bare!r} has no value. Write video:eps=8,delta=1e-5,clip=1.0.")
            values: dict[str, Any] = {"unit": unit.strip(), **{name.strip(): value for name, _, value in pairs}}
        else:
            values = dict(text)
        values = {SHORT.get(name, name): value for name, value in values.items()}
        kinds = {one.name: one.type for one in fields(cls)}
        for name, value in values.items():
            if name not in kinds:
                raise FederatedError(unknown_name("Privacy has no", name, [*kinds, *SHORT]))
            if "float" in str(kinds[name]) and isinstance(value, str):
                try:
                    values[name] = float(value)
                except ValueError:
                    raise FederatedError(f"privacy: {name}={value!r} must be a number.") from None
        if "unit" not in values:
            raise FederatedError(f"Privacy needs its unit, one of {', '.join(UNITS)}.")
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """The arguments that are set, as YAML has them."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def check_units(self, units: int) -> None:
        """Raises FederatedError where δ would allow to give away a whole unit: it must be below 1 / units."""
        check_count("units", units, FederatedError)
        if self.delta * units >= 1:
            raise FederatedError(
                f"delta={self.delta:g} must be below 1 / {units} {self.unit}s = {1 / units:.3g}: else to publish one "
                f"of them would count as private. Set delta={10 ** -math.ceil(math.log10(units) + 1):g} or less."
            )

    def resolved(self, planned: Sequence[Release], spent: Sequence[Release] = ()) -> PrivacyPolicy:
        """The policy with its noise: the given one, else the least with which what is planned, on top of what was
        spent, stays within ε.

        Args:
            planned: Chances and numbers of steps; their noise is what is looked for.
            spent: What there was already.
        """
        if self.noise_multiplier is not None or self.epsilon is None:
            return self
        noise = noise_for(self.epsilon, self.delta, planned, spent, accountant=self.accountant)
        return replace(self, noise_multiplier=noise)

    def spent(self, releases: Sequence[Release]) -> float:
        """ε of what was released at the policy's δ."""
        return composed_epsilon(releases, self.delta, accountant=self.accountant)
