"""A machine on a process that stands for QEMU: what a failed boot says, and that nothing stays."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_machine import PROBE, image_of

from vmtest.errors import BootError, InfrastructureError, SessionLost
from vmtest.model.kernels import RootImage
from vmtest.vm import machine as machine_module
from vmtest.vm.folder import VmFolder
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.memory import Memory
from vmtest.vm.snapshot import SnapshotError

QEMU = Path(__file__).with_name("fake_qemu.py")
LONG = 60.0
Made = Callable[..., Machine]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VM's folder, with a path that fits a socket's name."""
    return tmp_path_factory.mktemp("vm") / "f"


@pytest.fixture
def made(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A machine whose guest has a fate."""

    def make_folder(*ignored: object) -> VmFolder:
        folder.mkdir()
        return VmFolder(folder, "host")

    monkeypatch.setattr(machine_module, "find_vng", lambda: Path("/nowhere/vng"))
    monkeypatch.setattr(machine_module, "make_folder", make_folder)
    image = image_of(tmp_path, "k")
    root = RootImage("host", None, "0" * 64, "python3")
    spec = MachineSpec(image, root, PROBE, tmp_path / "console.log")

    def make(fate: str, *, keep: Path | None = None, log: Path | None = None) -> Machine:
        argv = [sys.executable, str(QEMU), fate, str(folder / "ssh")]
        monkeypatch.setattr(machine_module, "vng_argv", lambda *ignored: argv)
        return Machine(replace(spec, log=log or spec.log), keep=keep)

    return make


def failed(machine: Machine, limit: float = LONG, factor: float = 1.0) -> str:
    """What a boot that does not come to a session says."""
    with machine, pytest.raises(BootError) as caught:
        machine.connect(limit, factor)
    return str(caught.value)


AT_ONCE = [
    ("ends at once", "k: QEMU ended", '"qemu: no such machine"'),
    ("panics at once", "k: kernel panicked", '"Kernel panic - not syncing: made up"'),
    ("hangs up", "k: no SSH session", "(tcg, limit 60 s): "),
    ("no SSH", "k: no SSH session", "the SSH session ended while connecting"),
    ("ends behind the agent", "k: QEMU ended", '"qemu: killed"'),
    ("panics behind the agent", "k: kernel panicked", '"Kernel panic - not syncing: made up"'),
    ("another key", "k: the guest's host key is not the one we gave it", "(tcg, limit 60 s)"),
]


@pytest.mark.parametrize(("fate", "what", "detail"), AT_ONCE, ids=[fate for fate, *_ in AT_ONCE])
def test_a_boot_that_fails_says_what_ended_and_its_last_words(
    fate: str, what: str, detail: str, made: Made, tmp_path: Path
) -> None:
    said = failed(made(fate))
    assert said.startswith(what), said
    assert detail in said
    assert said.endswith(f"see {tmp_path / 'console.log'}")


@pytest.mark.parametrize(
    ("fate", "last"),
    [("hangs at once", "waiting for a disk"), ("no banner", "Linux version 6.12.1")],
)
def test_a_boot_over_its_limit_names_the_limit_and_the_last_line(
    fate: str, last: str, made: Made
) -> None:
    said = failed(made(fate), limit=2.0, factor=2.0)
    assert "k: no SSH session 2." in said
    assert "(tcg, limit 2 s, deadlines x2.0)" in said
    assert last in said


@pytest.mark.parametrize("fate", [fate for fate, *_ in AT_ONCE])
def test_no_failed_boot_leaves_a_folder_or_a_process(fate: str, made: Made, folder: Path) -> None:
    machine = made(fate)
    failed(machine)
    assert not folder.exists()
    assert not machine.running


def test_the_console_is_kept_whole(made: Made, tmp_path: Path) -> None:
    failed(made("panics at once"))
    lines = (tmp_path / "console.log").read_text().splitlines()
    assert [line.partition("] ")[2] for line in lines] == [
        "Linux version 6.12.1",
        "Kernel panic - not syncing: made up",
    ]


def test_a_console_that_cannot_be_written_hides_no_panic(made: Made, tmp_path: Path) -> None:
    assert "kernel panicked" in failed(made("panics at once", log=tmp_path / "no" / "console.log"))


def test_a_guest_that_answers_has_a_session(made: Made) -> None:
    with made("serves") as machine:
        session = machine.connect(LONG)
        assert session.run(["false"]).status == 3
        session.close()


def test_a_session_whose_vm_is_cancelled_is_lost(made: Made) -> None:
    with made("serves") as machine:
        session = machine.connect(LONG)
        machine.cancel()
        with pytest.raises(SessionLost):
            session.run(["true"])
        assert machine.cancelled
        session.close()


@pytest.mark.parametrize("fate", ["hangs at once", "no banner"])
def test_cancelling_a_boot_wakes_who_waits(fate: str, made: Made) -> None:
    with made(fate) as machine:
        threading.Timer(0.3, machine.cancel).start()
        with pytest.raises(BootError):
            machine.connect(LONG)


def test_a_guest_that_cannot_be_saved_says_why_and_goes_on(made: Made, tmp_path: Path) -> None:
    with made("cannot be saved", keep=tmp_path / "keep") as machine:
        machine.connect(LONG).close()
    assert str(machine.unsaved) == "its processes run on"


@pytest.mark.parametrize("fate", ["ends without its memory", "waits for its memory"])
def test_a_qemu_that_does_not_get_its_memory_is_no_boot_that_failed(
    fate: str, made: Made, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a sandbox of its own, which does not see what another process has open."""
    monkeypatch.setattr(machine_module, "START_LIMIT", 1.0)
    words = "QEMU does not start with its guest's memory in a file"
    with (
        made(fate, keep=tmp_path / "keep") as machine,
        pytest.raises(SnapshotError, match=words),
    ):
        machine.connect(LONG)
    assert not folder.exists()


def test_who_cancels_such_a_qemu_has_lost_it(made: Made, tmp_path: Path) -> None:
    with made("waits for its memory", keep=tmp_path / "keep") as machine:
        threading.Timer(0.3, machine.cancel).start()
        with pytest.raises(BootError, match="QEMU ended"):
            machine.connect(LONG)
    assert machine.cancelled


def test_a_memory_that_qemu_would_not_find_is_told_before_it_starts(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Memory, "unreachable", lambda self: "/proc is another's")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(SnapshotError, match="memory in a file: /proc is another's"):
        made("cannot be saved", keep=tmp_path / "keep").__enter__()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_guest_that_says_nothing_of_saving_is_given_up_at_the_limit(
    made: Made, tmp_path: Path
) -> None:
    said = failed(made("says nothing of saving", keep=tmp_path / "keep"), limit=2.0)
    assert "no SSH session" in said


def test_a_guest_that_takes_nothing_is_given_up_at_the_limit(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    much = os.urandom(4 << 20)  # more than a socket holds
    monkeypatch.setattr(machine_module, "guest_archive", lambda: much)
    said = failed(made("says nothing of saving", keep=tmp_path / "keep"), limit=2.0)
    assert said.startswith("k: no SSH session")


def test_a_machine_without_its_tools_is_the_infrastructures_and_leaves_nothing(
    made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = made("serves")

    def nothing(*ignored: object) -> None:
        raise InfrastructureError("vng is not installed")

    monkeypatch.setattr(machine_module, "vng_argv", nothing)
    with pytest.raises(InfrastructureError, match="vng is not installed"), machine:
        raise AssertionError("it was started")
    assert not folder.exists()


def test_the_cause_of_death_is_what_the_console_says(made: Made) -> None:
    with made("serves") as machine:
        machine.connect(LONG).close()
        assert machine.cause_of_death() == "the guest closed the SSH connection"
        machine.console.feed(b"[    9.000000] Kernel panic - not syncing: later\n")
        assert machine.cause_of_death() == 'kernel panicked: "Kernel panic - not syncing: later"'


def test_a_machine_that_is_handed_over_has_another_log(made: Made, tmp_path: Path) -> None:
    with made("serves") as machine:
        machine.connect(LONG).close()
        machine.hand_over(replace(machine.spec, log=tmp_path / "another.log"))
    assert "Linux version" in (tmp_path / "another.log").read_text()
    assert not (tmp_path / "console.log").exists()


def test_a_log_that_cannot_be_handed_over_is_an_error(made: Made, tmp_path: Path) -> None:
    with made("serves") as machine:
        machine.connect(LONG).close()
        with pytest.raises(OSError, match="No such file"):
            machine.hand_over(replace(machine.spec, log=tmp_path / "no" / "another.log"))
