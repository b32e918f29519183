"""sockops: a connection's first and last record, its authorization, its way into sendmsg's map."""

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from authorization import Habit, Habits, possible_keys, requested_order
from layouts import (
    CLOSED,
    ESTABLISHED,
    INBOUND,
    OUTBOUND,
    Probe,
    Storage,
    assert_maps,
    auth_request,
    ends_of,
    ip_addr,
    log_event,
    original_v4,
    original_v6,
    packed,
    tuple_of,
    u32,
)
from mesh import MANAGE, UNMANAGE
from messages import LOG_ERROR, LOG_WARN
from records import (
    TcpInfo,
    assert_bytes,
    assert_counters,
    assert_zeros_behind_ipv4,
    only,
    taken,
    waking_its_reader,
)
from traffic import (
    MAPPED,
    SECONDS,
    V4,
    V6,
    Address,
    Family,
    Meeting,
    address,
    deaf,
    listener,
    loopback_addresses,
    meeting,
    receive,
    receive_all,
    reset_on_close,
    round_trip,
)

from vmtest.guest.attach import attached_to_cgroup
from vmtest.guest.cgroup import Cgroup, temporary_cgroup
from vmtest.guest.objects import BpfObject
from vmtest.guest.payload import object_path
from vmtest.guest.ringbuf import RingBuffer
from vmtest.guest.tracing import TracePipe

IPV4, IPV6 = 0, 1  # tcp_probe_info.type
DUAL_STACK = Family("mapped", socket.AF_INET, socket.AF_INET6, "127.96.0.", "0.0.0.2")
"""An IPv4 client of a server that listens on an AF_INET6 socket."""

LAST_SECONDS = 0.2
"""How long whatever must not happen gets to happen, beyond the packets that would make it."""

PEERS = ("node_ip", "pod_gateway")

RTT_CB, STATE_CB = 1 << 3, 1 << 2  # BPF_SOCK_OPS_*_CB_FLAG of linux/bpf.h

BEGUN = Storage(connect_ns=1)
"""Of a socket that connect4 or connect6 has seen."""

each_client = pytest.mark.parametrize("family", [V4, V6, MAPPED], ids=lambda family: family.name)
each_server = pytest.mark.parametrize(
    "family", [V4, V6, DUAL_STACK], ids=lambda family: family.name
)


class Turns:
    """One test's view: the connections of its group, and what the program makes of them."""

    def __init__(self, loaded: BpfObject, group: Cgroup, stack: contextlib.ExitStack) -> None:
        self.maps = loaded.maps
        self.loaded = loaded
        self._group = group
        self._records = stack.enter_context(RingBuffer(loaded.maps["km_tcp_probe"]))
        self._requests = stack.enter_context(RingBuffer(loaded.maps["km_auth_req"]))
        self._log = stack.enter_context(RingBuffer(loaded.maps["km_log_event"]))
        for ring in (self._records, self._requests, self._log):
            ring.drain()

    def manage(self, host: str, value: int = 0) -> None:
        """Connections whose local address is `host` are the mesh's own, if the value is 0."""
        self.maps["km_manage"].update(ip_addr(host), u32(value))

    def unmanage(self, host: str) -> None:
        """They are no more."""
        assert self.maps["km_manage"].delete(ip_addr(host))

    def storage(self, watched: socket.socket) -> Storage | None:
        """What a socket's storage holds."""
        value = self.maps["km_sockstorage"].lookup(u32(watched.fileno()))
        return None if value is None else Storage.unpack(value)

    def client(self, family: Family, storage: Storage | None, host: int = 3) -> socket.socket:
        """A socket of the group, bound to `host`, with storage as connect4 would have given it."""
        with self._group.entered():
            client = family.client(family.host(host))
        if storage is not None:
            self.maps["km_sockstorage"].update(u32(client.fileno()), storage.pack())
        return client

    @contextlib.contextmanager
    def outbound(self, family: Family = V4, storage: Storage | None = BEGUN) -> Iterator[Meeting]:
        """A connection from host 3, which is in the group, to host 2, which is not."""
        with listener(family, family.host(2)) as listening:
            to = (family.dialled(family.host(2)), address(listening.getsockname())[1])
            with meeting(self.client(family, storage), to, listening) as met:
                yield met

    @contextlib.contextmanager
    def inbound(self, family: Family = V4, client_host: int = 3) -> Iterator[Meeting]:
        """A connection from `client_host`, which is not in the group, to host 2, which is."""
        with contextlib.ExitStack() as stack:
            mapped = "::ffff:" if family is DUAL_STACK else ""
            with self._group.entered():
                listening = stack.enter_context(listener(family, mapped + family.host(2)))
            client = family.client(family.host(client_host))
            to = (family.host(2), address(listening.getsockname())[1])
            yield stack.enter_context(meeting(client, to, listening))

    def records(self, count: int = 0) -> list[Probe]:
        """What was reported since this was last asked; waits for at least `count`."""
        return taken(self._records, count)

    def requests(self) -> list[bytes]:
        """The requests for authorization since this was last asked."""
        return self._requests.drain()

    def messages(self) -> list[bytes]:
        """The records of km_log_event since this was last asked."""
        return self._log.drain()


