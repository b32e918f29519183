"""cgroup_sock: connections go where the mesh wants them, and otherwise where they were sent."""

import contextlib
import errno
import pathlib
import select
import socket
import time
import uuid
from collections.abc import Iterator

import pytest
from conftest import Needed
from fairness import TIMES, chance_of_range, fair_range
from layouts import (
    LOCALITY_FAILOVER,
    LOCALITY_STRICT,
    RANDOM,
    Storage,
    assert_global,
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
    WAYPOINT_PORT,
    Mesh,
    backend_id,
    fill_tail_calls,
    tail_calls,
)
from messages import LOG_DEBUG, LOG_ERROR, LOG_INFO, LOG_WARN, assert_logged, logging_at
from traffic import (
    MAPPED,
    SECONDS,
    V4,
    V6,
    Address,
    Family,
    address,
    assert_alive,
    assert_reached,
    loopback_addresses,
)

from vmtest.guest.attach import attached_to_cgroup
from vmtest.guest.cgroup import Cgroup
from vmtest.guest.features import SO_NETNS_COOKIE
from vmtest.guest.libbpf import LibbpfError
from vmtest.guest.objects import BpfObject
from vmtest.guest.payload import object_path

DNS_PORT = 53
DNS_BACKEND = 0
DNS_PROGRAMS = ("bpf_redirect_dns_send", "bpf_restore_dns_recv")
CONNECT_PROGRAMS = ("cgroup_connect4_prog", "cgroup_connect6_prog")
STUBS = {"cgroup_connect4_prog": "stub_connect4", "cgroup_connect6_prog": "stub_connect6"}

each_family = pytest.mark.parametrize("mesh", [V4, V6, MAPPED], indirect=True, ids=lambda f: f.name)
v6_and_mapped = pytest.mark.parametrize("mesh", [V6, MAPPED], indirect=True, ids=lambda f: f.name)
v4_and_v6 = pytest.mark.parametrize("mesh", [V4, V6], indirect=True, ids=lambda f: f.name)

each_small = pytest.mark.parametrize(
    "small_mesh", [V4, V6, MAPPED], indirect=True, ids=lambda f: f.name
)

each_way_to_control = pytest.mark.parametrize(
    ("mesh", "kind", "host"),
    [
        pytest.param(V4, socket.SOCK_STREAM, "0.0.0.2", id="v4-tcp"),
        pytest.param(V4, socket.SOCK_DGRAM, "0.0.0.2", id="v4-udp"),
        pytest.param(V6, socket.SOCK_STREAM, "::2", id="v6-tcp"),
        pytest.param(V6, socket.SOCK_DGRAM, "::2", id="v6-udp"),
        # The ABI names the two addresses above only.
        pytest.param(
            V6, socket.SOCK_STREAM, "::ffff:0.0.0.2", id="mapped-tcp", marks=pytest.mark.ours
        ),
        pytest.param(
            V6, socket.SOCK_DGRAM, "::ffff:0.0.0.2", id="mapped-udp", marks=pytest.mark.ours
        ),
    ],
    indirect=["mesh"],
)


@pytest.fixture(scope="module")
def cgroup_sock(v6_hosts: None, needed: Needed) -> Iterator[BpfObject]:
    """The object, loaded, its tail calls filled. Tests share it and leave its maps empty."""
    with BpfObject(object_path("cgroup_sock")) as loaded:
        needed(loaded, *CONNECT_PROGRAMS, *FILLED_MAPS, "km_sockstorage", "km_cgr_tailcall")
        loaded.load()
        fill_tail_calls(loaded)
        yield loaded


@pytest.fixture(scope="module")
def small_cgroup_sock(v6_hosts: None, needed: Needed) -> Iterator[BpfObject]:
    """The object with room for one entry in each map that user space fills."""
    with BpfObject(object_path("cgroup_sock")) as loaded:
        needed(loaded, *CONNECT_PROGRAMS, *FILLED_MAPS)
        for name in FILLED_MAPS:
            loaded.set_max_entries(name, 1)
        loaded.load()
        yield loaded


@pytest.fixture(scope="module")
def stubs() -> Iterator[BpfObject]:
    """Programs for the tail call arrays that do nothing but count."""
    with BpfObject(object_path("mock_tail_calls")) as loaded:
        loaded.load()
        yield loaded


@contextlib.contextmanager
def meshed(loaded: BpfObject, group: Cgroup, family: Family) -> Iterator[Mesh]:
    """An empty mesh of a family, its programs attached; the maps are emptied behind it."""
    with contextlib.ExitStack() as stack:
        for name in CONNECT_PROGRAMS:
            stack.enter_context(attached_to_cgroup(loaded.programs[name], group))
        for name in FILLED_MAPS:
            stack.callback(loaded.maps[name].clear)
        yield Mesh(loaded, group, family, stack)


