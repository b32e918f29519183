"""The guest's end of the line to the host: what is held back, and until when."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmtest.guest import wire
from vmtest.guest.wire import Wire
from vmtest.vm.vng import PORT, WIRE_PORT

Said = Callable[[], list[str]]


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Wire, Said]]:
    """A wire, and what the host has read of it so far: the events' names."""
    monkeypatch.setattr(wire, "_LONGEST_HELD", 3600.0)  # however slow the machine is
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    heard = b""

    def said() -> list[str]:
        nonlocal heard
        try:
            while data := os.read(reading, 1 << 20):
                heard += data
        except BlockingIOError:
            pass
        return [json.loads(text)["event"] for text in heard.splitlines()]

    yield Wire(writing, reading), said
    os.close(reading)
    os.close(writing)


def test_what_is_held_goes_out_before_the_next_event_sent(line: tuple[Wire, Said]) -> None:
    made, said = line
    made.send("hello")
    made.hold("first")
    made.hold("second")
    assert said() == ["hello"]
    made.send("third")
    assert said() == ["hello", "first", "second", "third"]


def test_nothing_is_held_for_long(line: tuple[Wire, Said], monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = line
    made.send("hello")
    made.hold("first")
    monkeypatch.setattr(wire, "_LONGEST_HELD", -1.0)
    made.hold("second")
    assert said() == ["hello", "first", "second"]


def test_little_is_held(line: tuple[Wire, Said], monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = line
    made.send("hello")
    made.hold("first")
    monkeypatch.setattr(wire, "_MOST_HELD", 100)
    made.hold("second", log="x" * 100)
    assert said() == ["hello", "first", "second"]


TELLS = """
import os, sys
from vmtest.guest import wire
wire.PORTS, wire.DEVICES = sys.argv[1:]
made = wire.Wire.on_port()
made.send("first")
made.wait()
print("printed")
"""


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., tuple[bytes, bytes]]:
    """What a program says on its standard output and on a port of this name, when answered."""

    def run(name: str, device: str = "vport1p2") -> tuple[bytes, bytes]:
        ours, theirs = pty.openpty()  # as a port, both ways on one descriptor
        place = tmp_path / "ports" / "vport1p2"
        place.mkdir(parents=True)
        (place / "name").write_text(f"{name}\n")
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev" / device).symlink_to(os.ttyname(theirs))
        os.write(ours, b"+\n")
        argv = [sys.executable, "-c", TELLS, str(tmp_path / "ports"), f"{tmp_path}/dev/"]
        done = subprocess.run(argv, input=b"+", capture_output=True, check=True, timeout=60)
        assert done.stderr == b"printed\n"
        os.set_blocking(ours, False)
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(ours, 1 << 16)
        os.close(ours)
        os.close(theirs)
        return done.stdout, said

    return run


def test_events_go_to_the_port_that_is_there_for_them(
    told: Callable[..., tuple[bytes, bytes]],
) -> None:
    output, port = told(wire.PORT)
    assert output == b""
    assert b'"event": "first"' in port


@pytest.mark.parametrize(
    ("name", "device"),
    [(PORT, "vport1p2"), (wire.PORT, "gone")],
    ids=["another", "not to be opened"],
)
def test_without_a_port_for_them_events_go_to_standard_output(
    name: str, device: str, told: Callable[..., tuple[bytes, bytes]]
) -> None:
    output, port = told(name, device)
    assert b'"event": "first"' in output
    assert b"event" not in port


def test_host_and_guest_mean_the_same_port() -> None:
    assert wire.PORT == WIRE_PORT