@contextlib.contextmanager
def following(loaded: BpfObject, group: Cgroup) -> Iterator[Turns]:
    """The program attached, and everything put back behind."""
    with contextlib.ExitStack() as stack:
        for name in ("km_manage", "km_auth_res"):
            stack.callback(loaded.maps[name].clear)
        stack.callback(loaded.set_global, "enable_monitoring", 1)
        stack.callback(loaded.set_global, "bpf_log_level", 2)
        for name in PEERS:
            stack.callback(loaded.set_global, name, 0)
        stack.enter_context(attached_to_cgroup(loaded.programs["sockops_prog"], group))
        yield Turns(loaded, group, stack)


@pytest.fixture(scope="module")
def sockops(v6_hosts: None) -> Iterator[BpfObject]:
    """The object, loaded. Tests share it and leave its maps empty."""
    with BpfObject(object_path("sockops")) as loaded:
        loaded.load()
        yield loaded


@pytest.fixture
def turns(sockops: BpfObject, group: Cgroup) -> Iterator[Turns]:
    """The program attached to the test's group."""
    with following(sockops, group) as made:
        yield made


@pytest.fixture(scope="module")
def mock_sockops() -> Iterator[BpfObject]:
    """The same program, with helpers that can be made to fail."""
    with BpfObject(object_path("mock_sockops")) as loaded:
        loaded.load()
        yield loaded


@contextlib.contextmanager
def failing(loaded: BpfObject, switch: str) -> Iterator[None]:
    """The mock's switch is on."""
    loaded.set_global(switch, 1)
    try:
        yield
    finally:
        loaded.set_global(switch, 0)


@contextlib.contextmanager
def with_small_maps(group: Cgroup, **entries: int) -> Iterator[Turns]:
    """The same with an object of its own, whose named maps have this many entries (or bytes)."""
    with BpfObject(object_path("sockops")) as loaded:
        for name, count in entries.items():
            loaded.set_max_entries(name, count)
        loaded.load()
        with following(loaded, group) as made:
            yield made


# What user space finds.


def test_maps_have_the_sizes_of_the_abi(sockops: BpfObject) -> None:
    assert_maps(sockops.maps)


def test_monitoring_is_on_and_no_peer_is_skipped_by_default() -> None:
    with BpfObject(object_path("sockops")) as fresh:
        seen = {name: fresh.get_global(name) for name in ("enable_monitoring", *PEERS)}
    assert seen == {"enable_monitoring": 1, "node_ip": 0, "pod_gateway": 0}


def test_peers_to_skip_are_addresses_of_16_bytes() -> None:
    with BpfObject(object_path("sockops")) as fresh:
        variables = fresh.btf().variables()
    assert {name: variables[name].size for name in PEERS} == dict.fromkeys(PEERS, 16)


# Control connections.


@contextlib.contextmanager
def route_to(*hosts: str) -> Iterator[None]:
    """The hosts can be reached: as addresses of this machine, where nobody listens."""
    with loopback_addresses(*(f"{host}/{8 * len(packed(host))}" for host in hosts)):
        yield


def control(turns: Turns, family: Family, port: int, host: str = "", local: int = 3) -> int:
    """Dials the control address, or `host`, from host `local`. Returns the errno."""
    host = host or ("::2" if family is V6 else "0.0.0.2")
    with turns.client(family, None, local) as client:
        return client.connect_ex((family.dialled(host), port))


control_families = pytest.mark.parametrize(
    ("family", "host"),
    [
        pytest.param(V4, "0.0.0.2", id="v4"),
        pytest.param(V6, "::2", id="v6"),
        pytest.param(MAPPED, "0.0.0.2", id="mapped", marks=pytest.mark.ours),
    ],
)


@control_families
def test_dialling_port_929_of_the_control_address_manages_the_local_address(
    turns: Turns, family: Family, host: str
) -> None:
    with route_to(host):
        assert control(turns, family, MANAGE) == errno.ECONNREFUSED
    assert turns.maps["km_manage"].items() == {ip_addr(family.host(3)): u32(0)}


@control_families
def test_dialling_port_930_of_the_control_address_unmanages_the_local_address_alone(
    turns: Turns, family: Family, host: str
) -> None:
    with route_to(host):
        for local in (3, 4):
            control(turns, family, MANAGE, local=local)
        control(turns, family, UNMANAGE, local=4)
    assert turns.maps["km_manage"].items() == {ip_addr(family.host(3)): u32(0)}


@pytest.mark.parametrize(
    ("family", "others"),
    [
        pytest.param(V4, ("0.0.0.3", "0.0.2.0"), id="v4"),
        pytest.param(V6, ("::3", "::1:0:2", "0:0:1::2", "1::2"), id="v6"),
    ],
)
def test_dialling_another_port_or_address_changes_nothing(
    turns: Turns, family: Family, others: tuple[str, ...]
) -> None:
    right = "::2" if family is V6 else "0.0.0.2"
    strangers = [(host, port) for host in others for port in (MANAGE, UNMANAGE)]
    strangers += [(right, MANAGE - 1), (right, UNMANAGE + 1)]
    managed = {ip_addr(family.host(3)): u32(0)}
    with route_to(right, *others):
        for host, port in strangers:
            assert control(turns, family, port, host) == errno.ECONNREFUSED
            assert turns.maps["km_manage"].items() == {}, f"{host} port {port} manages"
        control(turns, family, MANAGE)
        for host, port in strangers:
            control(turns, family, port, host)
            assert turns.maps["km_manage"].items() == managed, f"{host} port {port} unmanages"
        control(turns, family, UNMANAGE)
        assert turns.maps["km_manage"].items() == {}


@pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)
def test_dialling_the_control_address_without_a_route_manages_nothing(
    turns: Turns, family: Family
) -> None:
    assert control(turns, family, MANAGE) == errno.ENETUNREACH
    assert turns.maps["km_manage"].items() == {}
    with route_to("::2" if family is V6 else "0.0.0.2"):
        control(turns, family, MANAGE)
    assert list(turns.maps["km_manage"].items()) == [ip_addr(family.host(3))]


def test_unmanaging_an_address_that_is_not_managed_does_nothing(turns: Turns) -> None:
    turns.manage(V4.host(4))
    with route_to("0.0.0.2"):
        assert control(turns, V4, UNMANAGE) == errno.ECONNREFUSED
    assert turns.maps["km_manage"].items() == {ip_addr(V4.host(4)): u32(0)}


def test_full_km_manage_takes_no_more_and_loses_none(group: Cgroup) -> None:
    with with_small_maps(group, km_manage=1) as turns, route_to("0.0.0.2"):
        control(turns, V4, MANAGE, local=3)
        control(turns, V4, MANAGE, local=4)
        assert turns.maps["km_manage"].items() == {ip_addr(V4.host(3)): u32(0)}
        control(turns, V4, UNMANAGE, local=3)
        control(turns, V4, MANAGE, local=4)
        assert turns.maps["km_manage"].items() == {ip_addr(V4.host(4)): u32(0)}


# The first record.


def dialled(family: Family) -> tuple[bytes, bytes]:
    """An original destination: as storage has it (36 B), and as a record names it."""
    host = "2001:db8::7" if family is V6 else "8.8.8.8"
    record = packed(host) + struct.pack("<H", 853)
    if family is V4:
        return original_v4(host, 853), record
    return original_v6(family.dialled(host), 853), record


def named(met: Meeting) -> bytes:
    """The ends that a record names: from the client to the server."""
    return ends_of(*unmapped(met))


def unmapped(met: Meeting) -> tuple[Address, Address]:
    """Client and server, without the prefix of v4-mapped addresses."""
    client, server = ((host.removeprefix("::ffff:"), port) for host, port in ends(met))
    return client, server


def ends(met: Meeting) -> tuple[Address, Address]:
    """Client and server."""
    return address(met.client.getsockname()), address(met.client.getpeername())


@each_client
def test_first_record_of_an_outbound_connection_names_its_ends_and_original_destination(
    turns: Turns, family: Family
) -> None:
    turns.manage(family.host(3))
    stored, reported = dialled(family)
    with turns.outbound(family, Storage(1, has_set_ip=True, orig_dst=stored)) as met:
        record = only(turns.records())
        expected = named(met)
    assert_bytes("ends", record.ends, expected)
    assert_bytes("original", record.original, reported)
    seen = (record.type, record.conn_success, record.direction, record.state)
    assert seen == (kind_of(family), 1, OUTBOUND, ESTABLISHED)


@each_server
def test_first_record_of_an_inbound_connection_names_the_client_first(
    turns: Turns, family: Family
) -> None:
    turns.manage(family.host(2))
    with turns.inbound(family) as met:
        record = only(turns.records())
        expected = named(met)
    assert_bytes("ends", record.ends, expected)
    seen = (record.type, record.conn_success, record.direction, record.state)
    assert seen == (kind_of(family), 1, INBOUND, ESTABLISHED)


@pytest.mark.ours
@pytest.mark.parametrize("family", [V4, MAPPED], ids=lambda family: family.name)
def test_records_of_an_outbound_ipv4_connection_have_zeros_behind_the_ipv4_parts(
    turns: Turns, family: Family
) -> None:
    turns.manage(family.host(3))
    stored, _ = dialled(family)
    with turns.outbound(family, Storage(1, has_set_ip=True, orig_dst=stored)):
        assert_zeros_behind_ipv4(only(turns.records()))
    assert_zeros_behind_ipv4(only(turns.records(1)))


@pytest.mark.ours
@pytest.mark.parametrize("family", [V4, DUAL_STACK], ids=lambda family: family.name)
def test_records_of_an_inbound_ipv4_connection_have_zeros_behind_the_ipv4_parts(
    turns: Turns, family: Family
) -> None:
    turns.manage(family.host(2))
    with turns.inbound(family):
        assert_zeros_behind_ipv4(only(turns.records()))
    assert_zeros_behind_ipv4(only(turns.records(1)))


@pytest.mark.ours
def test_first_record_says_the_protocol_and_of_no_original_destination_nothing(
    turns: Turns,
) -> None:
    turns.manage(V4.host(2))
    with turns.inbound():
        record = only(turns.records())
    assert record.protocol == socket.IPPROTO_TCP
    assert_bytes("orig_dst", record.orig_dst, bytes(20))


def test_first_record_of_an_outbound_connection_says_when_it_began_and_was_made(
    turns: Turns,
) -> None:
    turns.manage(V4.host(3))
    began = time.monotonic_ns()
    with turns.outbound(storage=Storage(connect_ns=began)):
        record = only(turns.records())
        ended = time.monotonic_ns()
    assert record.start_ns == began
    assert began <= record.last_report_ns <= ended
    assert record.duration == record.last_report_ns - began


