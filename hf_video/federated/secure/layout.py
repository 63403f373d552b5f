"""What stands where in the vector that clients mask: their changes, their metrics, and how much they weigh.

The server learns sums of it alone. A change is weighted before it is rounded, by the client's videos as a part of
`max_examples`, so that weights are exact and the sum fits 32 bits with as many levels as there is room for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from hf_video.errors import FederatedError, check_choice, check_count, check_number, is_number
from hf_video.federated.arrays import Arrays, check_arrays, is_floating, narrowed, widened
from hf_video.federated.rules.strategies import WEIGHTINGS
from hf_video.federated.secure.quantization import MODULUS_BITS, check_sum_fits, dequantize_sum, quantize

CLIPPED = "clipped_share"
_RAISE = " Raise max_examples of the federation's secure settings."


@dataclass(frozen=True)
class SumSettings:
    """How numbers become levels; the same for all clients of a round.

    Args:
        clip: Changes are held to [-clip, clip]; what was clipped is reported as the metric `clipped_share`.
        bits: Of a level; 0 takes as many as the number of clients leaves room for.
        max_examples: Videos that no client has more of. A client's weight is a part of it.
        weighting: "examples", or "uniform", all alike.
        metrics: Names of the metrics of which the mean is wanted, over the clients that have them.
        metric_bound: Metrics are held to [-metric_bound, metric_bound].

    Raises:
        FederatedError: A number has no meaning here.
    """

    clip: float = 4.0
    bits: int = 0
    max_examples: int = 10_000
    weighting: str = "examples"
    metrics: tuple[str, ...] = ()
    metric_bound: float = 100.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        check_choice("weighting", self.weighting, WEIGHTINGS, FederatedError)
        check_number("clip", self.clip, FederatedError, above=0)
        check_count("bits", self.bits, FederatedError, least=0, most=MODULUS_BITS)
        check_count("max_examples", self.max_examples, FederatedError, most=2**24)
        check_number("metric_bound", self.metric_bound, FederatedError, above=0)

    @classmethod
    def from_terms(cls, terms: str) -> SumSettings:
        """Reads what `to_terms` wrote.

        Raises:
            FederatedError: It did not write this.
        """
        try:
            return cls(**json.loads(terms))
        except (TypeError, ValueError) as error:
            raise FederatedError(f"The server's settings of a secure sum can't be read: {error}") from None

    def to_terms(self) -> str:
        """JSON that all clients must be told alike."""
        return json.dumps(asdict(self), sort_keys=True)

    def bits_for(self, clients: int) -> int:
        """Bits of a level where so many clients take part.

        Raises:
            FederatedError: The sum does not fit, or there are fewer than three clients.
        """
        bits = self.bits or int((2**MODULUS_BITS - 1) // max(clients, 1) + 1).bit_length() - 1
        check_sum_fits(clients, bits)
        return bits


@dataclass(frozen=True)
class Contribution:
    """What a client adds to a sum: its tensors after training, the videos it trained on, and its metrics."""

    arrays: Arrays
    num_examples: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class SumLayout:
    """The order of a vector of uint32: floating tensors by name, counts by name, metrics, the clipped share, weight.

    Args:
        before: The model that all clients were sent; empty where they only measure it.
        settings: See `SumSettings`.
        clients: How many of them mask their vectors for one another.
    """

    before: Arrays
    settings: SumSettings
    clients: int

    @property
    def size(self) -> int:
        return sum(array.size for array in self.before.values()) + 2 * len(self.settings.metrics) + 2

    def encode(self, client: str, given: Contribution) -> np.ndarray:
        """(size,) uint32 of one client.

        Raises:
            FederatedError: Tensors are not those that were sent, a number is not finite, or the client has more videos
                than `max_examples`.
        """
        settings, bits = self.settings, self.settings.bits_for(self.clients)
        check_arrays(client, given.arrays, self.before)
        most = settings.max_examples
        least = 1 if self.before else 0  # a client may have nothing to measure with, but not to train with
        check_count("num_examples", given.num_examples, FederatedError, least=least, most=most, hint=_RAISE)
        weight, share = (1, 1.0) if settings.weighting == "uniform" else (given.num_examples, given.num_examples / most)
        vector = np.empty(self.size, dtype=np.uint32)
        place, clipped, floating = 0, 0, 0
        for name in self._ordered():
            before, after = self.before[name], given.arrays[name]
            lane = vector[place : place + before.size]
            if is_floating(before):
                change = (widened(after) - widened(before)).ravel()
                clipped += int((np.abs(change) > settings.clip).sum())
                floating += change.size
                lane[:] = quantize(np.clip(change, -settings.clip, settings.clip) * share, settings.clip, bits)
            else:
                # Modulo 2^32, so that a change below 0 comes out of the sum as such.
                lane[:] = (after.astype(np.int64) - before.astype(np.int64)).ravel().astype(np.uint32)
            place += before.size
        for metric in settings.metrics:
            value, bound = given.metrics.get(metric), settings.metric_bound
            known = is_number(value)
            vector[place] = quantize(np.clip(value, -bound, bound) * share if known else 0.0, bound, bits)
            vector[place + 1] = weight if known else 0
            place += 2
        vector[place] = quantize(np.array(clipped / max(floating, 1) * share), 1.0, bits)
        vector[place + 1] = weight
        return vector

    def decode(self, total: np.ndarray, contributors: int) -> tuple[Arrays, int, dict[str, float]]:
        """The mean model, the weight of all, and mean metrics, of the sum of so many clients' vectors.

        Raises:
            FederatedError: The weight is not what so many clients can have.
        """
        settings, bits = self.settings, self.settings.bits_for(self.clients)
        most = 1 if settings.weighting == "uniform" else settings.max_examples
        weight = int(total[-1])
        if not (contributors if self.before else 0) <= weight <= contributors * most:
            raise FederatedError(
                f"A secure sum of {contributors} clients says that they weigh {weight}, which can't be: one of them "
                "did not keep to the protocol, and the round's sum is worth nothing."
            )
        arrays, place = {}, 0
        for name in self._ordered():
            before = self.before[name]
            lane = total[place : place + before.size].reshape(before.shape)
            if is_floating(before):
                change = dequantize_sum(lane, settings.clip, bits, contributors) * (most / weight)
                arrays[name] = narrowed(widened(before) + change, before)
            else:
                change = np.rint(lane.view(np.int32) / contributors).astype(np.int64)
                arrays[name] = np.asarray(before.astype(np.int64) + change).astype(before.dtype)
            place += before.size
        metrics = {}
        bounds = {**dict.fromkeys(settings.metrics, settings.metric_bound), **({CLIPPED: 1.0} if self.before else {})}
        for metric, bound in bounds.items():
            if known := int(total[place + 1]):  # the last of them is the weight of all, beside the clipped share
                value = dequantize_sum(total[place], bound, bits, contributors) * (most / known)
                metrics[metric] = float(value)
            place += 2
        return {name: arrays[name] for name in self.before}, weight, metrics

    def _ordered(self) -> list[str]:
        return sorted(self.before, key=lambda name: (not is_floating(self.before[name]), name))
