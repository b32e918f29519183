"""What a process keeps from a run to the next: guests that wait, and files found whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

import pytest
from fake_machine import FakeMachine, Tests, World, job_of, world_of

from vmtest.errors import SessionLost
from vmtest.host import interrupt
from vmtest.host.seal import seal
from vmtest.matrix import kept as kept_module
from vmtest.matrix.bench import Bench, Cancellation, Job
from vmtest.matrix.intact import Intact
from vmtest.matrix.job import run_kernel
from vmtest.matrix.kept import Kept, Prepare, Waiting, Whole
from vmtest.model.results import KernelResult, Status
from vmtest.vm.restore import Snapshots, Started
from vmtest.vm.snapshot import Snapshot


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Fake machines of which each has a snapshot, and whose console has a file."""
    made = world_of(monkeypatch)
    snapshot = Snapshot(Path("/nowhere"), "/tmp/vm", ("qemu",), 0.0, 0, ())
    monkeypatch.setattr(Snapshots, "find", lambda self, spec: snapshot)
    made.at["k", "start"] = lambda machine: machine.spec.log.touch()
    return made


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with closing(Waiting(tmp_path / "waiting", tmp_path / "cache", 2)) as guests:
        yield Kept(Whole(), guests)


def ran(job: Job, kept: Kept) -> KernelResult:
    result = run_kernel(job, keeps=kept)
    assert result.status is Status.PASSED, result
    return result


def again(job: Job, number: int) -> Job:
    """``job`` in a folder of its own, as the next run has it."""
    folder = job.directory.with_name(f"{job.directory.name}-{number}")
    folder.mkdir()
    return replace(job, directory=folder)


def filled(kept: Kept) -> None:
    """Have guests wait, until they do."""
    kept.guests.fill()
    for coming in tuple(kept.guests._guests.values()):
        coming.future.result()


