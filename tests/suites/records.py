"""Records of connections, held against what the kernel itself says of them."""

import contextlib
import select
import socket
import struct
from collections.abc import Iterator

from layouts import Probe
from traffic import SECONDS

from vmtest.guest.maps import Map
from vmtest.guest.ringbuf import RingBuffer

INTERVAL_NS = 5_000_000_000
"""A connection is not reported again before this."""


TCPI_OPT_ECN = 8


class TcpInfo:
    """What getsockopt(TCP_INFO) says: struct tcp_info of linux/tcp.h."""

    def __init__(self, connection: socket.socket) -> None:
        value = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 152)
        self.ecn = bool(value[5] & TCPI_OPT_ECN)
        (self.lost,) = struct.unpack_from("=I", value, 32)
        (self.srtt_us,) = struct.unpack_from("=I", value, 68)
        (self.total_retrans,) = struct.unpack_from("=I", value, 100)
        self.bytes_acked, self.bytes_received = struct.unpack_from("=QQ", value, 120)
        (self.min_rtt_us,) = struct.unpack_from("=I", value, 148)


@contextlib.contextmanager
def waking_its_reader(ring: Map) -> Iterator[None]:
    """Who sleeps until an empty ring has a record is woken by what the block has made."""
    with select.epoll() as sleeper:
        sleeper.register(ring.fd, select.EPOLLIN)
        assert not sleeper.poll(0), f"{ring.name}: there was a record before"
        yield
        assert sleeper.poll(SECONDS), f"{ring.name}: nobody was woken within {SECONDS} s"


def taken(ring: RingBuffer, count: int = 0) -> list[Probe]:
    """The records of km_tcp_probe since the last time; waits for at least `count`."""
    try:
        return [Probe.unpack(record) for record in ring.wait(count, SECONDS)]
    except TimeoutError as error:
        raise AssertionError(str(error)) from error


def assert_counters(record: Probe, info: TcpInfo) -> None:
    """The record counts what the kernel counts."""
    expected = (
        info.bytes_acked,
        info.bytes_received,
        info.srtt_us,
        info.min_rtt_us,
        info.total_retrans,
        info.lost,
    )
    seen = (
        record.sent_bytes,
        record.received_bytes,
        record.srtt_us >> 3,
        record.rtt_min,
        record.total_retrans,
        record.lost_out,
    )
    assert seen == expected, f"expected {expected} as TCP_INFO has it, seen {seen}"


def only(records: list[Probe]) -> Probe:
    """The record, of which there must be exactly one."""
    assert len(records) == 1, f"expected one record, seen {len(records)}: {records}"
    return records[0]


def assert_bytes(what: str, seen: bytes, expected: bytes) -> None:
    """Compares, and shows both in hexadecimal."""
    assert seen == expected, f"{what}: expected {expected.hex(' ')}, seen {seen.hex(' ')}"


def assert_zeros_behind_ipv4(record: Probe) -> None:
    """The record is of IPv4, and the bytes of its unions that only IPv6 uses are zeros."""
    assert record.type == 0, f"type: expected 0, IPv4, seen {record.type}"
    assert_bytes("tuple", record.tuple, record.ends.ljust(36, b"\0"))
    assert_bytes("orig_dst", record.orig_dst, record.original.ljust(20, b"\0"))
