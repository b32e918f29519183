"""sendmsg: a waypoint reads the original destination in front of a connection's first byte."""

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from layouts import Storage, backend_value, ip_addr, original_v4, original_v6, u32
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


class Sender:
    """The loaded program, run on what the sockets put into its SOCKHASH send."""

    def __init__(self, loaded: BpfObject, sockets: OwnMap) -> None:
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
def loaded_sendmsg(storage_of: BpfObject | None = None) -> Iterator[Sender]:
    """The object, loaded and attached; with the storage of another object if given."""
    with BpfObject(object_path("sendmsg")) as loaded:
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
def sender(v6_hosts: None) -> Iterator[Sender]:
    """The program, attached. Tests share it; each makes its own sockets."""
    with loaded_sendmsg() as made:
        yield made


@pytest.mark.parametrize(
    ("family", "storage", "header"),
    [
        pytest.param(V4, TO_WAYPOINT_V4, HEADER_V4, id="v4"),
        pytest.param(V6, TO_WAYPOINT_V6, HEADER_V6, id="v6"),
        pytest.param(MAPPED, TO_WAYPOINT_MAPPED, HEADER_MAPPED, id="mapped"),
    ],
)
def test_first_payload_carries_the_original_destination_in_front(
    sender: Sender, family: Family, storage: Storage, header: bytes
) -> None:
    with sender.connection(family, storage) as met:
        met.client.sendall(b"first payload")
        assert_stream(receive_all(met), header + b"first payload")


def test_second_payload_carries_nothing_in_front(sender: Sender) -> None:
    with sender.connection(V4, TO_WAYPOINT_V4) as met:
        met.client.sendall(b"first")
        first = receive(met.server, len(HEADER_V4) + len(b"first"))
        met.client.sendall(b"second")
        second = receive_all(met)
    assert_stream(first, HEADER_V4 + b"first")
    assert_stream(second, b"second")


def test_socket_without_storage_sends_its_payload_bare(sender: Sender) -> None:
    with sender.connection(V4, None) as met:
        met.client.sendall(b"bare")
        assert_stream(receive(met.server, len(b"bare")), b"bare")
        assert sender.storage(met) is None, "the program made a storage"
        # The same socket, on the same attachment, with storage.
        sender.seed(met, TO_WAYPOINT_V4)
        met.client.sendall(b"control")
        assert_stream(receive_all(met), HEADER_V4 + b"control")


def test_socket_that_does_not_go_via_a_waypoint_sends_its_payload_bare(sender: Sender) -> None:
    direct = Storage(has_set_ip=True, orig_dst=original_v4("8.8.8.8", 53))
    with sender.connection(V4, direct) as met:
        met.client.sendall(b"bare")
        assert_stream(receive(met.server, len(b"bare")), b"bare")
        sender.seed(met, TO_WAYPOINT_V4)
        met.client.sendall(b"control")
        assert_stream(receive_all(met), HEADER_V4 + b"control")


def test_socket_that_was_encoded_before_sends_its_payload_bare(sender: Sender) -> None:
    encoded = Storage(
        via_waypoint=True,
        has_encoded=True,
        has_set_ip=True,
        orig_dst=original_v4("8.8.8.8", 53),
    )
    with sender.connection(V4, encoded) as met:
        met.client.sendall(b"bare")
        assert_stream(receive(met.server, len(b"bare")), b"bare")
        sender.seed(met, TO_WAYPOINT_V4)
        met.client.sendall(b"control")
        assert_stream(receive_all(met), HEADER_V4 + b"control")


def test_storage_says_encoded_after_the_first_payload_and_is_otherwise_unchanged(
    sender: Sender,
) -> None:
    with sender.connection(V4, TO_WAYPOINT_V4) as met:
        before = sender.storage(met)
        met.client.sendall(b"x")
        after = sender.storage(met)
    assert before == TO_WAYPOINT_V4
    assert after == Storage(
        via_waypoint=True,
        has_encoded=True,
        has_set_ip=True,
        orig_dst=original_v4("8.8.8.8", 53),
    )


def test_large_payload_carries_one_header_and_arrives_whole(sender: Sender) -> None:
    payload = os.urandom(100_000)
    with sender.connection(V4, TO_WAYPOINT_V4) as met:
        met.client.sendall(payload)
        stream = receive_all(met)
    assert_stream(stream[: len(HEADER_V4)], HEADER_V4)
    assert len(stream) == len(HEADER_V4) + len(payload), f"{len(stream)} B arrived"
    assert stream[len(HEADER_V4) :] == payload, "the payload behind the header was changed"


def test_every_socket_carries_its_own_original_destination(sender: Sender) -> None:
    other = Storage(via_waypoint=True, has_set_ip=True, orig_dst=original_v4("9.9.9.9", 443))
    with (
        sender.connection(V4, TO_WAYPOINT_V4) as first,
        sender.connection(V4, other) as second,
    ):
        second.client.sendall(b"second")
        first.client.sendall(b"first")
        assert_stream(receive_all(first), HEADER_V4 + b"first")
        header = bytes.fromhex("01 00000006 09090909 01bb fe 00000000")
        assert_stream(receive_all(second), header + b"second")


def test_connection_that_connect4_redirected_tells_the_waypoint_where_it_was_meant_to_go(
    group: Cgroup,
) -> None:
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(BpfObject(object_path("cgroup_sock")))
        sock.load()
        sender = stack.enter_context(loaded_sendmsg(storage_of=sock))
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


def assert_stream(seen: bytes, expected: bytes) -> None:
    """Compares what a server received, and shows both in hexadecimal."""
    assert seen == expected, f"expected {expected.hex(' ')}, received {seen.hex(' ')}"
