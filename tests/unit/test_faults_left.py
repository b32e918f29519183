"""What watches over the tests of faults: each kind of thing that may be left is found."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from junitparser import JUnitXml
from small_disk import mounted

from tests.faults.__main__ import ran
from tests.faults.fixtures import Noticed
from tests.faults.left import PATIENCE, Before, watched

Plant = Callable[[Before, ExitStack], None]


@contextmanager
def ended(pid: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


def child(before: Before, stack: ExitStack) -> None:
    process = stack.enter_context(subprocess.Popen(["sleep", "300"]))
    stack.enter_context(ended(process.pid))


def orphan(before: Before, stack: ExitStack) -> None:
    script = "setsid sleep 300 >/dev/null 2>&1 & echo $!"
    said = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True)
    stack.enter_context(ended(int(said.stdout)))


def file(before: Before, stack: ExitStack) -> None:
    tempfile.mkstemp()


def folder_of_a_vm(before: Before, stack: ExitStack) -> None:
    (before.own / "tmp" / "vmtest-x").mkdir(parents=True)


def scratch_of_a_cache(before: Before, stack: ExitStack) -> None:
    (before.own / "cache" / "tmp" / "x").mkdir(parents=True)


def listener(before: Before, stack: ExitStack) -> None:
    place = before.temporary / "socket"
    stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(place))
    place.unlink()


def mount(before: Before, stack: ExitStack) -> None:
    stack.enter_context(mounted(before.own / "disk", "64k"))


def loop_device(before: Before, stack: ExitStack) -> None:
    image = before.own / "image"
    image.write_bytes(bytes(1 << 20))
    attach = ["losetup", "--find", "--show", str(image)]
    done = subprocess.run(attach, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("attaching a loop device needs root")
    stack.callback(subprocess.run, ["losetup", "--detach", done.stdout.strip()], check=True)


def lock(before: Before, stack: ExitStack) -> None:
    held = stack.enter_context((before.own / "lock").open("w"))
    fcntl.flock(held, fcntl.LOCK_EX)


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (child, "process "),
        (orphan, "process "),
        (file, "file "),
        (folder_of_a_vm, "file "),
        (scratch_of_a_cache, "file "),
        (listener, "socket "),
        (mount, "mount "),
        (loop_device, "loop device "),
        (lock, "lock on "),
    ],
)
def test_what_is_left_is_found_and_nothing_else(plant: Plant, said: str, tmp_path: Path) -> None:
    with watched(tmp_path) as before, ExitStack() as stack:
        assert before.left() == []
        plant(before, stack)
        (found,) = before.wait(0.1)
        assert found.startswith(said)
        stack.close()
        if said != "file ":
            assert before.wait(PATIENCE) == []


def test_what_may_stay_is_no_finding(tmp_path: Path) -> None:
    with watched(tmp_path, ("file */dask-*",)) as before:
        (before.temporary / "dask-scratch").mkdir()
        (before.temporary / "other").touch()
        assert before.left() == [f"file {before.temporary}/other"]


SUITE = """
import subprocess
import pytest
from tests.faults import fixtures, left
from tests.faults.fixtures import nothing_is_left, noticed

left.PATIENCE = 0.1
fixtures.tests_of_faults = lambda: {"test_it.py::test_clean": (), "test_it.py::test_leaves": ()}

def test_clean(noticed):
    with noticed.here():
        pass
    noticed.after(2.5)

def test_leaves():
    subprocess.run(["sh", "-c", "sleep 300 & echo $! >pid"])

def test_of_no_fault():
    pass
"""


def test_a_test_that_leaves_something_fails_and_a_clean_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junit-xml=j.xml"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        pytest_, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert "the test left behind:" in done.stdout, done
    assert "sleep 300" in done.stdout
    results = ran(case for suite in JUnitXml.fromfile(str(tmp_path / "j.xml")) for case in suite)
    (clean,) = results["test_it.py::test_clean"]
    assert (clean.outcome, clean.clean, clean.noticed) == ("passed", True, (0.0, 2.5))
    assert "failed" in [one.outcome for one in results["test_it.py::test_leaves"]]
    assert [one.clean for one in results["test_it.py::test_of_no_fault"]] == [False]


EVENTS = """
{"at": 1.0, "event": "booting", "kernel": "6.12", "count": 1}
{"at": 2.0, "event": "test started", "kernel": "6.1", "test": "t.py::test_it"}
{"at": 2.5, "event": "test started", "kernel": "6.12", "test": "t.py::test_it[1]"}
{"at": 4.0, "event": "test finished", "kernel": "6.12", "test": "t.py::test_it[1]"}
{"at": 9.0, "event": "finished", "kernel": "6.1", "what": "LOST"}
{"at": 9.5, "event": "finished", "kernel": "6.12", "what": "LOST"}
"""


@pytest.mark.parametrize(
    ("begins", "kernel", "seconds"),
    [("test_it", "6.12", 1.5), ("test_it", "6.1", 7.0), ("booting", "6.12", 8.5)],
)
def test_a_runs_events_say_when_a_fault_was_injected_and_when_noticed(
    begins: str, kernel: str, seconds: float, tmp_path: Path
) -> None:
    for number, text in enumerate(("", EVENTS.lstrip())):
        run = tmp_path / ".vmtest" / "runs" / str(number)
        run.mkdir(parents=True)
        (run / "events.jsonl").write_text(text)
    told = Noticed([])
    told.in_run(tmp_path, begins, kernel)
    assert told.properties == [("noticed", f"{seconds:.2f}")]
    with pytest.raises(AssertionError, match="say not both"):
        told.in_run(tmp_path, "test_other")
