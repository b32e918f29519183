"""A small mesh: the maps of cgroup_sock filled as a control plane would, and servers to reach."""

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from layouts import RANDOM, Storage, backend_value, endpoint_key, ip_addr, service_value, u32
from traffic import (
    SECONDS,
    Address,
    Family,
    Meeting,
    address,
    assert_reached,
    listener,
    made_in_another_netns,
    meeting,
    reset_on_close,
)

from vmtest.guest.cgroup import Cgroup
from vmtest.guest.libbpf import LibbpfError
from vmtest.guest.objects import BpfObject, Program

MANAGE, UNMANAGE = 929, 930
SERVICE_PORT, TARGET_PORT, WAYPOINT_PORT = 8080, 18080, 15008

SERVICE = 7
"""The id of the service in tests that have one."""

BATCH = 100
"""Connections open at a time, fewer than a listener's queue holds."""

FILLED_MAPS = ("km_manage", "km_frontend", "km_service", "km_endpoint", "km_backend")


class Mesh:
    """One test's mesh: fills the maps, runs the servers, and dials from the test's own group."""

    def __init__(
        self, loaded: BpfObject, group: Cgroup, family: Family, stack: contextlib.ExitStack
    ) -> None:
        self.maps = loaded.maps
        self.family = family
        self.vip = (family.host(2), SERVICE_PORT)
        self.waypoint = (family.host(9), WAYPOINT_PORT)
        self._group = group
        self._stack = stack
        self._listeners: list[socket.socket] = []

    def pod(self, number: int) -> Address:
        """The address of pod 1 to 5: its host is no other's, its port the service's target."""
        return self.family.host(number + 2), TARGET_PORT

    def serve(self, *places: Address) -> None:
        """Starts a listener on each, until the test ends."""
        for host, port in places:
            made = self._stack.enter_context(listener(self.family, host, port))
            self._listeners.append(made)

    # What the control plane does.

    def control(
        self,
        port: int,
        kind: socket.SocketKind = socket.SOCK_STREAM,
        host: str | None = None,
    ) -> None:
        """Dials the control address (`host`: as another one), by TCP or UDP."""
        with self._group.entered():
            client = socket.socket(self.family.dialling, kind)
        with client:
            self.dial_control(client, port, host)

    def clients_of_another_netns(self, count: int) -> list[socket.socket]:
        """TCP sockets that the programs see, all in one namespace; the test's end closes them."""
        with self._group.entered():
            made = made_in_another_netns(
                lambda: [socket.socket(self.family.dialling) for _ in range(count)]
            )
        return [self._stack.enter_context(client) for client in made]

    def dial_control(self, client: socket.socket, port: int, host: str | None = None) -> None:
        """Dials the control address, where nobody answers; the programs have nothing against it."""
        client.setblocking(False)
        code = client.connect_ex((host or self.family.control_host, port))
        assert code != errno.EPERM, f"dialling port {port} was forbidden"

    def manage(self) -> None:
        """Has the network namespace managed."""
        self.control(MANAGE)

    def frontend(self, place: Address, upstream: int) -> None:
        """The host of `place` is the address of a service or of a backend."""
        self.maps["km_frontend"].update(ip_addr(place[0]), u32(upstream))

    def backend(
        self, backend: int, place: Address, waypoint: tuple[str | None, int] | None = None
    ) -> None:
        """A pod on the host of `place`; a waypoint's host may be left unset."""
        self.maps["km_backend"].update(u32(backend), backend_value(place[0], waypoint))

    def service(
        self,
        *endpoints: Sequence[Address],
        policy: int = RANDOM,
        ports: Sequence[tuple[int, int]] = ((SERVICE_PORT, TARGET_PORT),),
        waypoint: Address | None = None,
        service: int = SERVICE,
    ) -> None:
        """A service: for each priority, from 0 on, its endpoints, and a backend for each."""
        counts = tuple(len(places) for places in endpoints)
        self.maps["km_service"].update(
            u32(service), service_value(counts, policy, tuple(ports), waypoint)
        )
        for priority, places in enumerate(endpoints):
            for index, place in enumerate(places, start=1):
                self.backend(backend_id(priority, index, service), place)
                self.maps["km_endpoint"].update(
                    endpoint_key(service, priority, index),
                    u32(backend_id(priority, index, service)),
                )

    def offer(
        self,
        *endpoints: Sequence[Address],
        policy: int = RANDOM,
        ports: Sequence[tuple[int, int]] = ((SERVICE_PORT, TARGET_PORT),),
        waypoint: Address | None = None,
    ) -> None:
        """Has the network namespace managed, and the VIP lead to a service of these endpoints."""
        self.manage()
        self.frontend(self.vip, SERVICE)
        self.service(*endpoints, policy=policy, ports=ports, waypoint=waypoint)

    # What the application does.

    def client(self) -> socket.socket:
        """An unconnected TCP socket that the programs see; the caller closes it."""
        with self._group.entered():
            return self.family.client()

    def udp_client(self) -> socket.socket:
        """An unconnected UDP socket that the programs see; the caller closes it."""
        with self._group.entered():
            client = socket.socket(self.family.dialling, socket.SOCK_DGRAM)
        client.settimeout(SECONDS)
        return client

    @contextlib.contextmanager
    def dial(self, place: Address, client: socket.socket | None = None) -> Iterator[Meeting]:
        """A connection to `place`, or wherever it leads. Closes both ends."""
        dialled = (self.family.dialled(place[0]), place[1])
        with meeting(client or self.client(), dialled, *self._listeners) as met:
            yield met

    def assert_leads(self, place: Address, to: Address) -> Storage | None:
        """Dialling `place` reaches `to`, as both ends see it. Returns the client's storage."""
        with self.dial(place) as met:
            assert_reached(met, self.family, to)
            return self.storage(met.client)

    def tally(self, place: Address, times: int) -> Counter[Address]:
        """Who takes each of `times` connections to `place`, in batches and without a byte sent.

        What the clients' getpeername() shows, which has to be what the servers accepted.
        """
        dialled = (self.family.dialled(place[0]), place[1])
        shown: Counter[Address] = Counter()
        accepted: Counter[Address] = Counter()
        for begin in range(0, times, BATCH):
            with contextlib.ExitStack() as closing:
                with self._group.entered():
                    clients = [
                        closing.enter_context(socket.socket(self.family.dialling))
                        for _ in range(min(BATCH, times - begin))
                    ]
                for client in clients:
                    reset_on_close(client)
                    client.settimeout(SECONDS)
                    client.connect(dialled)
                    host, port, *_ = client.getpeername()
                    shown[host.removeprefix(self.family.mapped), port] += 1
                for listening in self._listeners:
                    accepted[address(listening.getsockname())] += _accept_all(listening)
        assert shown == +accepted, f"the clients' ends: {shown}, but the servers': {accepted}"
        return shown

    def storage(self, client: socket.socket) -> Storage | None:
        """What the programs remember of a socket."""
        value = self.maps["km_sockstorage"].lookup(u32(client.fileno()))
        return None if value is None else Storage.unpack(value)


