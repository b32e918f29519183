"""``vmtest shell`` on fake machines: whose status it has, and what it says of a guest that ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from fake_machine import FakeMachine, FakeSession, World, job_of, world_of

from vmtest.cli import shell
from vmtest.cli.shell import Interaction, hand_over
from vmtest.errors import InfrastructureError, SessionLost, VmtestError
from vmtest.matrix.bench import Job
from vmtest.matrix.intact import CacheDamaged
from vmtest.matrix.job import base_result
from vmtest.model.results import Status
from vmtest.suites.payload import pack_suites
from vmtest.vm.restore import Snapshots

Act = Callable[[FakeMachine], None]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Guests whose terminal ends with 42."""

    def interact(session: object, command: list[str], pythonpath: object) -> int:
        cast(FakeSession, session)._machine.happens("run")
        return 42 if command == ["true"] else 7

    monkeypatch.setattr(shell, "interact", interact)
    return world_of(monkeypatch)


def job(folder: Path, *command: str) -> Job:
    return replace(job_of(folder), task=Interaction(pack_suites([], [], {}), list(command)))


def test_the_status_is_the_commands(world: World, tmp_path: Path) -> None:
    assert hand_over(job(tmp_path, "true")) == 42
    assert world.started == world.ended == ["k"]


def test_without_a_command_a_shell_is_opened_and_the_payload_named(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hand_over(job(tmp_path)) == 7
    assert "6.12.1 on tcg; the payload is in /tmp/vmtest" in capsys.readouterr().err


def panics(machine: FakeMachine) -> None:
    machine.says("Kernel panic - not syncing: sysrq triggered crash")
    machine.dies()


def leaves(machine: FakeMachine) -> None:
    raise SessionLost("end of file")


@pytest.mark.parametrize(
    ("stage", "act", "said"),
    [
        ("boot", panics, "k: kernel panicked"),
        ("boot", leaves, "k: no SSH session"),
        ("copy", leaves, "end of file"),
        ("run", panics, 'k: kernel panicked: "Kernel panic - not syncing: sysrq triggered'),
        ("run", FakeMachine.dies, "k: QEMU ended"),
        ("run", leaves, "k: the guest closed the SSH connection"),
    ],
)
def test_a_guest_that_ends_is_an_error_that_says_why(
    stage: str, act: Act, said: str, world: World, tmp_path: Path
) -> None:
    world.at["k", stage] = act
    with pytest.raises(VmtestError) as caught:
        hand_over(job(tmp_path, "true"))
    assert said in str(caught.value)
    assert world.started == world.ended


def test_its_notes_are_shown(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hand_over(replace(job(tmp_path, "true"), note="its config lacks CONFIG_X"))
    assert "note: its config lacks CONFIG_X" in capsys.readouterr().err


def test_a_guest_on_damaged_files_is_an_error_with_the_cure(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = job(tmp_path, "true")

    def damaged(job: Job) -> None:
        result = base_result(job.kernel, Status.INFRA_ERROR, "")
        raise CacheDamaged("cached image 1234 is damaged", result)

    monkeypatch.setattr(shell, "run_kernel", damaged)
    with pytest.raises(InfrastructureError, match="is damaged: it was removed; run the command"):
        hand_over(asked)


def test_ctrl_c_while_it_boots_leaves_no_machine_and_no_half_snapshot(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(machine: FakeMachine) -> None:
        raise KeyboardInterrupt

    world.at["k", "boot"] = interrupted
    closed: list[Snapshots] = []
    monkeypatch.setattr(Snapshots, "close", lambda self: closed.append(self))
    with pytest.raises(KeyboardInterrupt):
        hand_over(job(tmp_path, "true"))
    assert world.started == world.ended == ["k"]
    assert len(closed) == 1
