"""Stands for virtme-ng and QEMU: a process with a console, and a guest at the end of a socket.

    python fake_qemu.py FATE SOCKET

It connects to SOCKET, and to the wire and the monitor beside it, as QEMU does, reads what the host
sends, and does what FATE says.
"""

from __future__ import annotations

import io
import socket
import sys
import threading
import time
from pathlib import Path

PANIC = "[    1.500000] Kernel panic - not syncing: made up"


def says(line: str) -> None:
    """A line on the console."""
    print(line, flush=True)


def stays() -> None:
    """Run on, until the supervisor ends this process."""
    time.sleep(600)


def own(stream: io.BufferedReader) -> bytes:
    """The guest's private key, out of the lines that are this VM's own."""
    for line in stream:
        if line.startswith(b"ssh-ed25519 "):
            break
    key = b""
    for line in stream:
        key += line
        if line.startswith(b"-----END"):
            break
    return key


def serve(connection: socket.socket, key: bytes) -> None:
    """Be an SSH server that lets everybody in and ends each command with status 3."""
    import paramiko

    class Server(paramiko.ServerInterface):  # type: ignore[misc]  # ships no types
        def get_allowed_auths(self, username: str) -> str:
            return "publickey"

        def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
            return int(paramiko.AUTH_SUCCESSFUL)

        def check_channel_request(self, kind: str, number: int) -> int:
            return int(paramiko.OPEN_SUCCEEDED)

        def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
            threading.Thread(target=self._end, args=(channel,), daemon=True).start()
            return True

        def _end(self, channel: paramiko.Channel) -> None:
            channel.recv(1)  # the end of its input: the answer to the command's start comes first
            channel.send_exit_status(3)
            channel.close()

    transport = paramiko.Transport(connection)
    transport.add_server_key(paramiko.Ed25519Key.from_private_key(io.StringIO(key.decode())))
    transport.start_server(event=threading.Event(), server=Server())
    stays()


def greet(place: Path) -> socket.socket | None:
    """The monitor at ``place``, which has been told that QEMU runs and what it answers."""
    if not place.exists():
        return None
    monitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    monitor.connect(str(place))
    monitor.sendall(b'{"QMP": {}}\n')
    monitor.recv(1 << 12)  # qmp_capabilities
    monitor.sendall(b'{"return": {}}\n')
    return monitor


def main(fate: str, place: str) -> None:
    """Do what ``fate`` says."""
    says("[    0.000000] Linux version 6.12.1")
    if fate == "ends at once":
        says("qemu: no such machine")
        return
    if fate == "panics at once":
        says(PANIC)
        return
    if fate == "hangs at once":
        says("[    0.700000] waiting for a disk")
        stays()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(place)
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    wire.connect(str(Path(place).with_name("wire")))
    if fate == "ends without its memory":
        says("qemu: can't open backing store: Permission denied")
        return
    if fate == "waits for its memory":
        stays()
    monitor = greet(Path(place).with_name("qmp"))
    stream = connection.makefile("rb")
    stream.readline()  # the agent
    if fate == "hangs up":
        connection.shutdown(socket.SHUT_RDWR)
        stays()
    if fate == "cannot be saved":
        connection.sendall(b"its processes run on\n")
    if fate == "says nothing of saving":
        stays()
    key = own(stream)
    if fate == "no banner":
        stays()
    if fate == "no SSH":
        connection.sendall(b"bash: sshd: not found\n" * 200)
        stays()
    if fate == "ends behind the agent":
        says("qemu: killed")
        return
    if fate == "panics behind the agent":
        says(PANIC)
        return
    if fate == "another key":
        from vmtest.vm.session import Keys

        key = Keys.make().host_private
    serve(connection, key)
    del monitor  # which is open until here


if __name__ == "__main__":
    main(*sys.argv[1:])
