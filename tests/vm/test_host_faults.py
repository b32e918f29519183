"""What happens on the host while a guest runs: to its processes, and to the runner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from any_guest import in_guest
from test_cli import outcomes, qemu_of, wait_for_rows

from tests.faults.fixtures import Noticed, events_of

TESTS = """
    import time, pytest

    @pytest.mark.parametrize("n", range(12))
    def test_n(n):
        time.sleep(0.3)
"""


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vmtest", "run", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def one_of(runner: int, program: str) -> int:
    """The process of the runner's VM that runs ``program``."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"VMTEST_RUNNER={runner}".encode() in (entry / "environ").read_bytes()
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine and program in [Path(word.decode()).name for word in words[:2]]:
            return int(entry.name)
    raise AssertionError(f"no {program} runs")


@pytest.mark.parametrize(
    ("program", "number", "status", "reason"),
    [
        ("qemu-system-x86_64", signal.SIGKILL, "LOST", "QEMU ended"),
        ("qemu-system-x86_64", signal.SIGSTOP, "TIMED_OUT", "silence deadline"),
        ("vng", signal.SIGKILL, "LOST", "QEMU ended"),
        ("vng", signal.SIGSTOP, "PASSED", ""),
    ],
)
def test_a_process_of_a_vm_that_is_killed_or_stopped(
    program: str,
    number: signal.Signals,
    status: str,
    reason: str,
    project: Callable[..., Path],
    noticed: Noticed,
) -> None:
    folder = project(TESTS)
    if status == "TIMED_OUT":
        config = folder / "kernels.toml"
        config.write_text(config.read_text().replace('"20s"', '"5s"'))
    with start(folder, "--cold") as process:
        wait_for_rows(folder, 3, process)
        os.kill(one_of(process.pid, program), number)
        began = time.monotonic()
        out, _ = process.communicate(timeout=120)
    (kernel,) = json.loads((folder / ".vmtest/latest/matrix.json").read_text())["kernels"]
    assert (kernel["status"], process.returncode) == (status, int(status != "PASSED")), out
    assert reason in kernel["reason"]
    finished = list(outcomes(folder).values())
    assert finished.count("passed") >= 3
    if status != "PASSED":
        noticed.after(time.monotonic() - began)
        assert len(finished) == 12 and set(finished) <= {"passed", "lost", "not run"}
    assert qemu_of(process.pid) == []


def wait_for_stage(folder: Path, stage: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not any(stage in (event.event, event.what) for event in events_of(folder)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize("stage", ["booting", "copying the payload", "test started"])
@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGHUP], [signal.SIGINT, signal.SIGINT], [signal.SIGKILL]],
    ids=["SIGHUP", "SIGINT twice", "SIGKILL"],
)
def test_a_signal_ends_the_runner_at_each_stage_and_the_next_run_works(
    numbers: list[signal.Signals], stage: str, project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project(TESTS)
    with start(folder, "--cold" if stage == "booting" else "--warm") as process:
        wait_for_stage(folder, stage, process)
        with noticed.here():
            for number in numbers:
                process.send_signal(number)
                time.sleep(0.2 * (number is signal.SIGINT))  # while the first is worked on
            out, _ = process.communicate(timeout=60)
            while qemu_of(process.pid):
                time.sleep(0.01)
    killed = signal.SIGKILL in numbers
    assert process.returncode == (-signal.SIGKILL if killed else 130), out
    assert "Traceback" not in out
    assert killed or "CANCELLED" in out
    begun = any(event.event == "test started" for event in events_of(folder))
    assert begun == (stage == "test started")
    assert in_guest("run", "-k", "n and 11", cwd=folder).status == 0
    assert outcomes(folder)["test_n[11]"] == "passed"
