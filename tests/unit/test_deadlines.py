import os

import pytest

from vmtest.model.kernels import Limits
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


@pytest.mark.parametrize(("load", "factor"), [(0.5, 2.0), (1.0, 2.0), (3.0, 6.0), (50.0, 10.0)])
def test_a_busy_host_stretches_what_a_calm_probe_said(load: float, factor: float) -> None:
    assert Scale(6.0, 1, load * CPUS).factor == pytest.approx(factor)


def test_our_own_vcpus_are_not_counted_on_top_of_the_load() -> None:
    assert Scale(3.0, 2 * CPUS, 2.0 * CPUS).factor == pytest.approx(2.0)


def test_the_load_of_now_is_the_hosts_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (7.25, 2.0, 1.0))
    assert Scale.now(3.0, 1) == Scale(3.0, 1, 7.25)


def test_every_limit_is_scaled() -> None:
    assert Scale(6.0, 1).apply(Limits(30, 60, 300, 20)) == Limits(60, 120, 600, 40)
