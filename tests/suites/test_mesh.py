"""All programs at once: from a client's connect() to what a waypoint reads and what is reported.

The objects share their maps by name, as upstream's loader has it; nothing but the control plane's
maps is filled by the tests, and no socket is put anywhere by hand.
"""

import contextlib
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Has, Needed
from layouts import (
    CLOSED,
    ESTABLISHED,
    INBOUND,
    OUTBOUND,
    Probe,
    ends_of,
    packed,
    tuple_of,
    u32,
)
from mesh import (
    FILLED_MAPS,
    MANAGE,
    SERVICE,
    SERVICE_PORT,
    TARGET_PORT,
    UNMANAGE,
    Mesh,
    fill_tail_calls,
)
from records import TcpInfo, assert_bytes, assert_counters, taken
from traffic import (
    MAPPED,
    V4,
    V6,
    Address,
    Family,
    Meeting,
    address,
    loopback_addresses,
    receive,
    receive_rest,
    round_trip,
)

from vmtest.guest.attach import attached_to_cgroup, attached_to_sockhash
from vmtest.guest.cgroup import Cgroup
from vmtest.guest.maps import Map
from vmtest.guest.objects import BpfObject, load_sharing
from vmtest.guest.payload import object_path
from vmtest.guest.ringbuf import RingBuffer

SK_MSG, SK_MSG_VERDICT = 16, 7  # enum bpf_prog_type, enum bpf_attach_type
CGROUP_PROGRAMS = (
    ("cgroup_sock", "cgroup_connect4_prog"),
    ("cgroup_sock", "cgroup_connect6_prog"),
    ("cgroup_sock", "bpf_redirect_dns_send"),
    ("cgroup_sock", "bpf_restore_dns_recv"),
    ("cgroup_skb", "cgroup_skb_ingress_prog"),
    ("cgroup_skb", "cgroup_skb_egress_prog"),
    ("sockops", "sockops_prog"),
)
TAIL_CALL_ARRAYS = (("cgroup_sock", "km_cgr_tailcall"), ("cgroup_sock", "km_cgr_tail6"))

CLIENT = 8  # the host that clients are bound to
HEADERS = {
    # in front of what is sent to the VIP, host 2, port 8080
    V4: bytes.fromhex("01 00000006 7f600002 1f90 fe 00000000"),
    V6: bytes.fromhex("01 00000012 fd00009600a100b200c300d400e50002 1f90 fe 00000000"),
    MAPPED: bytes.fromhex("01 00000012 00000000000000000000ffff7f600002 1f90 fe 00000000"),
}
# Around a header's size, a page, what a socket buffer's fragment (32 KiB) and what a message of
# sk_msg hold (17 fragments).
SIZES = (
    *(1, 2, 15, 16, 17, 28),
    *(page * 4096 + more for page in (1, 4, 8, 16) for more in (-28, -16, -1, 0, 1)),
    *(17 * 32768 + more for more in (-1, 0, 1)),
    *((1 << 20) - 1, 1 << 20),
)

each_family = pytest.mark.parametrize(
    "plane", [V4, V6, MAPPED], indirect=True, ids=lambda f: f.name
)
v4_and_v6 = pytest.mark.parametrize("plane", [V4, V6], indirect=True, ids=lambda f: f.name)


