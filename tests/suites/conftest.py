"""What the suites share: a control group a test, the objects, counted runs, order, leftovers."""

import pathlib
import random
import time
from collections.abc import Callable, Iterator

import pytest
from layouts import LACKING
from records import INTERVAL_NS
from traffic import V6, loopback_addresses

from vmtest.guest.cgroup import Cgroup, temporary_cgroup
from vmtest.guest.inventory import inventory, left_since
from vmtest.guest.objects import BpfObject, counted_runs
from vmtest.guest.plugin import not_applicable

Needed = Callable[..., None]
"""`needed(loaded, *names)`: goes on if the object has all these programs and maps."""

Has = Callable[[BpfObject, str], bool]
"""`has(loaded, name)`: whether the object has this program or map, which it must if it is ours."""

RESERVED_PORTS = pathlib.Path("/proc/sys/net/ipv4/ip_local_reserved_ports")

WAS_THERE = pytest.StashKey[frozenset[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --upstream and --shuffle."""
    parser.addoption(
        "--upstream",
        action="store_true",
        help="the objects were built from Kmesh's sources: leave out the tests marked `ours`",
    )
    parser.addoption(
        "--shuffle",
        type=int,
        metavar="SEED",
        help="run the modules, and the tests within each, in an order drawn from SEED",
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Says how to have the same order again."""
    seed = config.getoption("--shuffle")
    return None if seed is None else f"shuffled: --shuffle {seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffles. Modules stay together: what they load, they load once."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    draw = random.Random(seed)
    modules: dict[object, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    shuffled = list(modules.values())
    draw.shuffle(shuffled)
    for tests in shuffled:
        draw.shuffle(tests)
    items[:] = [item for tests in shuffled for item in tests]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Notes what was there before the suites."""
    session.config.stash[WAS_THERE] = inventory()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """No program, map, link, pin or control group of a module outlives it.

    Not a fixture: pytest 7 may end an autouse fixture before others of the same module.
    """
    if nextitem is not None and nextitem.path == item.path:
        return
    left = left_since(item.config.stash[WAS_THERE])
    item.config.stash[WAS_THERE] |= inventory()
    assert not left, f"left behind by {item.path.name}: {', '.join(left)}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves out what upstream's objects never promised."""
    if item.get_closest_marker("ours") and item.config.getoption("--upstream"):
        not_applicable("upstream's programs do otherwise")


@pytest.fixture(scope="session")
def has(request: pytest.FixtureRequest) -> Has:
    """Tells whether an object has a program or a map; what it has to have and has not is a failure.

    An old release of upstream may lack what layouts.LACKING names; anything else has to be there.
    """
    upstream = request.config.getoption("--upstream")

    def check(loaded: BpfObject, name: str) -> bool:
        there = {*loaded.programs, *loaded.map_names()}
        if name not in there and not (upstream and name in LACKING):
            pytest.fail(f"{loaded.path.name} has no {name} (there: {', '.join(sorted(there))})")
        return name in there

    return check


@pytest.fixture(scope="session")
def needed(has: Has) -> Needed:
    """Ends a test whose object lacks a program or a map, as has() has it."""

    def check(loaded: BpfObject, *names: str) -> None:
        for name in names:
            if not has(loaded, name):
                not_applicable(f"not in this object: {name} (as in {LACKING[name]})")

    return check


@pytest.fixture(scope="session", autouse=True)
def ports_show_their_byte_order() -> Iterator[None]:
    """No port that the kernel chooses reads the same in the other byte order, as 0x8181 does.

    One in 256 would, and a program that has its bytes the wrong way round would pass for once.
    """
    before = RESERVED_PORTS.read_text()
    RESERVED_PORTS.write_text(",".join(str(0x101 * byte) for byte in range(1, 256)))
    yield
    RESERVED_PORTS.write_text(before)


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
