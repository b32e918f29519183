"""sendmsg: a waypoint reads the original destination in front of a connection's first byte."""

import contextlib
import dataclasses
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Needed
from layouts import Storage, assert_maps, backend_value, ip_addr, original_v4, original_v6, u32
from messages import LOG_ERROR, assert_logged, logging_at
from traffic import (
    MAPPED,
    V4,
    V6,
    Family,
    Meeting,
    accepted_by,
    address,
    listener,
    meeting,
    receive,
    receive_all,
)

from vmtest.guest.attach import attached_to_cgroup, attached_to_sockhash
from vmtest.guest.cgroup import Cgroup
from vmtest.guest.maps import TYPE_SOCKHASH, OwnMap
from vmtest.guest.objects import BpfObject
from vmtest.guest.payload import object_path

SK_MSG, SK_MSG_VERDICT = 16, 7  # enum bpf_prog_type, enum bpf_attach_type

TO_WAYPOINT_V4 = Storage(via_waypoint=True, has_set_ip=True, orig_dst=original_v4("8.8.8.8", 53))
TO_WAYPOINT_V6 = Storage(
    via_waypoint=True, has_set_ip=True, orig_dst=original_v6("2001:db8::8:7", 853)
)
TO_WAYPOINT_MAPPED = Storage(
    via_waypoint=True, has_set_ip=True, orig_dst=original_v6("::ffff:8.8.8.8", 53)
)
HEADER_V4 = bytes.fromhex("01 00000006 08080808 0035 fe 00000000")
HEADER_V6 = bytes.fromhex("01 00000012 20010db8000000000000000000080007 0355 fe 00000000")
HEADER_MAPPED = bytes.fromhex("01 00000012 00000000000000000000ffff08080808 0035 fe 00000000")


PUSH_REAL, PUSH_REFUSED, PUSH_OUT_OF_REACH, PUSH_DIRTY = 0, 1, 2, 3  # of bpf/mocks/sendmsg.bpf.c

to_waypoint = pytest.mark.parametrize(
    ("family", "storage", "header"),
    [
        pytest.param(V4, TO_WAYPOINT_V4, HEADER_V4, id="v4"),
        pytest.param(V6, TO_WAYPOINT_V6, HEADER_V6, id="v6"),
        pytest.param(MAPPED, TO_WAYPOINT_MAPPED, HEADER_MAPPED, id="mapped"),
    ],
)


class Sender:
    """The loaded program, run on what the sockets put into its SOCKHASH send."""

    def __init__(self, loaded: BpfObject, sockets: OwnMap) -> None:
        self.loaded = loaded
        self._storage = loaded.maps["km_sockstorage"]
        self._sockets = sockets

    @contextlib.contextmanager
    def connection(self, family: Family, storage: Storage | None) -> Iterator[Meeting]:
        """A connection whose client has `storage`, if any, and is in the SOCKHASH."""
        with (
            listener(family, family.host(2)) as listening,
            meeting(
                family.client(),
                (family.dialled(family.host(2)), address(listening.getsockname())[1]),
                listening,
            ) as met,
        ):
            if storage is not None:
                self.seed(met, storage)
            self.watch(met.client)
            yield met

    def watch(self, client: socket.socket) -> None:
        """Puts a connected socket into the SOCKHASH."""
        # The key is the program's to use, and it uses none: any 36 bytes will do.
        self._sockets.update(os.urandom(self._sockets.key_size), u32(client.fileno()))

    def seed(self, met: Meeting, storage: Storage) -> None:
        """Gives the client storage, as connect4 would have."""
        self._storage.update(u32(met.client.fileno()), storage.pack())

    def storage(self, met: Meeting) -> Storage | None:
        """What the client's storage holds."""
        value = self._storage.lookup(u32(met.client.fileno()))
        return None if value is None else Storage.unpack(value)


