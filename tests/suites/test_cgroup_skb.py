"""cgroup_skb: a connection with traffic is reported, every 5 seconds at most."""

import contextlib
import dataclasses
import itertools
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from conftest import Needed
from layouts import (
    ESTABLISHED,
    INBOUND,
    OUTBOUND,
    Probe,
    Storage,
    assert_global,
    assert_maps,
    ends_of,
    ip_addr,
    original_v4,
    original_v6,
    packed,
    tuple_of,
    u32,
)
from records import (
    INTERVAL_NS,
    TcpInfo,
    assert_bytes,
    assert_counters,
    assert_zeros_behind_ipv4,
    only,
    waking_its_reader,
)
from traffic import (
    MAPPED,
    SECONDS,
    V4,
    V6,
    Family,
    Meeting,
    address,
    deaf,
    listener,
    loopback_addresses,
    meeting,
    receive,
    round_trip,
)

from vmtest.guest.attach import attached_to_cgroup
from vmtest.guest.cgroup import Cgroup
from vmtest.guest.objects import BpfObject, Program
from vmtest.guest.payload import object_path
from vmtest.guest.ringbuf import RingBuffer

EGRESS, INGRESS = "cgroup_skb_egress_prog", "cgroup_skb_ingress_prog"
SMALL_RING = 4096  # bytes, one page: room for 30 records of 128 + 8 B

MAPPED_SERVER = Family(
    "mapped", socket.AF_INET, socket.AF_INET6, "127.96.0.", "0.0.0.2", listened="::ffff:"
)
"""IPv4 to an AF_INET6 socket: the v4-mapped side is the server's."""

STALE = Storage(connect_ns=1, last_report_ns=1, direction=OUTBOUND)
"""Of a connection whose last report is as old as can be: made 1 ns after the clock's start."""


every_family = pytest.mark.parametrize("family", [V4, V6, MAPPED], ids=lambda family: family.name)
either_way = pytest.mark.parametrize(
    "watch", [EGRESS, INGRESS], indirect=True, ids=["egress", "ingress"]
)
either_mock_way = pytest.mark.parametrize(
    "mock_watch", [EGRESS, INGRESS], indirect=True, ids=["egress", "ingress"]
)


class Watch:
    """One test's view: connections of its control group, and what is reported of them."""

    def __init__(
        self, loaded: BpfObject, group: Cgroup, programs: list[Program], ring: RingBuffer
    ) -> None:
        self.loaded = loaded
        self._group = group
        self._programs = programs
        self._ring = ring

    def manage(self, host: str, value: int = 0) -> None:
        """Connections whose local address is `host` are the mesh's own, if the value is 0."""
        self.loaded.maps["km_manage"].update(ip_addr(host), u32(value))

    def seed(self, watched: socket.socket, storage: Storage) -> None:
        """Gives a socket storage, as connect4 and sockops would have."""
        self.loaded.maps["km_sockstorage"].update(u32(watched.fileno()), storage.pack())

    def storage(self, watched: socket.socket) -> Storage | None:
        """What a socket's storage holds."""
        value = self.loaded.maps["km_sockstorage"].lookup(u32(watched.fileno()))
        return None if value is None else Storage.unpack(value)

    def client(self, family: Family) -> socket.socket:
        """A socket of the group, bound to host 3."""
        with self._group.entered():
            return family.client(family.host(3))

    def udp_client(self) -> socket.socket:
        """A UDP socket of the group."""
        with self._group.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(SECONDS)
        return client

    @contextlib.contextmanager
    def outbound(self, family: Family = V4, port: int = 0) -> Iterator[Meeting]:
        """A connection from host 3, which is in the group, to host 2, which is not."""
        with listener(family, family.host(2), port) as listening:
            port = address(listening.getsockname())[1]
            to = (family.dialled(family.host(2)), port)
            with meeting(self.client(family), to, listening) as met:
                yield met

    @contextlib.contextmanager
    def inbound(self, family: Family) -> Iterator[Meeting]:
        """A connection from host 3, which is not in the group, to host 2, which is."""
        with contextlib.ExitStack() as stack:
            with self._group.entered():
                listening = stack.enter_context(listener(family, family.host(2)))
            client = family.client(family.host(3))
            to = (family.dialled(family.host(2)), address(listening.getsockname())[1])
            yield stack.enter_context(meeting(client, to, listening))

    def records(self) -> list[Probe]:
        """What was reported since this was last asked."""
        return [Probe.unpack(record) for record in self._ring.drain()]

    def assert_silent(self, met: Meeting) -> None:
        """The programs run on a round trip, and nothing is reported."""
        before = [program.run_count() for program in self._programs]
        round_trip(met)
        after = [program.run_count() for program in self._programs]
        for program, earlier, later in zip(self._programs, before, after, strict=True):
            assert later > earlier, f"{program.name} did not run: {earlier} runs, then {later}"
        assert_none(self.records())

    def report(self, met: Meeting) -> Probe:
        """The only record of a round trip."""
        round_trip(met)
        return only(self.records())


