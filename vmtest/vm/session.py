"""SSH to a guest: the only module that imports paramiko.

``Session`` is the protocol everything above is written against, ``SshSession``
its one implementation: one paramiko transport over a connected stream socket,
with both sides' keys made for this VM and verified.
"""

from __future__ import annotations

import io
import logging
import select
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vmtest.errors import DeadlineExceeded, SessionLost, SessionRefused, os_words
from vmtest.vm.deadlines import within

# paramiko logs every broken connection with a traceback; we raise SessionLost.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

# 1.3 times the throughput of paramiko's default, aes128-ctr with hmac-sha2,
# against an emulated guest (docs/architecture.md, "Transport").
_CIPHER = "aes128-gcm@openssh.com"
# The connection is a pipe of this host: nobody keeps what goes over it for a quantum computer, and
# an emulated guest computes the key exchange that is safe from one twice as long.
_SAFE_FROM_QUANTUM = "mlkem"
_CHUNK = 1 << 15

PATIENCE = 60.0
"""Seconds for which a guest under KVM may leave something simple unanswered."""
_MARGIN = 10.0
_MOST_SAID = 64 << 20  # bytes of a command that is run to its end

Check = Callable[[], None]
"""Called again and again while waiting; raises when waiting has become pointless."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished command: exit status (-1 when a signal ended it), and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


class Session(Protocol):
    """A connection to a running guest.

    Every method raises SessionLost when it breaks, and DeadlineExceeded (``answer``) when
    the guest does not answer.
    """

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", check: Check | None = None
    ) -> Completed:
        """Run ``argv`` to its end; ``stdin`` is sent at once and closed."""
        ...

    def put(self, data: bytes, remote: str) -> None:
        """Write ``data`` to the file ``remote`` in the guest."""
        ...

    def get(self, remote: str) -> bytes:
        """The content of the guest's file ``remote``; raises FileNotFoundError."""
        ...

    def stream(self, argv: Sequence[str], *, wire: bool = False) -> Stream:
        """Start ``argv`` and return its three streams.

        With ``wire`` what it says on the port of the wire (vmtest/guest/wire.py) is its standard
        output as well, and its input goes there once it has.
        """
        ...


