"""log.h: what a message looks like to the daemon (km_log_event) and to a reader of trace_pipe."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from layouts import log_event
from records import waking_its_reader
from traffic import V4, address, listener, meeting

from vmtest.guest.attach import attached_to_cgroup
from vmtest.guest.cgroup import Cgroup
from vmtest.guest.objects import BpfObject
from vmtest.guest.payload import object_path
from vmtest.guest.ringbuf import RingBuffer
from vmtest.guest.tracing import TracePipe, mount_point

pytestmark = pytest.mark.ours

NAMES = "abcdefghij"
ERROR, WARN, INFO, DEBUG = range(4)
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
SMALL_RING = 4096  # bytes, one page
LONGEST = log_event(4 * ("12" + 7 * "12345678") + f" a={LOWEST}")
RECORD_SIZE = 8 + 264  # a header, and 260 B rounded up to 8


class Messages:
    """One program attached; what comes out when it runs."""

    def __init__(self, loaded: BpfObject, group: Cgroup, ring: RingBuffer, pipe: TracePipe) -> None:
        self.loaded = loaded
        self._group = group
        self._ring = ring
        self._pipe = pipe

    def show(self, *values: int) -> tuple[list[bytes], list[str]]:
        """Has the values shown: the records of km_log_event, and the lines of trace_pipe."""
        for name, value in zip(NAMES, values, strict=False):
            self.loaded.set_global(name, value)
        self.run()
        return self._ring.drain(), self._pipe.texts("log: ")

    def run(self) -> None:
        """Connects once."""
        with listener(V4, V4.host(2)) as listening:
            with self._group.entered():
                client = socket.socket()
            with meeting(client, address(listening.getsockname()), listening):
                pass

    def lines(self) -> list[str]:
        """The lines of trace_pipe since the last time, whoever made them."""
        return self._pipe.lines()

    def drain(self) -> list[bytes]:
        """The records of km_log_event since the last time."""
        return self._ring.drain()


@contextlib.contextmanager
def running(loaded: BpfObject, group: Cgroup, program: str) -> Iterator[Messages]:
    """`program` attached, both ends of its messages read, the levels put back behind."""
    with contextlib.ExitStack() as stack:
        for name in ("bpf_log_level", "level"):
            stack.callback(loaded.set_global, name, INFO)
        for name in NAMES:
            stack.callback(loaded.set_global, name, 0)
        ring = stack.enter_context(RingBuffer(loaded.maps["km_log_event"]))
        ring.drain()
        pipe = stack.enter_context(TracePipe())
        stack.enter_context(attached_to_cgroup(loaded.programs[program], group))
        yield Messages(loaded, group, ring, pipe)


@pytest.fixture(scope="module")
def log() -> Iterator[BpfObject]:
    """The object, loaded."""
    with BpfObject(object_path("mock_log")) as loaded:
        loaded.load()
        yield loaded


def text(program: str, *values: int) -> str:
    """The whole message."""
    pairs = (f" {name}={value}" for name, value in zip(NAMES, values, strict=False))
    return f"log: {program}{''.join(pairs)}"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 10])
def test_message_of_any_number_of_values_is_one_record(
    log: BpfObject, group: Cgroup, count: int
) -> None:
    values = [10 * value + 7 for value in range(count)]
    with running(log, group, f"of_{count}") as messages:
        records, _ = messages.show(*values)
    expected = text(f"of_{count}", *values)
    assert records == [log_event(expected)], f"expected {expected!r}, seen {records}"


@pytest.mark.parametrize(
    ("count", "lines"),
    [
        (0, ["log: of_0"]),
        (1, ["log: of_1 a=7"]),
        (2, ["log: of_2 a=7 b=17"]),
        (3, ["log: of_3 a=7 b=17 c=27"]),
        (4, ["log: of_4 a=7 b=17 c=27", "log: of_4 d=37"]),
        (5, ["log: of_5 a=7 b=17 c=27", "log: of_5 d=37 e=47"]),
        (6, ["log: of_6 a=7 b=17 c=27", "log: of_6 d=37 e=47 f=57"]),
        (7, ["log: of_7 a=7 b=17 c=27", "log: of_7 d=37 e=47 f=57", "log: of_7 g=67"]),
        (
            10,
            [
                "log: of_10 a=7 b=17 c=27",
                "log: of_10 d=37 e=47 f=57",
                "log: of_10 g=67 h=77 i=87",
                "log: of_10 j=97",
            ],
        ),
    ],
)
def test_message_of_any_number_of_values_is_traced_three_a_line(
    log: BpfObject, group: Cgroup, count: int, lines: list[str]
) -> None:
    with running(log, group, f"of_{count}") as messages:
        _, seen = messages.show(*(10 * value + 7 for value in range(count)))
    assert seen == lines


@pytest.mark.parametrize(
    "value",
    [0, 1, 9, 10, 99, 100, 1 << 32, 10**18 - 1, 10**18, HIGHEST, -1, -9, -10, -(10**18), LOWEST],
)
def test_number_is_shown_in_decimal(log: BpfObject, group: Cgroup, value: int) -> None:
    with running(log, group, "of_2") as messages:
        records, lines = messages.show(value, 5)
    expected = f"log: of_2 a={value} b=5"
    assert (records, lines) == ([log_event(expected)], [expected])


def test_message_wakes_its_reader(log: BpfObject, group: Cgroup) -> None:
    with running(log, group, "of_0") as messages:
        with waking_its_reader(log.maps["km_log_event"]):
            messages.run()
        assert messages.drain() == [log_event("log: of_0")]


def test_longest_message_fills_a_record(log: BpfObject, group: Cgroup) -> None:
    with running(log, group, "of_a_whole_record") as messages:
        records, _ = messages.show(LOWEST)
    assert LONGEST[:4] == (256).to_bytes(4, "little")
    assert records == [LONGEST]


def test_level_is_2_by_default() -> None:
    with BpfObject(object_path("mock_log")) as fresh:
        assert fresh.get_global("bpf_log_level") == INFO


@pytest.mark.parametrize("limit", [ERROR, WARN, INFO, DEBUG])
def test_messages_above_the_level_are_not_made(log: BpfObject, group: Cgroup, limit: int) -> None:
    with running(log, group, "of_1") as messages:
        log.set_global("bpf_log_level", limit)
        made = {}
        for level in (ERROR, WARN, INFO, DEBUG):
            log.set_global("level", level)
            records, lines = messages.show(level)
            made[level] = len(records), len(lines)
    assert made == {level: (1, 1) if level <= limit else (0, 0) for level in made}


def test_full_ring_loses_messages_and_nothing_else(group: Cgroup) -> None:
    with BpfObject(object_path("mock_log")) as loaded:
        loaded.set_max_entries("km_log_event", SMALL_RING)
        loaded.load()
        with running(loaded, group, "of_0") as messages:
            fit = SMALL_RING // RECORD_SIZE
            for _ in range(fit + 3):
                messages.run()
            assert messages.drain() == [log_event("log: of_0")] * fit
            messages.run()
            assert messages.drain() == [log_event("log: of_0")]


def test_record_shows_nothing_of_what_the_ring_held_before(group: Cgroup) -> None:
    with BpfObject(object_path("mock_log")) as loaded:
        loaded.set_max_entries("km_log_event", SMALL_RING)
        loaded.load()
        with running(loaded, group, "of_a_whole_record") as messages:
            # A ring is no multiple of a record: each time round a record's end lies elsewhere.
            for _ in range(2 * SMALL_RING // RECORD_SIZE):
                records, _ = messages.show(LOWEST)
                assert records == [LONGEST]


def test_every_traced_line_is_a_line_of_its_own(log: BpfObject, group: Cgroup) -> None:
    with running(log, group, "of_4") as messages:
        for _ in range(2):
            messages.run()
        lines = messages.lines()
    assert "" not in lines, f"an empty line: {lines}"
    seen = [line.split(": bpf_trace_printk: ", 1)[1] for line in lines if "log: of_4" in line]
    assert seen == 2 * ["log: of_4 a=0 b=0 c=0", "log: of_4 d=0"]


def test_what_others_write_into_the_trace_is_left_out(log: BpfObject, group: Cgroup) -> None:
    with running(log, group, "of_1") as messages:
        (mount_point() / "trace_marker").write_text("log: of_1 a=99")
        _, texts = messages.show(7)
        (mount_point() / "trace_marker").write_text("log: of_1 a=99")
        lines = messages.lines()
    assert texts == ["log: of_1 a=7"]
    assert len(lines) == 1 and lines[0].endswith("log: of_1 a=99"), lines