def test_first_record_of_an_inbound_connection_says_when_it_began_and_was_made(
    turns: Turns,
) -> None:
    turns.manage(V4.host(2))
    began = time.monotonic_ns()
    with turns.inbound():
        record = only(turns.records())
        ended = time.monotonic_ns()
    assert began <= record.start_ns <= record.last_report_ns <= ended
    assert record.duration == record.last_report_ns - record.start_ns


def test_first_record_has_the_counters_of_an_outbound_connection(turns: Turns) -> None:
    turns.manage(V4.host(3))
    with turns.outbound() as met:
        assert_counters(only(turns.records()), TcpInfo(met.client))


def test_first_record_has_the_counters_of_an_inbound_connection(turns: Turns) -> None:
    turns.manage(V4.host(2))
    with turns.inbound() as met:
        assert_counters(only(turns.records()), TcpInfo(met.server))


@each_client
def test_storage_of_an_outbound_connection_is_completed(turns: Turns, family: Family) -> None:
    turns.manage(family.host(3))
    stored, _ = dialled(family)
    before = Storage(connect_ns=1, has_set_ip=True, orig_dst=stored)
    with turns.outbound(family, before) as met:
        record = only(turns.records())
        after = turns.storage(met.client)
    assert after == Storage(
        connect_ns=1,
        last_report_ns=record.last_report_ns,
        direction=OUTBOUND,
        connect_success=1,
        has_set_ip=True,
        orig_dst=stored,
    )


@each_server
def test_storage_of_an_inbound_connection_is_created(turns: Turns, family: Family) -> None:
    turns.manage(family.host(2))
    with turns.inbound(family) as met:
        record = only(turns.records())
        storage = turns.storage(met.server)
    assert storage == Storage(
        connect_ns=record.start_ns,
        last_report_ns=record.last_report_ns,
        direction=INBOUND,
        connect_success=1,
    )


# When there is a first record, and when there is none.


def test_outbound_connection_without_storage_is_not_followed_and_gets_none(turns: Turns) -> None:
    turns.manage(V4.host(3))
    with turns.outbound(storage=None) as met:
        round_trip(met)
        assert turns.storage(met.client) is None
    assert_no_record(turns)
    with turns.outbound():
        only(turns.records())


@pytest.mark.parametrize("value", [None, 1], ids=["unmanaged", "other value"])
@each_client
def test_outbound_connection_of_an_unmanaged_address_is_not_followed(
    turns: Turns, family: Family, value: int | None
) -> None:
    before = Storage(connect_ns=1, via_waypoint=True)
    if value is not None:
        turns.manage(family.host(3), value)
    with turns.outbound(family, before) as met:
        round_trip(met)
        assert turns.storage(met.client) == before
        assert turns.maps["km_socket"].keys() == []
    assert_no_record(turns)
    turns.manage(family.host(3))
    with turns.outbound(family, before):
        only(turns.records())
        assert len(turns.maps["km_socket"].keys()) == 1


@pytest.mark.parametrize("value", [None, 1], ids=["unmanaged", "other value"])
@each_server
def test_inbound_connection_to_an_unmanaged_address_is_not_followed(
    turns: Turns, family: Family, value: int | None
) -> None:
    if value is not None:
        turns.manage(family.host(2), value)
    with turns.inbound(family) as met:
        round_trip(met)
        assert turns.storage(met.server) is None
    assert_no_record(turns)
    assert turns.requests() == []
    turns.manage(family.host(2))
    with turns.inbound(family):
        only(turns.records())
        assert len(turns.requests()) == 1


def test_nothing_is_reported_while_monitoring_is_off(turns: Turns) -> None:
    turns.manage(V4.host(3))
    turns.loaded.set_global("enable_monitoring", 0)
    with turns.outbound() as met:
        round_trip(met)
    assert_no_record(turns)
    turns.loaded.set_global("enable_monitoring", 1)
    with turns.outbound():
        only(turns.records())


@pytest.mark.ours
def test_connection_is_authorized_and_handed_over_while_monitoring_is_off(turns: Turns) -> None:
    turns.manage(V4.host(2))
    turns.manage(V4.host(3))
    turns.loaded.set_global("enable_monitoring", 0)
    with turns.outbound(storage=Storage(1, via_waypoint=True)), turns.inbound():
        assert len(turns.maps["km_socket"].keys()) == 1
        assert len(turns.requests()) == 1


def set_peer(turns: Turns, name: str, host: str) -> None:
    """Fills node_ip or pod_gateway: an IPv4 address v4-mapped, as user space does."""
    address = packed(host)
    mapped = bytes(10) + b"\xff\xff" + address if len(address) == 4 else address
    turns.loaded.set_global(name, int.from_bytes(mapped, "little"))


