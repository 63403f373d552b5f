"""How much privacy a run has spent: (ε, δ) of the Gaussian mechanism, with and without sampling.

Neighbouring data sets differ by one unit that is added or removed: a video under DP-SGD, a client under client-level
privacy. Accounts of sampled steps are Opacus' (the extra `federated-dp`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from hf_video.errors import BackendError, FederatedError, check_choice, check_count, check_number

ACCOUNTANTS = ("prv", "rdp")
MOST_PRV = 100.0  # ε above which Opacus' PRV account takes minutes, and overflows to infinity
MOST_NOISE = 1e6


def gaussian_delta(epsilon: float, noise_multiplier: float, releases: int = 1) -> float:
    """δ at ε of `releases` Gaussian mechanisms of sensitivity 1 without sampling, exactly (Balle & Wang, ICML 2018,
    theorem 8): Φ(-ε/μ + μ/2) - e^ε Φ(-ε/μ - μ/2), where μ = √releases / noise_multiplier."""
    mu = math.sqrt(releases) / noise_multiplier
    first = _log_phi(-epsilon / mu + mu / 2)
    second = epsilon + _log_phi(-epsilon / mu - mu / 2)
    return -math.exp(first) * math.expm1(second - first) if second < first else 0.0


def _log_phi(x: float) -> float:
    """Logarithm of the normal distribution function; erfc keeps the tail exact until it underflows."""
    if x > -30:
        return math.log(0.5 * math.erfc(-x / math.sqrt(2)))
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) - 1 / (x * x)


def gaussian_epsilon(noise_multiplier: float, delta: float, releases: int = 1) -> float:
    """The smallest ε at which `gaussian_delta` is at most `delta`."""
    _check(noise_multiplier, delta)
    if check_count("releases", releases, FederatedError, least=0) == 0:
        return 0.0
    return _smallest(lambda epsilon: gaussian_delta(epsilon, noise_multiplier, releases) <= delta)


def gaussian_noise(epsilon: float, delta: float, releases: int = 1) -> float:
    """The smallest noise multiplier with which `releases` Gaussian mechanisms are (ε, δ) private."""
    check_number("epsilon", epsilon, FederatedError, above=0)
    _check(1.0, delta)
    return _smallest(lambda sigma: sigma > 0 and gaussian_delta(epsilon, sigma, releases) <= delta)


def _smallest(holds: Callable[[float], bool]) -> float:
    """The smallest positive number for which a monotone condition holds, to 13 digits; never below it."""
    high = 1.0
    while not holds(high):
        high *= 2
        if high > 1e12:
            return math.inf
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
        if high - low <= 1e-13 * high:
            break
    return high


@dataclass(frozen=True)
class Release:
    """Steps of one kind that were taken, or are planned.

    Args:
        sample_rate: Chance of a unit to be in a step; 1 is without sampling.
        steps: How many.
        noise_multiplier: Deviation of the noise, in clipping bounds; None where it is still to be found.
    """

    sample_rate: float
    steps: int
    noise_multiplier: float | None = None

    def __post_init__(self) -> None:
        check_number("sample_rate", self.sample_rate, FederatedError, above=0, most=1)
        check_count("steps", self.steps, FederatedError, least=0)
        check_number("noise_multiplier", self.noise_multiplier, FederatedError, least=0, optional=True)


def composed_epsilon(releases: Sequence[Release], delta: float, *, accountant: str = "prv") -> float:
    """ε of everything that was released, one after the other.

    Args:
        releases: With their noise.
        delta: The δ that it is told at.
        accountant: "prv" (Gopi et al., NeurIPS 2021), the tighter, or "rdp" (Mironov et al., 2019). Without sampling
            "prv" is exact.

    Raises:
        FederatedError: A number has no meaning here.
        BackendError: Opacus is not installed.
    """
    check_choice("accountant", accountant, ACCOUNTANTS, FederatedError)
    check_number("delta", delta, FederatedError, above=0, below=1)
    steps: dict[tuple[float, float], int] = {}
    for one in releases:
        if one.steps:
            kind = (float(one.noise_multiplier or 0.0), float(one.sample_rate))
            steps[kind] = steps.get(kind, 0) + one.steps
    if not steps:
        return 0.0
    if min(noise for noise, _ in steps) == 0:
        return math.inf
    unsampled = gaussian_epsilon(sum(count / noise**2 for (noise, _), count in steps.items()) ** -0.5, delta)
    if accountant == "prv" and all(rate == 1 for _, rate in steps):
        return unsampled
    mechanisms = ("rdp", accountant) if unsampled > MOST_PRV else (accountant,)
    found = _opacus_epsilon(tuple((*kind, count) for kind, count in sorted(steps.items())), delta, mechanisms)
    return found if accountant == "rdp" else min(found, unsampled)


@lru_cache(maxsize=4096)  # clients with as many videos have the same accounts, and each is asked for in every round
def _opacus_epsilon(history: tuple[tuple[float, float, int], ...], delta: float, mechanisms: tuple[str, ...]) -> float:
    """ε of (noise, rate, steps) by the first of Opacus' accountants, and by the next where it is not above MOST_PRV."""
    try:
        from opacus.accountants import create_accountant
    except ImportError as error:
        raise BackendError(
            'Accounts of private steps need Opacus, which is not installed: pip install "hf_video[federated-dp]".'
        ) from error
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # orders at an end of their range make the bound looser, and no less true
        for mechanism in mechanisms:
            account = create_accountant(mechanism=mechanism)
            account.history = list(history)
            found = float(account.get_epsilon(delta=delta))
            if found > MOST_PRV:
                break
    return found


