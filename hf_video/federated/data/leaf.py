"""LEAF, the benchmark of federated learning (Caldas et al., 2018): its JSON files and its synthetic data set."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_video.errors import FederatedError, check_count, check_number

INPUTS, CLASSES = 60, 10


@dataclass(frozen=True)
class LeafUser:
    """The examples of one user: `x` and `y`, one entry for each, and where the user belongs."""

    x: list[Any]
    y: list[Any]
    hierarchy: str | None = None


def read_leaf(path: str | os.PathLike[str]) -> dict[str, LeafUser]:
    """Reads a file of LEAF.

    Args:
        path: One JSON object with `users`, `num_samples`, `user_data` and perhaps `hierarchies`.

    Raises:
        FederatedError: It is none, a user stands there twice or has no data, or a number of examples is wrong.
    """
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8") as file:
            facts = json.load(file)
        users, counts, data = list(facts["users"]), list(facts["num_samples"]), dict(facts["user_data"])
        places = list(facts.get("hierarchies") or [None] * len(users))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FederatedError(
            f"{name} is no file of LEAF, a JSON object with users, num_samples and user_data: {error!r}."
        ) from error
    if len(set(users)) != len(users):
        twice = next(user for user in users if users.count(user) > 1)
        raise FederatedError(f"{name}: the user {twice!r} stands there twice.")
    if not len(users) == len(counts) == len(places):
        raise FederatedError(f"{name}: {len(users)} users, {len(counts)} num_samples and {len(places)} hierarchies.")
    if strangers := sorted(set(data) - set(users)):
        raise FederatedError(f"{name}: user_data has {strangers[0]!r}, whom users has not.")
    return {u: _user(name, u, data, c, p) for u, c, p in zip(users, counts, places, strict=True)}


def _user(name: str, user: str, data: Mapping[str, Any], count: int, place: str | None) -> LeafUser:
    own = data.get(user)
    if not isinstance(own, Mapping) or not {"x", "y"} <= set(own) or not len(own["x"]):
        raise FederatedError(f"{name}: the user {user!r} has no data.")
    if not len(own["x"]) == len(own["y"]) == count:
        raise FederatedError(
            f"{name}: the user {user!r} has {len(own['x'])} x and {len(own['y'])} y, and num_samples says {count}."
        )
    return LeafUser(list(own["x"]), list(own["y"]), place)


def synthetic(alpha: float, beta: float, users: int, *, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draws Synthetic(alpha, beta), softmax regressions of 60 inputs and 10 classes (Li et al., MLSys 2020, section 5).

    Args:
        alpha: Variance of how much the users' models differ.
        beta: Variance of how much their inputs differ.
        users: How many.
        seed: Of all draws, in the order: sizes, model means, input means, then user by user input centres, weights,
            biases, inputs.

    Returns:
        For each user x (n, 60) float64 and y (n,) int64; sizes are log-normal, from 50 to 1,000.
    """
    check_number("alpha", alpha, FederatedError, least=0)
    check_number("beta", beta, FederatedError, least=0)
    check_count("users", users, FederatedError)
    generator = np.random.default_rng(seed)
    sizes = np.minimum(generator.lognormal(4, 2, users).astype(int) + 50, 1000)
    model_means = generator.normal(0, np.sqrt(alpha), users)
    input_means = generator.normal(0, np.sqrt(beta), users)
    deviations = np.sqrt(np.arange(1, INPUTS + 1) ** -1.2)
    drawn = []
    for size, model, mean in zip(sizes, model_means, input_means, strict=True):
        centre = generator.normal(mean, 1, INPUTS)
        weight = generator.normal(model, 1, (INPUTS, CLASSES))
        bias = generator.normal(model, 1, CLASSES)
        x = generator.normal(centre, deviations, (size, INPUTS))
        drawn.append((x, (x @ weight + bias).argmax(1)))
    return drawn
