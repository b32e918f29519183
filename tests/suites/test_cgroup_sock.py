"""cgroup_sock: connections go where the mesh wants them, and otherwise where they were sent."""

import contextlib
import math
import select
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from layouts import (
    LOCALITY_FAILOVER,
    LOCALITY_STRICT,
    RANDOM,
    Storage,
    assert_maps,
    endpoint_key,
    original_v4,
    original_v6,
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
    backend_id,
)
from traffic import MAPPED, SECONDS, V4, V6, Address, address

from vmtest.guest.attach import attached_to_cgroup
from vmtest.guest.cgroup import Cgroup
from vmtest.guest.objects import BpfObject
from vmtest.guest.payload import object_path
from vmtest.guest.plugin import not_applicable
from vmtest.guest.ringbuf import RingBuffer

SO_NETNS_COOKIE = 71
DNS_PORT = 53
DNS_BACKEND = 0
TAIL_CALLS = (
    ("km_cgr_tailcall", 0, "cgroup_connect4_prog"),
    ("km_cgr_tail6", 1, "cgroup_connect6_prog"),
)

each_family = pytest.mark.parametrize("mesh", [V4, V6, MAPPED], indirect=True, ids=lambda f: f.name)
v4_and_v6 = pytest.mark.parametrize("mesh", [V4, V6], indirect=True, ids=lambda f: f.name)


@pytest.fixture(scope="module")
def cgroup_sock(v6_hosts: None, request: pytest.FixtureRequest) -> Iterator[BpfObject]:
    """The object, loaded, its tail calls filled. Tests share it and leave its maps empty."""
    with BpfObject(object_path("cgroup_sock")) as loaded:
        loaded.load()
        for array, slot, program in TAIL_CALLS:
            # v1.2.0 had one array for both, so that only connect4 could be in it.
            if array in loaded.maps or not request.config.getoption("--upstream"):
                loaded.maps[array].update(u32(slot), u32(loaded.programs[program].fd))
        yield loaded


