"""How much privacy a run has spent: (ε, δ) of the Gaussian mechanism, with and without sampling.

Neighbouring data sets differ by one unit that is added or removed: a video under DP-SGD, a client under client-level
privacy. Accounts of sampled steps are Opacus' (the extra `federated-dp`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hf_video.errors import BackendError, FederatedError, check_choice, check_count, check_number

ACCOUNTANTS = ("prv", "rdp")


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


def sampled_epsilon(
    noise_multiplier: float, sample_rate: float, steps: int, delta: float, *, accountant: str = "prv"
) -> float:
    """ε of DP-SGD with Poisson sampling.

    Args:
        noise_multiplier: Deviation of the noise, in clipping bounds.
        sample_rate: Chance of a unit to be in a step; 1 is without sampling, and exact.
        steps: How many.
        delta: The δ that it is told at.
        accountant: "prv" (Gopi et al., NeurIPS 2021), the tighter, or "rdp" (Mironov et al., 2019).

    Raises:
        FederatedError: A number has no meaning here.
        BackendError: Opacus is not installed.
    """
    check_choice("accountant", accountant, ACCOUNTANTS, FederatedError)
    check_number("sample_rate", sample_rate, FederatedError, above=0, most=1)
    check_count("steps", steps, FederatedError, least=0)
    _check(noise_multiplier, delta)
    if not steps:
        return 0.0
    if sample_rate == 1 and accountant == "prv":
        return gaussian_epsilon(noise_multiplier, delta, steps)
    try:
        from opacus.accountants import create_accountant
    except ImportError as error:
        raise BackendError(
            'Accounts of private steps need Opacus, which is not installed: pip install "hf_video[federated-dp]".'
        ) from error
    account = create_accountant(mechanism=accountant)
    account.history = [(float(noise_multiplier), float(sample_rate), int(steps))]
    return float(account.get_epsilon(delta=delta))


def _check(noise_multiplier: float, delta: float) -> None:
    check_number("noise_multiplier", noise_multiplier, FederatedError, above=0)
    check_number("delta", delta, FederatedError, above=0, below=1)
