"""Does this kernel take kernel TLS and a sockmap on one TCP socket?  Exit status 0 if it does.

A mesh's data plane keeps its connections in a sockmap; "tls: reject the combination of TLS and
sockmap" took kTLS from them.  Standard library only, run in the guest:
docs/explanation/bisect-examples.md.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable

BPF, MAP_CREATE, UPDATE, SOCKMAP = 321, 0, 2, 15
TCP_ULP, SOL_TLS, TLS_TX = 31, 282, 1
AES_GCM_128 = struct.pack("=HH8s16s4s8s", 0x0303, 51, bytes(8), bytes(16), bytes(4), bytes(8))


def bpf(command: int, attributes: bytes) -> int:
    """The system call; raises OSError."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    done = ctypes.CDLL(None, use_errno=True).syscall(BPF, command, buffer, len(attributes))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(done)


def into_sockmap(connection: socket.socket) -> None:
    """Put ``connection`` in a sockmap of its own."""
    sockmap = bpf(MAP_CREATE, struct.pack("=IIII", SOCKMAP, 4, 4, 1))
    key, value = ctypes.c_uint32(0), ctypes.c_uint32(connection.fileno())
    places = ctypes.addressof(key), ctypes.addressof(value)
    bpf(UPDATE, struct.pack("=IxxxxQQQ", sockmap, *places, 0))


def to_tls(connection: socket.socket) -> None:
    """Have the kernel encrypt what ``connection`` sends."""
    connection.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    connection.setsockopt(SOL_TLS, TLS_TX, AES_GCM_128)


def both(first: Callable[[socket.socket], None], second: Callable[[socket.socket], None]) -> str:
    """What becomes of ``second`` on a new connection that had ``first``."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            first(client)
            try:
                second(client)
            except OSError as error:
                return str(error.strerror)
    return "taken"


in_sockmap, after_tls = both(into_sockmap, to_tls), both(to_tls, into_sockmap)
print(f"TLS in a sockmap: {in_sockmap}; a sockmap after TLS: {after_tls}")
sys.exit(in_sockmap != "taken")
