"""Real sockets on the loopback device: who listens, who dials, and who really meets whom."""

import contextlib
import ctypes
import os
import selectors
import socket
import struct
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SECONDS = 10.0
"""How long anything may take: far beyond what it does take, on an emulated machine too."""

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h

Address = tuple[str, int]

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_RESET_ON_CLOSE = struct.pack("=ii", 1, 0)  # struct linger


@dataclass(frozen=True)
class Family:
    """A way to dial TCP: IPv4, IPv6, and IPv4 through an AF_INET6 socket of either side.

    `mapped` and `listened` stand in front of an IPv4 address where a socket of the client's, of the
    server's, shows it.
    """

    name: str
    dialling: socket.AddressFamily
    listening: socket.AddressFamily
    prefix: str
    control_host: str
    mapped: str = ""
    listened: str = ""

    def host(self, number: int) -> str:
        """Host `number` (2 to 99), as it listens and as the maps know it."""
        return f"{self.prefix}{number}"

    def dialled(self, host: str) -> str:
        """`host` as a client writes it and as getpeername() shows it there."""
        return self.mapped + host

    def client(self, host: str | None = None) -> socket.socket:
        """An unconnected TCP socket, bound to `host` if given."""
        client = socket.socket(self.dialling)
        client.settimeout(SECONDS)
        if host is not None:
            client.bind((self.dialled(host), 0))
        return client


V4 = Family("v4", socket.AF_INET, socket.AF_INET, "127.96.0.", "0.0.0.2")
# Its four words differ, also when their bytes are swapped: none can stand for another.
V6 = Family("v6", socket.AF_INET6, socket.AF_INET6, "fd00:96:a1:b2:c3:d4:e5:", "::2")
MAPPED = Family("mapped", socket.AF_INET6, socket.AF_INET, "127.96.0.", "::2", mapped="::ffff:")


@dataclass(frozen=True)
class Meeting:
    """A connection, both its ends open."""

    client: socket.socket
    server: socket.socket

    def server_address(self) -> Address:
        """Where the server took it."""
        return address(self.server.getsockname())