@pytest.fixture
def mesh(cgroup_sock: BpfObject, group: Cgroup, request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """An empty mesh of a family: IPv4 unless the test says otherwise."""
    with meshed(cgroup_sock, group, getattr(request, "param", V4)) as made:
        yield made


@pytest.fixture
def small_mesh(
    small_cgroup_sock: BpfObject, group: Cgroup, request: pytest.FixtureRequest
) -> Iterator[Mesh]:
    """An empty mesh whose maps have room for one entry each."""
    with meshed(small_cgroup_sock, group, getattr(request, "param", V4)) as made:
        yield made


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
        assert answer == b"answer", f"expected b'answer', received {answer!r}"
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
def tail_call(mesh: Mesh, cgroup_sock: BpfObject, needed: Needed) -> None:
    """The object has the program array of the mesh's family."""
    needed(cgroup_sock, "km_cgr_tailcall" if mesh.family is V4 else "km_cgr_tail6")


@pytest.fixture
def dns_programs(cgroup_sock: BpfObject, group: Cgroup, needed: Needed) -> Iterator[None]:
    """The object knows of name resolution, and its programs for UDP are attached as well."""
    needed(cgroup_sock, *DNS_PROGRAMS)
    with contextlib.ExitStack() as stack:
        for name in DNS_PROGRAMS:
            stack.enter_context(attached_to_cgroup(cgroup_sock.programs[name], group))
        yield


@pytest.fixture
def dns(mesh: Mesh, dns_programs: None) -> Iterator[Dns]:
    """An unmanaged mesh with a name server."""
    with contextlib.ExitStack() as stack:
        yield Dns(mesh, stack)


# Control connections.


@each_way_to_control
def test_dialling_port_929_of_the_control_address_manages_one_netns(
    mesh: Mesh, kind: socket.SocketKind, host: str
) -> None:
    assert_managed(mesh, 0)
    mesh.control(MANAGE, kind, host)
    [(key, value)] = assert_managed(mesh, 1).items()
    assert key[:8] != bytes(8) and key[8:] == bytes(8), (
        f"expected a cookie and 8 zeros, seen {key.hex(' ')}"
    )
    assert value == bytes(4), f"expected the value 0, seen {value.hex(' ')}"


@each_way_to_control
def test_dialling_port_930_of_the_control_address_unmanages_the_netns(
    mesh: Mesh, kind: socket.SocketKind, host: str
) -> None:
    mesh.manage()
    assert_managed(mesh, 1)
    mesh.control(UNMANAGE, kind, host)
    assert_managed(mesh, 0)


def test_datagram_to_the_control_address_manages_and_unmanages(
    mesh: Mesh, dns_programs: None
) -> None:
    for port, entries in ((MANAGE, 1), (UNMANAGE, 0)):
        with mesh.udp_client() as client:
            try:
                client.sendto(b"control", (V4.control_host, port))
            except OSError as error:  # There is no route; the programs have nothing against it.
                assert error.errno != errno.EPERM, f"sending to port {port} was forbidden"
        assert_managed(mesh, entries)


@pytest.mark.ours
def test_datagram_from_the_control_address_manages_nothing(mesh: Mesh, dns_programs: None) -> None:
    with (
        loopback_addresses(f"{V4.control_host}/32"),
        udp_server((V4.control_host, MANAGE)) as sender,
        mesh.udp_client() as client,
    ):
        client.bind((V4.host(8), 0))
        sender.sendto(b"x", client.getsockname())
        received = client.recvfrom(64)
        assert received == (b"x", sender.getsockname()), f"received {received}"
    assert_managed(mesh, 0)
    mesh.manage()
    assert_managed(mesh, 1)


@v4_and_v6
def test_control_connection_leaves_other_namespaces_alone(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    managing, unmanaging = mesh.clients_of_another_netns(2)
    mesh.dial_control(managing, MANAGE)
    others = assert_managed(mesh, 1)
    mesh.assert_leads(mesh.vip, to=mesh.vip)
    mesh.manage()
    both = assert_managed(mesh, 2)
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))
    mesh.dial_control(unmanaging, UNMANAGE)
    left = assert_managed(mesh, 1)
    assert left.keys() == both.keys() - others.keys(), f"of {both} and not {others} stay {left}"
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@v4_and_v6
def test_managed_netns_is_managed_whatever_its_value(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    mesh.manage()
    [key] = assert_managed(mesh, 1)
    for value in (1, 0):
        mesh.maps["km_manage"].update(key, u32(value))
        mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@pytest.mark.needs("so_netns_cookie")
def test_managed_key_is_the_cookie_of_the_netns(mesh: Mesh) -> None:
    cookie = netns_cookie()
    mesh.control(MANAGE)
    seen, expected = mesh.maps["km_manage"].keys(), [cookie + bytes(8)]
    assert seen == expected, f"expected {expected}, seen {seen}"


@each_family
def test_control_ports_of_another_host_manage_nothing(mesh: Mesh) -> None:
    # Its last number is that of the control address.
    other = (mesh.family.host(2), MANAGE)
    mesh.serve(other)
    mesh.assert_leads(other, to=other)
    assert_managed(mesh, 0)
    mesh.manage()
    assert_managed(mesh, 1)


@pytest.mark.ours
@pytest.mark.parametrize("mesh", [V6], indirect=True, ids=["v6"])
@pytest.mark.parametrize("host", ["0:2::1", "0:2:0:0:0:1::", "0:2:0:1::", "::1:0:0:2", "1::2"])
def test_control_address_is_so_in_every_word(mesh: Mesh, host: str) -> None:
    mesh.control(MANAGE, host=host)
    assert_managed(mesh, 0)
    mesh.manage()
    mesh.control(UNMANAGE, host=host)
    assert_managed(mesh, 1)


@v4_and_v6
def test_managing_again_sets_the_value_to_0(mesh: Mesh) -> None:
    mesh.manage()
    [key] = assert_managed(mesh, 1)
    mesh.maps["km_manage"].update(key, u32(1))
    mesh.manage()
    value = assert_managed(mesh, 1)[key]
    assert value == bytes(4), f"expected the value 0, seen {value.hex(' ')}"


@v4_and_v6
def test_control_connection_is_not_taken_for_one_of_the_mesh(mesh: Mesh) -> None:
    with mesh.client() as client:
        mesh.dial_control(client, MANAGE)
        assert_none(mesh.storage(client))
    mesh.serve(mesh.vip)
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))


@each_family
def test_other_ports_of_the_control_address_change_nothing(mesh: Mesh) -> None:
    for port in (928, 931):
        mesh.control(port)
        assert_managed(mesh, 0)
    mesh.manage()
    for port in (928, 931):
        mesh.control(port)
        assert_managed(mesh, 1)


# Connections that stay as they are.


@each_family
def test_unmanaged_netns_keeps_its_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    assert_none(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.manage()
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_destination_that_is_no_frontend_is_kept(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.service([mesh.pod(1)])
    storage = mesh.assert_leads(mesh.vip, to=mesh.vip)
    assert_not_stored(storage)
    mesh.frontend(mesh.vip, SERVICE)
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_frontend_of_an_unknown_upstream_keeps_its_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)])
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@pytest.mark.parametrize(
    "host", ["fd00::ffff:7f60:2", "0:0:1::ffff:7f60:2", "::1:7f60:2"], ids=["0", "1", "2"]
)
@pytest.mark.parametrize("mesh", [V6], indirect=True, ids=lambda f: f.name)
def test_address_that_differs_from_a_mapped_one_in_one_word_is_itself(
    mesh: Mesh, host: str
) -> None:
    mesh.serve(mesh.pod(1))
    mesh.manage()
    mesh.frontend((host, SERVICE_PORT), SERVICE)
    mesh.service([mesh.pod(1)])
    mesh.assert_leads((host, SERVICE_PORT), to=mesh.pod(1))