@pytest.mark.parametrize("name", PEERS)
@each_server
def test_inbound_connection_of_the_node_or_the_gateway_is_not_followed(
    turns: Turns, family: Family, name: str
) -> None:
    turns.manage(family.host(2))
    set_peer(turns, name, family.host(3))
    with turns.inbound(family) as met:
        round_trip(met)
        assert turns.storage(met.server) is None
    assert_no_record(turns)
    assert turns.requests() == []
    with turns.inbound(family, client_host=4):
        only(turns.records())
        assert len(turns.requests()) == 1


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(
    "other",
    [
        "fd00:97:a1:b2:c3:d4:e5:3",
        "fd00:96:a1:b3:c3:d4:e5:3",
        "fd00:96:a1:b2:c3:d5:e5:3",
        "fd00:96:a1:b2:c3:d4:e5:4",
    ],
)
def test_peer_that_differs_from_the_node_in_one_word_is_followed(
    turns: Turns, name: str, other: str
) -> None:
    turns.manage(V6.host(2))
    set_peer(turns, name, other)
    with turns.inbound(V6):
        only(turns.records())
    set_peer(turns, name, V6.host(3))
    with turns.inbound(V6) as met:
        turns.records()
        assert turns.storage(met.server) is None


@pytest.mark.parametrize("name", PEERS)
def test_outbound_connection_to_the_node_or_the_gateway_is_followed(
    turns: Turns, name: str
) -> None:
    turns.manage(V4.host(3))
    set_peer(turns, name, V4.host(2))
    with turns.outbound():
        only(turns.records())


# The last record.


def closed(turns: Turns, met: Meeting, first: str) -> tuple[Probe, TcpInfo]:
    """Ends a connection, one side first; the only record of it, and the counters at its end.

    The followed side's socket stays open, so that the kernel can still be asked.
    """
    followed = met.client if first == "client" else met.server
    other = met.server if first == "client" else met.client
    followed.shutdown(socket.SHUT_WR)
    assert other.recv(1) == b""
    other.shutdown(socket.SHUT_WR)
    assert followed.recv(1) == b""
    return only(turns.records(1)), TcpInfo(followed)


@each_client
def test_last_record_of_an_outbound_connection_is_complete(turns: Turns, family: Family) -> None:
    turns.manage(family.host(3))
    stored, reported = dialled(family)
    began = time.monotonic_ns()
    with turns.outbound(family, Storage(began, has_set_ip=True, orig_dst=stored)) as met:
        first = only(turns.records())
        exchange(met)
        expected = named(met)
        last, info = closed(turns, met, "client")
        ended = time.monotonic_ns()
    assert_bytes("ends", last.ends, expected)
    assert_bytes("original", last.original, reported)
    seen = (last.type, last.conn_success, last.direction, last.state, last.start_ns)
    assert seen == (kind_of(family), 1, OUTBOUND, CLOSED, began)
    assert first.last_report_ns < last.last_report_ns <= ended
    assert last.duration == last.last_report_ns - began
    assert info.bytes_acked >= 1000 and info.bytes_received >= 500
    assert_counters(last, info)


@each_server
def test_last_record_of_an_inbound_connection_is_complete(turns: Turns, family: Family) -> None:
    turns.manage(family.host(2))
    with turns.inbound(family) as met:
        first = only(turns.records())
        exchange(met)
        expected = named(met)
        last, info = closed(turns, met, "server")
        ended = time.monotonic_ns()
    assert_bytes("ends", last.ends, expected)
    seen = (last.type, last.conn_success, last.direction, last.state, last.start_ns)
    assert seen == (kind_of(family), 1, INBOUND, CLOSED, first.start_ns)
    assert first.last_report_ns < last.last_report_ns <= ended
    assert last.duration == last.last_report_ns - first.start_ns
    assert info.bytes_acked >= 500 and info.bytes_received >= 1000
    assert_counters(last, info)


@pytest.mark.parametrize("first", ["client", "server"])
def test_both_ends_report_the_close_once_whoever_begins(turns: Turns, first: str) -> None:
    for host in (2, 3):
        turns.manage(V4.host(host))
    with turns.inbound() as met:
        only(turns.records())
        with turns.outbound() as other:
            only(turns.records())
            for pair in (met, other):
                ending = [pair.client, pair.server]
                for side in ending if first == "client" else reversed(ending):
                    side.close()
            records = turns.records(2)
    time.sleep(LAST_SECONDS)
    records += turns.records()
    assert sorted((r.direction, r.state) for r in records) == [
        (INBOUND, CLOSED),
        (OUTBOUND, CLOSED),
    ]


def test_reset_connection_has_a_last_record(turns: Turns) -> None:
    turns.manage(V4.host(3))
    with turns.outbound() as met:
        only(turns.records())
        reset_on_close(met.server)
        met.server.close()
        with pytest.raises(ConnectionResetError):
            met.client.recv(1)
        assert only(turns.records(1)).state == CLOSED
    assert_no_record(turns)


def test_last_record_counts_what_was_lost_and_sent_again(turns: Turns) -> None:
    turns.manage(V4.host(3))
    with turns.outbound() as met, deaf(met.server):
        assert only(turns.records()).total_retrans == 0
        met.client.sendall(b"nobody hears this")
        # One segment lost, sent again twice or more: numbers that cannot be taken for each other.
        deadline = time.monotonic() + SECONDS
        while (info := TcpInfo(met.client)).total_retrans < 2 or info.lost != 1:
            assert time.monotonic() < deadline, f"lost {info.lost}, again {info.total_retrans}"
            time.sleep(0.01)
        reset_on_close(met.client)
        met.client.close()
        last = only(turns.records(1))
    assert last.lost_out == 1
    # It can have been sent once more since.
    assert last.total_retrans - info.total_retrans in (0, 1)


