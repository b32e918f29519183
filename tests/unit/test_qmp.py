"""QEMU's monitor protocol, spoken with a real server on a real socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from vmtest.vm.qmp import Qmp, QmpError
from vmtest.vm.snapshot import resume

GREETING = b'{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}\r\n'
OK = b'{"return": {}}\r\n'

Answer = Callable[[dict[str, Any]], bytes]


@contextmanager
def monitor(answer: Answer, greeting: bytes = GREETING) -> Iterator[socket.socket]:
    """A server that greets and then says ``answer`` of each command; our end of its socket."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs, theirs.makefile("rb") as commands, suppress(BrokenPipeError):
            theirs.sendall(greeting)
            for line in commands:
                said = answer(json.loads(line))
                if not said:
                    return
                theirs.sendall(said)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with ours:
        yield ours
    thread.join(10)


def always(said: bytes) -> Answer:
    return lambda command: OK if command["execute"] == "qmp_capabilities" else said


def test_a_command_brings_what_it_returns() -> None:
    with monitor(always(b'{"return": {"status": "running"}}\r\n')) as connection:
        assert Qmp(connection, 10).execute("query-status") == {"status": "running"}


def test_a_command_is_sent_with_its_arguments() -> None:
    heard: list[dict[str, Any]] = []

    def note(command: dict[str, Any]) -> bytes:
        heard.append(command)
        return OK

    with monitor(note) as connection:
        Qmp(connection, 10).execute("migrate", {"uri": "unix:/x"})
    assert heard == [
        {"execute": "qmp_capabilities"},
        {"execute": "migrate", "arguments": {"uri": "unix:/x"}},
    ]


def test_an_answer_in_pieces_is_one_answer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(GREETING + OK + b'{"ret')
        later = threading.Timer(0.05, theirs.sendall, [b'urn": 7}\r\n'])
        later.start()
        assert Qmp(ours, 10).execute("x") == 7
        later.join()


def test_events_before_an_answer_are_kept_for_who_waits_for_them() -> None:
    said = b'{"event": "STOP"}\n{"event": "MIGRATION", "data": {"status": "setup"}}\n' + OK
    with monitor(always(said)) as connection:
        qmp = Qmp(connection, 10)
        qmp.execute("migrate")
        assert qmp.wait("MIGRATION", 10) == {"status": "setup"}


def test_a_refusal_is_told_in_qemus_words() -> None:
    said = b'{"error": {"class": "GenericError", "desc": "Migration is disabled"}}\r\n'
    with (
        monitor(always(said)) as connection,
        pytest.raises(QmpError, match=r"^migrate: Migration is disabled$"),
    ):
        Qmp(connection, 10).execute("migrate")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "closed the connection"),
        (b"rubbish\n", "is not QMP"),
        (b"[1]\n", "is not QMP"),
        (b"x" * (3 << 19), "without an end"),
    ],
)
def test_what_is_no_answer_is_an_error(said: bytes, words: str) -> None:
    with monitor(always(said)) as connection, pytest.raises(QmpError, match=words):
        Qmp(connection, 10).execute("stop")


def test_who_does_not_greet_is_no_monitor() -> None:
    with (
        monitor(always(OK), b'{"hello": 1}\n') as connection,
        pytest.raises(QmpError, match="greets with"),
    ):
        Qmp(connection, 10)


def test_a_monitor_that_says_nothing_is_not_waited_for_beyond_the_limit() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(GREETING + OK)
        with pytest.raises(QmpError, match="does not answer in time"):
            Qmp(ours, 0.05).execute("stop")


def in_state(said: str) -> Answer:
    """A QEMU whose guest is in the state ``said``."""
    status = json.dumps({"return": {"status": said, "running": said == "running"}}).encode()
    return lambda command: status + b"\r\n" if command["execute"] == "query-status" else OK


def test_a_guest_that_runs_is_told_once() -> None:
    told: list[str] = []

    def note(command: dict[str, Any]) -> bytes:
        told.append(command["execute"])
        return in_state("running")(command)

    with monitor(note) as connection:
        resume(Qmp(connection, 10))
    assert told == ["qmp_capabilities", "cont", "query-status"]


def test_a_guest_that_does_not_run_is_an_error_with_its_state() -> None:
    with (
        monitor(in_state("paused")) as connection,
        pytest.raises(QmpError, match=r"cont: the guest does not go on \(paused\)"),
    ):
        resume(Qmp(connection, 10))
