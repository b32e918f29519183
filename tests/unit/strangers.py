"""What somebody can do who may connect to this machine's ports, and has no certificate."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_LISTENS = "0A"
_REFUSALS = (b"\x15\x03", b"HTTP/1.1 404 ")
_PAGES = ("/health", "/metrics", "/info/main/workers.html", "/json/counts.json")


def descendants(pid: int) -> list[int]:
    """The process ``pid``, and all that it and its children started."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def ports(pids: list[int]) -> list[int]:
    """Where these processes listen, over IPv4 and IPv6."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                inodes.add(str(descriptor.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENS and f"socket:[{words[9]}]" in inodes:
                found.add(int(words[1].rpartition(":")[2], 16))
    return sorted(found)


def told(listening: Iterable[int]) -> dict[int, list[bytes]]:
    """What a stranger gets from each port that does not refuse: of its pages, and with TLS.

    A refusal is a connection that is closed, an alert of TLS's, or "404 Not Found".
    """
    found = {}
    for port in listening:
        answers = [_plain(port, page) for page in _PAGES]
        if not any(said.startswith(b"HTTP/") for said in answers):
            answers.append(_with_tls(port))
        if said := [one for one in answers if one and not one.startswith(_REFUSALS)]:
            found[port] = said
    return found


def _plain(port: int, page: str) -> bytes:
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 60) as there:
        there.sendall(
            f"GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        return there.makefile("rb").read()
    return b""


def _with_tls(port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        suppress(ConnectionError, ssl.SSLError),
        socket.create_connection(("127.0.0.1", port), 60) as plain,
        context.wrap_socket(plain) as there,
    ):
        return there.recv(100)
    return b""
