"""Rates and their confidence intervals."""

from __future__ import annotations

import pytest

from vmtest.model.rates import Rate


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [
        # Newcombe, Two-sided confidence intervals for the single proportion (1998), table I.
        (Rate(81, 263), 0.2553, 0.3662),
        (Rate(15, 148), 0.0624, 0.1605),
        (Rate(0, 20), 0.0, 0.1611),
        (Rate(1, 29), 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(rate: Rate, low: float, high: float) -> None:
    assert rate.interval == pytest.approx((low, high), abs=5e-5)


def test_of_nothing_nothing_is_known() -> None:
    assert (Rate(0, 0).share, Rate(0, 0).interval) == (0.0, (0.0, 1.0))


def test_where_all_or_none_did_the_interval_ends_there() -> None:
    assert Rate(0, 5).interval[0] == 0.0
    assert Rate(5, 5).interval[1] == 1.0


def test_a_rate_in_words_has_its_interval() -> None:
    assert str(Rate(3, 20)) == "3 of 20 (15%, with 95% confidence 5% to 36%)"