def test_a_run_takes_the_guest_that_waits_for_its_kernel(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    ran(job, kept)
    filled(kept)
    assert (world.started, world.alive) == (["k", "k"], 1)
    second = again(job, 2)
    assert ran(second, kept).start == "warm"
    assert (world.started, world.alive) == (["k", "k"], 0)
    assert (second.directory / "console.log").exists()


def test_a_used_guest_is_not_used_again(world: World, kept: Kept, tmp_path: Path) -> None:
    job = job_of(tmp_path)
    ran(job, kept)
    filled(kept)
    for number in (2, 3):
        ran(again(job, number), kept)
    assert world.started == ["k"] * 3


def test_a_guest_that_died_while_it_waited_is_not_taken(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    job, machines = job_of(tmp_path), list[FakeMachine]()
    ran(job, kept)
    world.at["k", "boot"] = machines.append
    filled(kept)
    machines[0]._ended.set()
    ran(again(job, 2), kept)
    assert world.started == ["k"] * 3
    assert world.alive == 0


def test_a_guest_of_another_machine_is_not_taken(world: World, kept: Kept, tmp_path: Path) -> None:
    job = job_of(tmp_path)
    ran(job, kept)
    filled(kept)
    other = replace(again(job, 2), kernel=replace(job.kernel, memory_mib=2048))
    ran(other, kept)
    assert world.started == ["k"] * 3
    assert world.alive == 0


def test_none_waits_where_there_is_no_snapshot(
    world: World, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(job_of(tmp_path), kept)
    monkeypatch.setattr(Snapshots, "find", lambda self, spec: None)
    filled(kept)
    assert world.alive == 0


def test_none_waits_where_memory_is_short(
    world: World, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(job_of(tmp_path), kept)
    monkeypatch.setattr(kept_module, "memory_available_mib", lambda: 1400)
    filled(kept)
    assert world.alive == 0


def test_the_end_of_a_watch_ends_the_guests_that_wait(world: World, tmp_path: Path) -> None:
    with closing(Waiting(tmp_path / "waiting", tmp_path / "cache", 2)) as guests:
        kept = Kept(Whole(), guests)
        ran(job_of(tmp_path), kept)
        filled(kept)
        assert world.alive == 1
    assert world.alive == 0


def test_files_that_were_found_whole_are_hashed_again_when_their_stamp_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path)
    folder = tmp_path / "images" / "trixie-0"
    folder.mkdir(parents=True)
    (folder / "root.sqfs").write_bytes(b"hsqs")
    seal(folder)
    digest = "1d5d5cf7f5cb5ab4ebd1d9da0c7b8c1e5c1c4a0a"
    root = replace(job.root, kind="disk", path=folder / "root.sqfs", digest=digest)
    whole, hashed = Whole(), list[Path]()

    def inspected(title: str, place: Path, files: object) -> None:
        hashed.append(place)

    monkeypatch.setattr("vmtest.matrix.intact.inspect", inspected)
    for content in (b"hsqs", b"hsqs", b"other"):
        if content == b"other":
            (folder / "root.sqfs").write_bytes(content)
        intact = Intact(job.image, root, whole)
        intact._parts = [part for part in (intact._guest(),) if part is not None]
        intact._hash()
    assert hashed == [folder, folder]


def preparing(job: Job, kept: Kept, prepare: Prepare | None) -> list[object]:
    """A run whose work wants ``prepare`` done: what came of it, for each guest."""
    found: list[object] = []
    ran(wanting(job, prepare, found), kept)
    return found


def wanting(job: Job, prepare: Prepare | None, found: list[object]) -> Job:
    """``job`` with a task that wants ``prepare`` done; ``found`` gets what came of it."""

    class Prepares(Tests):
        def run(self, bench: Bench, result: KernelResult) -> KernelResult:
            with bench.guest(prepare=prepare) as guest:
                found.append(guest.prepared)
            return replace(result, status=Status.PASSED)

    return replace(job, task=Prepares())


@dataclass(frozen=True)
class Lays:
    """Prepares by laying a word in the guest."""

    word: str

    def __call__(self, started: Started) -> str:
        started.session.put(self.word.encode(), "/word")
        return self.word


def test_a_guest_that_waits_is_prepared_for_the_work_that_wants_it(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    assert preparing(job, kept, Lays("one")) == [None]
    filled(kept)
    assert preparing(again(job, 2), kept, Lays("one")) == ["one"]
    assert world.started == ["k"] * 2


def test_a_guest_that_was_prepared_for_something_else_is_not_taken(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    preparing(job, kept, Lays("one"))
    filled(kept)
    assert preparing(again(job, 2), kept, Lays("another")) == [None]
    assert (world.started, world.alive) == (["k"] * 3, 0)


def test_a_guest_that_was_prepared_waits_while_other_work_is_done(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    preparing(job, kept, Lays("one"))
    filled(kept)
    ran(again(job, 2), kept)
    assert world.alive == 1
    assert preparing(again(job, 3), kept, Lays("one")) == ["one"]


def test_a_guest_waits_for_each_kind_of_work_and_the_prepared_one_comes_first(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    """A save is due to be verified first, and then to be tested, in another guest."""
    job = job_of(tmp_path)
    ran(job, kept)
    preparing(again(job, 2), kept, Lays("one"))
    kept.guests.fill()
    coming = [one.wanted.prepare is not None for one in kept.guests._guests.values()]
    assert coming == [True, False]
    filled(kept)
    assert world.alive == 2
    before = len(world.started)
    assert preparing(again(job, 3), kept, Lays("one")) == ["one"]
    assert ran(again(job, 4), kept).start == "warm"
    assert (len(world.started), world.alive) == (before, 0)


def test_a_guest_that_cannot_be_prepared_does_not_wait(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    def fails(started: Started) -> None:
        raise SessionLost("gone")

    preparing(job_of(tmp_path), kept, fails)
    filled(kept)
    assert world.alive == 0


def patient(job: Job, silence: float) -> Job:
    """``job`` with ``silence`` seconds in which its guest has to answer."""
    limits = replace(job.kernel.limits, silence=silence)
    return replace(job, kernel=replace(job.kernel, limits=limits))


def test_a_guest_that_wedges_while_it_is_prepared_is_given_up(
    world: World, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung_up = Event()

    def wedged(started: Started) -> None:
        if hung_up.wait(20):
            raise SessionLost("end of file")

    preparing(patient(job_of(tmp_path), 0.01), kept, wedged)
    monkeypatch.setattr(FakeMachine, "hang_up", lambda machine: hung_up.set())
    filled(kept)
    assert hung_up.is_set() and world.alive == 0


def test_an_interrupt_ends_the_wait_for_a_guest_that_is_still_prepared(
    world: World, kept: Kept, tmp_path: Path
) -> None:
    begun, release, cancellation = Event(), Event(), Cancellation()

    with interrupt.interruptible() as scope:

        def slow(started: Started) -> None:
            begun.set()
            cancellation.cancel()
            scope.end()
            release.wait(20)

        job = patient(job_of(tmp_path), 60)
        preparing(job, kept, slow)
        kept.guests.fill()
        begun.wait()
        second = wanting(again(job, 2), slow, [])
        result = run_kernel(second, cancellation=cancellation, keeps=kept)
        assert result.status is Status.CANCELLED and not release.is_set()
        (coming,) = kept.guests._guests.values()
        assert not coming.future.done()
        release.set()
    filled(kept)
    assert world.alive == 1
