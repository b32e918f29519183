"""A guest that does not answer: named as that, whoever's time limit passed."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import paramiko
import pytest

from vmtest.errors import DeadlineExceeded, SessionLost, SessionRefused
from vmtest.vm.session import Completed, Keys, SshSession


class Guest(paramiko.ServerInterface):  # type: ignore[misc]  # ships no types
    """An SSH server that stops answering at ``stuck``: login, channel or command."""

    def __init__(self, keys: Keys, stuck: str) -> None:
        self.stuck = stuck
        self.go_on = threading.Event()
        self.refuses = False
        self.here, there = socket.socketpair()
        self.transport = paramiko.Transport(there)
        host = paramiko.Ed25519Key.from_private_key(_text(keys.host_private))
        self.transport.add_server_key(host)
        self.transport.start_server(event=threading.Event(), server=self)

    def _at(self, place: str) -> None:
        if place == self.stuck:
            self.go_on.wait(30)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self._at("login")
        return int(paramiko.AUTH_FAILED if self.refuses else paramiko.AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, number: int) -> int:
        self._at("channel")
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._at("command")
        return True

    def close(self) -> None:
        self.go_on.set()
        self.transport.close()
        self.here.close()


def _text(private: bytes) -> io.StringIO:
    return io.StringIO(private.decode())


@pytest.fixture
def keys() -> Keys:
    return Keys.make()


@pytest.fixture
def guest(keys: Keys, request: pytest.FixtureRequest) -> Iterator[Guest]:
    made = Guest(keys, getattr(request, "param", ""))
    yield made
    made.close()


@pytest.mark.parametrize("guest", ["login"], indirect=True)
def test_a_login_that_takes_too_long_is_no_refused_key(guest: Guest, keys: Keys) -> None:
    with pytest.raises(DeadlineExceeded, match="key exchange and login took over 1 s"):
        SshSession.open(guest.here, keys, 1)


def test_a_refused_key_is_said_as_that(guest: Guest, keys: Keys) -> None:
    guest.refuses = True
    with pytest.raises(SessionRefused, match="does not accept our key"):
        SshSession.open(guest.here, keys, 20)


@pytest.mark.parametrize("guest", ["channel", "command"], indirect=True)
def test_a_guest_that_starts_nothing_is_not_waited_for(guest: Guest, keys: Keys) -> None:
    session = SshSession.open(guest.here, keys, 20, patience=1)
    with pytest.raises(DeadlineExceeded, match="starting true took over 1 s") as caught:
        session.stream(["true"])
    assert caught.value.kind == "answer"
    session.close()


def test_input_that_a_guest_does_not_take_is_not_waited_for(guest: Guest, keys: Keys) -> None:
    session = SshSession.open(guest.here, keys, 20, patience=1)
    stream = session.stream(["true"])
    with pytest.raises(DeadlineExceeded, match="the guest does not answer while sending"):
        stream.send(bytes(64 << 20))  # more than any window
    session.close()


def answer(guest: Guest, channel: paramiko.Channel, command: bytes) -> None:
    """What a guest makes of a command: its words in their order, once it has had input or its end.

    So the answer to the start of the command comes first, as an sshd has it.  A host that has what
    it waited for may hang up before the last message leaves (EOFError, OSError).  An sshd does not
    complain of that either.
    """
    with contextlib.suppress(EOFError, OSError):
        say(guest, channel, command)


def say(guest: Guest, channel: paramiko.Channel, command: bytes) -> None:
    channel.recv(1)
    for word in command.decode().split():
        match word.partition("=")[::2]:
            case "out", text:
                channel.sendall(text.encode())
            case "err", text:
                channel.sendall_stderr(text.encode())
            case "exit", status:
                channel.send_exit_status(int(status))
            case "die", _:
                guest.transport.close()
                return
            case "end", _:
                channel.close()


class Answering(Guest):
    """A guest whose commands are what they shall do."""

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=answer, args=(self, channel, command), daemon=True).start()
        return True


@pytest.fixture
def answering(keys: Keys) -> Iterator[SshSession]:
    guest = Answering(keys, "")
    session = SshSession.open(guest.here, keys, 20, patience=5)
    yield session
    session.close()
    guest.close()


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["exit=0", "end"], Completed(0, b"", b"")),
        (["out=a", "exit=3", "end"], Completed(3, b"a", b"")),
        (["err=b", "out=a", "err=c", "exit=1", "end"], Completed(1, b"a", b"bc")),
        (["out=a", "end"], Completed(-1, b"a", b"")),  # a signal ended it
        ([f"out={'x' * 100_000}", "exit=0", "end"], Completed(0, b"x" * 100_000, b"")),
    ],
    ids=["nothing", "output", "both streams", "a signal", "much"],
)
def test_a_command_brings_its_status_and_its_words(
    words: list[str], completed: Completed, answering: SshSession
) -> None:
    assert answering.run(words) == completed


def test_a_guest_that_dies_under_a_command_is_lost(answering: SshSession) -> None:
    with pytest.raises(SessionLost, match="ended while a command ran"):
        answering.run(["out=a", "die"])
    assert not answering.alive


def test_a_guest_that_died_starts_no_command(answering: SshSession) -> None:
    with pytest.raises(SessionLost):
        answering.run(["die"])
    with pytest.raises(SessionLost, match="the SSH session ended while starting true"):
        answering.run(["true"])


@pytest.mark.parametrize("call", ["put", "get"])
def test_a_guest_that_died_takes_and_gives_no_file(call: str, answering: SshSession) -> None:
    with pytest.raises(SessionLost):
        answering.run(["die"])
    with pytest.raises(SessionLost, match="/tmp/x: "):
        answering.put(b"", "/tmp/x") if call == "put" else answering.get("/tmp/x")


def test_a_check_that_raises_ends_the_wait_for_a_command(answering: SshSession) -> None:
    def check() -> None:
        raise SessionLost("cancelled")

    with pytest.raises(SessionLost, match="cancelled"):
        answering.run(["out=a"], check=check)


def test_a_command_has_exited_before_its_children_let_its_output_go(answering: SshSession) -> None:
    stream = answering.stream(["exit=4"])
    stream.send(b"x")
    while not stream.exited():
        assert stream.receive(0.1) == (b"", b"")
    assert stream.status() == 4


@pytest.fixture
def wired(keys: Keys) -> Iterator[tuple[SshSession, socket.socket]]:
    """A session with a wire, and QEMU's end of that."""
    guest = Answering(keys, "")
    here, there = socket.socketpair()
    with here, there:
        session = SshSession.open(guest.here, keys, 20, patience=5, wire=here)
        yield session, there
        session.close()
        guest.close()


