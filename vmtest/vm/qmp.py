"""QEMU's machine protocol (QMP) over a connected socket: commands, their answers, its events.

One JSON object a line both ways; docs/interop/qmp-spec.rst in QEMU's source.  Used by one
thread at a time.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vmtest.errors import VmtestError

_LONGEST = 1 << 20
"""Bytes that an answer may have without a line's end."""


class QmpError(VmtestError):
    """QEMU refused a command, said something that is not QMP, or said nothing in time."""


class Qmp:
    """A QMP session on ``connection``, which the caller closes.

    Every method raises QmpError; ``limit`` is for how many seconds QEMU may leave a command
    unanswered, and may be changed.
    """

    def __init__(self, connection: socket.socket, limit: float) -> None:
        self._connection = connection
        self.limit = limit
        self._rest = b""
        self._events: list[dict[str, Any]] = []
        greeting = self._message(time.monotonic() + limit)
        if "QMP" not in greeting:
            raise QmpError(f"QEMU's monitor greets with {str(greeting)[:200]!r}, which is not QMP")
        self.execute("qmp_capabilities")

    def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        descriptors: Sequence[int] = (),
    ) -> Any:
        """The answer to ``command``; raises QmpError with QEMU's words when it refuses.

        QEMU gets copies of ``descriptors`` with it (``getfd`` gives one a name).
        """
        deadline = time.monotonic() + self.limit
        sent = {"execute": command, **({"arguments": dict(arguments)} if arguments else {})}
        try:
            self._connection.settimeout(self.limit)
            line = json.dumps(sent).encode() + b"\n"
            if descriptors:
                line = line[socket.send_fds(self._connection, [line], descriptors) :]
            self._connection.sendall(line)
        except OSError as error:
            raise QmpError(f"{command}: QEMU's monitor takes nothing: {error}") from error
        while True:
            message = self._message(deadline)
            if "return" in message:
                return message["return"]
            if isinstance(message.get("error"), dict):
                raise QmpError(f"{command}: {message['error'].get('desc', 'refused')}")
            self._events.append(message)

    def wait(self, event: str, limit: float) -> dict[str, Any]:
        """The data of the next ``event`` (one that came already counts), within ``limit`` seconds.

        Events that came before it are dropped.
        """
        deadline = time.monotonic() + limit
        while True:
            message = self._events.pop(0) if self._events else self._message(deadline)
            if message.get("event") == event:
                data = message.get("data")
                return data if isinstance(data, dict) else {}

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._rest:
            self._rest += self._receive(deadline)
            if len(self._rest) > _LONGEST:
                raise QmpError("QEMU's monitor sends a line without an end")
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise QmpError(f"QEMU's monitor says {line[:200]!r}, which is not QMP")
        return message

    def _receive(self, deadline: float) -> bytes:
        try:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._connection.recv(1 << 16)
        except TimeoutError:
            raise QmpError("QEMU's monitor does not answer in time") from None
        except OSError as error:
            raise QmpError(f"QEMU's monitor cannot be read: {error}") from error
        if not data:
            raise QmpError("QEMU's monitor closed the connection")
        return data