@pytest.fixture
def mesh(cgroup_sock: BpfObject, group: Cgroup, request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """An empty mesh of a family (IPv4 unless the test says otherwise), its programs attached."""
    with contextlib.ExitStack() as stack:
        for name in ("cgroup_connect4_prog", "cgroup_connect6_prog"):
            stack.enter_context(attached_to_cgroup(cgroup_sock.programs[name], group))
        for name in FILLED_MAPS:
            stack.callback(cgroup_sock.maps[name].clear)
        yield Mesh(cgroup_sock, group, getattr(request, "param", V4), stack)


class Dns:
    """A mesh with a name server of its own, two others, and a server of something else."""

    def __init__(self, mesh: Mesh, stack: contextlib.ExitStack) -> None:
        self.mesh = mesh
        self.asked = (V4.host(2), DNS_PORT)
        self.second = (V4.host(3), DNS_PORT)
        self.server = (V4.host(4), DNS_PORT)
        self.stranger = (V4.host(5), 5353)
        self._sockets = {
            place: stack.enter_context(udp_server(place))
            for place in (self.asked, self.second, self.server, self.stranger)
        }
        mesh.backend(DNS_BACKEND, self.server)

    def query(self, client: socket.socket, place: Address, taken_by: Address) -> Address:
        """Asks `place`; the one that takes it answers. Who the answer seems to come from."""
        query = uuid.uuid4().bytes
        client.sendto(query, place)
        taken = self.answer(taken_by)
        assert taken == query, f"expected {query.hex()} at {taken_by}, received {taken.hex()}"
        answer, source = client.recvfrom(64)
        assert answer == b"answer"
        return address(source)

    def answer(self, place: Address) -> bytes:
        """The server at `place` takes a query, returned here, and answers it."""
        names = {made: name for name, made in self._sockets.items()}
        ready, _, _ = select.select(names, [], [], SECONDS)
        took = [names[made] for made in ready]
        assert took == [place], f"expected the query at {place}, it arrived at {took}"
        query, client = self._sockets[place].recvfrom(64)
        self.send(place, client)
        return query

    def send(self, place: Address, to: Address) -> None:
        """The server at `place` sends an answer."""
        self._sockets[place].sendto(b"answer", to)


@pytest.fixture
def dns(
    mesh: Mesh, cgroup_sock: BpfObject, group: Cgroup, request: pytest.FixtureRequest
) -> Iterator[Dns]:
    """An unmanaged mesh with a name server; the programs for UDP are attached as well."""
    with contextlib.ExitStack() as stack:
        for name in ("bpf_redirect_dns_send", "bpf_restore_dns_recv"):
            if name not in cgroup_sock.programs and request.config.getoption("--upstream"):
                not_applicable(f"{name} is not in this object (as in v1.1.0)")
            stack.enter_context(attached_to_cgroup(cgroup_sock.programs[name], group))
        yield Dns(mesh, stack)


# Control connections.


@v4_and_v6
def test_dialling_port_929_of_the_control_address_manages_one_netns(mesh: Mesh) -> None:
    assert mesh.maps["km_manage"].items() == {}
    mesh.control(MANAGE)
    entries = mesh.maps["km_manage"].items()
    assert len(entries) == 1, f"expected one entry, seen {entries}"
    [(key, value)] = entries.items()
    assert key[:8] != bytes(8) and key[8:] == bytes(8), f"no cookie and 8 zeros: {key.hex(' ')}"
    assert value == bytes(4), f"expected the value 0, seen {value.hex(' ')}"


@v4_and_v6
def test_dialling_port_930_of_the_control_address_unmanages_the_netns(mesh: Mesh) -> None:
    mesh.control(MANAGE)
    assert len(mesh.maps["km_manage"].keys()) == 1
    mesh.control(UNMANAGE)
    assert mesh.maps["km_manage"].items() == {}


@pytest.mark.needs("so_netns_cookie")
def test_managed_key_is_the_cookie_of_the_netns(mesh: Mesh) -> None:
    cookie = netns_cookie()
    mesh.control(MANAGE)
    assert mesh.maps["km_manage"].keys() == [cookie + bytes(8)]


def test_control_ports_of_another_host_manage_nothing(mesh: Mesh) -> None:
    other = (V4.host(2), MANAGE)
    mesh.serve(other)
    mesh.assert_leads(other, to=other)
    assert mesh.maps["km_manage"].items() == {}
    mesh.control(MANAGE)
    assert len(mesh.maps["km_manage"].keys()) == 1


def test_other_ports_of_the_control_address_change_nothing(mesh: Mesh) -> None:
    for port in (928, 931):
        mesh.control(port)
        assert mesh.maps["km_manage"].items() == {}, f"port {port} managed the namespace"
    mesh.control(MANAGE)
    for port in (928, 931):
        mesh.control(port)
        assert len(mesh.maps["km_manage"].keys()) == 1, f"port {port} unmanaged the namespace"


# Connections that stay as they are.


@v4_and_v6
def test_unmanaged_netns_keeps_its_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    storage = mesh.assert_leads(mesh.vip, to=mesh.vip)
    assert storage is None, f"expected no storage, seen {storage}"
    mesh.manage()
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@v4_and_v6
def test_destination_that_is_no_frontend_is_kept(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.service([mesh.pod(1)])
    storage = mesh.assert_leads(mesh.vip, to=mesh.vip)
    assert_not_stored(storage)
    mesh.frontend(mesh.vip, SERVICE)
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


def test_frontend_of_an_unknown_upstream_keeps_its_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)])
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@v4_and_v6
def test_pod_without_waypoint_is_reached_and_remembered_as_the_original(mesh: Mesh) -> None:
    mesh.serve(mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.pod(1), 1)
    mesh.backend(1, mesh.pod(1))
    assert_stored(mesh, mesh.assert_leads(mesh.pod(1), to=mesh.pod(1)), mesh.pod(1), False)
    mesh.backend(1, mesh.pod(1), mesh.waypoint)
    mesh.assert_leads(mesh.pod(1), to=mesh.waypoint)


def test_port_that_the_service_does_not_have_keeps_its_destination(mesh: Mesh) -> None:
    other = (mesh.vip[0], SERVICE_PORT + 1)
    mesh.serve(mesh.vip, other, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    assert_not_stored(mesh.assert_leads(other, to=other))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


def test_endpoint_that_is_counted_but_absent_keeps_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    mesh.maps["km_endpoint"].delete(endpoint_key(SERVICE, 0, 1))
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)])
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


def test_endpoint_whose_backend_is_absent_keeps_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    mesh.maps["km_backend"].delete(u32(backend_id(0, 1)))
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)])
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


# Waypoints.


@v4_and_v6
def test_pod_with_waypoint_leads_to_the_waypoint(mesh: Mesh) -> None:
    mesh.serve(mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.pod(1), 1)
    mesh.backend(1, mesh.pod(1), mesh.waypoint)
    assert_stored(mesh, mesh.assert_leads(mesh.pod(1), to=mesh.waypoint), mesh.pod(1), True)