@each_family
def test_pod_without_waypoint_is_reached_and_remembered_as_the_original(mesh: Mesh) -> None:
    mesh.serve(mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.pod(1), 1)
    mesh.backend(1, mesh.pod(1))
    assert_stored(mesh, mesh.assert_leads(mesh.pod(1), to=mesh.pod(1)), mesh.pod(1), False)
    mesh.backend(1, mesh.pod(1), mesh.waypoint)
    mesh.assert_leads(mesh.pod(1), to=mesh.waypoint)


@each_family
def test_port_that_the_service_does_not_have_keeps_its_destination(mesh: Mesh) -> None:
    other = (mesh.vip[0], SERVICE_PORT + 1)
    mesh.serve(mesh.vip, other, mesh.pod(1))
    mesh.offer([mesh.pod(1)])
    assert_not_stored(mesh.assert_leads(other, to=other))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_endpoint_that_is_counted_but_absent_keeps_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer([mesh.pod(1)])
    mesh.maps["km_endpoint"].delete(endpoint_key(SERVICE, 0, 1))
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)])
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_endpoint_whose_backend_is_absent_keeps_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer([mesh.pod(1)])
    mesh.maps["km_backend"].delete(u32(backend_id(0, 1)))
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)])
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_endpoint_that_dangles_is_not_failed_over(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.pod(2))
    mesh.offer([mesh.pod(1)], [mesh.pod(2)], policy=LOCALITY_FAILOVER)
    mesh.maps["km_endpoint"].delete(endpoint_key(SERVICE, 0, 1))
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([], [mesh.pod(2)], policy=LOCALITY_FAILOVER)
    mesh.assert_leads(mesh.vip, to=mesh.pod(2))


@pytest.mark.ours
@each_family
def test_socket_that_gets_no_storage_keeps_its_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer([mesh.pod(1)])
    with no_memory_for_storage():
        assert_none(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@pytest.mark.ours
@each_family
def test_socket_that_gets_no_storage_is_logged_as_an_error(
    mesh: Mesh, cgroup_sock: BpfObject
) -> None:
    mesh.serve(mesh.vip)
    mesh.manage()
    with logging_at(cgroup_sock, LOG_ERROR) as log, no_memory_for_storage():
        mesh.assert_leads(mesh.vip, to=mesh.vip)
        assert_logged(log, "cgroup_sock: no storage for a socket")


# What changes while connections live, and maps without room.


@pytest.mark.parametrize("removed", FILLED_MAPS)
@each_family
def test_connection_outlives_what_led_to_it_and_the_next_one_keeps_its_destination(
    mesh: Mesh, removed: str
) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer([mesh.pod(1)])
    with mesh.dial(mesh.vip) as met:
        assert_reached(met, mesh.family, mesh.pod(1))
        entries = mesh.maps[removed].items()
        mesh.maps[removed].clear()
        mesh.assert_leads(mesh.vip, to=mesh.vip)
        assert_reached(met, mesh.family, mesh.pod(1))
        assert_alive(met)
        for key, value in entries.items():
            mesh.maps[removed].update(key, value)
        mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_several_connections_at_once_go_each_its_own_way(mesh: Mesh) -> None:
    second, untouched = (mesh.family.host(7), SERVICE_PORT), (mesh.family.host(8), SERVICE_PORT)
    mesh.serve(mesh.vip, second, untouched, mesh.pod(1), mesh.pod(2), mesh.pod(3), mesh.waypoint)
    mesh.offer([mesh.pod(1)])
    mesh.frontend(second, SERVICE + 1)
    mesh.service([mesh.pod(2)], waypoint=mesh.waypoint, service=SERVICE + 1)
    mesh.frontend(mesh.pod(3), 1)
    mesh.backend(1, mesh.pod(3))
    ways = (
        (untouched, untouched),
        (mesh.vip, mesh.pod(1)),
        (second, mesh.waypoint),
        (mesh.pod(3), mesh.pod(3)),
    )
    with contextlib.ExitStack() as stack:
        meetings = [stack.enter_context(mesh.dial(dialled)) for dialled, _ in ways]
        storages = [mesh.storage(met.client) for met in meetings]
        for met, (_, to) in reversed(list(zip(meetings, ways, strict=True))):
            assert_reached(met, mesh.family, to)
    assert_not_stored(storages[0])
    assert_stored(mesh, storages[1], mesh.vip, False)
    assert_stored(mesh, storages[2], second, True)
    assert_stored(mesh, storages[3], mesh.pod(3), False)


@each_family
def test_socket_that_dials_again_keeps_the_original_destination_of_its_first_time(
    mesh: Mesh,
) -> None:
    refusing = (mesh.family.host(7), SERVICE_PORT)
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(refusing, SERVICE)
    mesh.frontend(mesh.vip, SERVICE + 1)
    mesh.service([mesh.pod(2)])
    mesh.service([mesh.pod(1)], service=SERVICE + 1)
    client = mesh.client()
    client.settimeout(None)  # After a connect() in the background the next one fails.
    with contextlib.suppress(ConnectionRefusedError):
        client.connect((mesh.family.dialled(refusing[0]), refusing[1]))
    assert_stored(mesh, mesh.storage(client), refusing, False)
    with mesh.dial(mesh.vip, client) as met:
        assert_reached(met, mesh.family, mesh.pod(1))
        assert_stored(mesh, mesh.storage(client), refusing, False)


@each_small
def test_control_connection_manages_nothing_while_km_manage_is_full(small_mesh: Mesh) -> None:
    mesh = small_mesh
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.frontend(mesh.vip, SERVICE)
    mesh.service([mesh.pod(1)])
    other = bytes.fromhex("ffffffffffffffff 0000000000000000")
    mesh.maps["km_manage"].update(other, u32(0))
    mesh.manage()
    entries = assert_managed(mesh, 1)
    assert entries == {other: u32(0)}, f"expected the entry of {other.hex()}, seen {entries}"
    mesh.assert_leads(mesh.vip, to=mesh.vip)
    mesh.maps["km_manage"].delete(other)
    mesh.manage()
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_small
def test_full_maps_lead_where_their_entries_say(small_mesh: Mesh) -> None:
    mesh = small_mesh
    second = (mesh.family.host(7), SERVICE_PORT)
    mesh.serve(mesh.vip, second, mesh.pod(1))
    mesh.offer([mesh.pod(1)])
    full = {name: mesh.maps[name].items() for name in FILLED_MAPS}
    for name, entries in full.items():
        [(key, value)] = entries.items()
        with pytest.raises(LibbpfError) as refused:
            mesh.maps[name].update(bytes(len(key)), value)
        assert refused.value.errno == errno.E2BIG, f"{name}: expected E2BIG, seen {refused.value}"
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))
    mesh.assert_leads(second, to=second)
    seen = {name: mesh.maps[name].items() for name in FILLED_MAPS}
    assert seen == full, f"expected the entries as they were, {full}, seen {seen}"


