"""The guest's end of the line to the host: what is held back, and until when."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator

import pytest

from vmtest.guest import wire
from vmtest.guest.wire import Wire

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
