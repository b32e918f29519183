"""The supervisor with real processes: nothing it started survives its runner."""

import os
import subprocess
import sys
import time
from pathlib import Path

from vmtest.host.process import Supervised

# A tree as vng's: a shell that starts a shell that starts the long-lived process.
TREE = "sh -c 'sleep 300 & echo $! >PID; echo started; wait' & wait"


def gone(pid: int, within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.01)
    return False


def start(folder: Path) -> tuple[Supervised, int]:
    process = Supervised.start(["sh", "-c", TREE], os.environ, folder)
    assert os.read(process.descriptor, 100) == b"started\n"
    return process, int((folder / "PID").read_text())


def test_ending_it_ends_the_whole_tree_and_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "vm"
    folder.mkdir()
    process, pid = start(folder)
    process.end()
    process.close()
    assert gone(pid, 0.1)
    assert not folder.exists()


def test_sigkill_of_the_runner_ends_the_whole_tree_and_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "vm"
    folder.mkdir()
    runner = (
        "import os, sys, time; from pathlib import Path;"
        "from vmtest.host.process import Supervised;"
        f"p = Supervised.start(['sh', '-c', {TREE!r}], os.environ, Path({str(folder)!r}));"
        "os.read(p.descriptor, 100); print(flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", runner], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid = int((folder / "PID").read_text())
        assert not gone(pid, 0.1)
        process.kill()
    assert gone(pid)
    deadline = time.monotonic() + 5
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not folder.exists()


def test_a_command_that_ends_by_itself_ends_its_output(tmp_path: Path) -> None:
    folder = tmp_path / "vm"
    folder.mkdir()
    process = Supervised.start(["sh", "-c", "echo out; echo err >&2"], os.environ, folder)
    told = b""
    while data := os.read(process.descriptor, 100):
        told += data
    process.end()
    process.close()
    assert sorted(told.split()) == [b"err", b"out"]


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "vm"
    folder.mkdir()
    process = Supervised.start(["/no/such/command"], os.environ, folder)
    told = os.read(process.descriptor, 1000)
    process.end()
    process.close()
    assert b"cannot start /no/such/command" in told