def tail_calls(loaded: BpfObject) -> tuple[tuple[str, int, str], ...]:
    """Where a program calls itself after a waypoint: array, slot and program.

    Releases of upstream up to v1.2.0 have one array for both.
    """
    second = "km_cgr_tail6" if "km_cgr_tail6" in loaded.maps else "km_cgr_tailcall"
    return ("km_cgr_tailcall", 0, "cgroup_connect4_prog"), (second, 1, "cgroup_connect6_prog")


def fill_tail_calls(loaded: BpfObject, called: Mapping[str, Program] | None = None) -> None:
    """Has the programs call themselves after a waypoint; or those of the same keys in `called`."""
    programs = loaded.programs if called is None else called
    for array, slot, name in tail_calls(loaded):
        try:
            loaded.maps[array].update(u32(slot), u32(programs[name].fd))
        except LibbpfError as error:
            # An array that connect4 calls into takes no connect6, as newer kernels have it.
            if error.errno != errno.EINVAL or "km_cgr_tail6" in loaded.maps or slot == 0:
                raise


def backend_id(priority: int, index: int, service: int = SERVICE) -> int:
    """The id Mesh.service() gives to the backend of an endpoint."""
    return 1000 * service + 100 * priority + index


def _accept_all(listening: socket.socket) -> int:
    """Takes and closes the connections that wait; how many there were."""
    taken = 0
    listening.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            taken += 1
    listening.settimeout(SECONDS)
    return taken