def test_there_is_no_record_between_the_first_and_the_last(turns: Turns) -> None:
    turns.manage(V4.host(3))
    with turns.outbound() as met:
        assert only(turns.records()).state == ESTABLISHED
        exchange(met)
        met.client.shutdown(socket.SHUT_WR)
        assert met.server.recv(1) == b""
        # Half closed: FIN_WAIT2 is no end.
        met.server.sendall(b"still here")
        assert receive(met.client, 10) == b"still here"
        assert turns.records() == []
        met.server.close()
        assert only(turns.records(1)).state == CLOSED


def test_connection_whose_address_is_unmanaged_meanwhile_has_a_last_record(turns: Turns) -> None:
    turns.manage(V4.host(2))
    with turns.inbound() as met:
        only(turns.records())
        turns.unmanage(V4.host(2))
        last, _ = closed(turns, met, "server")
    assert last.state == CLOSED


def test_last_record_is_not_made_while_monitoring_is_off(turns: Turns) -> None:
    turns.manage(V4.host(3))
    with turns.outbound() as met:
        only(turns.records())
        turns.loaded.set_global("enable_monitoring", 0)
        receive_all(met)
    assert_no_record(turns)


def test_connection_refused_has_no_record(turns: Turns) -> None:
    turns.manage(V4.host(3))
    with turns.client(V4, Storage(connect_ns=1)) as client:
        assert client.connect_ex((V4.host(2), 9)) == errno.ECONNREFUSED
    assert_no_record(turns)
    with turns.outbound():
        only(turns.records())


def test_full_ring_loses_the_first_record_but_not_the_last(group: Cgroup) -> None:
    with with_small_maps(group, km_tcp_probe=4096) as turns, contextlib.ExitStack() as stack:
        turns.manage(V4.host(2))
        met = stack.enter_context(turns.inbound())
        made = 1
        while True:
            storage = turns.storage(met.server)
            assert storage is not None
            if storage.last_report_ns == 0:
                break
            made += 1
            assert made <= 4096 // 128, f"the ring of 4096 B took {made} records"
            met = stack.enter_context(turns.inbound())
        assert (storage.direction, storage.connect_success) == (INBOUND, 1)
        assert len(turns.records()) == made - 1
        expected = named(met)
        last, _ = closed(turns, met, "server")
        assert_bytes("ends", last.ends, expected)


def test_connections_at_once_have_a_first_and_a_last_record_each(turns: Turns) -> None:
    turns.manage(V4.host(2))
    with contextlib.ExitStack() as stack:
        all_met = [stack.enter_context(turns.inbound()) for _ in range(20)]
        expected = sorted(named(met) for met in all_met)
        first = turns.records()
        for met in all_met:
            exchange(met)
    last = turns.records(20)
    assert sorted(record.ends for record in first) == expected
    assert sorted(record.ends for record in last) == expected
    assert {record.state for record in first} == {ESTABLISHED}
    assert {record.state for record in last} == {CLOSED}


# Into sendmsg's map.


@each_client
def test_socket_via_a_waypoint_is_in_km_socket_under_its_own_tuple_until_it_closes(
    turns: Turns, family: Family
) -> None:
    turns.manage(family.host(3))
    with turns.outbound(family, Storage(connect_ns=1, via_waypoint=True)) as met:
        (key,) = turns.maps["km_socket"].keys()
        assert_bytes("key", key, tuple_of(*ends(met), ">"))
    assert turns.maps["km_socket"].keys() == []


def test_socket_that_does_not_go_via_a_waypoint_is_not_in_km_socket(turns: Turns) -> None:
    turns.manage(V4.host(3))
    with turns.outbound(storage=Storage(connect_ns=1, has_set_ip=True)):
        only(turns.records())
        assert turns.maps["km_socket"].keys() == []
        with turns.outbound(storage=Storage(connect_ns=1, via_waypoint=True)):
            assert len(turns.maps["km_socket"].keys()) == 1


@pytest.mark.ours
def test_socket_for_which_km_socket_has_no_room_is_logged_and_works(group: Cgroup) -> None:
    via_waypoint = Storage(connect_ns=1, via_waypoint=True)
    with with_small_maps(group, km_socket=1) as turns:
        turns.loaded.set_global("bpf_log_level", LOG_ERROR)
        turns.manage(V4.host(3))
        with turns.outbound(storage=via_waypoint):
            keys = turns.maps["km_socket"].keys()
            assert turns.messages() == []
            with turns.outbound(storage=via_waypoint) as met:
                (_, local_port), (_, remote_port) = ends(met)
                messages = turns.messages()
                assert turns.maps["km_socket"].keys() == keys
                exchange(met)
        with turns.outbound(storage=via_waypoint):
            assert len(turns.maps["km_socket"].keys()) == 1
    text = (
        "sockops: a waypoint will not be told the original destination"
        f" err=-{errno.E2BIG} local_port={local_port} remote_port={remote_port}"
    )
    assert messages == [log_event(text)], f"expected {text!r}, seen {messages}"


# Authorization.