@contextlib.contextmanager
def loaded_sendmsg(
    needed: Needed, storage_of: BpfObject | None = None, name: str = "sendmsg"
) -> Iterator[Sender]:
    """The object `name`, loaded and attached; with the storage of another object if given."""
    with BpfObject(object_path(name)) as loaded:
        needed(loaded, "sendmsg_prog", "km_sockstorage")
        program = loaded.programs["sendmsg_prog"]
        # libbpf 1.x knows the section `sk_msg` and refuses `sk_msg/NAME`.
        program.set_kind(SK_MSG, SK_MSG_VERDICT)
        if storage_of is not None:
            loaded.reuse_maps(storage_of, ["km_sockstorage"])
        loaded.load()
        with (
            OwnMap.create(TYPE_SOCKHASH, "test_sockets", 36, 4, 64) as sockets,
            attached_to_sockhash(program, sockets),
        ):
            yield Sender(loaded, sockets)


@pytest.fixture(scope="module")
def sender(v6_hosts: None, needed: Needed) -> Iterator[Sender]:
    """The program, attached. Tests share it; each makes its own sockets."""
    with loaded_sendmsg(needed) as made:
        yield made


@pytest.fixture(scope="module")
def mock(v6_hosts: None, needed: Needed) -> Iterator[Sender]:
    """The program in the mock, attached. Tests share it."""
    with loaded_sendmsg(needed, name="mock_sendmsg") as made:
        yield made


def test_maps_have_the_sizes_and_flags_of_the_abi(sender: Sender) -> None:
    assert_maps(sender.loaded.maps)


@to_waypoint
def test_first_payload_carries_the_original_destination_in_front(
    sender: Sender, family: Family, storage: Storage, header: bytes
) -> None:
    with sender.connection(family, storage) as met:
        met.client.sendall(b"first payload")
        assert_stream(receive_all(met), header + b"first payload")


@to_waypoint
def test_second_payload_carries_nothing_in_front(
    sender: Sender, family: Family, storage: Storage, header: bytes
) -> None:
    with sender.connection(family, storage) as met:
        met.client.sendall(b"first")
        assert_stream(receive(met.server, len(header + b"first")), header + b"first")
        met.client.sendall(b"second")
        assert_stream(receive_all(met), b"second")


@to_waypoint
def test_socket_without_storage_sends_its_payload_bare_and_gets_none(
    sender: Sender, family: Family, storage: Storage, header: bytes
) -> None:
    with sender.connection(family, None) as met:
        met.client.sendall(b"bare")
        assert_stream(receive(met.server, len(b"bare")), b"bare")
        made = sender.storage(met)
        assert made is None, f"expected no storage, seen {made}"
        # The same socket, on the same attachment, with storage.
        sender.seed(met, storage)
        met.client.sendall(b"control")
        assert_stream(receive_all(met), header + b"control")


@pytest.mark.parametrize(
    "unlike",
    [{"via_waypoint": False}, {"has_encoded": True}],
    ids=["not via a waypoint", "encoded before"],
)
@to_waypoint
def test_socket_that_needs_no_header_sends_its_payload_bare(
    sender: Sender, family: Family, storage: Storage, header: bytes, unlike: dict[str, Any]
) -> None:
    bare = dataclasses.replace(storage, **unlike)
    with sender.connection(family, bare) as met:
        met.client.sendall(b"bare")
        assert_stream(receive(met.server, len(b"bare")), b"bare")
        assert_storage(sender.storage(met), bare)
        sender.seed(met, storage)
        met.client.sendall(b"control")
        assert_stream(receive_all(met), header + b"control")


def test_header_is_due_even_where_no_original_destination_is_stored(sender: Sender) -> None:
    with sender.connection(V4, Storage(via_waypoint=True)) as met:
        met.client.sendall(b"x")
        header = bytes.fromhex("01 00000006 00000000 0000 fe 00000000")
        assert_stream(receive_all(met), header + b"x")


