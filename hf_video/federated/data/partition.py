"""Divides the videos of one data set among clients, for simulations: alike, by label, by recording, by amount."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from hf_video.data.rows import VideoRows
from hf_video.errors import FederatedError, check_count, check_number, unknown_name

Parts = list[list[int]]
# UCF101's 25 groups of people and places, which cut across its classes: v_Archery_g01_c02.avi.
_UCF101 = re.compile(r"v_\w+_(g\d\d)_c\d\d\.\w+$")


def iid(count: int, clients: int, *, seed: int = 0) -> Parts:
    """Shuffles `count` rows and deals them out; clients' shares differ by one row at most."""
    order = np.random.default_rng(seed).permutation(count)
    return [sorted(order[client::clients].tolist()) for client in range(clients)]


def dirichlet(
    labels: Sequence[int],
    clients: int,
    alpha: float,
    *,
    min_rows: int = 1,
    seed: int = 0,
    proportions: np.ndarray | None = None,
) -> Parts:
    """Draws for each class which share of it each client gets (Hsu et al., 2019; Yurochkin et al., ICML 2019).

    Args:
        labels: Class numbers of the rows.
        clients: How many.
        alpha: Of the Dirichlet distribution; the smaller, the fewer classes a client has.
        min_rows: Draws are repeated until each client has as many.
        seed: Of the draws.
        proportions: (classes, clients) shares in the order of class numbers, instead of a draw.

    Raises:
        FederatedError: There are too few rows, or a hundred draws left a client with fewer.
    """
    check_number("alpha", alpha, FederatedError, above=0)
    labels = np.asarray(labels)
    classes = np.unique(labels)
    if len(labels) < clients * min_rows:
        raise FederatedError(f"{len(labels)} rows can't give each of {clients} clients {min_rows} or more.")
    generator = np.random.default_rng(seed)
    for _ in range(100):
        shares = generator.dirichlet([alpha] * clients, len(classes)) if proportions is None else proportions
        parts: Parts = [[] for _ in range(clients)]
        for label, share in zip(classes, shares, strict=True):
            rows = np.flatnonzero(labels == label)
            cuts = np.rint(np.cumsum(share)[:-1] * len(rows)).astype(int)
            for part, own in zip(parts, np.split(rows, cuts), strict=True):
                part += own.tolist()
        if proportions is not None or min(map(len, parts)) >= min_rows:
            return [sorted(part) for part in parts]
    raise FederatedError(
        f"No draw with alpha={alpha} gave each of {clients} clients {min_rows} rows or more: use a larger alpha, fewer "
        "clients or a smaller min_rows."
    )


def by_labels(labels: Sequence[int], clients: int, per_client: int, *, seed: int = 0) -> Parts:
    """Gives each client rows of `per_client` classes (McMahan et al., 2017): each class is cut into as many shards as
    clients have it."""
    labels = np.asarray(labels)
    classes = np.unique(labels)
    check_count("labels of a client", per_client, FederatedError, most=len(classes))
    order = np.random.default_rng(seed).permutation(classes)
    owned = [[order[(client * per_client + k) % len(order)] for k in range(per_client)] for client in range(clients)]
    parts: Parts = [[] for _ in range(clients)]
    for label in classes:
        owners = [client for client in range(clients) if label in owned[client]]
        if not owners:
            continue
        for client, rows in zip(owners, np.array_split(np.flatnonzero(labels == label), len(owners)), strict=True):
            parts[client] += rows.tolist()
    return [sorted(part) for part in parts]


def by_group(groups: Sequence[Hashable], clients: int) -> Parts:
    """Deals whole groups (recordings, users) out in sorted order, so that no group is at two clients.

    Raises:
        FederatedError: There are fewer groups than clients.
    """
    names = sorted(set(groups), key=str)
    if len(names) < clients:
        raise FederatedError(f"{len(names)} recordings can't be divided among {clients} clients.")
    client_of = {name: number % clients for number, name in enumerate(names)}
    return [[row for row, group in enumerate(groups) if client_of[group] == client] for client in range(clients)]


def natural_clients(rows: VideoRows) -> list[str]:
    """Whose each video is: of UCF101 the group g01 to g25, else its recording (HMDB51: the film; Kinetics and RWF-2000:
    the video on YouTube; or what the data set or `group_pattern` says).

    Raises:
        FederatedError: A video belongs to no recording that is known.
    """
    owners: list[str] = []
    for row in rows:
        match = _UCF101.search(row.name)
        owner = match.group(1) if match else row.group
        if owner is None:
            raise FederatedError(
                f"Nothing says which recording {row.name!r} is from: give a group_pattern, or another partition."
            )
        owners.append(owner)
    return owners


def by_quantity(count: int, clients: int, alpha: float, *, min_rows: int = 1, seed: int = 0) -> Parts:
    """Deals rows out alike but for their number, which follows a Dirichlet distribution."""
    check_number("alpha", alpha, FederatedError, above=0)
    if count < clients * min_rows:
        raise FederatedError(f"{count} rows can't give each of {clients} clients {min_rows} or more.")
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet([alpha] * clients)
    sizes = min_rows + np.floor(shares * (count - clients * min_rows)).astype(int)
    sizes[: count - sizes.sum()] += 1
    return [sorted(part.tolist()) for part in np.split(generator.permutation(count), np.cumsum(sizes)[:-1])]


def parse_partition(
    text: str, *, labels: Sequence[int], groups: Sequence[Hashable] | None = None, clients: int, seed: int = 0
) -> Parts:
    """Divides rows as a word says: "iid", "dirichlet:0.3", "labels:2", "quantity:0.5", "recording", "natural".

    Args:
        text: The word, with its number.
        labels: Class numbers of the rows.
        groups: Recording or user of each row, for "recording" and "natural".
        clients: How many.
        seed: Of the draws.

    Raises:
        FederatedError: An unknown word, a number that is missing or means nothing, too few rows or groups.
    """
    check_count("clients", clients, FederatedError)
    word, _, number = text.partition(":")
    makers: dict[str, Callable[[float], Parts]] = {
        "iid": lambda _: iid(len(labels), clients, seed=seed),
        "dirichlet": lambda alpha: dirichlet(labels, clients, alpha, seed=seed),
        "labels": lambda count: by_labels(labels, clients, int(count), seed=seed),
        "quantity": lambda alpha: by_quantity(len(labels), clients, alpha, seed=seed),
        "recording": lambda _: by_group(groups or (), clients),
        "natural": lambda _: by_group(groups or (), clients),
    }
    if word not in makers:
        raise FederatedError(unknown_name("There is no partition", word, makers))
    if (word in ("iid", "recording", "natural")) == bool(number):
        raise FederatedError(
            f"The partition {text!r} is none of iid, recording, natural, dirichlet:A, labels:N, quantity:A."
        )
    try:
        value = float(number or 0)
    except ValueError:
        raise FederatedError(f"The partition {text!r} has no number behind its colon.") from None
    return makers[word](value)
