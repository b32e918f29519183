"""How long a command's end is waited for, by a clock that the test turns."""

from __future__ import annotations

import pytest

from vmtest.errors import DeadlineExceeded
from vmtest.matrix import follow as module
from vmtest.matrix.follow import follow
from vmtest.model.kernels import Limits


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


class QuietStream:
    """Says nothing, and ends with 7 after ``life`` seconds."""

    def __init__(self, clock: Clock, life: float) -> None:
        self.clock = clock
        self.life = life

    def receive(self, timeout: float) -> tuple[bytes, bytes] | None:
        self.clock.now += timeout
        return None if self.clock.now >= self.life else (b"", b"")

    def status(self) -> int:
        return 7 if self.clock.now >= self.life else -1

    def exited(self) -> bool:
        return self.clock.now >= self.life

    def send(self, data: bytes) -> None:
        raise AssertionError("nothing is sent")

    def end_input(self) -> None:
        raise AssertionError("nothing is sent")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr(module, "time", turned)
    return turned


def followed(clock: Clock, *, life: float, silence: float, ended: bool = True) -> int:
    limits = Limits(boot=1, silence=silence, total=10_000)
    stream = QuietStream(clock, life)
    return follow(stream, lambda out, err: None, limits, lambda: None, lambda: 0.0, lambda: ended)


def test_a_command_that_ends_soon_after_its_last_words_has_its_status(clock: Clock) -> None:
    assert followed(clock, life=2.0, silence=60) == 7


def test_a_stream_that_stays_open_is_left_after_three_seconds(clock: Clock) -> None:
    assert followed(clock, life=100.0, silence=60) == -1
    assert clock.now == pytest.approx(3.0, abs=0.3)


def test_a_slow_host_waits_as_much_longer_as_its_limits_are(clock: Clock) -> None:
    assert followed(clock, life=25.0, silence=600) == 7


def test_a_short_limit_shortens_no_end(clock: Clock) -> None:
    assert followed(clock, life=2.0, silence=5) == 7


def test_a_command_that_has_not_ended_has_the_limit_of_silence(clock: Clock) -> None:
    with pytest.raises(DeadlineExceeded, match="silence deadline of 60 s passed"):
        followed(clock, life=100.0, silence=60, ended=False)