@each_family
def test_service_with_waypoint_leads_to_the_waypoint(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)], waypoint=mesh.waypoint)
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.waypoint), mesh.vip, True)


def test_endpoint_with_waypoint_leads_to_the_waypoint(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    mesh.backend(backend_id(0, 1), mesh.pod(1), mesh.waypoint)
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.waypoint), mesh.vip, True)


def test_waypoint_without_port_is_none(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)], waypoint=(mesh.waypoint[0], 0))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))
    mesh.service([mesh.pod(1)], waypoint=mesh.waypoint)
    mesh.assert_leads(mesh.vip, to=mesh.waypoint)


def test_waypoint_without_address_is_none(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)], waypoint=("0.0.0.0", mesh.waypoint[1]))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))
    mesh.service([mesh.pod(1)], waypoint=mesh.waypoint)
    mesh.assert_leads(mesh.vip, to=mesh.waypoint)


@pytest.mark.ours
@pytest.mark.parametrize("mesh", [V6], indirect=True, ids=["v6"])
def test_waypoint_whose_address_begins_with_a_zero_word_is_one(mesh: Mesh) -> None:
    waypoint = ("::1", mesh.waypoint[1])
    mesh.serve(mesh.vip, mesh.pod(1), waypoint)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)], waypoint=waypoint)
    mesh.assert_leads(mesh.vip, to=waypoint)


@pytest.mark.ours
def test_ipv6_waypoint_is_nowhere_an_ipv4_connection_can_go(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    # Its first word reads 127.96.0.9, an address somebody listens on.
    first_word = socket.inet_aton(mesh.waypoint[0]).hex(":", 2)
    mesh.service([mesh.pod(1)], waypoint=(f"{first_word}::1", mesh.waypoint[1]))
    mesh.assert_leads(mesh.vip, to=mesh.vip)
    mesh.service([mesh.pod(1)], waypoint=mesh.waypoint)
    mesh.assert_leads(mesh.vip, to=mesh.waypoint)


@v4_and_v6
def test_virtual_address_of_a_waypoint_leads_to_the_waypoints_endpoint(mesh: Mesh) -> None:
    behind = mesh.pod(2)
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint, behind)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)], waypoint=mesh.waypoint)
    mesh.frontend(mesh.waypoint, SERVICE + 1)
    mesh.service([behind], ports=[(mesh.waypoint[1], behind[1])], service=SERVICE + 1)
    # The original is what the application dialled, and not the waypoint in between.
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=behind), mesh.vip, True)


# Load balancing.


@each_family
def test_service_leads_to_its_endpoint_on_the_target_port(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.pod(1)), mesh.vip, False)


def test_every_port_of_a_service_leads_to_its_own_target_port(mesh: Mesh) -> None:
    host, _ = mesh.pod(1)
    ports = [(8000 + index, 18000 + index) for index in range(10)]
    mesh.serve(*((host, target) for _, target in ports))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)], ports=ports)
    for dialled, target in ports:
        mesh.assert_leads((mesh.vip[0], dialled), to=(host, target))


@v4_and_v6
def test_random_policy_reaches_every_endpoint_equally_often(mesh: Mesh) -> None:
    times = 90
    pods = [mesh.pod(number) for number in (1, 2, 3)]
    mesh.serve(mesh.vip, *pods)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service(pods, policy=RANDOM)
    taken = Counter(mesh.where_it_leads(mesh.vip, times))
    assert set(taken) <= set(pods), f"expected only {pods}, seen {dict(taken)}"
    assert_fair(taken, pods, times)


def test_random_policy_without_endpoints_keeps_and_remembers_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([], [mesh.pod(1)], policy=RANDOM)
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.vip), mesh.vip, False)
    mesh.service([mesh.pod(1)], policy=RANDOM)
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@v4_and_v6
def test_strict_policy_never_leaves_the_local_priority(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.pod(2))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([], [mesh.pod(2)], policy=LOCALITY_STRICT)
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)], [mesh.pod(2)], policy=LOCALITY_STRICT)
    assert set(mesh.where_it_leads(mesh.vip, 10)) == {mesh.pod(1)}


@pytest.mark.parametrize(
    ("mesh", "first"),
    [(V4, 0), (V4, 1), (V4, 6), (V6, 1)],
    indirect=["mesh"],
    ids=["v4-0", "v4-1", "v4-6", "v6-1"],
)
def test_failover_policy_leads_to_the_first_priority_with_endpoints(mesh: Mesh, first: int) -> None:
    near, far = mesh.pod(1), mesh.pod(2)
    mesh.serve(mesh.vip, near, far)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    priorities: list[list[Address]] = [[far] for _ in range(7)]
    priorities[:first] = [[] for _ in range(first)]
    priorities[first] = [near]
    mesh.service(*priorities, policy=LOCALITY_FAILOVER)
    assert set(mesh.where_it_leads(mesh.vip, 10)) == {near}