class Stream(Protocol):
    """A running command."""

    def send(self, data: bytes) -> None:
        """Write to its standard input; nothing becomes of it once the command has ended."""
        ...

    def end_input(self) -> None:
        """Close its standard input."""
        ...

    def receive(self, timeout: float) -> tuple[bytes, bytes] | None:
        """What came on stdout and stderr within ``timeout`` seconds; None at the end.

        Asked again after the end, it waits for what may still come on the wire.
        """
        ...

    def exited(self) -> bool:
        """Whether it has ended, though children of it may still write."""
        ...

    def status(self) -> int:
        """Its exit status, once it has ended; -1 when a signal ended it."""
        ...


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one VM, made for it and forgotten with it."""

    host_private: bytes
    client: paramiko.PKey
    host_public: paramiko.PKey

    @classmethod
    def make(cls) -> Keys:
        """Two new Ed25519 pairs."""
        host, client = _new_private_key(), _new_private_key()
        return cls(host, _load_key(client), _load_key(host))

    @property
    def authorized(self) -> str:
        """The one key that the guest lets in, as a line of its authorized_keys."""
        return f"{self.client.get_name()} {self.client.get_base64()}"


def _new_private_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def _load_key(private: bytes) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(private.decode()))


@contextmanager
def _lost(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except TimeoutError as error:  # a channel's own, which is our patience
        raise DeadlineExceeded(f"the guest does not answer while {what}", "answer") from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        why = os_words(error) if isinstance(error, OSError) else str(error)
        raise SessionLost(f"the SSH session ended while {what}: {why or 'end of file'}") from error


class SshSession:
    """A session over ``connection``, a connected stream socket that it takes over.

    ``wire`` is another, which stays its owner's: the port that commands may use for their events.
    """

    def __init__(
        self, transport: paramiko.Transport, patience: float, wire: socket.socket | None = None
    ) -> None:
        self._wire = wire
        self._transport = transport
        self._patience = patience
        self._sftp: paramiko.SFTPClient | None = None

    @classmethod
    def open(
        cls,
        connection: socket.socket,
        keys: Keys,
        timeout: float,
        patience: float = PATIENCE,
        wire: socket.socket | None = None,
    ) -> SshSession:
        """Exchange keys and authenticate within ``timeout`` seconds.

        ``patience`` is for how many seconds the guest may leave something simple (starting
        a command, a block of a file) unanswered.  Raises SessionLost, DeadlineExceeded.
        """
        transport = paramiko.Transport(connection)
        with within(timeout, "key exchange and login", transport.close), _lost("connecting"):
            chosen = transport.get_security_options()
            chosen.ciphers = (_CIPHER,)
            chosen.kex = tuple(kex for kex in chosen.kex if _SAFE_FROM_QUANTUM not in kex)
            # Ours passes first: paramiko tells its own as a refused key.
            transport.banner_timeout = timeout + _MARGIN
            transport.handshake_timeout = timeout + _MARGIN
            transport.auth_timeout = timeout + _MARGIN
            try:
                transport.start_client(timeout=timeout + _MARGIN)
                if transport.get_remote_server_key() != keys.host_public:
                    raise SessionRefused("the guest's host key is not the one we gave it")
                transport.auth_publickey("root", keys.client)
            except paramiko.AuthenticationException as error:
                transport.close()
                raise SessionRefused(f"the guest does not accept our key: {error}") from error
            except BaseException:
                transport.close()
                raise
            return cls(transport, patience, wire)

    @property
    def alive(self) -> bool:
        """Whether the connection still stands."""
        return bool(self._transport.is_active())

    def close(self) -> None:
        """End the connection; the guest goes on running."""
        self._transport.close()

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", check: Check | None = None
    ) -> Completed:
        """Run ``argv`` to its end; see ``Session``."""
        stream = self.stream(argv)
        if stdin:
            stream.send(stdin)
        stream.end_input()
        stdout, stderr = bytearray(), bytearray()
        while (got := stream.receive(0.25)) is not None:
            stdout += got[0]
            stderr += got[1]
            if len(stdout) + len(stderr) > _MOST_SAID:
                self._transport.close()
                raise SessionLost(f"{argv[0]} says more than {_MOST_SAID >> 20} MiB")
            if check is not None:
                check()
        return Completed(stream.status(), bytes(stdout), bytes(stderr))

    def stream(self, argv: Sequence[str], *, wire: bool = False) -> SshStream:
        """Start ``argv``; see ``Session``."""
        with self._starting(argv):
            channel = self._channel()
            channel.exec_command(shlex.join(argv))
            return SshStream(channel, self._wire if wire else None)

    @contextmanager
    def _starting(self, argv: Sequence[str]) -> Iterator[None]:
        what = f"starting {argv[0]}"
        # A guest that starts nothing is of no more use: nothing else wakes paramiko here.
        with within(self._patience, what, self._transport.close), _lost(what):
            yield

    def _channel(self) -> paramiko.Channel:
        channel = self._transport.open_session(timeout=self._patience + _MARGIN)
        channel.settimeout(self._patience)
        return channel

    def terminal(self, argv: Sequence[str], term: str, size: tuple[int, int]) -> Terminal:
        """Start ``argv`` on a terminal of kind ``term`` and ``size`` (columns, rows)."""
        with self._starting(argv):
            channel = self._channel()
            channel.get_pty(term, *size)
            channel.exec_command(shlex.join(argv))
            return Terminal(channel)

    @property
    def _files(self) -> paramiko.SFTPClient:
        if self._sftp is None:
            client = paramiko.SFTPClient.from_transport(self._transport)
            if client is None:
                raise SessionLost("the guest refused an SFTP channel")
            client.get_channel().settimeout(self._patience)
            self._sftp = client
        return self._sftp

    def put(self, data: bytes, remote: str) -> None:
        """Write ``data`` to ``remote`` by SFTP."""
        with _lost(f"writing {remote}"):
            self._files.putfo(io.BytesIO(data), remote, file_size=len(data), confirm=True)

    def get(self, remote: str) -> bytes:
        """The content of ``remote`` by SFTP."""
        buffer = io.BytesIO()
        with _lost(f"reading {remote}"):
            self._files.getfo(remote, buffer)
        return buffer.getvalue()


def _send(channel: paramiko.Channel, data: bytes) -> None:
    with _lost("sending"):
        try:
            channel.sendall(data)
        except TimeoutError:
            raise
        except OSError:
            # The channel closes with its command as well: receive() tells of its end.
            _raise_if_lost(channel)


def _raise_if_lost(channel: paramiko.Channel) -> None:
    if channel.exit_status != -1:
        return
    # paramiko wakes readers before it calls a dying transport inactive.
    transport = channel.get_transport()
    transport.join(0.5)
    if not transport.is_active():
        raise SessionLost("the SSH session ended while a command ran")


class SshStream:
    """A command running in the guest; ``wire`` is the port that it may use beside."""

    def __init__(self, channel: paramiko.Channel, wire: socket.socket | None = None) -> None:
        self._channel = channel
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._wire = wire
        self._by_wire = self._ended = False
        self._said = b""
        if wire is not None:
            wire.setblocking(False)
            self._poll.register(wire.fileno(), select.POLLIN)

    def send(self, data: bytes) -> None:
        """Write ``data`` to its standard input; nothing becomes of it once it has ended."""
        if self._wire is not None and self._by_wire:
            with _lost("sending"):
                self._wire.sendall(data)
        else:
            _send(self._channel, data)

    def end_input(self) -> None:
        """Close its standard input."""
        with _lost("sending"):
            self._channel.shutdown_write()

    def receive(self, timeout: float) -> tuple[bytes, bytes] | None:
        """What came within ``timeout`` seconds; see ``Stream``."""
        channel, deadline = self._channel, time.monotonic() + timeout
        while not (self._on_wire() or channel.recv_ready() or channel.recv_stderr_ready()):
            left = deadline - time.monotonic()
            if channel.closed or channel.eof_received:
                # The exit status follows the end of file in a message of its own.
                if not channel.status_event.wait(max(0.0, left)):
                    return b"", b""
                _raise_if_lost(channel)
                if not (self._ended and self._wire_within(left)):
                    self._ended = True
                    return None
                continue
            if left <= 0:
                return b"", b""
            self._poll.poll(left * 1000)
        said, self._said = self._said, b""
        out = said + (channel.recv(_CHUNK) if channel.recv_ready() else b"")
        err = channel.recv_stderr(_CHUNK) if channel.recv_stderr_ready() else b""
        return out, err

    def _on_wire(self) -> bool:
        """Whether the command has said something on the port."""
        if self._wire is None:
            return False
        try:
            self._said = self._wire.recv(_CHUNK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self._said = b""
        if not self._said:  # QEMU has ended, and the session does
            self._poll.unregister(self._wire.fileno())
            self._wire = None
            return False
        self._by_wire = True
        return True

    def _wire_within(self, seconds: float) -> bool:
        return self._wire is not None and bool(
            select.select([self._wire], [], [], max(0.0, seconds))[0]
        )

    def exited(self) -> bool:
        """Whether its exit status has come: sshd sends it at once, the end of file later."""
        return bool(self._channel.exit_status_ready())

    def status(self) -> int:
        """Its exit status; -1 when a signal ended it."""
        return int(self._channel.exit_status)


class Terminal:
    """A command on a terminal of the guest's; ``select`` takes it for reading."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def fileno(self) -> int:
        """Readable when there is output, or the end."""
        return int(self._channel.fileno())

    def receive(self) -> bytes:
        """What it wrote; empty at the end."""
        return bytes(self._channel.recv(_CHUNK))

    def send(self, data: bytes) -> None:
        """Type ``data``; nothing becomes of it once the command has ended."""
        _send(self._channel, data)

    def end_input(self) -> None:
        """Hang up the keyboard."""
        with _lost("sending"):
            self._channel.shutdown_write()

    def resize(self, columns: int, rows: int) -> None:
        """Tell the guest the terminal's new size."""
        with _lost("resizing"):
            self._channel.resize_pty(columns, rows)

    def status(self) -> int:
        """The command's exit status, waited for; -1 when a signal or the VM ended it."""
        return int(self._channel.recv_exit_status())