@contextlib.contextmanager
def watching(loaded: BpfObject, group: Cgroup, names: list[str]) -> Iterator[Watch]:
    """The named programs attached, the reader of the ring ready, everything put back behind."""
    programs = [loaded.programs[name] for name in names]
    with contextlib.ExitStack() as stack:
        ring = stack.enter_context(RingBuffer(loaded.maps["km_tcp_probe"]))
        ring.drain()
        stack.callback(loaded.maps["km_manage"].clear)
        stack.callback(switch_on, loaded)
        for program in programs:
            stack.enter_context(attached_to_cgroup(program, group))
        yield Watch(loaded, group, programs, ring)


@contextlib.contextmanager
def switched_on(needed: Needed, name: str, ring: int | None = None) -> Iterator[BpfObject]:
    """The object `name`, loaded and switched on; its ring of `ring` bytes if given."""
    with BpfObject(object_path(name)) as loaded:
        needed(loaded, EGRESS, INGRESS, "km_manage", "km_sockstorage", "km_tcp_probe")
        if ring is not None:
            loaded.set_max_entries("km_tcp_probe", ring)
        loaded.load()
        switch_on(loaded)
        yield loaded


@pytest.fixture(scope="module")
def cgroup_skb(
    v6_hosts: None, runs_are_counted: None, clock_is_past_the_interval: None, needed: Needed
) -> Iterator[BpfObject]:
    """The object, loaded and switched on. Tests share it and leave its maps empty."""
    with switched_on(needed, "cgroup_skb") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def cgroup_skb_with_small_ring(
    runs_are_counted: None, clock_is_past_the_interval: None, needed: Needed
) -> Iterator[BpfObject]:
    """The object, its ring of a single page, so that a test can fill it."""
    with switched_on(needed, "cgroup_skb", SMALL_RING) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def mock_cgroup_skb(runs_are_counted: None, needed: Needed) -> Iterator[BpfObject]:
    """The programs in the mock, switched on. Tests share it and put its variables back."""
    with switched_on(needed, "mock_cgroup_skb") as loaded:
        yield loaded


@pytest.fixture
def watch(cgroup_skb: BpfObject, group: Cgroup, request: pytest.FixtureRequest) -> Iterator[Watch]:
    """The programs attached to the test's group: both, or the one the test names."""
    names = [request.param] if hasattr(request, "param") else [EGRESS, INGRESS]
    with watching(cgroup_skb, group, names) as made:
        yield made


@pytest.fixture
def mock_watch(
    mock_cgroup_skb: BpfObject, group: Cgroup, request: pytest.FixtureRequest
) -> Iterator[Watch]:
    """One of the mock's programs attached to the test's group, which the test names."""
    with watching(mock_cgroup_skb, group, [request.param]) as made:
        yield made
        for name in ("clock_ns", "no_full_socket"):
            mock_cgroup_skb.set_global(name, 0)