# Waypoints.


@each_family
def test_pod_with_waypoint_leads_to_the_waypoint(mesh: Mesh) -> None:
    mesh.serve(mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.pod(1), 1)
    mesh.backend(1, mesh.pod(1), mesh.waypoint)
    assert_stored(mesh, mesh.assert_leads(mesh.pod(1), to=mesh.waypoint), mesh.pod(1), True)


@each_family
def test_service_with_waypoint_leads_to_the_waypoint(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.offer([mesh.pod(1)], waypoint=mesh.waypoint)
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.waypoint), mesh.vip, True)


@each_family
def test_endpoint_with_waypoint_leads_to_the_waypoint(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.offer([mesh.pod(1)])
    mesh.backend(backend_id(0, 1), mesh.pod(1), mesh.waypoint)
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.waypoint), mesh.vip, True)


@each_family
def test_waypoint_without_port_is_none(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.offer([mesh.pod(1)], waypoint=(mesh.waypoint[0], 0))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))
    mesh.service([mesh.pod(1)], waypoint=mesh.waypoint)
    mesh.assert_leads(mesh.vip, to=mesh.waypoint)


def test_waypoint_without_address_is_none(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.offer([mesh.pod(1)], waypoint=("0.0.0.0", mesh.waypoint[1]))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))
    mesh.service([mesh.pod(1)], waypoint=mesh.waypoint)
    mesh.assert_leads(mesh.vip, to=mesh.waypoint)


@pytest.mark.ours
@pytest.mark.parametrize("mesh", [V6], indirect=True, ids=["v6"])
def test_waypoint_whose_address_begins_with_a_zero_word_is_one(mesh: Mesh) -> None:
    waypoint = ("::1", mesh.waypoint[1])
    mesh.serve(mesh.vip, mesh.pod(1), waypoint)
    mesh.offer([mesh.pod(1)], waypoint=waypoint)
    mesh.assert_leads(mesh.vip, to=waypoint)


@pytest.mark.ours
@pytest.mark.parametrize("mesh", [V4, MAPPED], indirect=True, ids=lambda f: f.name)
@pytest.mark.parametrize("rest", [":0:1::", ":0:0:0:1::", "::1"])
def test_ipv6_waypoint_is_nowhere_an_ipv4_connection_can_go(mesh: Mesh, rest: str) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    # Its first word reads 127.96.0.9, an address somebody listens on.
    waypoint = (ipv6_that_begins_with(mesh.waypoint[0], rest), mesh.waypoint[1])
    mesh.service([mesh.pod(1)], waypoint=waypoint)
    mesh.assert_leads(mesh.vip, to=mesh.vip)
    mesh.service([mesh.pod(1)], waypoint=mesh.waypoint)
    mesh.assert_leads(mesh.vip, to=mesh.waypoint)


# Upstream looks at the first word of the address alone.
@pytest.mark.parametrize(
    "host",
    [
        "1::",
        pytest.param("0:0:1::", marks=pytest.mark.ours),
        pytest.param("::1:0:0:0", marks=pytest.mark.ours),
        pytest.param("::0.1.0.0", marks=pytest.mark.ours),
    ],
)
@pytest.mark.parametrize("mesh", [V6], indirect=True, ids=lambda f: f.name)
def test_waypoint_of_a_service_may_have_any_address_but_zero(mesh: Mesh, host: str) -> None:
    waypoint = (host, WAYPOINT_PORT)
    with loopback_addresses(f"{host}/128"):
        mesh.serve(waypoint, mesh.pod(1))
        mesh.offer([mesh.pod(1)], waypoint=waypoint)
        mesh.assert_leads(mesh.vip, to=waypoint)
        mesh.service([mesh.pod(1)], waypoint=("::", WAYPOINT_PORT))
        mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@v4_and_v6
def test_waypoint_of_a_pod_counts_by_its_port_alone(mesh: Mesh) -> None:
    # Who dials the unspecified address reaches this machine.
    here = ("127.0.0.1" if mesh.family is V4 else "::1", WAYPOINT_PORT)
    mesh.serve(mesh.pod(1), here)
    mesh.manage()
    mesh.frontend(mesh.pod(1), 1)
    mesh.backend(1, mesh.pod(1), (None, WAYPOINT_PORT))
    assert_stored(mesh, mesh.assert_leads(mesh.pod(1), to=here), mesh.pod(1), True)
    mesh.backend(1, mesh.pod(1), (mesh.waypoint[0], 0))
    assert_stored(mesh, mesh.assert_leads(mesh.pod(1), to=mesh.pod(1)), mesh.pod(1), False)


@each_family
def test_waypoint_of_an_endpoint_without_port_is_none(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.offer([mesh.pod(1)])
    mesh.backend(backend_id(0, 1), mesh.pod(1), (mesh.waypoint[0], 0))
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.pod(1)), mesh.vip, False)
    mesh.backend(backend_id(0, 1), mesh.pod(1), mesh.waypoint)
    mesh.assert_leads(mesh.vip, to=mesh.waypoint)


@each_family
def test_waypoint_of_a_service_comes_before_its_policy_ports_and_endpoints(mesh: Mesh) -> None:
    other = (mesh.vip[0], SERVICE_PORT + 1)
    mesh.serve(mesh.vip, other, mesh.waypoint)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    for policy in (RANDOM, LOCALITY_STRICT, LOCALITY_FAILOVER, 3):
        mesh.service(policy=policy, waypoint=mesh.waypoint)
        assert_stored(mesh, mesh.assert_leads(other, to=mesh.waypoint), other, True)