class Plane(Mesh):
    """A mesh with all its programs attached, whose clients are on host 8."""

    def __init__(
        self,
        objects: dict[str, BpfObject],
        group: Cgroup,
        family: Family,
        stack: contextlib.ExitStack,
    ) -> None:
        super().__init__(objects["cgroup_sock"], group, family, stack)
        self.sockets: Map = objects["sockops"].maps["km_socket"]
        self.host = family.host(CLIENT)
        self.header = HEADERS[family]
        self._records = stack.enter_context(RingBuffer(objects["sockops"].maps["km_tcp_probe"]))
        self._log = stack.enter_context(RingBuffer(objects["sockops"].maps["km_log_event"]))
        for ring in (self._records, self._log):
            ring.drain()

    def client(self) -> socket.socket:
        """An unconnected TCP socket that the programs see; the caller closes it."""
        with self._group.entered():
            return self.family.client(self.host)

    def control_from(self, host: int, port: int) -> None:
        """Dials the control address from `host`: the namespace and the host are the mesh's."""
        family = V6 if self.family is V6 else V4
        with (
            self._group.entered(),
            family.client(family.host(host)) as client,
            pytest.raises(ConnectionRefusedError),
        ):
            client.connect(("::2" if family is V6 else "0.0.0.2", port))

    def serve_inside(self, place: Address) -> None:
        """Starts a listener that the programs see."""
        with self._group.entered():
            self.serve(place)

    def records(self, count: int = 0) -> list[Probe]:
        """What was reported since this was last asked; waits for at least `count`."""
        return taken(self._records, count)

    def messages(self) -> list[bytes]:
        """What the programs complained of since this was last asked."""
        return self._log.drain()

    def age(self, client: socket.socket) -> None:
        """Makes the connection's last report as old as can be."""
        storage = self.maps["km_sockstorage"]
        value = storage.lookup(u32(client.fileno()))
        assert value is not None, "the socket has no storage"
        storage.update(u32(client.fileno()), value[:8] + struct.pack("<Q", 1) + value[16:])

    def names(self, client: Address, server: Address) -> bytes:
        """The ends that a record names, of a connection between these."""
        return ends_of(address_of(client), address_of(server))

    def original(self, place: Address) -> bytes:
        """The original destination that a record names."""
        return packed(place[0]) + struct.pack("<H", place[1])


@pytest.fixture(scope="module")
def routes_to_the_control_addresses() -> Iterator[None]:
    """The control addresses are this machine's own; nobody listens there."""
    with loopback_addresses("0.0.0.2/32", "::2/128"):
        yield


@pytest.fixture(scope="module")
def objects(
    has: Has, v6_hosts: None, clock_is_past_the_interval: None
) -> Iterator[dict[str, BpfObject]]:
    """The four objects by name, their maps shared, their switches on, their tail calls filled."""
    with contextlib.ExitStack() as stack:
        opened = {
            name: stack.enter_context(BpfObject(object_path(name)))
            for name in ("cgroup_sock", "cgroup_skb", "sockops", "sendmsg")
        }
        opened["sendmsg"].programs["sendmsg_prog"].set_kind(SK_MSG, SK_MSG_VERDICT)
        # What an old release may lack is left out; the other programs still work together.
        for name, part in (*CGROUP_PROGRAMS, *TAIL_CALL_ARRAYS):
            has(opened[name], part)
        load_sharing(opened.values())
        opened["cgroup_skb"].set_global("enable_periodic_report", 1)
        fill_tail_calls(opened["cgroup_sock"])
        yield opened


@pytest.fixture
def plane(
    objects: dict[str, BpfObject],
    routes_to_the_control_addresses: None,
    group: Cgroup,
    request: pytest.FixtureRequest,
) -> Iterator[Plane]:
    """Everything attached; client and namespace managed; the VIP's service has a waypoint."""
    with contextlib.ExitStack() as stack:
        for name in FILLED_MAPS:
            stack.callback(objects["cgroup_sock"].maps[name].clear)
        for name, program in CGROUP_PROGRAMS:
            if program in objects[name].programs:
                stack.enter_context(attached_to_cgroup(objects[name].programs[program], group))
        stack.enter_context(
            attached_to_sockhash(
                objects["sendmsg"].programs["sendmsg_prog"], objects["sockops"].maps["km_socket"]
            )
        )
        made = Plane(objects, group, getattr(request, "param", V4), stack)
        made.control_from(CLIENT, MANAGE)
        made.serve(made.waypoint)
        made.frontend(made.vip, SERVICE)
        made.service([made.pod(1)], waypoint=made.waypoint)
        yield made
        assert made.messages() == [], "the programs complained"