# What user space finds.


def test_each_program_is_for_its_own_way(cgroup_skb: BpfObject) -> None:
    seen = [cgroup_skb.programs[name].attach_type for name in (INGRESS, EGRESS)]
    assert seen == [0, 1], f"expected BPF_CGROUP_INET_INGRESS and _EGRESS (0, 1), seen {seen}"


def test_maps_have_the_sizes_and_flags_of_the_abi(cgroup_skb: BpfObject) -> None:
    assert_maps(cgroup_skb.maps)


@pytest.mark.parametrize(
    ("name", "section", "value"),
    [
        ("enable_monitoring", ".data", 1),
        ("enable_periodic_report", ".bss", 0),
    ],
)
def test_switch_has_its_section_and_first_value(name: str, section: str, value: int) -> None:
    with BpfObject(object_path("cgroup_skb")) as fresh:
        assert_global(fresh, name, section, value)


# When there is a report.


@every_family
@either_way
def test_unmanaged_address_is_not_reported(watch: Watch, family: Family) -> None:
    with watch.outbound(family) as met:
        watch.seed(met.client, STALE)
        watch.assert_silent(met)
        watch.manage(family.host(3))
        watch.report(met)


@every_family
@either_way
def test_connection_to_a_managed_address_is_not_reported(watch: Watch, family: Family) -> None:
    watch.manage(family.host(2))
    with watch.outbound(family) as met:
        watch.seed(met.client, STALE)
        watch.assert_silent(met)
        watch.manage(family.host(3))
        watch.report(met)


@every_family
@either_way
def test_managed_and_stale_connection_is_reported_once(watch: Watch, family: Family) -> None:
    watch.manage(family.host(3))
    with watch.outbound(family) as met:
        watch.seed(met.client, STALE)
        watch.report(met)
        watch.assert_silent(met)


