"""How long a command's end is waited for, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from vmtest.errors import DeadlineExceeded
from vmtest.matrix import follow as module
from vmtest.matrix.follow import Kernelside, aftermath, follow
from vmtest.model.kernels import Limits
from vmtest.vm.console import Finding, Sign


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


class QuietStream:
    """Says nothing, and ends after ``life`` seconds; its command ended with 7 after ``exits``."""

    def __init__(self, clock: Clock, life: float, exits: float) -> None:
        self.clock = clock
        self.life = life
        self.exits = exits

    def receive(self, timeout: float) -> tuple[bytes, bytes] | None:
        self.clock.now += timeout
        return None if self.clock.now >= self.life else (b"", b"")

    def status(self) -> int:
        return 7 if self.exited() else -1

    def exited(self) -> bool:
        return self.clock.now >= self.exits

    def send(self, data: bytes) -> None:
        raise AssertionError("nothing is sent")

    def end_input(self) -> None:
        raise AssertionError("nothing is sent")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr(module, "time", turned)
    return turned


def followed(clock: Clock, *, life: float, silence: float, exits: float = 0.0) -> int:
    limits = Limits(boot=1, silence=silence, total=10_000)
    stream = QuietStream(clock, life, exits)
    return follow(stream, lambda out, err: None, limits, lambda: None, Kernelside())


def test_a_stream_that_a_child_holds_is_left_after_three_seconds(clock: Clock) -> None:
    assert followed(clock, life=100.0, silence=60) == 7
    assert clock.now == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize(("life", "silence"), [(2.0, 60), (25.0, 600), (2.0, 5)])
def test_what_a_child_says_soon_is_waited_for(clock: Clock, life: float, silence: float) -> None:
    """Soon is longer on a slow host, whose limits are; and a short limit shortens nothing."""
    assert followed(clock, life=life, silence=silence) == 7
    assert clock.now == pytest.approx(life, abs=0.3)


def test_what_has_stretched_limits_has_a_longer_aftermath() -> None:
    limits = [Limits(boot=1, silence=silence, total=1) for silence in (5, 60, 600)]
    assert [aftermath(one) for one in limits] == [3.0, 3.0, 30.0]


def test_a_command_that_has_not_ended_has_the_limit_of_silence(clock: Clock) -> None:
    with pytest.raises(DeadlineExceeded, match="silence deadline of 60 s passed"):
        followed(clock, life=100.0, silence=60, exits=100.0)


def test_a_command_that_ends_late_has_its_status(clock: Clock) -> None:
    assert followed(clock, life=50.0, silence=60, exits=50.0) == 7
    assert clock.now == pytest.approx(50.0, abs=0.3)


class TalkingStream(QuietStream):
    """Prints a line every ``pause`` seconds."""

    def __init__(self, clock: Clock, life: float, pause: float) -> None:
        super().__init__(clock, life, life)
        self.pause = pause
        self.spoke = 0.0

    def receive(self, timeout: float) -> tuple[bytes, bytes] | None:
        got = super().receive(timeout)
        if got is None or self.clock.now - self.spoke < self.pause:
            return got
        self.spoke = self.clock.now
        return b"a line\n", b""


def under_a_stall(clock: Clock, stream: QuietStream, at: Sequence[float]) -> int:
    """Follow ``stream`` while the kernel says ``at`` these seconds that it stalls."""

    def stalls() -> list[Finding]:
        text = "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]"
        return [Finding(Sign.SPLAT, text, 0.0, heard=when) for when in at if when <= clock.now]

    def spoke() -> float:
        return max((when for when in at if when <= clock.now), default=0.0)

    limits = Limits(boot=1, silence=60, total=10_000)
    kernel = Kernelside(spoke, stalls)
    return follow(stream, lambda out, err: None, limits, lambda: None, kernel)


def test_a_kernel_that_stalls_is_given_up_20_seconds_after_it_first_said_so(clock: Clock) -> None:
    with pytest.raises(DeadlineExceeded, match='after the kernel stalled: "watchdog: ') as raised:
        under_a_stall(clock, QuietStream(clock, 10_000, 10_000), range(30, 10_000, 25))
    assert raised.value.kind == "stall"
    assert clock.now == pytest.approx(50.0, abs=0.5)


def test_a_stall_that_the_command_survives_ends_nothing(clock: Clock) -> None:
    assert under_a_stall(clock, TalkingStream(clock, 500, pause=15), range(30, 500, 25)) == 7


def test_silence_after_a_line_behind_the_stall_is_no_stall(clock: Clock) -> None:
    assert under_a_stall(clock, TalkingStream(clock, 89, pause=45), [40]) == 7