@pytest.fixture(scope="module")
def habits(sockops: BpfObject, request: pytest.FixtureRequest) -> Habits:
    """What an object of upstream does about authorization; of ours there is nothing to find out."""
    if not request.config.getoption("--upstream"):
        return Habits({})
    with temporary_cgroup() as group, following(sockops, group) as turns:
        return Habits({family.name: habit_with(turns, family) for family in (V4, V6, DUAL_STACK)})


def habit_with(turns: Turns, family: Family) -> Habit:
    """What the program does with a connection whose answer lies under every possible key."""
    results = turns.maps["km_auth_res"]
    turns.manage(family.host(2))
    with turns.inbound(family) as met:
        client, server = unmapped(met)
        requests = turns.requests()
        keys = possible_keys(client, server, mapped=family is DUAL_STACK)
        for key in keys:
            results.update(key, u32(1))
        turns.records()
        # An object that reports nothing is for the tests to judge.
        with contextlib.suppress(AssertionError):
            closed(turns, met, "server")
        left = set(results.keys())
    results.clear()
    return Habit(
        requested_order(requests, kind_of(family), client, server),
        frozenset(form for key, form in keys.items() if key not in left),
    )


def kind_of(family: Family) -> int:
    """The type of records and requests of a connection."""
    return IPV6 if family is V6 else IPV4


def answer_key(met: Meeting) -> bytes:
    """36 B: the key under which the answer for a connection lies in km_auth_res."""
    return tuple_of(*unmapped(met))


@each_server
def test_authorization_of_an_inbound_connection_is_requested(
    turns: Turns, family: Family, habits: Habits
) -> None:
    habits.require_host_order()
    turns.manage(family.host(2))
    with turns.inbound(family) as met:
        expected = auth_request(kind_of(family), named(met))
        requests = turns.requests()
    assert len(requests) == 1, f"expected one request, seen {len(requests)}"
    assert len(requests[0]) == 40, f"a request has 40 B, this one {len(requests[0])}"
    assert_bytes("request", requests[0][: len(expected)], expected)


