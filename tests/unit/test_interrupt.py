"""An interrupt ends whatever is waited for, on every thread, and leaves nothing behind.

Each test runs the real code in a process of its own, with a tool on PATH (or a server)
that takes five minutes, and signals that process alone.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from packaged import PACKAGED

from tests.faults.fixtures import Noticed
from vmtest.errors import Interrupted
from vmtest.host import interrupt
from vmtest.host.cache import locked

LONG = 240.0
"""Seconds that end a test which would never end: less than the slow tools take (300), and more
than a disk takes to write all that the other tests have given it."""
SLOW = """#!/bin/sh
# A tool that starts another, as most do; both take their time.
sleep 300 &
echo $! $$ >{pids}.new && mv {pids}.new {pids}
wait
"""
STUBBORN = SLOW.replace("sleep 300 &", "trap '' TERM INT; sh -c 'trap \"\" TERM INT; sleep 300' &")
KERNELS = f"""
schema = 1
[build]
command = {{build}}
{PACKAGED}
[[suite]]
name = "own"
tests = "test_own.py"
"""


def gone(pid: int) -> bool:
    """Whether ``pid`` runs no more (a zombie that nobody reaps has ended)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Case:
    """A folder with slow tools, and a process that waits for one of them."""

    def __init__(self, folder: Path, noticed: Noticed) -> None:
        self.folder = folder
        self.noticed = noticed
        self.cache = folder / "cache"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.pids = folder / "pids"
        self.environment = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "VMTEST_CACHE": str(self.cache),
            "VMTEST_DEBIAN_MIRROR": "http://127.0.0.1:9/debian",
            "VMTEST_DEBIAN_SECURITY_MIRROR": "http://127.0.0.1:9/security",
            "TMPDIR": str(folder / "tmp"),
        }
        (folder / "tmp").mkdir()

    def tool(self, name: str, text: str = SLOW) -> Path:
        path = self.bin / name
        path.write_text(text.format(pids=self.pids))
        path.chmod(0o755)
        return path

    def project(self, build: str = '["true"]') -> None:
        (self.folder / "kernels.toml").write_text(KERNELS.format(build=build))
        (self.folder / "test_own.py").write_text("def test_a():\n    pass\n")

    @contextmanager
    def started(self, argv: list[str], ready: Path) -> Iterator[subprocess.Popen[str]]:
        """``argv`` under way, once ``ready`` is there; killed at the end."""
        process = subprocess.Popen(
            argv,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                deadline = time.monotonic() + LONG
                while not ready.exists() and process.poll() is None:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                yield process
            finally:
                process.kill()

    def interrupted(self, argv: list[str], number: int, ready: Path) -> subprocess.Popen[str]:
        """Start ``argv``, signal it once ``ready`` is there, and wait for its end."""
        with self.started(argv, ready) as process, self.noticed.here():
            process.send_signal(number)
            out, err = process.communicate(timeout=LONG)
        assert process.returncode == 130, (out, err)
        assert "Traceback" not in err, err
        return process

    def no_process_is_left(self) -> None:
        # What was killed may have a moment's work left in the kernel.
        deadline = time.monotonic() + LONG
        while not all(gone(int(pid)) for pid in self.pids.read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def nothing_is_left(self) -> None:
        self.no_process_is_left()
        assert list((self.cache / "tmp").glob("*")) == []
        assert list((self.folder / "tmp").glob("*")) == []


@pytest.fixture
def case(tmp_path: Path, noticed: Noticed) -> Case:
    return Case(tmp_path, noticed)


VMTEST = [sys.executable, "-m", "vmtest"]
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@SIGNALS
@pytest.mark.parametrize("text", [SLOW, STUBBORN], ids=["slow", "stubborn"])
def test_a_build_ends_with_its_children(case: Case, number: int, text: str) -> None:
    case.project(f'["{case.tool("build", text)}"]')
    case.interrupted([*VMTEST, "run"], number, case.pids)
    case.nothing_is_left()


@SIGNALS
@pytest.mark.parametrize("command", [["run"], ["kernels", "list"], ["kernels", "available"]])
def test_apt_ends_with_its_children(case: Case, number: int, command: list[str]) -> None:
    case.tool("apt-get")
    case.project()
    case.interrupted([*VMTEST, *command], number, case.pids)
    case.nothing_is_left()


def test_a_terminal_that_is_closed_ends_a_run_as_ctrl_c_does(case: Case) -> None:
    case.tool("apt-get")
    case.project()
    case.interrupted([*VMTEST, "run"], signal.SIGHUP, case.pids)
    case.nothing_is_left()


@pytest.mark.parametrize("text", [SLOW, STUBBORN], ids=["slow", "stubborn"])
def test_what_a_killed_run_had_started_ends_with_it(case: Case, text: str) -> None:
    case.tool("apt-get", text)
    case.project()
    with case.started([*VMTEST, "run"], case.pids) as process:
        process.kill()
    case.no_process_is_left()


def driver(body: str) -> list[str]:
    """A process that does ``body`` on a worker's thread, under the command line's own rules."""
    head = """
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        import typer
        from vmtest.cli import common
        from vmtest.kernels import default_cache

        cache = default_cache()

        def work():
    """
    tail = """
        def main():
            with common.reported(), ThreadPoolExecutor(1) as pool:
                pool.submit(work).result()

        typer.run(main)
    """
    text = textwrap.dedent(head) + textwrap.indent(textwrap.dedent(body), "    ")
    return [sys.executable, "-c", text + textwrap.dedent(tail)]


@SIGNALS
def test_a_guest_image_ends_with_its_children(case: Case, number: int) -> None:
    case.tool("mmdebstrap")
    case.tool("sqfstar", "#!/bin/sh\nexec cat >/dev/null\n")
    case.project()
    body = """
        from vmtest.config import file
        from vmtest.rootfs.prepare import prepare_root
        prepare_root(file.load(Path("kernels.toml")), cache)
    """
    case.interrupted(driver(body), number, case.pids)
    case.nothing_is_left()


def test_a_signal_that_another_thread_took_is_not_lost(case: Case) -> None:
    # As the kernel may do while that thread starts a command.
    case.tool("slow")
    body = f"""
        import signal, threading, time
        from vmtest.host import interrupt

        def take():
            while not Path("{case.pids}").exists():
                time.sleep(0.02)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            time.sleep(300)

        threading.Thread(target=take, daemon=True).start()
        interrupt.run(["slow"])
    """
    process = subprocess.run(
        driver(body),
        cwd=case.folder,
        env=case.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (process.returncode, process.stderr) == (130, "vmtest: interrupted\n")
    case.no_process_is_left()


@SIGNALS
def test_an_accelerators_probe_ends_and_is_not_remembered(case: Case, number: int) -> None:
    asked = "case $1 in -L | --version) exit ;; esac"
    case.tool("qemu-system-x86_64", SLOW.replace("sleep", f"{asked}\nsleep"))
    body = """
        from vmtest.vm import accel
        accel.choose(Path("/dev/null"), cache)
    """
    case.interrupted(driver(body), number, case.pids)
    case.no_process_is_left()
    assert list((case.cache / "accel").glob("*.json")) == []


def test_waiting_for_another_runner_ends(case: Case) -> None:
    body = """
        from vmtest.host.cache import locked
        Path("ready").touch()
        with locked(cache, "thing"):
            pass
    """
    with locked(case.cache, "thing"):
        case.interrupted(driver(body), signal.SIGINT, case.folder / "ready")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nbegin"])
def test_a_download_that_stalls_ends(case: Case, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        body = f"""
            from vmtest.kernels.files.download import download
            Path("ready").touch()
            download("http://127.0.0.1:{server.getsockname()[1]}/x", Path("target"), "6.12")
        """
        if not answer:  # the connection is made, and nobody answers
            case.interrupted(driver(body), signal.SIGINT, case.folder / "ready")
            return
        server.settimeout(120)
        environment = case.environment
        process = subprocess.Popen(
            driver(body), cwd=case.folder, env=environment, stderr=subprocess.PIPE, text=True
        )
        connection, _ = server.accept()
        connection.recv(1 << 12)
        connection.sendall(answer)
        while not (case.folder / "target").exists():
            assert process.poll() is None
            time.sleep(0.02)
        with case.noticed.here():
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        connection.close()
        assert process.returncode == 130, err


def test_what_works_apart_goes_on_when_a_run_is_ended() -> None:
    with interrupt.interruptible() as run, interrupt.apart():
        run.end()
        assert interrupt.run(["echo", "built"]).stdout == "built\n"


def test_an_interrupt_of_the_process_ends_what_works_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_scopes", [interrupt.Scope()])  # else all later tests are over
    with interrupt.apart():
        interrupt.interrupt()
        with pytest.raises(Interrupted):
            interrupt.run(["true"])


class Signal:
    """Ends ``scope`` before line ``number`` of what is traced, as a signal's handler would.

    ``then`` is what the handler does afterwards.
    """

    files = (interrupt.__file__, subprocess.__file__, threading.__file__)

    def __init__(
        self, scope: interrupt.Scope, number: int, then: Callable[[], None] = lambda: None
    ) -> None:
        self.scope = scope
        self.then = then
        self.left = number
        self.came = False
        self.asked = False
        """Whether somebody asked afterwards whether the scope is over."""

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        if self.came and event == "call" and frame.f_code.co_name == "check":
            self.asked = True
        if event == "line" and not self.came and frame.f_code.co_filename in self.files:
            self.left -= 1
            if self.left < 0:
                self.came = True
                self.scope.end()
                self.then()
        return self.trace


@pytest.mark.parametrize("what", ["pause", "abandonable"])
def test_a_signal_at_any_line_of_a_wait_ends_it(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in itertools.count():
        scope = interrupt.Scope()
        monkeypatch.setattr(interrupt, "_scopes", [scope])
        signal_ = Signal(scope, number)
        raised = False
        sys.settrace(signal_.trace)
        try:
            if what == "pause":
                scope.pause(0.05)
            else:
                interrupt.abandonable(lambda: time.sleep(0.05))
        except Interrupted:
            raised = True
        finally:
            sys.settrace(None)
        assert raised or not signal_.asked
        if not signal_.came:
            break
    assert number > 10


def children(name: str) -> list[int]:
    """The processes of this one's that run ``name``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid, _, rest = (folder / "stat").read_text().partition(" (")
            comm, _, rest = rest.rpartition(") ")
            state, parent = rest.split()[:2]
            if comm == name and int(parent) == os.getpid() and state != "Z":
                found.append(int(pid))
    return found


def test_a_signal_at_any_line_of_a_commands_start_ends_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in itertools.count():
        scope = interrupt.Scope()
        monkeypatch.setattr(interrupt, "_scopes", [scope])
        signal_ = Signal(scope, number, interrupt.keyboard_interrupt)
        begun = False
        sys.settrace(signal_.trace)
        try:
            with interrupt.started(["sleep", "300"]):
                sys.settrace(None)
                begun = True
                raise KeyError  # what the test's own body does is not of interest
        except (KeyError, KeyboardInterrupt, Interrupted):
            pass
        finally:
            sys.settrace(None)
        left = children("sleep")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert left == [], number
        if begun:
            break
    assert number > 50
