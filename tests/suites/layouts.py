"""The bytes of the ABI, written down a second time.

Never taken from the headers of bpf/: a layout that changes there has to disagree with this file.
All machines vmtest runs on are little-endian; addresses and most ports are in network order.
"""

import ipaddress
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from vmtest.guest.maps import Map
from vmtest.guest.objects import BpfObject

HASH, PROG_ARRAY, SOCKHASH, SK_STORAGE, RINGBUF = 1, 3, 18, 24, 27  # enum bpf_map_type
MAPS = {
    # name: type, bytes of a key, bytes of a value, entries (of a ring: bytes)
    "km_manage": (HASH, 16, 4, 8192),
    "km_sockstorage": (SK_STORAGE, 4, 64, 0),
    "km_frontend": (HASH, 16, 4, 105000),
    "km_service": (HASH, 4, 132, 5000),
    "km_endpoint": (HASH, 12, 4, 105000),
    "km_backend": (HASH, 4, 80, 100000),
    "km_tcp_probe": (RINGBUF, 0, 0, 256 * 1024),
    "km_cgr_tailcall": (PROG_ARRAY, 4, 4, 8),
    "km_cgr_tail6": (PROG_ARRAY, 4, 4, 8),
    "km_log_event": (RINGBUF, 0, 0, 256 * 1024),
    "km_socket": (SOCKHASH, 36, 4, 8192),
    "km_auth_req": (RINGBUF, 0, 0, 4096),
    "km_auth_res": (HASH, 36, 4, 8192),
}
BPF_F_NO_PREALLOC = 1
FLAGS = {
    HASH: BPF_F_NO_PREALLOC,
    SK_STORAGE: BPF_F_NO_PREALLOC,
    PROG_ARRAY: 0,
    SOCKHASH: 0,
    RINGBUF: 0,
}
LACKING = {
    # What an object of upstream may lack, and a release that does.
    "bpf_redirect_dns_send": "v1.1.0",
    "bpf_restore_dns_recv": "v1.1.0",
    "km_cgr_tail6": "v1.2.0",
}

PRIORITIES = 7

RANDOM, LOCALITY_STRICT, LOCALITY_FAILOVER = 0, 1, 2
INBOUND, OUTBOUND = 1, 2
ESTABLISHED, CLOSED = 1, 7

_STORAGE = struct.Struct("<QQBB???3x36s4x")
_SERVICE = struct.Struct("<7I I 40s 40s 16s 4s")
_ENDPOINT = struct.Struct("<III")
_BACKEND = struct.Struct("<16s I 40s 16s 4s")
_PROBE = struct.Struct("<I 36s 20s 5I 3Q 5I 4s")


def assert_maps(maps: Mapping[str, Map]) -> None:
    """Those of `maps` that the ABI knows have its type, sizes, entries and flags."""
    for name, found in maps.items():
        if name not in MAPS:
            continue
        seen = (found.kind, found.key_size, found.value_size, found.max_entries, found.flags)
        expected = (*MAPS[name], FLAGS[MAPS[name][0]])
        assert seen == expected, (
            f"{name}: expected type, key, value, entries, flags {expected}, seen {seen}"
        )


def assert_global(loaded: BpfObject, name: str, section: str, value: int) -> None:
    """The object has a variable of 4 B in that section, which begins with that value."""
    variables = loaded.btf().variables()
    assert name in variables, f"expected a variable {name}, seen {sorted(variables)}"
    seen = (variables[name].section, variables[name].size, loaded.get_global(name))
    assert seen == (section, 4, value), f"{name}: expected {(section, 4, value)}, seen {seen}"


def packed(host: str) -> bytes:
    """The address in network order: 4 or 16 B."""
    return ipaddress.ip_address(host).packed


def ip_addr(host: str | None) -> bytes:
    """16 B: an IPv4 address in front and zeros behind, or an IPv6 address; None: zeros."""
    return bytes(16) if host is None else packed(host).ljust(16, b"\0")


def port_u32(port: int) -> bytes:
    """4 B: the port in network order, and zeros."""
    return struct.pack(">HH", port, 0)


def u32(number: int) -> bytes:
    """4 B."""
    return struct.pack("<I", number)


def service_value(
    endpoints: tuple[int, ...],
    policy: int,
    ports: tuple[tuple[int, int], ...],
    waypoint: tuple[str, int] | None,
) -> bytes:
    """132 B. `endpoints`: how many each priority has; `ports`: pairs of service and target port."""
    counts = (*endpoints, *[0] * (PRIORITIES - len(endpoints)))
    host, port = waypoint or (None, 0)
    return _SERVICE.pack(
        *counts,
        policy,
        b"".join(port_u32(service) for service, _ in ports),
        b"".join(port_u32(target) for _, target in ports),
        ip_addr(host),
        port_u32(port),
    )