def sampled_epsilon(
    noise_multiplier: float, sample_rate: float, steps: int, delta: float, *, accountant: str = "prv"
) -> float:
    """ε of DP-SGD with Poisson sampling: `composed_epsilon` of steps of one kind."""
    _check(noise_multiplier, delta)
    return composed_epsilon([Release(sample_rate, steps, noise_multiplier)], delta, accountant=accountant)


def noise_for(
    epsilon: float,
    delta: float,
    planned: Sequence[Release],
    spent: Sequence[Release] = (),
    *,
    accountant: str = "prv",
) -> float:
    """The least noise multiplier, to a thousandth, with which what is planned stays within ε.

    Args:
        epsilon, delta: The target.
        planned: Chances and numbers of steps, all with the noise that is looked for.
        spent: What was released before, with its noise.
        accountant: See `composed_epsilon`.

    Raises:
        FederatedError: No noise is enough, as what was spent passes ε already.
    """
    check_number("epsilon", epsilon, FederatedError, above=0)

    def found(noise: float, mechanism: str) -> float:
        return composed_epsilon([*spent, *(replace(p, noise_multiplier=noise) for p in planned)], delta,
                                accountant=mechanism)  # fmt: skip

    before = composed_epsilon(spent, delta, accountant=accountant)
    if before >= epsilon:
        raise FederatedError(f"ε = {before:.3g} was spent already, and the target is {epsilon:g}. Raise epsilon.")
    high = 0.5
    while found(high, "rdp") > epsilon:
        high *= 1.5
        if high > MOST_NOISE:
            raise FederatedError(f"No noise keeps {planned} within ε = {epsilon:g}, δ = {delta:g}. Take fewer steps.")
    while (at_high := found(high, accountant)) > epsilon:  # by the error that PRV allows itself
        high *= 1.05
    low = high / 1.25
    while (at_low := found(low, accountant)) <= epsilon:
        low, high, at_high = low / 1.25, low, at_low
    step = 0
    while high / low > 1.001:
        step, middle = step + 1, math.sqrt(low * high)
        if at_low < math.inf and step % 4:
            # Where ε as a power of the noise meets the target, and a little towards the end that is farther away.
            root = low * (high / low) ** (math.log(at_low / epsilon) / math.log(at_low / at_high))
            guess = root * 1.0004 if high * low > root**2 else root / 1.0004
            middle = guess if low < guess < high else middle
        value = found(middle, accountant)
        if value <= epsilon:
            high, at_high = middle, value
        else:
            low, at_low = middle, value
    return high


def _check(noise_multiplier: float, delta: float) -> None:
    check_number("noise_multiplier", noise_multiplier, FederatedError, above=0)
    check_number("delta", delta, FederatedError, above=0, below=1)