@pytest.mark.ours
def test_request_of_an_ipv4_connection_shows_nothing_of_the_requests_before(turns: Turns) -> None:
    for host in (V4.host(2), V6.host(2)):
        turns.manage(host)
    # More than the ring of 4096 B has room for, so that those behind take their places.
    for _ in range(4096 // (40 + 8) + 1):
        with turns.inbound(V6):
            assert len(turns.requests()) == 1
    for family in (V4, DUAL_STACK) * 2:
        with turns.inbound(family) as met:
            (request,) = turns.requests()
            expected = auth_request(IPV4, answer_key(met))
        assert_bytes("request", request, expected)


def test_request_for_authorization_wakes_its_reader(turns: Turns) -> None:
    turns.manage(V4.host(2))
    with waking_its_reader(turns.maps["km_auth_req"]), turns.inbound():
        pass
    assert len(turns.requests()) == 1


def test_authorization_of_an_outbound_connection_is_not_requested(turns: Turns) -> None:
    for host in (2, 3):
        turns.manage(V4.host(host))
    with turns.outbound():
        only(turns.records())
        assert turns.requests() == []
        with turns.inbound():
            assert len(turns.requests()) == 1


@each_server
def test_authorization_is_deleted_with_the_connection_and_no_other_is(
    turns: Turns, family: Family, habits: Habits
) -> None:
    habits.require_host_order()
    habits.require_whole_key(family.name)
    turns.manage(family.host(2))
    results = turns.maps["km_auth_res"]
    with turns.inbound(family, client_host=4) as other, turns.inbound(family) as met:
        for pair in (other, met):
            results.update(answer_key(pair), u32(1))
        kept = answer_key(other)
        turns.records()
        exchange(met)
        assert len(results.keys()) == 2, "deleted while the connection lives"
        closed(turns, met, "server")
        assert results.items() == {kept: u32(1)}
        closed(turns, other, "server")
        assert results.items() == {}


def test_authorization_is_deleted_although_the_address_is_unmanaged_meanwhile(
    turns: Turns, habits: Habits
) -> None:
    habits.require_host_order()
    turns.manage(V4.host(2))
    with turns.inbound() as met:
        turns.maps["km_auth_res"].update(answer_key(met), u32(1))
        turns.unmanage(V4.host(2))
        turns.records()
        closed(turns, met, "server")
        assert turns.maps["km_auth_res"].items() == {}


@pytest.mark.ours
def test_request_for_which_there_is_no_room_is_logged_and_the_connection_works(
    turns: Turns,
) -> None:
    turns.loaded.set_global("bpf_log_level", LOG_WARN)
    turns.manage(V4.host(2))
    with contextlib.ExitStack() as stack:
        made = 0
        while not (messages := turns.messages()):
            made += 1
            assert made <= 4096 // 40 + 1, f"the ring of 4096 B took {made - 1} requests"
            met = stack.enter_context(turns.inbound())
        (_, remote_port), (_, local_port) = ends(met)
        exchange(met)
        turns.loaded.set_global("bpf_log_level", LOG_ERROR)
        stack.enter_context(turns.inbound())
        assert turns.messages() == []
        requests = turns.requests()
    text = f"auth: no room for a request remote_port={remote_port} local_port={local_port}"
    assert messages == [log_event(text)], f"expected {text!r}, seen {messages}"
    assert len(requests) == made - 1
    # There is room again.
    with turns.inbound():
        assert len(turns.requests()) == 1


# Beside others, and when the kernel has no memory.


@pytest.mark.ours
@pytest.mark.parametrize("order", ["the other first", "the other last"])
def test_what_another_program_wants_to_be_told_it_is_told(
    sockops: BpfObject, group: Cgroup, order: str
) -> None:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(BpfObject(object_path("round_trips")))
        other.load()
        program = other.programs["count_round_trips"]
        if order == "the other first":
            stack.enter_context(attached_to_cgroup(program, group))
        turns = stack.enter_context(following(sockops, group))
        if order == "the other last":
            stack.enter_context(attached_to_cgroup(program, group))
        turns.manage(V4.host(3))
        with turns.outbound() as met:
            only(turns.records())
            exchange(met)
            assert other.get_global("round_trips") > 0


@pytest.mark.ours
def test_answer_of_another_program_counts(sockops: BpfObject, group: Cgroup) -> None:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(BpfObject(object_path("round_trips")))
        other.load()
        turns = stack.enter_context(following(sockops, group))
        turns.manage(V4.host(3))
        with group.entered():  # Both ends have to be willing.
            listening = stack.enter_context(listener(V4, V4.host(2)))
        to = address(listening.getsockname())
        with meeting(turns.client(V4, BEGUN), to, listening) as met:
            assert not TcpInfo(met.client).ecn
        program = other.programs["count_round_trips"]
        stack.enter_context(attached_to_cgroup(program, group))
        with meeting(turns.client(V4, BEGUN), to, listening) as met:
            assert TcpInfo(met.client).ecn


@pytest.mark.ours
def test_changes_of_state_are_all_that_the_program_wants_to_be_told(
    sockops: BpfObject, group: Cgroup
) -> None:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(BpfObject(object_path("round_trips")))
        other.load()
        program = other.programs["count_round_trips"]
        stack.enter_context(attached_to_cgroup(program, group))
        turns = stack.enter_context(following(sockops, group))
        turns.manage(V4.host(3))
        with turns.outbound() as met:
            met.client.shutdown(socket.SHUT_WR)
            receive_all(met)
        seen = other.get_global("callbacks")
        assert seen == RTT_CB | STATE_CB, f"expected the other program's and states, {seen=}"


@pytest.mark.ours
def test_inbound_connection_for_which_there_is_no_storage_is_logged_and_authorized(
    mock_sockops: BpfObject, group: Cgroup
) -> None:
    with following(mock_sockops, group) as turns:
        turns.manage(V4.host(2))
        mock_sockops.set_global("bpf_log_level", LOG_ERROR)
        with failing(mock_sockops, "no_storage"), turns.inbound() as met:
            assert turns.messages() == [log_event("sockops: no storage for a socket")]
            result = answer_key(met)
            assert turns.requests() == [auth_request(IPV4, result)]
            turns.maps["km_auth_res"].update(result, u32(1))
            met.server.shutdown(socket.SHUT_WR)
            receive_all(met)
        assert_no_record(turns)
        assert turns.maps["km_auth_res"].items() == {}
        with turns.inbound():
            only(turns.records())


@pytest.mark.ours
def test_close_of_a_socket_without_storage_is_not_reported(
    mock_sockops: BpfObject, group: Cgroup
) -> None:
    with following(mock_sockops, group) as turns:
        turns.manage(V4.host(2))
        with contextlib.ExitStack() as stack:
            with failing(mock_sockops, "no_storage"):
                met = stack.enter_context(turns.inbound())
            met.server.shutdown(socket.SHUT_WR)
            receive_all(met)
        assert_no_record(turns)
        with turns.inbound():
            only(turns.records())


def test_socket_without_counters_is_not_reported(mock_sockops: BpfObject, group: Cgroup) -> None:
    with following(mock_sockops, group) as turns:
        turns.manage(V4.host(3))
        with failing(mock_sockops, "no_tcp_socket"):
            with turns.outbound() as met:
                storage = turns.storage(met.client)
            assert_no_record(turns)
        assert storage == Storage(connect_ns=1, direction=OUTBOUND, connect_success=1)
        with turns.outbound():
            only(turns.records())


# What a reader of trace_pipe sees.


@pytest.mark.ours
def test_records_are_traced_at_the_debug_level_only(turns: Turns) -> None:
    turns.manage(V4.host(3))
    with TracePipe() as pipe:
        with turns.outbound():
            only(turns.records())
            assert pipe.texts("sockops: ") == []
        turns.records(1)
        turns.loaded.set_global("bpf_log_level", 3)
        with turns.outbound() as met:
            (_, local_port), (_, remote_port) = ends(met)
            lines = pipe.texts("sockops: ")
    assert lines == [
        f"sockops: record state=1 direction=2 local_port={local_port}",
        f"sockops: record remote_port={remote_port} reported=1",
    ]


# What the checks above are made of.


def exchange(met: Meeting) -> None:
    """1000 B there, and then 500 B back."""
    met.client.sendall(bytes(1000))
    assert len(receive(met.server, 1000)) == 1000
    met.server.sendall(bytes(500))
    assert len(receive(met.client, 500)) == 500


def assert_no_record(turns: Turns) -> None:
    """Nothing is reported, not even of what is just being closed."""
    time.sleep(LAST_SECONDS)
    records = turns.records()
    assert not records, f"expected no record, seen {records}"