def endpoint_key(service: int, priority: int, index: int) -> bytes:
    """12 B. `index` begins at 1."""
    return _ENDPOINT.pack(service, priority, index)


def backend_value(host: str, waypoint: tuple[str | None, int] | None) -> bytes:
    """80 B, of a backend that says it belongs to no service."""
    wp_host, wp_port = waypoint or (None, 0)
    return _BACKEND.pack(ip_addr(host), 0, b"", ip_addr(wp_host), port_u32(wp_port))


def ends_of(source: tuple[str, int], destination: tuple[str, int], order: str = "<") -> bytes:
    """What a reader reads of a bpf_sock_tuple: 12 B of IPv4, 36 B of IPv6.

    Both hosts are of one family, and not v4-mapped; `order` of the ports: "<" host, ">" network.
    """
    head = packed(source[0]) + packed(destination[0])
    return head + struct.pack(order + "HH", source[1], destination[1])


def tuple_of(source: tuple[str, int], destination: tuple[str, int], order: str = "<") -> bytes:
    """36 B: a whole bpf_sock_tuple, zeros behind an IPv4 one; otherwise as ends_of()."""
    return ends_of(source, destination, order).ljust(36, b"\0")


def original_v4(host: str, port: int) -> bytes:
    """36 B: sock_storage_data.orig_dst of an AF_INET socket."""
    return tuple_of(("0.0.0.0", 0), (host, port), ">")


def original_v6(host: str, port: int) -> bytes:
    """36 B: sock_storage_data.orig_dst of an AF_INET6 socket, v4-mapped or not."""
    return tuple_of(("::", 0), (host, port), ">")


@dataclass(frozen=True)
class Storage:
    """sock_storage_data, 64 B: what km_sockstorage holds of a socket. Times in ns."""

    connect_ns: int = 0
    last_report_ns: int = 0
    direction: int = 0
    connect_success: int = 0
    via_waypoint: bool = False
    has_encoded: bool = False
    has_set_ip: bool = False
    orig_dst: bytes = bytes(36)

    def pack(self) -> bytes:
        """The 64 B."""
        return _STORAGE.pack(
            self.connect_ns,
            self.last_report_ns,
            self.direction,
            self.connect_success,
            self.via_waypoint,
            self.has_encoded,
            self.has_set_ip,
            self.orig_dst,
        )

    @classmethod
    def unpack(cls, value: bytes) -> "Storage":
        """Of 64 B."""
        return cls(*_STORAGE.unpack(value))


@dataclass(frozen=True)
class Probe:
    """tcp_probe_info, 128 B: a record of km_tcp_probe. Times in ns."""

    type: int
    tuple: bytes
    orig_dst: bytes
    sent_bytes: int
    received_bytes: int
    conn_success: int
    direction: int
    state: int
    duration: int
    start_ns: int
    last_report_ns: int
    protocol: int
    srtt_us: int
    rtt_min: int
    total_retrans: int
    lost_out: int
    padding: bytes

    @classmethod
    def unpack(cls, record: bytes) -> "Probe":
        """Of 128 B."""
        assert len(record) == _PROBE.size, f"a record has 128 B, this one {len(record)}"
        return cls(*_PROBE.unpack(record))

    @property
    def ends(self) -> bytes:
        """What a reader reads of `tuple`, as ends_of() has it; upstream does not write the rest."""
        return self.tuple if self.type else self.tuple[:12]

    @property
    def original(self) -> bytes:
        """What a reader reads of `orig_dst`: address and port, 6 B of IPv4, 18 B of IPv6."""
        return self.orig_dst[:18] if self.type else self.orig_dst[:6]


def auth_request(kind: int, endpoints: bytes) -> bytes:
    """A record of km_auth_req, 40 B with a tuple of 36 B; what is read of it with ends_of().

    `kind` as Probe.type.
    """
    return u32(kind) + endpoints


def log_event(text: str) -> bytes:
    """260 B: a record of km_log_event."""
    return (u32(len(text) + 1) + text.encode()).ljust(260, b"\0")


for _layout, _size in (
    (_STORAGE, 64),
    (_SERVICE, 132),
    (_ENDPOINT, 12),
    (_BACKEND, 80),
    (_PROBE, 128),
):
    assert _layout.size == _size, f"{_layout.format} has {_layout.size} B, not {_size}"