# What the waypoint reads.


@each_family
@pytest.mark.parametrize("size", SIZES)
def test_waypoint_reads_where_the_client_wanted_to_and_then_the_payload(
    plane: Plane, size: int
) -> None:
    payload = os.urandom(size)
    with plane.dial(plane.vip) as met:
        assert met.server_address() == plane.waypoint
        stream = sent(met, lambda client: client.sendall(payload))
    assert_stream(stream, plane.header, payload)


def send_bytewise(client: socket.socket, payload: bytes) -> None:
    """Every byte a message of its own."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(len(payload)):
        client.sendall(payload[at : at + 1])


def send_scattered(client: socket.socket, payload: bytes) -> None:
    """One message of many pieces of memory."""
    pieces = [payload[at : at + 7] for at in range(0, len(payload), 7)]
    assert client.sendmsg(pieces) == len(payload)


def send_file(client: socket.socket, payload: bytes) -> None:
    """From the page cache, without passing through user space."""
    with tempfile.TemporaryFile() as file:
        file.write(payload)
        file.seek(0)
        assert client.sendfile(file) == len(payload)


@each_family
@pytest.mark.parametrize("send", [send_bytewise, send_scattered, send_file])
def test_header_is_in_front_once_however_the_payload_is_sent(
    plane: Plane, send: Callable[[socket.socket, bytes], None]
) -> None:
    payload = os.urandom(1000)
    with plane.dial(plane.vip) as met:
        stream = sent(met, lambda client: send(client, payload))
    assert_stream(stream, plane.header, payload)


@each_family
def test_answer_of_the_waypoint_arrives_as_it_was_sent(plane: Plane) -> None:
    answer = os.urandom(100_000)
    with plane.dial(plane.vip) as met:
        met.client.sendall(b"?")
        assert_stream(receive(met.server, len(plane.header) + 1), plane.header, b"?")
        with ThreadPoolExecutor(1) as pool:
            received = pool.submit(receive, met.client, len(answer))
            met.server.sendall(answer)
        assert_stream(received.result(), b"", answer)


@v4_and_v6
def test_waypoint_that_is_a_service_itself_reads_the_address_dialled_first(
    plane: Plane, objects: dict[str, BpfObject], needed: Needed
) -> None:
    needed(objects["cgroup_sock"], "km_cgr_tailcall" if plane.family is V4 else "km_cgr_tail6")
    behind = (plane.family.host(7), SERVICE_PORT)
    plane.service([plane.pod(1)], waypoint=behind)
    plane.frontend(behind, SERVICE + 1)
    plane.service([plane.pod(2)], service=SERVICE + 1)
    plane.serve(plane.pod(2))
    with plane.dial(plane.vip) as met:
        assert met.server_address() == plane.pod(2)
        stream = sent(met, lambda client: client.sendall(b"payload"))
    assert_stream(stream, plane.header, b"payload")


@v4_and_v6
def test_pod_behind_a_waypoint_is_reached_through_it_with_its_own_address(plane: Plane) -> None:
    pod = plane.pod(2)
    plane.frontend(pod, 42)
    plane.backend(42, pod, plane.waypoint)
    with plane.dial(pod) as met:
        assert met.server_address() == plane.waypoint
        stream = sent(met, lambda client: client.sendall(b"payload"))
    assert_stream(stream, header(pod), b"payload")


@each_family
def test_service_without_a_waypoint_is_sent_the_bare_payload(plane: Plane) -> None:
    plane.serve(plane.pod(1))
    plane.service([plane.pod(1)])
    with plane.dial(plane.vip) as met:
        assert met.server_address() == plane.pod(1)
        assert plane.sockets.keys() == []
        stream = sent(met, lambda client: client.sendall(b"bare"))
    assert_stream(stream, b"", b"bare")
    # On the same attachment, with its waypoint again.
    plane.service([plane.pod(1)], waypoint=plane.waypoint)
    with plane.dial(plane.vip) as met:
        stream = sent(met, lambda client: client.sendall(b"control"))
    assert_stream(stream, plane.header, b"control")


@v4_and_v6
def test_unmanaged_client_reaches_the_address_it_dialled_and_nothing_is_reported(
    plane: Plane,
) -> None:
    plane.serve(plane.vip)
    plane.control_from(CLIENT, UNMANAGE)
    with plane.dial(plane.vip) as met:
        assert met.server_address() == plane.vip
        assert plane.storage(met.client) is None
        stream = sent(met, lambda client: client.sendall(b"bare"))
    assert_stream(stream, b"", b"bare")
    assert plane.records() == []
    plane.control_from(CLIENT, MANAGE)
    with plane.dial(plane.vip) as met:
        assert met.server_address() == plane.waypoint
        assert len(plane.records()) == 1


@each_family
def test_sockops_alone_puts_the_socket_into_km_socket(plane: Plane) -> None:
    assert plane.sockets.keys() == []
    with plane.dial(plane.vip) as met:
        (key,) = plane.sockets.keys()
        assert_bytes("key", key, tuple_of(*ends(met), ">"))
    assert plane.sockets.keys() == []


@each_family
def test_connections_at_once_carry_their_own_destination_and_payload(plane: Plane) -> None:
    hosts = [plane.family.host(number) for number in (2, 3, 4)]
    for service, host in enumerate(hosts, start=SERVICE):
        plane.frontend((host, 0), service)
        plane.service([], service=service, waypoint=plane.waypoint)
    wanted = [(host, port) for host in hosts for port in (80, 443) for _ in range(3)]
    payloads = [os.urandom(20_000) for _ in wanted]
    with contextlib.ExitStack() as stack:
        all_met = [stack.enter_context(plane.dial(place)) for place in wanted]
        for piece in range(0, 20_000, 5_000):
            for met, payload in zip(all_met, payloads, strict=True):
                met.client.sendall(payload[piece : piece + 5_000])
        for met, place, payload in zip(all_met, wanted, payloads, strict=True):
            assert address_of(ends(met)[0]) == address(met.server.getpeername())
            expected = header((plane.family.dialled(place[0]), place[1]))
            assert_stream(sent(met, lambda client: None), expected, payload)


# What is reported of it.


@each_family
def test_connection_via_a_waypoint_is_reported_first_periodically_and_last(plane: Plane) -> None:
    with plane.dial(plane.vip) as met:
        client, waypoint = ends(met)
        (first,) = plane.records()
        met.client.sendall(bytes(1000))
        receive(met.server, len(plane.header) + 1000)
        met.server.sendall(bytes(500))
        receive(met.client, 500)
        # On a machine that stood still for 5 s there are periodic ones already.
        periodic = plane.records()
        plane.age(met.client)
        round_trip(met)
        periodic += plane.records(1)
        met.client.shutdown(socket.SHUT_WR)
        assert met.server.recv(1) == b""
        met.server.close()
        assert met.client.recv(1) == b""
        *more, last = plane.records(1)
        info = TcpInfo(met.client)
    records = [first, *periodic, *more, last]
    for record in records:
        assert_bytes("ends", record.ends, plane.names(client, waypoint))
        assert_bytes("original", record.original, plane.original(plane.vip))
    assert address_of(waypoint) == plane.waypoint
    seen = [(r.type, r.direction, r.conn_success, r.start_ns) for r in records]
    kind = 1 if plane.family is V6 else 0
    assert seen == [(kind, OUTBOUND, 1, first.start_ns)] * len(records)
    states = [record.state for record in records]
    assert states == [ESTABLISHED] * (len(records) - 1) + [CLOSED]
    times = [record.last_report_ns for record in records]
    assert times == sorted(set(times)), f"records are not in order: {times}"
    assert_counters(last, info)
    # SYN and FIN count as a byte each.
    assert last.sent_bytes == 1 + len(plane.header) + 1000 + 1 + 1
    assert last.received_bytes >= 501


@each_family
def test_connection_to_a_pod_is_reported_with_the_services_address(plane: Plane) -> None:
    plane.serve(plane.pod(1))
    plane.service([plane.pod(1)])
    with plane.dial(plane.vip) as met:
        client, pod = ends(met)
        (first,) = plane.records()
        round_trip(met)
    *_, last = plane.records(1)
    assert address_of(pod) == plane.pod(1)
    for record, state in ((first, ESTABLISHED), (last, CLOSED)):
        assert_bytes("ends", record.ends, plane.names(client, pod))
        assert_bytes("original", record.original, plane.original(plane.vip))
        assert record.state == state


@v4_and_v6
def test_waypoint_within_the_mesh_is_reported_from_both_ends(plane: Plane) -> None:
    inside = (plane.family.host(6), TARGET_PORT)
    plane.control_from(6, MANAGE)
    plane.serve_inside(inside)
    plane.service([], waypoint=inside)
    with plane.dial(plane.vip) as met:
        expected = plane.names(*ends(met))
        records = {record.direction: record for record in plane.records()}
        stream = sent(met, lambda client: client.sendall(b"payload"))
    assert_stream(stream, plane.header, b"payload")
    assert sorted(records) == [INBOUND, OUTBOUND], f"seen {records}"
    for record in records.values():
        assert_bytes("ends", record.ends, expected)
    assert_bytes("original", records[OUTBOUND].original, plane.original(plane.vip))


@each_family
def test_connections_at_once_are_reported_one_by_one(plane: Plane) -> None:
    with contextlib.ExitStack() as stack:
        all_met = [stack.enter_context(plane.dial(plane.vip)) for _ in range(20)]
        expected = sorted(plane.names(*ends(met)) for met in all_met)
        first = plane.records()
        for met in all_met:
            met.client.sendall(b"payload")
            receive(met.server, len(plane.header) + len(b"payload"))
    last = [record for record in plane.records(20) if record.state == CLOSED]
    assert sorted(record.ends for record in first) == expected
    assert sorted(record.ends for record in last) == expected
    for record in (*first, *last):
        assert_bytes("original", record.original, plane.original(plane.vip))


# What the checks above are made of.


def ends(met: Meeting) -> tuple[Address, Address]:
    """Client and server, as the client names them."""
    return address(met.client.getsockname()), address(met.client.getpeername())


def address_of(end: Address) -> Address:
    """The same without the prefix of a v4-mapped address."""
    return end[0].removeprefix("::ffff:"), end[1]


def header(place: Address) -> bytes:
    """What goes in front of what is sent to `place`: 16 B, or 28 B for an AF_INET6 socket."""
    host = packed(place[0])
    return struct.pack(">BI", 1, len(host) + 2) + host + struct.pack(">HBI", place[1], 0xFE, 0)


def sent(met: Meeting, send: Callable[[socket.socket], None]) -> bytes:
    """All that arrives of what `send` does with the client, which ends its direction then."""
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(receive_rest, met.server)
        send(met.client)
        met.client.shutdown(socket.SHUT_WR)
        return received.result()


def assert_stream(stream: bytes, front: bytes, payload: bytes) -> None:
    """The stream is these two, byte for byte."""
    assert_bytes("header", stream[: len(front)], front)
    rest = stream[len(front) :]
    if rest == payload:
        return
    both = min(len(rest), len(payload))
    same = next((at for at in range(both) if rest[at] != payload[at]), both)
    raise AssertionError(
        f"expected {len(payload)} B of payload, received {len(rest)} B; they differ from byte"
        f" {same} on: expected {payload[same : same + 32].hex(' ')},"
        f" received {rest[same : same + 32].hex(' ')}"
    )
