"""cgroup_skb: a connection with traffic is reported, every 5 seconds at most."""

import contextlib
import itertools
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from layouts import (
    ESTABLISHED,
    INBOUND,
    OUTBOUND,
    Probe,
    Storage,
    assert_maps,
    ip_addr,
    original_v4,
    original_v6,
    packed,
    tuple_v4,
    tuple_v6,
    u32,
)
from records import INTERVAL_NS, TcpInfo, assert_bytes, assert_counters, only
from traffic import (
    MAPPED,
    SECONDS,
    V4,
    V6,
    Family,
    Meeting,
    address,
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

STALE = Storage(connect_ns=1, last_report_ns=1, direction=OUTBOUND)
"""Of a connection whose last report is as old as can be: made 1 ns after the clock's start."""

either_way = pytest.mark.parametrize(
    "watch", [EGRESS, INGRESS], indirect=True, ids=["egress", "ingress"]
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
    def outbound(self, family: Family = V4) -> Iterator[Meeting]:
        """A connection from host 3, which is in the group, to host 2, which is not."""
        with listener(family, family.host(2)) as listening:
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
        records = self.records()
        assert not records, f"expected no record, seen {records}"

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


@pytest.fixture(scope="module")
def cgroup_skb(
    v6_hosts: None, runs_are_counted: None, clock_is_past_the_interval: None
) -> Iterator[BpfObject]:
    """The object, loaded and switched on. Tests share it and leave its maps empty."""
    with BpfObject(object_path("cgroup_skb")) as loaded:
        loaded.load()
        switch_on(loaded)
        yield loaded


@pytest.fixture(scope="module")
def cgroup_skb_with_small_ring(
    runs_are_counted: None, clock_is_past_the_interval: None
) -> Iterator[BpfObject]:
    """The object, its ring of a single page, so that a test can fill it."""
    with BpfObject(object_path("cgroup_skb")) as loaded:
        loaded.set_max_entries("km_tcp_probe", SMALL_RING)
        loaded.load()
        switch_on(loaded)
        yield loaded


@pytest.fixture
def watch(cgroup_skb: BpfObject, group: Cgroup, request: pytest.FixtureRequest) -> Iterator[Watch]:
    """The programs attached to the test's group: both, or the one the test names."""
    names = [request.param] if hasattr(request, "param") else [EGRESS, INGRESS]
    with watching(cgroup_skb, group, names) as made:
        yield made


# What user space finds.


def test_maps_have_the_sizes_and_flags_of_the_abi(cgroup_skb: BpfObject) -> None:
    assert_maps(cgroup_skb.maps)


def test_monitoring_is_on_and_periodic_reports_are_off_by_default() -> None:
    with BpfObject(object_path("cgroup_skb")) as fresh:
        assert fresh.get_global("enable_monitoring") == 1
        assert fresh.get_global("enable_periodic_report") == 0


# When there is a report.


@either_way
def test_unmanaged_address_is_not_reported(watch: Watch) -> None:
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        watch.assert_silent(met)
        watch.manage(V4.host(3))
        watch.report(met)


@either_way
def test_managed_and_stale_connection_is_reported_once(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        watch.report(met)
        watch.assert_silent(met)


@either_way
def test_handshake_of_a_stale_connection_is_reported_once(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with listener(V4, V4.host(2)) as listening, watch.client(V4) as client:
        watch.seed(client, STALE)
        assert watch.records() == []
        client.connect(listening.getsockname())
        record = only(watch.records())
        expected = tuple_v4(client.getsockname(), listening.getsockname())
    assert_bytes("tuple", record.tuple, expected)


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


def test_recent_report_is_not_repeated(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        recent = Storage(connect_ns=1, last_report_ns=time.monotonic_ns(), direction=OUTBOUND)
        watch.seed(met.client, recent)
        watch.assert_silent(met)
        watch.seed(met.client, STALE)
        watch.report(met)


def test_connection_that_was_never_reported_is_not_reported(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, Storage(connect_ns=1, direction=OUTBOUND))
        watch.assert_silent(met)
        watch.seed(met.client, STALE)
        watch.report(met)


def test_connection_without_storage_is_not_reported_and_gets_none(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.assert_silent(met)
        assert watch.storage(met.client) is None
        watch.seed(met.client, STALE)
        watch.report(met)


def test_address_managed_with_another_value_than_0_is_not_reported(watch: Watch) -> None:
    watch.manage(V4.host(3), value=1)
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        watch.assert_silent(met)
        watch.manage(V4.host(3))
        watch.report(met)


@pytest.mark.parametrize("switch", ["enable_monitoring", "enable_periodic_report"])
def test_nothing_is_reported_while_switched_off(watch: Watch, switch: str) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        watch.seed(met.client, STALE)
        watch.loaded.set_global(switch, 0)
        watch.assert_silent(met)
        watch.loaded.set_global(switch, 1)
        watch.report(met)


@pytest.mark.ours
@pytest.mark.parametrize(("family", "host"), [(V4, "0.0.0.2"), (V6, "::2")], ids=["v4", "v6"])
def test_control_connection_is_not_reported(watch: Watch, family: Family, host: str) -> None:
    watch.manage(family.host(3))
    length = 8 * len(packed(host))
    with (
        loopback_addresses(f"{host}/{length}"),
        listener(family, host, 929) as manage,
        listener(family, host, 930) as unmanage,
        listener(family, host, 931) as other,
    ):
        for port, listening in ((929, manage), (930, unmanage)):
            with meeting(watch.client(family), (host, port), listening) as met:
                watch.seed(met.client, STALE)
                watch.assert_silent(met)
        with meeting(watch.client(family), (host, 931), other) as met:
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
        assert watch.storage(met.client) == STALE, "a report that was not made was noted as made"
        assert len(watch.records()) == made
        watch.report(met)


# What a report says.


@pytest.mark.parametrize("family", [V4, V6, MAPPED], ids=lambda family: family.name)
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
    assert record.type == (1 if is_v6 else 0)
    assert_bytes("tuple", record.tuple, (tuple_v6 if is_v6 else tuple_v4)(client, server))
    host = packed("2001:db8::7" if is_v6 else "8.8.8.8")
    expected = host + struct.pack("<H", 853)
    assert_bytes("orig_dst", record.orig_dst[: len(expected)], expected)
    seen = (record.conn_success, record.direction, record.state)
    assert seen == (1, OUTBOUND, ESTABLISHED)


@pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)
def test_record_of_an_inbound_connection_names_the_client_first(
    watch: Watch, family: Family
) -> None:
    watch.manage(family.host(2))
    with watch.inbound(family) as met:
        storage = Storage(connect_ns=1, last_report_ns=1, direction=INBOUND)
        watch.seed(met.server, storage)
        record = watch.report(met)
        client, server = address(met.client.getsockname()), address(met.server.getsockname())
    expected = (tuple_v6 if family is V6 else tuple_v4)(client, server)
    assert_bytes("tuple", record.tuple, expected)
    assert (record.direction, record.conn_success) == (INBOUND, 0)


def test_record_says_when_the_connection_began_and_the_report_was_made(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        began = time.monotonic_ns()
        watch.seed(met.client, Storage(connect_ns=began, last_report_ns=1, direction=OUTBOUND))
        record = watch.report(met)
        ended = time.monotonic_ns()
        storage = watch.storage(met.client)
    assert record.start_ns == began
    assert began <= record.last_report_ns <= ended
    assert record.duration == record.last_report_ns - began
    assert storage is not None and storage.last_report_ns == record.last_report_ns


def test_record_has_the_counters_of_the_connection(watch: Watch) -> None:
    watch.manage(V4.host(3))
    with watch.outbound() as met:
        met.client.sendall(bytes(1000))
        assert len(receive(met.server, 1000)) == 1000
        met.server.sendall(bytes(500))
        assert len(receive(met.client, 500)) == 500
        info = TcpInfo(met.client)
        watch.seed(met.client, STALE)
        # The byte that triggers the report is not acknowledged yet when it is made.
        record = watch.report(met)
    assert info.bytes_acked >= 1000, f"the kernel counts {info.bytes_acked} of 1000 B"
    assert info.bytes_received == 500
    assert_counters(record, info)


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
                ends = tuple_v4(met.client.getsockname(), met.server.getsockname())
                assert_bytes("tuple", record.tuple, ends if direction else bytes(36))
                assert_bytes("orig_dst", record.orig_dst, bytes(20))
                assert record.protocol == socket.IPPROTO_TCP


# What the checks above are made of.


def switch_on(loaded: BpfObject) -> None:
    """Monitoring is on by default, periodic reports are not."""
    loaded.set_global("enable_monitoring", 1)
    loaded.set_global("enable_periodic_report", 1)


def fill_ring(watch: Watch, met: Meeting, storage: Storage = STALE) -> int:
    """Has reports made until there is no more room; how many there were."""
    for made in range(SMALL_RING // 128 + 1):
        watch.seed(met.client, storage)
        round_trip(met)
        if watch.storage(met.client) == storage:
            return made
    raise AssertionError(f"the ring of {SMALL_RING} B took {made + 1} records")
