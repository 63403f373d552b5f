"""Repetitions in a sequence of vectors, without training: where it looks like itself one period later.

RepNet (Dwibedi et al., CVPR 2020) reads periods off a self-similarity matrix with a trained network; here the matrix is
normalised so that the path of least cost through it (dynamic programming over time and period) is the answer. The cost
of period p at time t is the mean squared distance of vectors p apart, over two periods around t, divided by twice the
variance of the vectors there: near 0 where one cycle follows another, 1 for what has no period, above 1 for steady
motion, and 1 for a standing picture, whose noise repeats nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_COLUMNS = 32  # principal components that are looked at
FINEST = 3  # steps of the shortest period
SPACING = 1.03  # from one period that is tried to the next
NOISE = 0.02  # part of the whole variance that counts as noise
LIMIT = 0.5  # cost above which there is no repetition
CHANGE = 0.02  # cost, in periods, of the next longer or shorter period
OCTAVE = 0.03  # a period twice as long must be better by this: twice a period is a period too
BEGIN = 0.13  # cost, in periods, of beginning or ending; half of it once the video is known to repeat something
WORST = 0.4  # median cost of a stretch that is counted


@dataclass(frozen=True)
class Repetitions:
    """A stretch that repeats.

    Args:
        start, end: seconds.
        count: whole repetitions, rounded.
        period: mean seconds of one.
        confidence: from 0 to 1, how well one looks like the next.
    """

    start: float
    end: float
    count: int
    period: float
    confidence: float


def find_repetitions(
    vectors: np.ndarray,
    rate: float,
    *,
    start: float = 0.0,
    periods: tuple[float, float] = (0.2, 30.0),
    noise: float = 0.0,
) -> list[Repetitions]:
    """Finds the stretches of a sequence that repeat themselves, twice or more; once one is found, stretches of a like
    period are looked for again with less proof.

    Args:
        vectors: (T, D), at a constant rate.
        rate: vectors per second.
        start: seconds of the first vector.
        periods: shortest and longest in seconds; none is longer than half of the sequence.
        noise: squared distance from one vector to the next that means nothing.

    Returns:
        The stretches in the order of time. Periods and counts are to fractions of a vector's distance.
    """
    shortest, longest = max(periods[0] * rate, FINEST), min(periods[1] * rate, len(vectors) / 2)
    if longest < shortest:
        return []
    steps = int(np.log(longest / shortest) / np.log(SPACING)) + 2
    lags = np.geomspace(shortest, longest, steps)
    columns = _principal(np.asarray(vectors, dtype=np.float64))
    floor = noise + 2 * NOISE * columns.var(axis=0).sum() + 1e-12
    cost, exact = _between(self_distance(columns, lags, floor), lags)
    found = _stretches(_cheapest_path(cost, lags, BEGIN), cost, exact, at_least=1.75)
    if found:
        like = [period for *_, period, _ in found]
        near = (lags >= min(like) / 1.6) & (lags <= max(like) * 1.6)
        path = _cheapest_path(cost[:, near], lags[near], BEGIN / 2)
        found = _stretches(path, cost[:, near], exact[:, near], at_least=0.75)
    return [
        Repetitions(start + first / rate, start + last / rate, round(count), period / rate, 1 - median)
        for first, last, count, period, median in found
    ]


def _principal(vectors: np.ndarray) -> np.ndarray:
    """The vectors (T, D) in the directions in which they vary most."""
    centred = vectors - vectors.mean(axis=0)
    if centred.shape[1] <= MOST_COLUMNS:
        return centred
    directions = np.linalg.eigh(centred.T @ centred)[1][:, -MOST_COLUMNS:]
    return centred @ directions


def self_distance(vectors: np.ndarray, lags: np.ndarray, floor: float) -> np.ndarray:
    """The cost of each period at each time.

    Args:
        vectors: (T, D).
        lags: (L,) periods in steps, fractions too.
        floor: squared distance that counts as noise.

    Returns:
        (T, L), at most 1.5; that too where less than half of the window lies in the sequence.
    """
    length = len(vectors)
    sums = np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(vectors, axis=0)])
    squares = np.concatenate([[0.0], np.cumsum((vectors**2).sum(axis=1))])
    moved = np.append(((vectors[1:] - vectors[:-1]) ** 2).sum(axis=1), 0.0)
    place = np.arange(length)
    cost = np.full((length, len(lags)), 1.5)
    for number, lag in enumerate(lags):
        whole, part = int(lag), lag % 1
        near = ((vectors[whole:] - vectors[: length - whole]) ** 2).sum(axis=1)
        if part:
            # The distance to the point between two vectors, on a straight line, by the distances to these and between.
            far = ((vectors[whole + 1 :] - vectors[: length - whole - 1]) ** 2).sum(axis=1)
            near = (1 - part) * near[:-1] + part * far - part * (1 - part) * moved[whole:-1]
        pairs = np.concatenate([[0.0], np.cumsum(near)])
        reach = round(lag)
        low, high = (np.clip(edge, 0, len(near)) for edge in (place - reach, place + 1))
        distance = (pairs[high] - pairs[low]) / np.maximum(high - low, 1)
        first, last = np.clip(place - reach, 0, length), np.clip(place + reach + 1, 0, length)
        means = (sums[last] - sums[first]) / (last - first)[:, None]
        variance = np.maximum((squares[last] - squares[first]) / (last - first) - (means**2).sum(axis=1), 0)
        ratio = (np.maximum(distance, 0) + floor) / (2 * variance + floor)
        cost[:, number] = np.where(2 * (high - low) >= reach, np.minimum(ratio, 1.5), 1.5)
    return cost


def _cheapest_path(cost: np.ndarray, lags: np.ndarray, begin: float) -> np.ndarray:
    """For each time the number of the period, or L where nothing repeats, so that the sum of costs above `LIMIT` and of
    changes is least (Viterbi)."""
    length, count = cost.shape
    excess = cost - LIMIT + OCTAVE * np.log2(lags / lags[0])
    change, turn, numbers = CHANGE * lags, begin * lags, np.arange(count)
    sources = np.stack([numbers, numbers - 1, numbers + 1, np.full(count, count)])
    total, idle = excess[0] + turn, 0.0
    before = np.empty((length, count + 1), dtype=np.int32)
    for time in range(1, length):
        ways = np.stack(
            [
                total,
                np.concatenate([[np.inf], total[:-1]]) + change,
                np.concatenate([total[1:], [np.inf]]) + change,
                idle + turn,
            ]
        )
        chosen = ways.argmin(axis=0)
        before[time, :count] = sources[chosen, numbers]
        leaving = total + turn
        last = int(leaving.argmin())
        before[time, count] = last if leaving[last] < idle else count
        idle = min(float(leaving[last]), idle)
        total = ways[chosen, numbers] + excess[time]
    state = int(total.argmin()) if total.min() < idle else count
    path = np.empty(length, dtype=int)
    for time in range(length - 1, -1, -1):
        path[time] = state
        state = before[time, state] if time else state
    return path


def _stretches(
    path: np.ndarray, cost: np.ndarray, exact: np.ndarray, *, at_least: float
) -> list[tuple[float, float, float, float, float]]:
    """(start, end, repetitions, period, median cost), in steps, of the stretches of a path that are good enough."""
    found = []
    turns = np.flatnonzero(np.diff(np.concatenate([[0], (path < cost.shape[1]).astype(int), [0]])))
    for first, last in turns.reshape(-1, 2):
        chosen = np.arange(first, last), path[first:last]
        median, periods = float(np.median(cost[chosen])), exact[chosen]
        # The window of a cost is two periods: at LIMIT it reaches half a period out of what repeats.
        start = max(first - periods[0] * (1 - LIMIT), 0.0)
        end = min(last + periods[-1] * (1 - LIMIT), float(len(path)))
        count = (1 / periods).sum() + (first - start) / periods[0] + (end - last) / periods[-1]
        if median <= WORST and count >= at_least:
            found.append((start, end, float(count), (end - start) / float(count), median))
    return found


def _between(cost: np.ndarray, lags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Costs and periods (T, L) at the lowest points between the lags: where a cost is lower than those of the lags
    beside it, at the bottom of the parabola through the three."""
    periods = np.broadcast_to(lags, cost.shape).copy()
    if len(lags) < 3:
        return cost, periods
    x0, x1, x2 = (np.log(lags[begin : len(lags) - 2 + begin]) for begin in range(3))
    y0, y1, y2 = (cost[:, begin : len(lags) - 2 + begin] for begin in range(3))
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (right - left) / (x2 - x0)
    bowl = (left < 0) & (right > 0)
    place = np.where(bowl, (x0 + x1) / 2 - left / np.where(bowl, 2 * bend, 1), x1)
    lowest = y1 + (place - x1) * (left + bend * (place - x0))
    periods[:, 1:-1] = np.exp(place)
    return np.concatenate([cost[:, :1], np.maximum(lowest, 0), cost[:, -1:]], axis=1), periods
