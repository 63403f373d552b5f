"""Who holds which videos of a simulated federation: a JSON file, a table, and what a picture shows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_video.base.written_files import read_json, write_json
from hf_video.data.rows import VideoRows, classes_of
from hf_video.errors import FederatedError, HFVideoError
from hf_video.federated.data.partition import Parts, natural_clients, parse_partition

VERSION = 1


@dataclass(frozen=True)
class ClientSplit:
    """Videos of clients by name.

    Args:
        clients: Names of videos, relative to the data set's root, by client.
        labels: The classes, in order.
        partition, seed: How they were divided, see `parse_partition`.
    """

    clients: Mapping[str, Sequence[str]]
    labels: Sequence[str]
    partition: str
    seed: int = 0

    @classmethod
    def of(cls, rows: VideoRows, partition: str, clients: int | None, *, seed: int = 0) -> ClientSplit:
        """Divides rows.

        Args:
            rows: Of one split.
            partition: See `divide_rows`.
            clients: How many; None is one for each natural client, of "natural" alone.
            seed: Of the draws.
        """
        parts = divide_rows(rows, partition, clients, seed=seed)
        named = {client_name(number, len(parts)): [rows[row].name for row in part] for number, part in enumerate(parts)}
        return cls(named, rows.labels, partition, seed)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ClientSplit:
        """Reads what `save` wrote.

        Raises:
            FederatedError: It is no such file, or a video stands there twice.
        """
        try:
            facts = read_json(Path(path))
            clients = {str(client): [str(name) for name in names] for client, names in facts["clients"].items()}
            split = cls(clients, list(facts["labels"]), str(facts["partition"]), int(facts["seed"]))
        except (OSError, HFVideoError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FederatedError(
                f"{path} is no division of videos among clients ({error!r}); `hf-video federated partition` writes one."
            ) from error
        names = [name for own in clients.values() for name in own]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise FederatedError(f"{path}: the video {twice!r} stands there twice.")
        return split

    def save(self, path: str | os.PathLike[str]) -> None:
        clients = {client: list(names) for client, names in self.clients.items()}
        facts = {"version": VERSION, "partition": self.partition, "seed": self.seed, "labels": list(self.labels)}
        write_json(Path(path), {**facts, "clients": clients})

    def parts(self, rows: VideoRows) -> Parts:
        """Numbers of rows by client.

        Raises:
            FederatedError: A video of the file is not there. Rows that the file does not name are nobody's.
        """
        places = {row.name: number for number, row in enumerate(rows)}
        for client, names in self.clients.items():
            if lost := [name for name in names if name not in places]:
                raise FederatedError(f"Client {client!r} should have {lost[0]!r}, which is not among these videos.")
        return [sorted(places[name] for name in names) for names in self.clients.values()]

    def counts(self, rows: VideoRows) -> np.ndarray:
        """Videos by client and class, (clients, classes) int64; a video of several classes counts in each."""
        counts = np.zeros((len(self.clients), len(self.labels)), np.int64)
        for client, part in enumerate(self.parts(rows)):
            for row in part:
                for label in classes_of(rows[row].label):
                    counts[client, label] += 1
        return counts

    def table(self, rows: VideoRows, most_classes: int = 12) -> str:
        """A line for each client: its videos, and how many of each class; of more than `most_classes` only how many
        classes it has."""
        counts, videos = self.counts(rows), [len(names) for names in self.clients.values()]
        width = max(map(len, [*self.clients, "client"]))
        few = len(self.labels) <= most_classes
        heads = [label[:14] for label in self.labels] if few else ["classes"]
        lines = ["  ".join([f"{'client':<{width}}", "videos", *(f"{head:>6}" for head in heads)])]
        for client, total, row in zip(self.clients, videos, counts, strict=True):
            cells = row.tolist() if few else [int((row > 0).sum())]
            sizes = [f"{cell:>{max(len(head), 6)}}" for head, cell in zip(heads, cells, strict=True)]
            lines.append("  ".join([f"{client:<{width}}", f"{total:>6}", *sizes]))
        return "\n".join(lines)


def client_name(number: int, clients: int) -> str:
    """ "client-03" of 10 to 100."""
    return f"client-{number:0{len(str(clients - 1))}d}"


def divide_rows(rows: VideoRows, partition: str, clients: int | None, *, seed: int = 0) -> Parts:
    """Divides the rows of a data set among clients.

    Args:
        rows: Of one split. Of a video of several classes the first one counts.
        partition: A word of `parse_partition`, or a JSON file of `ClientSplit`.
        clients: How many; None is one for each natural client, of "natural" alone.
        seed: Of the draws.

    Raises:
        FederatedError: The word or the file means nothing, or there are too few rows.
    """
    if partition.endswith(".json"):
        split = ClientSplit.read(partition)
        if clients is not None and clients != len(split.clients):
            raise FederatedError(f"{partition} has {len(split.clients)} clients, and {clients} were asked for.")
        return split.parts(rows)
    owners = natural_clients(rows) if partition == "natural" else [row.group for row in rows]
    if clients is None:
        if partition != "natural":
            raise FederatedError(
                f"How many clients are there? Only natural clients count themselves, not {partition!r}."
            )
        clients = len(set(owners))
    first = [classes_of(row.label)[0] if classes_of(row.label) else 0 for row in rows]
    return parse_partition(partition, labels=first, groups=owners, clients=clients, seed=seed)
