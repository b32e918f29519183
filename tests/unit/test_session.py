"""A guest that does not answer: named as that, whoever's time limit passed."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator

import paramiko
import pytest

from vmtest.errors import DeadlineExceeded, SessionRefused
from vmtest.vm.session import Keys, SshSession


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