def test_failover_policy_without_any_endpoint_keeps_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service(policy=LOCALITY_FAILOVER)
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)], policy=LOCALITY_FAILOVER)
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


def test_unknown_policy_keeps_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)], policy=3)
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)])
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@v4_and_v6
def test_storage_says_when_the_connection_was_dialled(mesh: Mesh) -> None:
    mesh.serve(mesh.vip)
    mesh.manage()
    began = time.monotonic_ns()
    storage = mesh.assert_leads(mesh.vip, to=mesh.vip)
    ended = time.monotonic_ns()
    assert storage is not None, "expected a storage, seen none"
    assert began <= storage.connect_ns <= ended, f"{storage.connect_ns} not in {began} to {ended}"


def test_udp_is_not_balanced(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    with mesh.udp_client() as client:
        client.connect(mesh.vip)
        assert client.getpeername() == mesh.vip
        assert mesh.storage(client) is None
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


# Name resolution: port 53 over IPv4 leads to the mesh's own server.


def test_dns_over_tcp_leads_to_the_meshs_server(mesh: Mesh) -> None:
    asked, server = (mesh.vip[0], DNS_PORT), (mesh.pod(1)[0], DNS_PORT)
    mesh.serve(asked, server)
    mesh.manage()
    storage = mesh.assert_leads(asked, to=asked)
    assert storage is None, f"without a server: expected no storage, seen {storage}"
    mesh.backend(DNS_BACKEND, server)
    assert_stored(mesh, mesh.assert_leads(asked, to=server), asked, False)


def test_dns_over_tcp_is_not_balanced(mesh: Mesh) -> None:
    asked = (mesh.vip[0], DNS_PORT)
    mesh.serve(asked, mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(asked, SERVICE)
    mesh.service([mesh.pod(1)], ports=[(DNS_PORT, TARGET_PORT), (SERVICE_PORT, TARGET_PORT)])
    mesh.assert_leads(asked, to=asked)
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


def test_connected_dns_query_leads_to_the_meshs_server(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        client.connect(dns.asked)
        assert client.getpeername() == dns.server
        client.send(b"query")
        assert dns.answer(dns.server) == b"query"
        assert client.recv(64) == b"answer"


def test_unconnected_dns_query_leads_to_the_meshs_server(dns: Dns) -> None:
    with dns.mesh.udp_client() as client:
        dns.query(client, dns.asked, taken_by=dns.asked)
        dns.mesh.manage()
        dns.query(client, dns.asked, taken_by=dns.server)
        dns.mesh.maps["km_backend"].delete(u32(DNS_BACKEND))
        dns.query(client, dns.asked, taken_by=dns.asked)


def test_query_to_another_port_than_53_stays(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        dns.query(client, dns.stranger, taken_by=dns.stranger)
        assert dns.mesh.storage(client) is None
        dns.query(client, dns.asked, taken_by=dns.server)


def test_answer_seems_to_come_from_the_server_that_was_asked(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        assert dns.query(client, dns.asked, taken_by=dns.server) == dns.asked


@pytest.mark.ours
def test_answer_to_the_second_of_two_servers_seems_to_come_from_the_second(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        assert dns.query(client, dns.asked, taken_by=dns.server) == dns.asked
        assert dns.query(client, dns.second, taken_by=dns.server) == dns.second


@pytest.mark.ours
def test_answer_of_a_stranger_keeps_its_source(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        # Before any query of this socket, and after one.
        assert dns.query(client, dns.stranger, taken_by=dns.stranger) == dns.stranger
        assert dns.query(client, dns.asked, taken_by=dns.server) == dns.asked
        assert dns.query(client, dns.stranger, taken_by=dns.stranger) == dns.stranger


@pytest.mark.ours
def test_datagram_of_the_meshs_server_that_answers_no_query_keeps_its_source(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        client.bind((V4.host(8), 0))
        dns.send(dns.server, client.getsockname())
        assert client.recvfrom(64) == (b"answer", dns.server)
        assert dns.query(client, dns.asked, taken_by=dns.server) == dns.asked


# What user space reads and fills.


def test_maps_have_the_sizes_and_flags_of_the_abi(cgroup_sock: BpfObject) -> None:
    assert_maps(cgroup_sock.maps)


@pytest.mark.ours
def test_log_record_is_the_length_of_a_text_and_the_text(
    mesh: Mesh, cgroup_sock: BpfObject
) -> None:
    mesh.serve(mesh.vip)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    mesh.maps["km_endpoint"].delete(endpoint_key(SERVICE, 0, 1))
    with RingBuffer(cgroup_sock.maps["km_log_event"]) as log:
        log.drain()
        mesh.assert_leads(mesh.vip, to=mesh.vip)
        records = log.drain()
        cgroup_sock.set_global("bpf_log_level", 0)
        try:
            mesh.assert_leads(mesh.vip, to=mesh.vip)
        finally:
            cgroup_sock.set_global("bpf_log_level", 2)
        assert log.drain() == [], "a warning at log level 0"
    text = b"cgroup_sock: an endpoint is counted but absent"
    expected = (u32(len(text) + 1) + text).ljust(260, b"\0")
    assert records == [expected], f"expected one record of {text!r}, seen {records}"


@pytest.mark.ours
def test_btf_of_the_map_values_says_what_the_abi_says(cgroup_sock: BpfObject) -> None:
    btf = cgroup_sock.btf()
    seen = {
        name: (
            btf.structures()[name],
            {field: at.offset for field, at in btf.members(name).items()},
        )
        for name in ("service_value", "backend_value", "endpoint_key")
    }
    assert seen == {
        "service_value": (
            132,
            {
                "prio_endpoint_count": 0,
                "lb_policy": 28,
                "service_port": 32,
                "target_port": 72,
                "wp_addr": 112,
                "wp_addr.ip4": 112,
                "wp_addr.ip6": 112,
                "waypoint_port": 128,
            },
        ),
        "backend_value": (
            80,
            {
                "addr": 0,
                "addr.ip4": 0,
                "addr.ip6": 0,
                "service_count": 16,
                "service": 20,
                "wp_addr": 60,
                "wp_addr.ip4": 60,
                "wp_addr.ip6": 60,
                "waypoint_port": 76,
            },
        ),
        "endpoint_key": (12, {"service_id": 0, "prio": 4, "backend_index": 8}),
    }


# What the checks above are made of.


@contextlib.contextmanager
def udp_server(place: Address) -> Iterator[socket.socket]:
    """A UDP socket bound to `place`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(SECONDS)
        server.bind(place)
        yield server


def netns_cookie() -> bytes:
    """The cookie of this network namespace."""
    with socket.socket() as any_socket:
        return any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)


def original(mesh: Mesh, dialled: Address) -> bytes:
    """How the storage of a socket of the mesh's family holds what it dialled."""
    stored = original_v4 if mesh.family.dialling == socket.AF_INET else original_v6
    return stored(mesh.family.dialled(dialled[0]), dialled[1])


def assert_stored(
    mesh: Mesh, storage: Storage | None, dialled: Address, via_waypoint: bool
) -> None:
    """The storage holds `dialled` as original destination, and whether a waypoint is in between."""
    assert storage is not None, "expected a storage, seen none"
    expected = Storage(
        connect_ns=storage.connect_ns,
        via_waypoint=via_waypoint,
        has_set_ip=True,
        orig_dst=original(mesh, dialled),
    )
    assert storage == expected, f"expected {expected}, seen {storage}"


def assert_not_stored(storage: Storage | None) -> None:
    """A storage was made, but holds no original destination."""
    assert storage is not None, "expected a storage, seen none"
    expected = Storage(connect_ns=storage.connect_ns)
    assert storage == expected, f"expected {expected}, seen {storage}"


def assert_fair(taken: Counter[Address], pods: list[Address], times: int) -> None:
    """Each pod was taken about equally often: a fair choice fails this once in 10**8 runs."""
    for pod in pods:
        low, high = fair_range(times, 1 / len(pods), 1e-8 / len(pods))
        seen = taken[pod]
        assert low <= seen <= high, f"{pod}: expected {low} to {high} of {times}, seen {seen}"


def fair_range(times: int, chance: float, alarm: float) -> tuple[int, int]:
    """The counts of a binomial distribution, those left out less likely than `alarm` in all."""
    likely = [
        math.comb(times, hits) * chance**hits * (1 - chance) ** (times - hits)
        for hits in range(times + 1)
    ]
    low = next(hits for hits in range(times + 1) if sum(likely[: hits + 1]) > alarm / 2)
    high = next(hits for hits in range(times, -1, -1) if sum(likely[hits:]) > alarm / 2)
    return low, high