@to_waypoint
def test_storage_says_encoded_after_the_first_payload_and_is_otherwise_unchanged(
    sender: Sender, family: Family, storage: Storage, header: bytes
) -> None:
    # Every field has a value of its own.
    full = dataclasses.replace(
        storage, connect_ns=1 << 40, last_report_ns=1 << 41, direction=2, connect_success=1
    )
    with sender.connection(family, full) as met:
        assert_storage(sender.storage(met), full)
        met.client.sendall(b"x")
        assert_storage(sender.storage(met), dataclasses.replace(full, has_encoded=True))
        assert_stream(receive_all(met), header + b"x")


@to_waypoint
def test_large_payload_carries_one_header_and_arrives_whole(
    sender: Sender, family: Family, storage: Storage, header: bytes
) -> None:
    payload = os.urandom(100_000)
    with sender.connection(family, storage) as met:
        met.client.sendall(payload)
        assert_long_stream(receive_all(met), header, payload)


def test_payload_in_many_pieces_carries_one_header(sender: Sender) -> None:
    pieces = [bytes([number]) * 50 for number in range(200)]
    with sender.connection(V4, TO_WAYPOINT_V4) as met:
        sent = met.client.sendmsg(pieces)
        assert sent == 10_000, f"expected 10000 B to be taken, seen {sent}"
        assert_long_stream(receive_all(met), HEADER_V4, b"".join(pieces))


def test_payload_of_a_file_carries_one_header(sender: Sender) -> None:
    payload = os.urandom(50_000)
    with (
        sender.connection(V4, TO_WAYPOINT_V4) as met,
        tempfile.TemporaryFile() as file,
    ):
        file.write(payload)
        sent = met.client.sendfile(file, 0)
        assert sent == len(payload), f"expected {len(payload)} B to be taken, seen {sent}"
        assert_long_stream(receive_all(met), HEADER_V4, payload)


def test_every_socket_carries_its_own_original_destination(sender: Sender) -> None:
    other = Storage(via_waypoint=True, has_set_ip=True, orig_dst=original_v4("9.9.9.9", 443))
    with (
        sender.connection(V4, TO_WAYPOINT_V4) as first,
        sender.connection(V4, other) as second,
        sender.connection(V6, TO_WAYPOINT_V6) as third,
        sender.connection(V4, None) as fourth,
    ):
        for met, payload in ((fourth, b"4"), (second, b"2"), (third, b"3"), (first, b"1")):
            met.client.sendall(payload)
        assert_stream(receive_all(first), HEADER_V4 + b"1")
        header = bytes.fromhex("01 00000006 09090909 01bb fe 00000000")
        assert_stream(receive_all(second), header + b"2")
        assert_stream(receive_all(third), HEADER_V6 + b"3")
        assert_stream(receive_all(fourth), b"4")


# What the kernel does only without memory, or never: bpf/mocks/sendmsg.bpf.c.


@pytest.mark.ours
@to_waypoint
def test_message_whose_push_fails_goes_out_bare_and_no_push_is_tried_again(
    mock: Sender, family: Family, storage: Storage, header: bytes
) -> None:
    with (
        befallen(mock, push=PUSH_REFUSED, pushes=0),
        mock.connection(family, storage) as met,
        logging_at(mock.loaded, LOG_ERROR) as log,
    ):
        met.client.sendall(b"first")
        assert_stream(receive(met.server, len(b"first")), b"first")
        assert_logged(log, "sendmsg: no room for the original destination")
        assert_storage(mock.storage(met), dataclasses.replace(storage, has_encoded=True))
        mock.loaded.set_global("push", PUSH_REAL)
        met.client.sendall(b"second")
        assert_stream(receive_all(met), b"second")
        pushes = mock.loaded.get_global("pushes")
        assert pushes == 1, f"expected one push, seen {pushes}"
    with mock.connection(family, storage) as met:
        met.client.sendall(b"control")
        assert_stream(receive_all(met), header + b"control")