def test_what_comes_on_the_wire_is_output_and_is_answered_there(
    wired: tuple[SshSession, socket.socket],
) -> None:
    session, there = wired
    stream = session.stream(["out=ssh", "exit=0", "end"], wire=True)
    there.sendall(b"event\n")
    assert stream.receive(5) == (b"event\n", b"")
    stream.send(b"+")
    assert there.recv(1) == b"+"
    assert stream.receive(0.2) == (b"", b"")  # nothing of it went to the command


def test_a_command_that_leaves_the_wire_alone_is_answered_as_any(
    wired: tuple[SshSession, socket.socket],
) -> None:
    session, there = wired
    stream = session.stream(["out=ssh", "exit=0", "end"], wire=True)
    stream.send(b"+")
    assert stream.receive(5) == (b"ssh", b"")
    there.setblocking(False)
    with pytest.raises(BlockingIOError):
        there.recv(1)


def test_only_who_asks_for_the_wire_gets_what_comes_on_it(
    wired: tuple[SshSession, socket.socket],
) -> None:
    session, there = wired
    there.sendall(b"event\n")
    assert session.run(["out=ssh", "exit=0", "end"]) == Completed(0, b"ssh", b"")


def test_what_comes_on_the_wire_behind_the_end_of_a_command_is_not_lost(
    wired: tuple[SshSession, socket.socket],
) -> None:
    session, there = wired
    stream = session.stream(["exit=0", "end"], wire=True)
    stream.send(b"x")
    while (got := stream.receive(5)) is not None:
        assert got == (b"", b"")
    late = threading.Timer(0.2, there.sendall, [b"last words\n"])
    late.start()
    assert stream.receive(20) == (b"last words\n", b"")
    late.join()
    assert stream.receive(0.1) is None


def test_a_wire_that_ends_does_not_end_the_command(
    wired: tuple[SshSession, socket.socket],
) -> None:
    session, there = wired
    stream = session.stream(["out=ssh", "exit=0", "end"], wire=True)
    there.sendall(b"event\n")
    assert stream.receive(5) == (b"event\n", b"")
    there.close()
    assert stream.receive(0.2) == (b"", b"")
    stream.send(b"x")
    assert stream.receive(5) == (b"ssh", b"")


def test_a_guest_that_hangs_up_before_it_greets_is_lost_with_a_reason(keys: Keys) -> None:
    here, there = socket.socketpair()
    there.close()
    with here, pytest.raises(SessionLost, match=r"ended while connecting: \S"):
        SshSession.open(here, keys, 5)


def test_a_guest_that_speaks_no_ssh_is_lost(keys: Keys) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"sh: sshd: not found\n" * 200)
        with pytest.raises(SessionLost, match="ended while connecting: "):
            SshSession.open(here, keys, 5)


def test_a_guest_that_says_nothing_is_late(keys: Keys) -> None:
    here, there = socket.socketpair()
    with here, there, pytest.raises(DeadlineExceeded, match="key exchange and login took over 1 s"):
        SshSession.open(here, keys, 1)


def test_another_guests_key_is_refused(guest: Guest, keys: Keys) -> None:
    with pytest.raises(SessionRefused, match="host key is not the one we gave it"):
        SshSession.open(guest.here, replace(keys, host_public=Keys.make().host_public), 20)
