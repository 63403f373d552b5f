"""What a model card says of its privacy: the guarantee, how it was reached, and what it does not cover."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_video.federated.privacy.accounting import Release, composed_epsilon
from hf_video.federated.privacy.policy import PrivacyPolicy

UNPROTECTED = {
    "video": (
        "Measured numbers, curves and choices made by looking at them; the number of videos, their classes and names "
        "in this folder's files."
    ),
    "client": "Measured numbers, curves and choices made by looking at them; who took part, and how many clients.",
}


@dataclass(frozen=True)
class PrivacyStatement:
    """The guarantee of a finished training.

    Args:
        policy: With its noise.
        releases: Everything that was released.
        units: Videos, or clients, there were.
        known_seed: Whether sampling or noise came from a seed that somebody knows, as in tests: no guarantee then.
        holder: Whose videos.
        notes: More sentences.
    """

    policy: PrivacyPolicy
    releases: Sequence[Release]
    units: int
    known_seed: bool = False
    holder: str = ""
    notes: Sequence[str] = ()

    def facts(self) -> dict[str, Any]:
        """The numbers, for `training_summary.json`, and the `statement`. ε is None where there is none."""
        policy, steps = self.policy, sum(one.steps for one in self.releases)
        spent = {name: composed_epsilon(self.releases, policy.delta, accountant=name) for name in ("prv", "rdp")}
        facts = {
            "unit": policy.unit,
            **{f"epsilon_{name}": value if math.isfinite(value) else None for name, value in spent.items()},
            "delta": policy.delta,
            "target_epsilon": policy.epsilon,
            "accountant": policy.accountant,
            "noise_multiplier": policy.noise_multiplier,
            "clip": policy.clip,
            "adaptive_quantile": policy.adaptive_quantile,
            "sample_rates": sorted({one.sample_rate for one in self.releases}),
            "steps": steps,
            "units": self.units,
            "batch_norms": policy.batch_norms,
            "known_seed": self.known_seed,
            "holder": self.holder,
            "notes": list(self.notes),
        }
        return {**facts, "statement": statement_text(facts)}

    def text(self) -> str:
        """Markdown, a paragraph and a list."""
        return str(self.facts()["statement"])


def _upwards(epsilon: float) -> str:
    """Two decimals, rounded up: a guarantee is never told better than it is."""
    return f"{math.ceil(epsilon * 100) / 100:g}"


def statement_text(facts: Mapping[str, Any]) -> str:
    """The statement of `PrivacyStatement.facts`, in Markdown."""
    unit, chosen = facts["unit"], facts[f"epsilon_{facts['accountant']}"]
    if facts["known_seed"]:
        promise = "**No guarantee**: sampling or noise came from a seed that is known, as in tests."
    elif chosen is None:
        promise = "**No guarantee**: no noise was added."
    else:
        of = f" of {facts['holder']}" if facts["holder"] else ""
        promise = (
            f"Differentially private at the level of one {unit}{of}: "
            f"**(ε, δ) = ({_upwards(chosen)}, {facts['delta']:g})**. A model trained with one {unit} more or less "
            f"gives any answer with a probability that differs by a factor of at most e^ε, but for δ."
        )
    rates = ", ".join(f"{rate:.4g}" for rate in facts["sample_rates"]) or "none"
    sampling = "every unit in every step" if facts["sample_rates"] == [1] else "Poisson, each unit on its own"
    other = "rdp" if facts["accountant"] == "prv" else "prv"
    beside = facts[f"epsilon_{other}"]
    clip = f"{facts['clip']:g}" + (
        f" at first, then following the {facts['adaptive_quantile']:g} quantile of the norms"
        if facts["adaptive_quantile"] is not None
        else ""
    )
    lines = [
        f"Accountant: {facts['accountant'].upper()}; {other.upper()} says ε = "
        f"{'∞' if beside is None else _upwards(beside)}.",
        f"Noise: {facts['noise_multiplier']:.4g} times the clipping bound C = {clip}, Gaussian, once a "
        f"{'step' if unit == 'video' else 'round'}; floating point, from a generator that is not cryptographic, "
        "seeded by the system.",
        f"Sampling: {sampling}, rate {rates}, {facts['steps']} {'steps' if unit == 'video' else 'rounds'}, "
        f"{facts['units']} {unit}s.",
        f"One {unit} is protected"
        + (
            ": several videos of one person are several units, unless they were joined."
            if unit == "video"
            else " with all its videos."
        ),
        f"Not covered: {UNPROTECTED[unit]}",
        *facts["notes"],
    ]
    if facts["batch_norms"] == "freeze":
        lines.append("Batch norms kept the statistics that training began with.")
    return "\n".join([promise, "", *(f"- {line}" for line in lines)])


def statement_of_clients(policy: PrivacyPolicy, epsilon: float) -> str:
    """What a federation states of video-level privacy, in Markdown.

    Args:
        policy: Of the federation.
        epsilon: The largest that a client told; 0 where none did.
    """
    spent = policy.epsilon if policy.epsilon is not None else epsilon
    promise = (
        f"Differentially private at the level of one video, for each client on its own: **(ε, δ) = ({_upwards(spent)}, "
        f"{policy.delta:g})** at most. The server and the other clients see no more than such models."
        if spent
        else "**No guarantee** is known: no client told what it spent."
    )
    lines = [
        f"Each client clips the gradient of each video to {policy.clip:g} and adds noise once a step; it counts its "
        f"steps in a ledger on its own disk ({policy.accountant.upper()}) and stops before ε is passed.",
        "Sampling: Poisson, each video on its own.",
        "One video is protected: several videos of one person are several units, unless they were joined.",
        f"Not covered: {UNPROTECTED['video']}",
    ]
    return "\n".join([promise, "", *(f"- {line}" for line in lines)])
