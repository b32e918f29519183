"""What the suites share: a control group a test, the objects, and counted runs."""

import time
from collections.abc import Iterator

import pytest
from records import INTERVAL_NS
from traffic import V6, loopback_addresses

from vmtest.guest.cgroup import Cgroup, temporary_cgroup
from vmtest.guest.objects import counted_runs
from vmtest.guest.plugin import not_applicable


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --upstream."""
    parser.addoption(
        "--upstream",
        action="store_true",
        help="the objects were built from Kmesh's sources: leave out the tests marked `ours`",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves out what upstream's objects never promised."""
    if item.get_closest_marker("ours") and item.config.getoption("--upstream"):
        not_applicable("upstream's programs do otherwise")


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """A control group of the test's own, removed behind it."""
    with temporary_cgroup() as made:
        yield made


@pytest.fixture(scope="session")
def runs_are_counted() -> Iterator[None]:
    """Program.run_count() counts."""
    with counted_runs():
        yield


@pytest.fixture(scope="session")
def v6_hosts() -> Iterator[None]:
    """The hosts of traffic.V6 exist (those of V4 always do: 127/8 is the loopback device's)."""
    with loopback_addresses(*(f"{V6.host(number)}/128" for number in range(2, 10))):
        yield


@pytest.fixture(scope="session")
def clock_is_past_the_interval() -> None:
    """A guest can be younger than the 5 s that make a report stale: waits until it is not."""
    while (missing := INTERVAL_NS + 10_000_000 - time.monotonic_ns()) > 0:
        time.sleep(missing / 1e9)