@each_family
def test_waypoint_of_an_endpoint_comes_before_the_services_ports(mesh: Mesh) -> None:
    other = (mesh.vip[0], SERVICE_PORT + 1)
    mesh.serve(other, mesh.waypoint)
    mesh.offer([mesh.pod(1)])
    mesh.backend(backend_id(0, 1), mesh.pod(1), mesh.waypoint)
    assert_stored(mesh, mesh.assert_leads(other, to=mesh.waypoint), other, True)


# The tail call.


@each_family
def test_virtual_address_of_a_waypoint_leads_to_the_waypoints_endpoint(
    mesh: Mesh, tail_call: None
) -> None:
    behind = mesh.pod(2)
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint, behind)
    mesh.offer([mesh.pod(1)], waypoint=mesh.waypoint)
    mesh.frontend(mesh.waypoint, SERVICE + 1)
    mesh.service([behind], ports=[(mesh.waypoint[1], behind[1])], service=SERVICE + 1)
    # The original is what the application dialled, and not the waypoint in between.
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=behind), mesh.vip, True)


@each_family
def test_waypoint_whose_virtual_address_leads_to_itself_is_reached(
    mesh: Mesh, tail_call: None
) -> None:
    waypoint = (mesh.vip[0], WAYPOINT_PORT)
    mesh.serve(mesh.vip, mesh.pod(1), waypoint)
    mesh.offer([mesh.pod(1)], waypoint=waypoint)
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=waypoint), mesh.vip, True)


@each_family
def test_waypoint_is_reached_where_no_tail_call_is_filled_in(
    mesh: Mesh, cgroup_sock: BpfObject, tail_call: None
) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.offer([mesh.pod(1)], waypoint=mesh.waypoint)
    with tail_calls_emptied(cgroup_sock):
        assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.waypoint), mesh.vip, True)


@pytest.mark.ours
@each_family
def test_tail_call_that_is_not_filled_in_is_a_debug_message(
    mesh: Mesh, cgroup_sock: BpfObject, tail_call: None
) -> None:
    mesh.serve(mesh.waypoint)
    mesh.offer([mesh.pod(1)], waypoint=mesh.waypoint)
    with tail_calls_emptied(cgroup_sock):
        with logging_at(cgroup_sock, LOG_INFO) as log:
            mesh.assert_leads(mesh.vip, to=mesh.waypoint)
            assert_logged(log)
        with logging_at(cgroup_sock, LOG_DEBUG) as log:
            mesh.assert_leads(mesh.vip, to=mesh.waypoint)
            hook = "connect4" if mesh.family is V4 else "connect6"
            assert_logged(log, f"cgroup_sock: {hook} did not resolve a waypoint's address")


@each_family
def test_tail_call_follows_a_waypoint_and_nothing_else(
    mesh: Mesh, cgroup_sock: BpfObject, stubs: BpfObject, tail_call: None
) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.waypoint)
    mesh.manage()
    own, other = ("connect4_calls", "connect6_calls")[:: 1 if mesh.family is V4 else -1]
    calls_before = stubs.get_global(own), stubs.get_global(other)

    def assert_calls(expected: int, why: str) -> None:
        seen = stubs.get_global(own) - calls_before[0], stubs.get_global(other) - calls_before[1]
        assert seen == (expected, 0), f"{why}: expected tail calls {(expected, 0)}, seen {seen}"

    try:
        fill_tail_calls(cgroup_sock, {name: stubs.programs[stub] for name, stub in STUBS.items()})
        mesh.assert_leads(mesh.vip, to=mesh.vip)
        assert_calls(0, "no frontend")
        mesh.frontend(mesh.vip, SERVICE)
        mesh.assert_leads(mesh.vip, to=mesh.vip)
        assert_calls(0, "unknown upstream")
        mesh.service()
        mesh.assert_leads(mesh.vip, to=mesh.vip)
        assert_calls(0, "no endpoint")
        mesh.service([mesh.pod(1)])
        mesh.assert_leads(mesh.vip, to=mesh.pod(1))
        assert_calls(0, "an endpoint without waypoint")
        mesh.frontend(mesh.pod(1), backend_id(0, 1))
        mesh.assert_leads(mesh.pod(1), to=mesh.pod(1))
        assert_calls(0, "a pod without waypoint")
        mesh.service([mesh.pod(1)], waypoint=mesh.waypoint)
        mesh.assert_leads(mesh.vip, to=mesh.waypoint)
        assert_calls(1, "the waypoint of a service")
        mesh.service([mesh.pod(1)])
        mesh.backend(backend_id(0, 1), mesh.pod(1), mesh.waypoint)
        mesh.assert_leads(mesh.vip, to=mesh.waypoint)
        assert_calls(2, "the waypoint of an endpoint")
        mesh.assert_leads(mesh.pod(1), to=mesh.waypoint)
        assert_calls(3, "the waypoint of a pod")
    finally:
        fill_tail_calls(cgroup_sock)


# Load balancing.


@each_family
def test_service_leads_to_its_endpoint_on_the_target_port(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer([mesh.pod(1)])
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.pod(1)), mesh.vip, False)


@each_family
def test_every_port_of_a_service_leads_to_its_own_target_port(mesh: Mesh) -> None:
    host, _ = mesh.pod(1)
    ports = [(8000 + index, 18000 + index) for index in range(10)]
    mesh.serve(*((mesh.vip[0], dialled) for dialled, _ in ports))
    mesh.serve(*((host, target) for _, target in ports))
    mesh.offer([mesh.pod(1)], ports=ports)
    for dialled, target in ports:
        mesh.assert_leads((mesh.vip[0], dialled), to=(host, target))


@each_family
def test_target_port_of_a_service_is_not_a_port_of_the_service(mesh: Mesh) -> None:
    target = (mesh.vip[0], TARGET_PORT)
    mesh.serve(mesh.vip, target, mesh.pod(1))
    mesh.offer([mesh.pod(1)])
    assert_not_stored(mesh.assert_leads(target, to=target))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_random_policy_knows_the_endpoints_of_priority_0_only(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.pod(2))
    mesh.offer([mesh.pod(1)], [mesh.pod(2)], policy=RANDOM)
    assert_taken_by_all(mesh, mesh.pod(1))


