"""Rules that bear a few wrong clients: the median, the trimmed mean, Krum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hf_video.errors import FederatedError, check_count, check_number
from hf_video.federated.arrays import Arrays, is_floating, narrowed, widened
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, ServerState


class CoordinateMedian(AggregationStrategy):
    """The median of the clients for each number (Yin et al., ICML 2018). Bears less than half of wrong clients; all
    weigh alike."""

    name = "median"

    def __init__(self) -> None:
        super().__init__("uniform")

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """(clients, …) float64 -> (…)."""
        return np.median(values, axis=0)

    def combine(self, state: ServerState, results: Mapping[str, ClientResult]) -> tuple[Arrays, dict[str, Arrays]]:
        mean = self.mean(results)
        arrays = {
            name: narrowed(self.reduce(np.stack([widened(results[c].arrays[name]) for c in sorted(results)])), before)
            if is_floating(before)
            else mean[name]
            for name, before in state.arrays.items()
        }
        return arrays, {}


class TrimmedMean(CoordinateMedian):
    """The mean without the `share` highest and the `share` lowest clients for each number (Yin et al., ICML 2018)."""

    name = "trimmed_mean"

    def __init__(self, share: float = 0.2) -> None:
        super().__init__()
        self.share = check_number("share", share, FederatedError, least=0, below=0.5)

    def reduce(self, values: np.ndarray) -> np.ndarray:
        cut = int(self.share * len(values))
        return np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)


class Krum(AggregationStrategy):
    """The mean of the `keep` clients that lie nearest to their neighbours (Blanchard et al., NeurIPS 2017).

    Args:
        num_malicious: Wrong clients that are borne, f of the paper; 2 f + 2 must be fewer than answer.
        keep: Clients that are averaged, uniformly; 1 is Krum itself, more is Multi-Krum.
    """

    name = "krum"

    def __init__(self, num_malicious: int = 1, keep: int = 1) -> None:
        super().__init__("uniform")
        self.num_malicious = check_count("num_malicious", num_malicious, FederatedError, least=0)
        self.keep = check_count("keep", keep, FederatedError)

    def combine(self, state: ServerState, results: Mapping[str, ClientResult]) -> tuple[Arrays, dict[str, Arrays]]:
        clients = sorted(results)
        neighbours = len(clients) - self.num_malicious - 2
        if 2 * self.num_malicious + 2 >= len(clients) or self.keep > len(clients):
            raise FederatedError(
                f"Krum against {self.num_malicious} wrong clients needs {2 * self.num_malicious + 3} answers or more, "
                f"and as many as it keeps ({self.keep}); {len(clients)} came."
            )
        flat = np.stack(
            [
                np.concatenate([widened(a).ravel() for a in results[client].arrays.values() if is_floating(a)])
                for client in clients
            ]
        )
        # |x - y|² of all pairs, exact for the small differences that matter here: no expansion into products.
        distances = np.array([((flat - one) ** 2).sum(axis=1) for one in flat])
        scores = np.sort(distances, axis=1)[:, 1 : neighbours + 1].sum(axis=1)
        best = [clients[number] for number in np.argsort(scores, kind="stable")[: self.keep]]
        return self.mean({client: results[client] for client in best}), {}
