"""Whether classifiers that were tested on the same videos differ by more than chance."""

from __future__ import annotations

from collections.abc import Sequence

from hf_video.errors import MetricError, check_count


def mcnemar(only_first: int, only_second: int) -> float:
    """Computes the exact two-sided p-value of McNemar's test (Psychometrika 1947), which compares two classifiers on
    the same videos by those on which one of them is right and the other is not: of equally good ones each such video
    would be either's with probability 1/2.

    Args:
        only_first: Videos that only the first has right.
        only_second: Videos that only the second has right.

    Returns:
        From 0 to 1; 1 where they never differ.
    """
    count = check_count("only_first", only_first, MetricError, least=0)
    count += check_count("only_second", only_second, MetricError, least=0)
    term, tail = 1, 1  # n over k, and the sum of those so far
    for k in range(min(only_first, only_second)):
        term = term * (count - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for the number of tests (Holm, Scandinavian Journal of Statistics 1979): of many comparisons
    some look significant by chance.

    Args:
        p_values: Of the tests, from 0 to 1.

    Returns:
        The adjusted p-values in the same order.
    """
    adjusted, most = list(p_values), 0.0
    for place, number in enumerate(sorted(range(len(adjusted)), key=adjusted.__getitem__)):
        most = max(most, min(1.0, (len(adjusted) - place) * p_values[number]))
        adjusted[number] = most
    return adjusted