@each_family
def test_random_policy_without_endpoints_keeps_and_remembers_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer([], [mesh.pod(1)], policy=RANDOM)
    assert_stored(mesh, mesh.assert_leads(mesh.vip, to=mesh.vip), mesh.vip, False)
    mesh.service([mesh.pod(1)], policy=RANDOM)
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_strict_policy_never_leaves_the_local_priority(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1), mesh.pod(2))
    mesh.offer([], [mesh.pod(2)], policy=LOCALITY_STRICT)
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)], [mesh.pod(2)], policy=LOCALITY_STRICT)
    assert_taken_by_all(mesh, mesh.pod(1))


@pytest.mark.parametrize("first", range(7))
@each_family
def test_failover_policy_leads_to_the_first_priority_with_endpoints(mesh: Mesh, first: int) -> None:
    near, far = mesh.pod(1), mesh.pod(2)
    mesh.serve(mesh.vip, near, far)
    mesh.manage()
    mesh.frontend(mesh.vip, SERVICE)
    priorities: list[list[Address]] = [[far] for _ in range(7)]
    priorities[:first] = [[] for _ in range(first)]
    priorities[first] = [near]
    mesh.service(*priorities, policy=LOCALITY_FAILOVER)
    assert_taken_by_all(mesh, near)


@each_family
def test_failover_policy_knows_seven_priorities(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer(policy=LOCALITY_FAILOVER)
    mesh.backend(1, mesh.pod(1))
    for index in range(1, 4):
        mesh.maps["km_endpoint"].update(endpoint_key(SERVICE, 7, index), u32(1))
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service(*[[]] * 6, [mesh.pod(1)], policy=LOCALITY_FAILOVER)
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@pytest.mark.parametrize(
    ("policy", "priority"),
    [(RANDOM, 0), (LOCALITY_STRICT, 0), (LOCALITY_FAILOVER, 0), (LOCALITY_FAILOVER, 6)],
    ids=["random", "strict", "failover-0", "failover-6"],
)
@each_family
def test_every_endpoint_of_a_priority_is_reached(mesh: Mesh, policy: int, priority: int) -> None:
    pods = [mesh.pod(number) for number in (1, 2, 3)]
    mesh.serve(mesh.vip, *pods)
    mesh.offer(*[[]] * priority, pods, policy=policy)
    # One of three is missed by 64 connections less often than once in 10**10 runs.
    assert_taken_by_all(mesh, *pods, times=64)


@each_family
def test_failover_policy_without_any_endpoint_keeps_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer(policy=LOCALITY_FAILOVER)
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)], policy=LOCALITY_FAILOVER)
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_unknown_policy_keeps_the_destination(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer([mesh.pod(1)], policy=3)
    assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
    mesh.service([mesh.pod(1)])
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@each_family
def test_storage_says_when_the_connection_was_dialled(mesh: Mesh) -> None:
    mesh.serve(mesh.vip)
    mesh.manage()
    began = time.monotonic_ns()
    storage = mesh.assert_leads(mesh.vip, to=mesh.vip)
    ended = time.monotonic_ns()
    assert storage is not None, "expected a storage, seen none"
    assert began <= storage.connect_ns <= ended, f"{storage.connect_ns} not in {began} to {ended}"


@each_family
def test_udp_is_not_balanced(mesh: Mesh) -> None:
    mesh.serve(mesh.vip, mesh.pod(1))
    mesh.offer([mesh.pod(1)])
    with mesh.udp_client() as client:
        client.connect((mesh.family.dialled(mesh.vip[0]), mesh.vip[1]))
        seen, expected = address(client.getpeername()), mesh.family.dialled(mesh.vip[0])
        assert seen == (expected, mesh.vip[1]), f"expected {expected}, seen {seen}"
        assert_none(mesh.storage(client))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


# Name resolution: port 53 over IPv4 leads to the mesh's own server.


def test_dns_over_tcp_leads_to_the_meshs_server(mesh: Mesh, dns_programs: None) -> None:
    asked, server = (mesh.vip[0], DNS_PORT), (mesh.pod(1)[0], DNS_PORT)
    mesh.serve(asked, server)
    mesh.manage()
    assert_none(mesh.assert_leads(asked, to=asked))
    mesh.backend(DNS_BACKEND, server)
    assert_stored(mesh, mesh.assert_leads(asked, to=server), asked, False)


def test_dns_over_tcp_is_not_balanced(mesh: Mesh, dns_programs: None) -> None:
    asked = (mesh.vip[0], DNS_PORT)
    mesh.serve(asked, mesh.vip, mesh.pod(1))
    mesh.manage()
    mesh.frontend(asked, SERVICE)
    mesh.service([mesh.pod(1)], ports=[(DNS_PORT, TARGET_PORT), (SERVICE_PORT, TARGET_PORT)])
    assert_none(mesh.assert_leads(asked, to=asked))
    mesh.assert_leads(mesh.vip, to=mesh.pod(1))


@pytest.mark.ours
def test_dns_over_tcp_keeps_the_first_server_that_the_socket_asked(
    mesh: Mesh, dns_programs: None
) -> None:
    server = (mesh.pod(1)[0], DNS_PORT)
    first, second = ((V4.host(number), DNS_PORT) for number in (8, 9))
    mesh.backend(DNS_BACKEND, server)
    mesh.manage()
    with mesh.client() as client:
        client.setblocking(True)  # or the refusal would be told to the second connect(2) once more
        code = client.connect_ex(first)
        assert code == errno.ECONNREFUSED, f"nobody listens at {server} yet; dialling gave {code}"
        assert_stored(mesh, mesh.storage(client), first, False)
        client.settimeout(SECONDS)
        mesh.serve(server)
        with mesh.dial(second, client) as met:
            assert_reached(met, mesh.family, server)
            assert_stored(mesh, mesh.storage(client), first, False)


@v6_and_mapped
def test_dns_over_an_ipv6_socket_is_balanced_like_anything_else(
    mesh: Mesh, dns_programs: None
) -> None:
    asked, server = (mesh.vip[0], DNS_PORT), (V4.host(4), DNS_PORT)
    mesh.serve(asked, mesh.pod(1))
    mesh.backend(DNS_BACKEND, server)
    mesh.manage()
    assert_not_stored(mesh.assert_leads(asked, to=asked))
    mesh.frontend(asked, SERVICE)
    mesh.service([mesh.pod(1)], ports=[(DNS_PORT, TARGET_PORT)])
    assert_stored(mesh, mesh.assert_leads(asked, to=mesh.pod(1)), asked, False)


@pytest.mark.ours
def test_dns_over_tcp_stays_where_the_meshs_server_has_an_ipv6_address(
    mesh: Mesh, dns_programs: None
) -> None:
    asked, server = (mesh.vip[0], DNS_PORT), (mesh.pod(1)[0], DNS_PORT)
    mesh.serve(asked, server)
    mesh.manage()
    # Its first word reads as the address of somebody who listens.
    mesh.backend(DNS_BACKEND, (ipv6_that_begins_with(server[0]), DNS_PORT))
    assert_none(mesh.assert_leads(asked, to=asked))
    mesh.backend(DNS_BACKEND, server)
    mesh.assert_leads(asked, to=server)


def test_connected_dns_query_leads_to_the_meshs_server(dns: Dns) -> None:
    for managed, taken_by in ((False, dns.asked), (True, dns.server)):
        if managed:
            dns.mesh.manage()
        with dns.mesh.udp_client() as client:
            client.connect(dns.asked)
            seen = client.getpeername()
            assert seen == taken_by, f"getpeername(): expected {taken_by}, seen {seen}"
            client.send(b"query")
            query = dns.answer(taken_by)
            assert query == b"query", f"expected b'query' at {taken_by}, received {query!r}"
            answer = client.recv(64)
            assert answer == b"answer", f"expected b'answer', received {answer!r}"
            if managed:
                assert_stored(dns.mesh, dns.mesh.storage(client), dns.asked, False)
            else:
                assert_none(dns.mesh.storage(client))


def test_connected_dns_query_stays_without_a_server_of_the_mesh(dns: Dns) -> None:
    dns.mesh.manage()
    dns.mesh.maps["km_backend"].delete(u32(DNS_BACKEND))
    with dns.mesh.udp_client() as client:
        client.connect(dns.asked)
        seen = client.getpeername()
        assert seen == dns.asked, f"getpeername(): expected {dns.asked}, seen {seen}"
        assert_none(dns.mesh.storage(client))
    dns.mesh.backend(DNS_BACKEND, dns.server)
    with dns.mesh.udp_client() as client:
        client.connect(dns.asked)
        seen = client.getpeername()
        assert seen == dns.server, f"getpeername(): expected {dns.server}, seen {seen}"


def test_unconnected_dns_query_leads_to_the_meshs_server(dns: Dns) -> None:
    with dns.mesh.udp_client() as client:
        dns.query(client, dns.asked, taken_by=dns.asked)
        assert_none(dns.mesh.storage(client))
        dns.mesh.manage()
        dns.query(client, dns.asked, taken_by=dns.server)
        assert_stored(dns.mesh, dns.mesh.storage(client), dns.asked, False)


def test_unconnected_dns_query_stays_without_a_server_of_the_mesh(dns: Dns) -> None:
    dns.mesh.manage()
    dns.mesh.maps["km_backend"].delete(u32(DNS_BACKEND))
    with dns.mesh.udp_client() as client:
        source = dns.query(client, dns.asked, taken_by=dns.asked)
        assert source == dns.asked, f"expected the answer of {dns.asked}, seen {source}"
        assert_none(dns.mesh.storage(client))
        dns.mesh.backend(DNS_BACKEND, dns.server)
        dns.query(client, dns.asked, taken_by=dns.server)


@pytest.mark.ours
def test_dns_query_of_a_socket_that_gets_no_storage_stays(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        with no_memory_for_storage():
            source = dns.query(client, dns.asked, taken_by=dns.asked)
        assert source == dns.asked, f"expected the answer of {dns.asked}, seen {source}"
        assert_none(dns.mesh.storage(client))
        dns.query(client, dns.asked, taken_by=dns.server)


def test_query_to_another_port_than_53_stays(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        dns.query(client, dns.stranger, taken_by=dns.stranger)
        assert_none(dns.mesh.storage(client))
        dns.query(client, dns.asked, taken_by=dns.server)


@pytest.mark.parametrize("connected", [False, True], ids=["unconnected", "connected"])
def test_answer_seems_to_come_from_the_server_that_was_asked(dns: Dns, connected: bool) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        if connected:
            client.connect(dns.asked)
            client.send(b"query")
            dns.answer(dns.server)
            source = address(client.recvfrom(64)[1])
        else:
            source = dns.query(client, dns.asked, taken_by=dns.server)
    assert source == dns.asked, f"expected the answer of {dns.asked}, seen {source}"


def test_answer_keeps_its_source_once_the_netns_is_unmanaged(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        for _ in range(2):
            client.sendto(b"query", dns.asked)
            dns.answer(dns.server)
        dns.mesh.control(UNMANAGE)
        source = address(client.recvfrom(64)[1])
        assert source == dns.server, f"expected the answer of {dns.server}, seen {source}"
        dns.mesh.manage()
        source = address(client.recvfrom(64)[1])
        assert source == dns.asked, f"expected the answer of {dns.asked}, seen {source}"


def test_two_sockets_that_ask_at_once_get_each_its_own_answer(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as first, dns.mesh.udp_client() as second:
        for client, asked in ((first, dns.asked), (second, dns.second)):
            client.sendto(b"query", asked)
            dns.answer(dns.server)
        for client, asked in ((second, dns.second), (first, dns.asked)):
            source = address(client.recvfrom(64)[1])
            assert source == asked, f"expected the answer of {asked}, seen {source}"


@pytest.mark.ours
def test_answer_to_the_second_of_two_servers_seems_to_come_from_the_second(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        for asked in (dns.asked, dns.second):
            source = dns.query(client, asked, taken_by=dns.server)
            assert source == asked, f"expected the answer of {asked}, seen {source}"


@pytest.mark.ours
def test_answer_of_a_stranger_keeps_its_source(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        # Before any query of this socket, and after one.
        for asked, taken_by in (
            (dns.stranger, dns.stranger),
            (dns.asked, dns.server),
            (dns.stranger, dns.stranger),
        ):
            source = dns.query(client, asked, taken_by=taken_by)
            assert source == asked, f"expected the answer of {asked}, seen {source}"


@pytest.mark.ours
def test_datagram_of_another_name_server_keeps_its_source(dns: Dns) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        client.bind((V4.host(8), 0))
        dns.query(client, dns.asked, taken_by=dns.server)
        dns.send(dns.second, client.getsockname())
        received = client.recvfrom(64)
        assert received == (b"answer", dns.second), f"expected it of {dns.second}, seen {received}"


@pytest.mark.ours
@pytest.mark.parametrize("storage", [None, Storage(connect_ns=1)], ids=["no storage", "storage"])
def test_datagram_to_a_socket_without_an_original_changes_neither_source_nor_storage(
    dns: Dns, storage: Storage | None
) -> None:
    dns.mesh.manage()
    with dns.mesh.udp_client() as client:
        client.bind((V4.host(8), 0))
        if storage is not None:
            dns.mesh.maps["km_sockstorage"].update(u32(client.fileno()), storage.pack())
        dns.send(dns.server, client.getsockname())
        received = client.recvfrom(64)
        assert received == (b"answer", dns.server), f"expected it of {dns.server}, seen {received}"
        assert dns.mesh.storage(client) == storage


@pytest.mark.ours
@pytest.mark.parametrize("port", [DNS_PORT, 5353], ids=["port 53", "another port"])
def test_datagram_of_the_meshs_server_that_answers_no_query_keeps_its_source(
    dns: Dns, port: int
) -> None:
    dns.mesh.manage()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(dns.mesh.udp_client())
        client.bind((V4.host(8), 0))
        sender = (dns.server[0], port)
        if port == DNS_PORT:
            dns.send(sender, client.getsockname())
        else:
            # Of another port no datagram answers a query, also after one.
            dns.query(client, dns.asked, taken_by=dns.server)
            stack.enter_context(udp_server(sender)).sendto(b"answer", client.getsockname())
        received = client.recvfrom(64)
        assert received == (b"answer", sender), f"expected b'answer' of {sender}, seen {received}"
        source = dns.query(client, dns.asked, taken_by=dns.server)
        assert source == dns.asked, f"expected the answer of {dns.asked}, seen {source}"


# What user space reads and fills.


def test_maps_have_the_sizes_and_flags_of_the_abi(cgroup_sock: BpfObject) -> None:
    assert_maps(cgroup_sock.maps)


def test_log_level_has_its_section_and_first_value() -> None:
    with BpfObject(object_path("cgroup_sock")) as fresh:
        assert_global(fresh, "bpf_log_level", ".data", 2)


@pytest.mark.ours
def test_log_record_is_the_length_of_a_text_and_the_text(
    mesh: Mesh, cgroup_sock: BpfObject
) -> None:
    mesh.serve(mesh.vip)
    mesh.offer([mesh.pod(1)])
    mesh.maps["km_endpoint"].delete(endpoint_key(SERVICE, 0, 1))
    with logging_at(cgroup_sock, LOG_ERROR) as log:
        mesh.assert_leads(mesh.vip, to=mesh.vip)
        assert_logged(log)
    with logging_at(cgroup_sock, LOG_WARN) as log:
        mesh.assert_leads(mesh.vip, to=mesh.vip)
        assert_logged(log, "cgroup_sock: an endpoint is counted but absent")


@pytest.mark.ours
@pytest.mark.parametrize("policy", [LOCALITY_STRICT, LOCALITY_FAILOVER])
def test_service_that_counts_no_endpoint_is_no_warning(
    mesh: Mesh, cgroup_sock: BpfObject, policy: int
) -> None:
    mesh.serve(mesh.vip)
    mesh.offer(policy=policy)
    with logging_at(cgroup_sock, LOG_WARN) as log:
        assert_not_stored(mesh.assert_leads(mesh.vip, to=mesh.vip))
        assert_logged(log)


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


# Last, for it takes the longest: whether a random choice is a fair one.


def test_the_fairness_test_is_as_sharp_as_it_has_to_be() -> None:
    low, high = fair_range()
    alarm = 1 - chance_of_range(low, high, (1, 1))
    assert alarm < 1e-6, f"a fair choice fails with {alarm}, not below 0.000001"
    power = 1 - chance_of_range(low, high, (3, 2))
    assert power >= 0.999, f"a choice of 60 to 40 fails with {power}, not with 0.999 or more"


@v4_and_v6
def test_random_policy_takes_two_endpoints_equally_often(mesh: Mesh) -> None:
    pods = [mesh.pod(1), mesh.pod(2)]
    mesh.serve(mesh.vip, *pods)
    mesh.offer(pods, policy=RANDOM)
    taken = mesh.tally(mesh.vip, TIMES)
    assert set(taken) == set(pods), f"expected {pods}, seen {dict(taken)}"
    low, high = fair_range()
    seen = taken[pods[0]]
    assert low <= seen <= high, f"{pods[0]}: expected {low} to {high} of {TIMES}, seen {seen}"


# What the checks above are made of.


@contextlib.contextmanager
def no_memory_for_storage() -> Iterator[None]:
    """No socket of this namespace gets another storage: they count as its option memory."""
    limit = pathlib.Path("/proc/sys/net/core/optmem_max")
    before = limit.read_text()
    limit.write_text("1")
    try:
        yield
    finally:
        limit.write_text(before)


def ipv6_that_begins_with(ipv4: str, rest: str = "::1") -> str:
    """An IPv6 address whose first word reads as `ipv4`."""
    return f"{socket.inet_aton(ipv4).hex(':', 2)}{rest}"


@contextlib.contextmanager
def tail_calls_emptied(loaded: BpfObject) -> Iterator[None]:
    """Without the programs that the loader puts into the arrays."""
    try:
        for array, slot, _ in tail_calls(loaded):
            loaded.maps[array].delete(u32(slot))
        yield
    finally:
        fill_tail_calls(loaded)


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


def assert_none(storage: Storage | None) -> None:
    """No storage was made."""
    assert storage is None, f"expected no storage, seen {storage}"


def assert_managed(mesh: Mesh, count: int) -> dict[bytes, bytes]:
    """km_manage has `count` entries, which are returned."""
    entries = mesh.maps["km_manage"].items()
    shown = {key.hex(" "): value.hex(" ") for key, value in entries.items()}
    assert len(entries) == count, f"km_manage: expected {count} entries, seen {shown}"
    return entries


def assert_taken_by_all(mesh: Mesh, *pods: Address, times: int = 16) -> None:
    """Of `times` connections to the virtual address each pod takes some, and nobody else any."""
    taken = mesh.tally(mesh.vip, times)
    assert set(taken) == set(pods), f"expected {list(pods)}, seen {dict(taken)}"