@pytest.mark.ours
@to_waypoint
def test_message_whose_room_is_out_of_reach_goes_out_bare(
    mock: Sender, family: Family, storage: Storage, header: bytes
) -> None:
    with (
        befallen(mock, push=PUSH_OUT_OF_REACH),
        mock.connection(family, storage) as met,
        logging_at(mock.loaded, LOG_ERROR) as log,
    ):
        met.client.sendall(b"first")
        met.client.sendall(b"second")
        assert_stream(receive_all(met), b"firstsecond")
        assert_logged(log, "sendmsg: the room for the original destination is out of reach")
    with mock.connection(family, storage) as met:
        met.client.sendall(b"control")
        assert_stream(receive_all(met), header + b"control")


@pytest.mark.ours
@to_waypoint
def test_header_covers_whatever_the_new_page_held(
    mock: Sender, family: Family, storage: Storage, header: bytes
) -> None:
    with befallen(mock, push=PUSH_DIRTY), mock.connection(family, storage) as met:
        met.client.sendall(b"first")
        assert_stream(receive_all(met), header + b"first")


@pytest.mark.ours
def test_socket_of_another_family_sends_its_payload_bare(mock: Sender) -> None:
    with mock.connection(V4, TO_WAYPOINT_V4) as met:
        with befallen(mock, other_family=1):
            met.client.sendall(b"bare")
            assert_stream(receive(met.server, len(b"bare")), b"bare")
            assert_storage(mock.storage(met), TO_WAYPOINT_V4)
        met.client.sendall(b"control")
        assert_stream(receive_all(met), HEADER_V4 + b"control")


# Together with connect4.


def test_connection_that_connect4_redirected_tells_the_waypoint_where_it_was_meant_to_go(
    group: Cgroup, needed: Needed
) -> None:
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(BpfObject(object_path("cgroup_sock")))
        needed(sock, "cgroup_connect4_prog", "km_frontend", "km_backend", "km_sockstorage")
        sock.load()
        sender = stack.enter_context(loaded_sendmsg(needed, storage_of=sock))
        stack.enter_context(attached_to_cgroup(sock.programs["cgroup_connect4_prog"], group))
        waypoint = stack.enter_context(listener(V4, V4.host(9)))
        with group.entered():
            control, client = (stack.enter_context(V4.client()) for _ in range(2))
        control.connect_ex(("0.0.0.2", 929))
        sock.maps["km_frontend"].update(ip_addr("127.8.8.8"), u32(1))
        sock.maps["km_backend"].update(
            u32(1), backend_value("127.8.8.8", address(waypoint.getsockname()))
        )
        client.connect(("127.8.8.8", 8053))
        server = stack.enter_context(accepted_by(waypoint))
        sender.watch(client)
        client.sendall(b"hello")
        header = bytes.fromhex("01 00000006 7f080808 1f75 fe 00000000")
        assert_stream(receive_all(Meeting(client, server)), header + b"hello")


# What the checks above are made of.


@contextlib.contextmanager
def befallen(mock: Sender, **switches: int) -> Iterator[None]:
    """Sets the mock's variables, and puts all of them back behind."""
    for name, value in switches.items():
        mock.loaded.set_global(name, value)
    try:
        yield
    finally:
        for name in ("push", "pushes", "other_family"):
            mock.loaded.set_global(name, 0)


def assert_stream(seen: bytes, expected: bytes) -> None:
    """Compares what a server received, and shows both in hexadecimal."""
    assert seen == expected, f"expected {expected.hex(' ')}, received {seen.hex(' ')}"


def assert_long_stream(seen: bytes, header: bytes, payload: bytes) -> None:
    """Compares what a server received with `header` and `payload`, and shows where they part."""
    assert_stream(seen[: len(header)], header)
    received = seen[len(header) :]
    assert len(received) == len(payload), (
        f"expected {len(payload)} B behind the header, received {len(received)} B"
    )
    for at in range(0, len(payload), 16):
        expected, piece = payload[at : at + 16], received[at : at + 16]
        assert piece == expected, (
            f"from byte {at} of the payload on: expected {expected.hex(' ')}, "
            f"received {piece.hex(' ')}"
        )


def assert_storage(seen: Storage | None, expected: Storage) -> None:
    """Compares what a socket's storage holds."""
    assert seen == expected, f"expected {expected}, seen {seen}"