def address(name: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    """The host and the port of a socket's name."""
    return name[0], name[1]


@contextlib.contextmanager
def loopback_addresses(*hosts: str) -> Iterator[None]:
    """Gives the loopback device these addresses (with prefix length) for the time being."""
    # Not "add", which would fail over what a run that was killed has left.
    _ip(*(f"addr replace {host} dev lo{' nodad' if ':' in host else ''}" for host in hosts))
    try:
        yield
    finally:
        _ip(*(f"addr del {host} dev lo" for host in hosts))


@contextlib.contextmanager
def listener(family: Family, host: str, port: int = 0) -> Iterator[socket.socket]:
    """A TCP socket that listens on `host`; port 0: on a free one."""
    with socket.socket(family.listening) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.settimeout(SECONDS)
        listening.bind((family.listened + host, port))
        listening.listen(128)
        yield listening


@contextlib.contextmanager
def meeting(client: socket.socket, to: Address, *listeners: socket.socket) -> Iterator[Meeting]:
    """`client` dials `to`, and one of `listeners` takes the connection.

    Closes both ends.
    """
    with client:
        names = [address(listening.getsockname()) for listening in listeners]
        try:
            client.connect(to)
        except OSError as error:
            raise AssertionError(
                f"dialled {to}, expected one of {names}, led to nobody: {error}"
            ) from error
        with accepted_by(*listeners) as server:
            yield Meeting(client, server)


@contextlib.contextmanager
def accepted_by(*listeners: socket.socket) -> Iterator[socket.socket]:
    """The connection that one of `listeners` has waiting; exactly one has."""
    with selectors.DefaultSelector() as selector:
        for listening in listeners:
            selector.register(listening, selectors.EVENT_READ)
        ready = selector.select(SECONDS)
    names = [address(listening.getsockname()) for listening in listeners]
    assert ready, f"nobody was reached within {SECONDS} s; listening: {names}"
    (key, _), *others = ready
    assert not others, f"one connection, {len(ready)} listeners reached; listening: {names}"
    assert isinstance(key.fileobj, socket.socket)
    server, _ = key.fileobj.accept()
    server.settimeout(SECONDS)
    with server:
        yield server


def assert_reached(met: Meeting, family: Family, expected: Address) -> None:
    """Both ends agree that the client reached `expected`, and bytes arrive there."""
    taken = met.server_address()
    assert taken == expected, f"expected the connection at {expected}, it arrived at {taken}"
    shown = address(met.client.getpeername())
    wanted = (family.dialled(expected[0]), expected[1])
    assert shown == wanted, f"the client's getpeername(): expected {wanted}, seen {shown}"
    seen_from = address(met.server.getpeername())
    client_is = address(met.client.getsockname())
    assert (family.dialled(seen_from[0]), seen_from[1]) == client_is, (
        f"the server's getpeername(): expected {client_is}, seen {seen_from}"
    )
    token = uuid.uuid4().bytes
    met.client.sendall(token)
    received = receive(met.server, len(token))
    assert received == token, f"expected {token.hex()} at {taken}, received {received.hex()}"


def round_trip(met: Meeting) -> None:
    """A byte there and a byte back. Once it is done, packets both ways have been seen."""
    met.client.sendall(b"?")
    question = met.server.recv(1)
    assert question == b"?", f"expected a byte at the server, received {question!r}"
    met.server.sendall(b"!")
    answer = met.client.recv(1)
    assert answer == b"!", f"expected a byte at the client, received {answer!r}"


def assert_alive(met: Meeting) -> None:
    """Bytes arrive both ways."""
    for source, sink in ((met.client, met.server), (met.server, met.client)):
        token = uuid.uuid4().bytes
        source.sendall(token)
        received = receive(sink, len(token))
        assert received == token, f"expected {token.hex()}, received {received.hex()}"


def reset_on_close(connection: socket.socket) -> None:
    """Has close() reset the connection: no port waits, no farewell is exchanged."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def made_in_another_netns(make: Callable[[], list[socket.socket]]) -> list[socket.socket]:
    """What `make` makes in a network namespace of its own, which ends with the last of them."""
    made: list[socket.socket] = []
    errors: list[OSError] = []

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        # Of this thread alone, whose end leaves the namespace to the sockets.
        if libc.unshare(_CLONE_NEWNET):
            errors.append(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare"))
            return
        made.extend(make())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert made, f"no socket in another network namespace: {errors}"
    return made


@contextlib.contextmanager
def deaf(connection: socket.socket) -> Iterator[None]:
    """The socket's end drops every segment that arrives, as if the network had."""
    # struct sock_filter: BPF_RET, 0 bytes; struct sock_fprog: its length and address.
    drop = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0), 8)
    program = struct.pack("@HP", 1, ctypes.addressof(drop))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    try:
        yield
    finally:
        connection.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def receive(source: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or what came before the end of the stream."""
    received = bytearray()
    while len(received) < size:
        piece = source.recv(size - len(received))
        if not piece:
            break
        received += piece
    return bytes(received)


def receive_all(met: Meeting) -> bytes:
    """Everything the client ever sent: ends the client's direction and reads up to there."""
    met.client.shutdown(socket.SHUT_WR)
    return receive_rest(met.server)


def receive_rest(source: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    received = bytearray()
    while piece := source.recv(1 << 16):
        received += piece
    return bytes(received)


def _ip(*commands: str) -> None:
    # All in one process: under emulation starting one costs more than what it does.
    batch = "".join(f"{command}\n" for command in commands)
    done = subprocess.run(
        ["ip", "-batch", "-"], input=batch, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"ip -batch: {batch}{done.stderr.strip()}"