@either_way
def test_report_wakes_its_reader(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        with waking_its_reader(watch.loaded.maps["km_tcp_probe"]):
            round_trip(met)
        only(watch.records())


@every_family
@either_way
def test_handshake_of_a_stale_connection_is_reported_once(watch: Watch, family: Family) -> None:
    watch.manage(family.host(3))
    with listener(family, family.host(2)) as listening, watch.client(family) as client:
        watch.seed(client, STALE)
        assert_none(watch.records())
        server = address(listening.getsockname())
        client.connect((family.dialled(server[0]), server[1]))
        record = only(watch.records())
        ends = (family.host(3), address(client.getsockname())[1]), server
    assert_bytes("ends", record.ends, ends_of(*ends))


@either_way
def test_every_connection_is_reported_for_itself(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with (
        watch.outbound() as first,
        watch.outbound() as second,
        watch.outbound() as unseeded,
        watch.outbound() as recent,
    ):
        watch.seed(first.client, STALE)
        watch.seed(second.client, STALE)
        watch.seed(recent.client, reported_just_now())
        for met in (recent, second, unseeded, first):
            round_trip(met)
        seen = [record.ends.hex(" ") for record in watch.records()]
        expected = [
            ends_of(met.client.getsockname(), met.server.getsockname()).hex(" ")
            for met in (second, first)
        ]
    assert seen == expected, f"expected records of {expected}, seen of {seen}"


@either_way
def test_connection_whose_address_is_removed_is_not_reported_any_more(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        watch.report(met)
        watch.seed(met.client, STALE)
        watch.loaded.maps["km_manage"].delete(ip_addr(V4.host(3)))
        watch.assert_silent(met)
        watch.manage(V4.host(3))
        watch.report(met)


def test_connection_is_reported_once_in_5_seconds(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        began = time.monotonic_ns()
        for _ in range(20):
            round_trip(met)
        took = time.monotonic_ns() - began
        times = [record.last_report_ns for record in watch.records()]
    assert times, "expected a record, seen none"
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(gap > INTERVAL_NS for gap in gaps), f"reports only {gaps} ns apart"
    # More than one only on a machine that stood still in between.
    assert len(times) == 1 or took > INTERVAL_NS, f"{len(times)} records within {took} ns"


@either_way
def test_recent_report_is_not_repeated(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, reported_just_now())
        watch.assert_silent(met)
        watch.seed(met.client, STALE)
        watch.report(met)


@either_way
def test_report_is_repeated_once_the_last_one_is_over_5_seconds_old(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        last = time.monotonic_ns() - INTERVAL_NS - 1
        watch.seed(met.client, Storage(connect_ns=1, last_report_ns=last, direction=OUTBOUND))
        watch.report(met)


@either_way
def test_report_is_not_repeated_while_the_last_one_is_not_5_seconds_old(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        last = time.monotonic_ns() - INTERVAL_NS * 4 // 5
        watch.seed(met.client, Storage(connect_ns=1, last_report_ns=last, direction=OUTBOUND))
        round_trip(met)
        # One is due only on a machine that stood still for a second.
        ages = [record.last_report_ns - last for record in watch.records()]
    assert all(age > INTERVAL_NS for age in ages), f"reported {ages} ns after the last report"


@either_way
def test_connection_that_was_never_reported_is_not_reported(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, Storage(connect_ns=1, direction=OUTBOUND))
        watch.assert_silent(met)
        watch.seed(met.client, STALE)
        watch.report(met)


@either_way
def test_connection_without_storage_is_not_reported_and_gets_none(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.assert_silent(met)
        made = watch.storage(met.client)
        assert made is None, f"expected no storage, seen {made}"
        watch.seed(met.client, STALE)
        watch.report(met)


@either_way
def test_address_managed_with_another_value_than_0_is_not_reported(watch: Watch) -> None:
    watch.manage(V4.host(3), value=1)
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        watch.assert_silent(met)
        watch.manage(V4.host(3))
        watch.report(met)


@pytest.mark.parametrize("value", [0, 2])
@pytest.mark.parametrize("switch", ["enable_monitoring", "enable_periodic_report"])
@either_way
def test_nothing_is_reported_unless_switched_to_1(watch: Watch, switch: str, value: int) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        watch.loaded.set_global(switch, value)
        watch.assert_silent(met)
        watch.loaded.set_global(switch, 1)
        watch.report(met)


@pytest.mark.ours
@pytest.mark.parametrize(
    ("family", "host"),
    [(V4, "0.0.0.2"), (V6, "::2"), (MAPPED, "0.0.0.2")],
    ids=["v4", "v6", "mapped"],
)
@either_way
def test_control_connection_is_not_reported(watch: Watch, family: Family, host: str) -> None:
    watch.manage(family.host(3))
    length = 8 * len(packed(host))
    with (
        loopback_addresses(f"{host}/{length}"),
        listener(family, host, 929) as manage,
        listener(family, host, 930) as unmanage,
        listener(family, host, 931) as other,
    ):
        dialled = family.dialled(host)
        for port, listening in ((929, manage), (930, unmanage)):
            with meeting(watch.client(family), (dialled, port), listening) as met:
                watch.seed(met.client, STALE)
                watch.assert_silent(met)
        with meeting(watch.client(family), (dialled, 931), other) as met:
            watch.seed(met.client, STALE)
            watch.report(met)


@pytest.mark.parametrize("port", [929, 930])
@every_family
def test_control_port_of_another_host_is_reported(watch: Watch, family: Family, port: int) -> None:
    watch.manage(family.host(3))
    # Of IPv6 the host's last number is that of the control address.
    with watch.outbound(family, port) as met:
        watch.seed(met.client, STALE)
        watch.report(met)


def test_udp_is_not_reported(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with (
        watch.outbound() as met,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        watch.udp_client() as client,
    ):
        server.settimeout(SECONDS)
        server.bind((V4.host(2), 0))
        client.bind((V4.host(3), 0))
        client.connect(server.getsockname())
        server.connect(client.getsockname())
        watch.seed(client, STALE)
        watch.assert_silent(Meeting(client, server))
        watch.seed(met.client, STALE)
        watch.report(met)


def test_full_ring_leaves_the_report_to_the_next_packet(
    cgroup_skb_with_small_ring: BpfObject, group: Cgroup
) -> None:
    with (
        watching(cgroup_skb_with_small_ring, group, [EGRESS, INGRESS]) as watch,
        watch.outbound() as met,
    ):
        watch.manage(V4.host(3))
        made = fill_ring(watch, met)
        storage = watch.storage(met.client)
        assert storage == STALE, f"expected it as it was, {STALE}, seen {storage}"
        # A late packet, such as a delayed ACK, would be reported as soon as there is room.
        watch.seed(met.client, reported_just_now())
        seen = len(watch.records())
        assert seen == made, f"expected the {made} records made, seen {seen}"
        watch.seed(met.client, STALE)
        record = watch.report(met)
        storage = watch.storage(met.client)
        expected = dataclasses.replace(STALE, last_report_ns=record.last_report_ns)
        assert storage == expected, f"expected {expected}, seen {storage}"


# What the kernel never does, or when nobody can tell: bpf/mocks/cgroup_skb.bpf.c.


@pytest.mark.ours
@either_mock_way
def test_report_that_is_exactly_5_seconds_old_is_not_repeated(mock_watch: Watch) -> None:
    watch = mock_watch
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        watch.loaded.set_global("clock_ns", STALE.last_report_ns + INTERVAL_NS)
        watch.assert_silent(met)
        now = STALE.last_report_ns + INTERVAL_NS + 1
        watch.loaded.set_global("clock_ns", now)
        seen = watch.report(met).last_report_ns
        assert seen == now, f"expected a report made at {now} ns, seen {seen}"


@pytest.mark.ours
@either_mock_way
def test_socket_that_is_no_full_one_is_not_reported(mock_watch: Watch) -> None:
    watch = mock_watch
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        watch.loaded.set_global("no_full_socket", 1)
        watch.assert_silent(met)
        watch.loaded.set_global("no_full_socket", 0)
        watch.report(met)


# What a report says.


@every_family
@either_way
def test_record_of_an_outbound_connection_names_its_ends_and_original_destination(
    watch: Watch, family: Family
) -> None:
    is_v6 = family is V6
    watch.manage(family.host(3))
    with watch.outbound(family) as met:
        if family is V4:
            original = original_v4("8.8.8.8", 853)
        else:
            original = original_v6("2001:db8::7" if is_v6 else "::ffff:8.8.8.8", 853)
        storage = Storage(
            connect_ns=1,
            last_report_ns=1,
            direction=OUTBOUND,
            connect_success=1,
            has_set_ip=True,
            orig_dst=original,
        )
        watch.seed(met.client, storage)
        record = watch.report(met)
        client = (family.host(3), address(met.client.getsockname())[1])
        server = address(met.server.getsockname())
    kind = 1 if is_v6 else 0
    assert record.type == kind, f"type: expected {kind}, seen {record.type}"
    assert_bytes("ends", record.ends, ends_of(client, server))
    host = packed("2001:db8::7" if is_v6 else "8.8.8.8")
    assert_bytes("original", record.original, host + struct.pack("<H", 853))
    seen = (record.conn_success, record.direction, record.state)
    wanted = (1, OUTBOUND, ESTABLISHED)
    assert seen == wanted, f"conn_success, direction, state: expected {wanted}, seen {seen}"


@pytest.mark.parametrize("family", [V4, V6, MAPPED_SERVER], ids=lambda family: family.name)
@either_way
def test_record_of_an_inbound_connection_names_the_client_first(
    watch: Watch, family: Family
) -> None:
    is_v6 = family is V6
    watch.manage(family.host(2))
    with watch.inbound(family) as met:
        storage = Storage(connect_ns=1, last_report_ns=1, direction=INBOUND)
        watch.seed(met.server, storage)
        record = watch.report(met)
        client = address(met.client.getsockname())
        server = family.host(2), address(met.server.getsockname())[1]
    assert_bytes("ends", record.ends, ends_of(client, server))
    seen, wanted = (record.type, record.direction, record.conn_success), (int(is_v6), INBOUND, 0)
    assert seen == wanted, f"type, direction, conn_success: expected {wanted}, seen {seen}"


def test_record_says_when_the_connection_began_and_the_report_was_made(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        began = time.monotonic_ns()
        watch.seed(met.client, Storage(connect_ns=began, last_report_ns=1, direction=OUTBOUND))
        record = watch.report(met)
        ended = time.monotonic_ns()
        storage = watch.storage(met.client)
    assert record.start_ns == began, f"start_ns: expected {began}, seen {record.start_ns}"
    made = record.last_report_ns
    assert began <= made <= ended, f"last_report_ns: expected {began} to {ended}, seen {made}"
    expected = made - began
    assert record.duration == expected, f"duration: expected {expected}, seen {record.duration}"
    wanted = Storage(connect_ns=began, last_report_ns=made, direction=OUTBOUND)
    assert storage == wanted, f"expected {wanted}, seen {storage}"


def test_record_has_the_counters_of_the_connection(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        for source, sink, size in ((met.client, met.server, 1000), (met.server, met.client, 500)):
            source.sendall(bytes(size))
            received = len(receive(sink, size))
            assert received == size, f"expected {size} B, received {received}"
        info = TcpInfo(met.client)
        watch.seed(met.client, STALE)
        # The byte that triggers the report is not acknowledged yet when it is made.
        record = watch.report(met)
    assert info.bytes_acked >= 1000, f"the kernel counts {info.bytes_acked} of 1000 B"
    assert info.bytes_received == 500, f"the kernel counts {info.bytes_received} of 500 B"
    assert_counters(record, info)


def test_record_counts_what_was_lost_and_sent_again(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met, deaf(met.server):
        met.client.sendall(b"?")
        # One segment lost, sent again twice or more: numbers that cannot be taken for each other.
        deadline = time.monotonic() + SECONDS
        while (before := TcpInfo(met.client)).total_retrans < 2 or before.lost != 1:
            assert time.monotonic() < deadline, f"lost {before.lost}, again {before.total_retrans}"
            time.sleep(0.01)
        watch.seed(met.client, STALE)
        # Triggers the report, and acknowledges nothing.
        met.server.sendall(b"!")
        answer = met.client.recv(1)
        assert answer == b"!", f"expected a byte at the client, received {answer!r}"
        after = TcpInfo(met.client)
        record = only(watch.records())
    assert record.lost_out == 1, f"lost_out: expected 1, seen {record.lost_out}"
    low, high = before.total_retrans, after.total_retrans
    assert low <= record.total_retrans <= high, (
        f"total_retrans: expected {low} to {high}, seen {record.total_retrans}"
    )


@pytest.mark.ours
def test_record_shows_nothing_of_the_records_before(
    cgroup_skb_with_small_ring: BpfObject, group: Cgroup, v6_hosts: None
) -> None:
    with watching(cgroup_skb_with_small_ring, group, [EGRESS, INGRESS]) as watch:
        watch.manage(V4.host(3))
        watch.manage(V6.host(3))
        with watch.outbound(V6) as met:
            full = Storage(
                connect_ns=1,
                last_report_ns=1,
                direction=OUTBOUND,
                has_set_ip=True,
                orig_dst=original_v6("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
            )
            fill_ring(watch, met, full)
            # Stale as it still is, its last packets would be reported as well.
            watch.seed(met.client, Storage())
            watch.records()
        with watch.outbound(V4) as met:
            # 30 records fill the ring, so that these take the places of those above.
            for direction in (0, OUTBOUND) * 15:
                unset = Storage(
                    connect_ns=1,
                    last_report_ns=1,
                    direction=direction,
                    orig_dst=original_v4("8.8.8.8", 853),
                )
                watch.seed(met.client, unset)
                record = watch.report(met)
                ends = tuple_of(met.client.getsockname(), met.server.getsockname())
                assert_bytes("tuple", record.tuple, ends if direction else bytes(36))
                assert_bytes("orig_dst", record.orig_dst, bytes(20))
                assert record.protocol == socket.IPPROTO_TCP, f"protocol: seen {record.protocol}"


@pytest.mark.ours
@pytest.mark.parametrize("family", [V4, MAPPED], ids=lambda family: family.name)
@either_way
def test_record_of_an_outbound_ipv4_connection_has_zeros_behind_the_ipv4_parts(
    watch: Watch, family: Family
) -> None:
    original = original_v4 if family is V4 else original_v6
    watch.manage(family.host(3))
    with watch.outbound(family) as met:
        stored = original(family.dialled("8.8.8.8"), 853)
        watch.seed(met.client, dataclasses.replace(STALE, has_set_ip=True, orig_dst=stored))
        assert_zeros_behind_ipv4(watch.report(met))


@pytest.mark.ours
@pytest.mark.parametrize("family", [V4, MAPPED_SERVER], ids=lambda family: family.name)
@either_way
def test_record_of_an_inbound_ipv4_connection_has_zeros_behind_the_ipv4_parts(
    watch: Watch, family: Family
) -> None:
    watch.manage(family.host(2))
    with watch.inbound(family) as met:
        watch.seed(met.server, dataclasses.replace(STALE, direction=INBOUND))
        assert_zeros_behind_ipv4(watch.report(met))


@pytest.mark.ours
def test_padding_of_a_record_is_zero_whatever_the_ring_held(
    runs_are_counted: None, clock_is_past_the_interval: None, needed: Needed, group: Cgroup
) -> None:
    ring = 2 * SMALL_RING
    with (
        switched_on(needed, "cgroup_skb", ring) as loaded,
        watching(loaded, group, [EGRESS]) as watch,
        watch.outbound() as met,
    ):
        watch.manage(V4.host(3))
        # The second time round a record's padding lies where the last byte of start_ns lay.
        for _ in range(2 * ring // (128 + 8)):
            watch.seed(met.client, dataclasses.replace(STALE, connect_ns=2**64 - 1))
            record = watch.report(met)
            assert record.start_ns == 2**64 - 1
            assert record.padding == bytes(4), f"padding: seen {record.padding.hex(' ')}"


# What the checks above are made of.


def switch_on(loaded: BpfObject) -> None:
    """Monitoring is on by default, periodic reports are not."""
    loaded.set_global("enable_monitoring", 1)
    loaded.set_global("enable_periodic_report", 1)


def reported_just_now() -> Storage:
    """Of a connection whose last report is as young as can be."""
    return Storage(connect_ns=1, last_report_ns=time.monotonic_ns(), direction=OUTBOUND)


def fill_ring(watch: Watch, met: Meeting, storage: Storage = STALE) -> int:
    """Has reports made until there is no more room; how many there were."""
    for made in range(SMALL_RING // 128 + 1):
        watch.seed(met.client, storage)
        round_trip(met)
        if watch.storage(met.client) == storage:
            return made
    raise AssertionError(f"the ring of {SMALL_RING} B took {made + 1} records")


def assert_none(records: list[Probe]) -> None:
    """Nothing was reported."""
    assert not records, f"expected no record, seen {records}"
