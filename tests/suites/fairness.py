"""How often each of two equally likely endpoints must be taken, by exact binomial sums."""

import math

TIMES = 1600
"""Connections that tell a fair choice between two endpoints from one of 60 to 40."""

FALSE_ALARM_ONE_IN = 10**6
"""A fair choice is called unfair less often than once in so many."""


def fair_range() -> tuple[int, int]:
    """The lowest and the highest count of one endpoint that pass for fair, of TIMES."""
    outside, low = 0, 0
    # Whole numbers all the way: these are beyond what a float holds.
    while 2 * (outside + math.comb(TIMES, low)) * FALSE_ALARM_ONE_IN < 2**TIMES:
        outside += math.comb(TIMES, low)
        low += 1
    return low, TIMES - low


def chance_of_range(low: int, high: int, weights: tuple[int, int]) -> float:
    """How likely it is that the first endpoint is taken `low` to `high` times, of TIMES.

    `weights`: of the first and of the second, (3, 2) for 60 to 40.
    """
    first, second = weights
    ways: int = sum(
        math.comb(TIMES, count) * first**count * second ** (TIMES - count)
        for count in range(low, high + 1)
    )
    all_ways: int = (first + second) ** TIMES
    return ways / all_ways
