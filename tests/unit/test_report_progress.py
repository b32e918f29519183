"""The state of a running matrix, event by event."""

import pytest

from vmtest.model import events
from vmtest.model.events import (
    Booted,
    Booting,
    Building,
    Collected,
    Event,
    Expected,
    Fetching,
    KernelFinished,
    KernelQueued,
    Note,
    Preparing,
    SlotTaken,
)
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.report.progress import KernelState, Phase, State

TEST = "test_s.py::test_x"


def after(*happened: Event, step: float = 1.0) -> State:
    """The state after events that came ``step`` seconds apart, the first at ``step``."""
    state = State(0.0)
    for n, event in enumerate(happened, 1):
        state = state.apply(event, n * step)
    return state


def only(state: State) -> KernelState:
    (kernel,) = state.kernels
    return kernel


def finished(outcome: Outcome) -> Event:
    return events.TestFinished("k", TestResult(TEST, "s", outcome))


def done() -> Event:
    return KernelFinished("k", KernelResult("k", Status.PASSED))


@pytest.mark.parametrize(
    ("event", "phase"),
    [
        (KernelQueued("k"), Phase.QUEUED),
        (Fetching("k", 0, 10), Phase.FETCHING),
        (Building("k", 10), Phase.BUILDING),
        (Preparing("k", "unpacking"), Phase.PREPARING),
        (Booting("k"), Phase.BOOTING),
        (Booted("k", 4.0), Phase.TESTING),
        (Collected("k", 3), Phase.TESTING),
        (events.TestStarted("k", TEST), Phase.TESTING),
        (finished(Outcome.PASSED), Phase.TESTING),
        (done(), Phase.DONE),
    ],
)
def test_an_event_leads_to_its_phase(event: Event, phase: Phase) -> None:
    assert only(after(event)).phase is phase


def test_the_state_before_an_event_does_not_change() -> None:
    before = State(0.0)
    before.apply(KernelQueued("k"), 1.0)
    assert before == State(0.0)


def test_kernels_keep_the_order_they_were_heard_of() -> None:
    state = after(KernelQueued("b"), KernelQueued("a"), Booting("a"), Booting("b"))
    assert [kernel.kernel for kernel in state.kernels] == ["b", "a"]


def test_an_event_changes_its_own_kernel_only() -> None:
    state = after(KernelQueued("a"), KernelQueued("b"), Booting("b"))
    assert state.of("a") == KernelState("a")


def test_a_note_is_kept_and_is_about_no_kernel() -> None:
    state = after(Note("the mirror is slow"))
    assert (state.notes, state.kernels) == (("the mirror is slow",), ())


def test_a_kernel_that_waits_has_not_begun() -> None:
    assert only(after(KernelQueued("k"))).elapsed(9.0) == 0.0


def test_time_counts_from_the_first_work() -> None:
    assert only(after(KernelQueued("k"), Booting("k"), Booted("k", 1.0))).elapsed(10.0) == 8.0


def test_time_stops_when_the_kernel_is_done() -> None:
    assert only(after(Booting("k"), done())).elapsed(100.0) == 1.0


def test_each_attempt_to_boot_counts_its_own_seconds() -> None:
    kernel = only(after(Booting("k"), Booting("k", 2)))
    assert (kernel.since, kernel.attempt) == (2.0, 2)


def test_a_download_knows_its_rate() -> None:
    kernel = only(after(Fetching("k", 0, 1000), Fetching("k", 100, 1000), Fetching("k", 300, 1000)))
    assert kernel.rate(3.0) == 150.0


def test_a_resumed_download_counts_only_what_came() -> None:
    assert only(after(Fetching("k", 900, 1000), Fetching("k", 950, 1000))).rate(2.0) == 50.0


def test_the_time_of_a_phase_counts_from_its_first_event() -> None:
    assert only(after(Fetching("k", 0, 1000), Fetching("k", 100, 1000))).since == 1.0


def test_the_rate_is_that_of_the_last_seconds() -> None:
    sizes = [0] + [1000 + 10 * n for n in range(30)]
    kernel = only(after(*(Fetching("k", size, 9999) for size in sizes)))
    assert kernel.rate(31.0) == pytest.approx(10.0)


def test_the_rate_falls_while_nothing_comes() -> None:
    kernel = only(after(Fetching("k", 0, 1000), Fetching("k", 100, 1000)))
    assert kernel.rate(11.0) == 10.0


def test_a_flood_of_events_does_not_grow_the_state() -> None:
    flood = (Fetching("k", n, 100_000) for n in range(20_000))
    assert len(only(after(*flood, step=0.001)).samples) < 40


def test_tests_are_counted_as_they_end() -> None:
    kernel = only(after(Collected("k", 3), finished(Outcome.PASSED), finished(Outcome.SKIPPED)))
    assert (kernel.finished, kernel.count) == (2, 3)


def test_a_test_that_runs_again_is_not_one_more_than_there_are() -> None:
    kernel = only(after(Collected("k", 1), finished(Outcome.FAILED), finished(Outcome.PASSED)))
    assert (kernel.finished, kernel.count) == (1, 1)


@pytest.mark.parametrize("outcome", Outcome)
def test_what_went_wrong_is_counted(outcome: Outcome) -> None:
    wrong = outcome.bad or outcome is Outcome.LOST
    assert only(after(finished(outcome))).wrong == wrong


def test_the_running_test_is_known_with_its_beginning() -> None:
    kernel = only(after(Booting("k"), events.TestStarted("k", TEST)))
    assert (kernel.test, kernel.test_since) == (TEST, 2.0)


def test_a_test_that_ended_is_the_last_and_no_longer_running() -> None:
    kernel = only(after(events.TestStarted("k", TEST), finished(Outcome.PASSED)))
    assert (kernel.test, kernel.last) == ("", TEST)


def test_a_kernel_that_is_run_again_counts_from_the_beginning() -> None:
    again = after(Collected("k", 2), finished(Outcome.FAILED), KernelQueued("k"))
    assert (only(again).finished, only(again).wrong, only(again).count) == (0, 0, None)
    assert only(again).began == 1.0


def three(*more: Event) -> State:
    """Three kernels on two slots, the first two of which began at second 0."""
    usual = (Expected("a", 30.0), Expected("b", 10.0), Expected("c", 25.0))
    return after(*usual, SlotTaken("a", 1), SlotTaken("b", 2), *more, step=0.0)


def test_what_is_left_is_the_time_of_the_slot_that_is_done_last() -> None:
    assert three().left(0.0) == 35.0
    assert three().left(5.0) == 30.0


def test_a_kernel_that_is_over_its_time_may_end_at_any_moment() -> None:
    assert three().left(12.0) == 25.0


def test_a_kernel_that_has_ended_leaves_its_slot_to_the_next() -> None:
    ended = KernelFinished("b", KernelResult("b", Status.PASSED))
    assert three(ended, SlotTaken("c", 2)).left(0.0) == 30.0


@pytest.mark.parametrize(
    "happened",
    [
        (Expected("a", 30.0),),
        (Expected("a", 30.0), SlotTaken("a", 1), KernelQueued("b")),
        (Expected("k", 30.0), SlotTaken("k", 1), done()),
    ],
    ids=["before a slot is taken", "a kernel that never ran", "nothing is left"],
)
def test_where_nobody_knows_what_is_left_nothing_is_said(happened: tuple[Event, ...]) -> None:
    assert after(*happened).left(0.0) is None


def test_a_kernel_that_is_queued_again_is_expected_to_take_as_long() -> None:
    assert only(after(Expected("k", 30.0), KernelQueued("k"))).expected == 30.0
