import os

import pytest

from vmtest.model import Limits
from vmtest.vm.deadlines import Scale

CPUS = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("seconds", "crowd", "factor"),
    [(0.5, 1, 1.0), (3.0, 1, 1.0), (9.0, 1, 3.0), (1.0, 2, 2.0), (9.0, 2, 6.0), (60.0, 2, 10.0)],
)
def test_the_factor_grows_with_slowness_and_crowd_up_to_ten(
    seconds: float, crowd: int, factor: float
) -> None:
    assert Scale(seconds, crowd * CPUS).factor == pytest.approx(factor)


def test_every_limit_is_scaled() -> None:
    assert Scale(6.0, 1).apply(Limits(30, 60, 300)) == Limits(60, 120, 600)
