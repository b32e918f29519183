"""The Python that waits in a saved guest: here on the host, with a shell as in a guest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest

from vmtest.host.files import Files
from vmtest.matrix.payload import PYTEST_SIDE
from vmtest.vm import standby
from vmtest.vm.guest_code import guest_code

FACTS = """
import json, os, random, signal, sys
ignored = [n for n in range(1, 32) if signal.getsignal(n) == signal.SIG_IGN]
facts = {
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "cwd": os.getcwd(),
    "environment": dict(os.environ), "umask": os.umask(0), "ignored": ignored,
    "descriptors": [n for n in range(3, 64) if os.path.exists(f"/proc/self/fd/{n}")],
    "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    "main": sorted(vars()), "name": __name__, "file": __file__, "input": sys.stdin.read(),
    "bytecode": sys.dont_write_bytecode, "groups": os.getgroups(),
    "encodings": [sys.stdin.encoding, sys.stdout.encoding, sys.stdout.errors],
}
print(json.dumps(facts))
print("to stderr", file=sys.stderr)
"""


class Waiting:
    """A standby process, with its FIFO below ``folder`` and not in /run."""

    def __init__(self, folder: Path, python: str = sys.executable, pythonpath: str = "") -> None:
        self.code = folder.with_name(f"{folder.name}-code")
        for name, content in guest_code(Files()).items():
            (self.code / name).parent.mkdir(parents=True, exist_ok=True)
            (self.code / name).write_bytes(content if isinstance(content, bytes) else content.data)
        self.place = folder / "standby"
        status = Path(f"{self.place}.status")
        os.mkfifo(self.place)
        os.mkfifo(status)
        text = files("vmtest.vm").joinpath("standby.py").read_text()
        start = '"$0" -B -c "$1" "$4" >"$2" 2>/dev/null & echo $! >"$3"; wait'
        pid = f"{self.place}.pid"
        # As agent.sh starts it: a shell's background job, its streams nobody's.
        self._shell = subprocess.Popen(
            ["sh", "-c", start, python, self._here(text), str(status), pid, str(self.code)],
            # No more than a guest's agent has: tox sets PYTHONIOENCODING, for one.
            env={"LANG": "C.UTF-8", "PATH": os.environ["PATH"], "PYTHONPATH": pythonpath},
            stdin=subprocess.DEVNULL,
        )
        with status.open() as said:
            self.answer = said.readline()
        self.pid = int(Path(pid).read_text())

    def _here(self, text: str) -> str:
        return text.replace(standby.PLACE, str(self.place))

    def run(
        self, *argv: str, cwd: Path | None = None, umask: int = -1
    ) -> subprocess.CompletedProcess[str]:
        """``argv`` by the shell's words."""
        # An sshd ignores none of these, whatever this test was started by.
        command = ["env", "--default-signal=INT,QUIT", "sh", "-c", self._here(standby.WORDS), "sh"]
        return subprocess.run(
            [*command, *argv],
            input="given",
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            umask=umask,
            timeout=60,
        )

    def env(self, *words: str, **more: str) -> tuple[str, ...]:
        """``words`` with the environment that a guest gives: our own code comes first."""
        behind = more.pop("PYTHONPATH", "")
        first = f"{self.code}:{behind}" if behind else str(self.code)
        return env(*words, PYTHONPATH=first, **more)

    @property
    def taken(self) -> bool:
        """Whether a shell has turned to it."""
        return Path(f"{self.place}.taken").exists()

    def close(self) -> None:
        """End it, if it has not ended."""
        subprocess.run(["sh", "-c", self._here(standby.END)], check=True)
        self._shell.wait(60)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    (tmp_path / "run").mkdir()
    made = Waiting(tmp_path / "run")
    yield made
    made.close()


def env(*words: str, **more: str) -> tuple[str, ...]:
    return ("env", "-i", "LANG=C.UTF-8", *(f"{k}={v}" for k, v in more.items()), *words)


def script(folder: Path, text: str) -> str:
    place = folder / "script.py"
    place.write_text(text)
    return str(place)


def facts_of(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert (done.returncode, done.stderr) == (0, "to stderr\n")
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_script_cannot_tell_it_from_a_new_python(waiting: Waiting, tmp_path: Path) -> None:
    place = script(tmp_path, FACTS)
    own = tmp_path / "own"
    own.mkdir()
    words = waiting.env(sys.executable, place, "a", "b c", "", PYTHONPATH=str(own), A="x=y")
    by_it = facts_of(waiting.run(*words, cwd=own, umask=0o026))
    assert waiting.taken
    assert by_it == facts_of(waiting.run(*words, cwd=own, umask=0o026))  # it is used once
    assert by_it["path"][:3] == [str(tmp_path), str(waiting.code), str(own)]  # type: ignore[index]
    assert by_it["input"] == "given"


def test_it_was_it_that_ran_the_script(waiting: Waiting, tmp_path: Path) -> None:
    place = script(tmp_path, "import os, sys; print(os.getppid(), '_pytest.main' in sys.modules)")
    assert waiting.run(*waiting.env(sys.executable, place)).stdout == f"{waiting.pid} True\n"
    assert waiting.run(*waiting.env(sys.executable, place)).stdout.endswith(" False\n")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", 128 + signal.SIGINT),
        ("1 / 0", 1),
        ("import os; os._exit(0)", 0),
    ],
)
def test_its_end_is_the_scripts(text: str, status: int, waiting: Waiting, tmp_path: Path) -> None:
    place = script(tmp_path, text)
    assert waiting.run(*waiting.env(sys.executable, place)).returncode == status
    assert waiting.taken
    # A new Python's status is told by the shell that waits for it, as sshd's does.
    inner = waiting.run("sh", "-c", '"$@"; exit $?', "sh", *waiting.env(sys.executable, place))
    assert inner.returncode == status


@pytest.mark.parametrize(
    "words",
    [
        ("cat",),
        env("cat"),
        env("env", "LD_LIBRARY_PATH=/nowhere", "cat"),
        env(sys.executable, "-c", "print(open(0).read(), end='')"),
        env(sys.executable, "-I", "-c", "print(open(0).read(), end='')", LD_LIBRARY_PATH="/x"),
        env(sys.executable, "-c", "print(open(0).read(), end='')", PYTHONHASHSEED="0"),
    ],
)
def test_what_it_does_not_take_the_shell_starts(words: tuple[str, ...], waiting: Waiting) -> None:
    done = waiting.run(*words)
    assert (done.returncode, done.stdout, waiting.taken) == (0, "given", True)


def test_it_has_our_own_code_as_the_script_would_import_it(
    waiting: Waiting, tmp_path: Path
) -> None:
    text = "import sys; print('vmtest.guest.plugin' in sys.modules)\n"
    place = script(tmp_path, f"{text}from vmtest.guest import plugin; print(plugin.__file__)")
    words = waiting.env(sys.executable, place)
    file = waiting.code / "vmtest" / "guest" / "plugin.py"
    assert waiting.run(*words).stdout == f"True\n{file}\n"
    assert waiting.run(*words).stdout == f"False\n{file}\n"  # a new Python


def test_it_has_all_plugins_that_a_guests_pytest_is_told_of() -> None:
    assert set(PYTEST_SIDE["PYTEST_PLUGINS"].split(",")) < set(standby.OWN)


@pytest.mark.parametrize("name", ["packaging.py", "iniconfig/__init__.py", "json.py"])
def test_a_project_finds_its_own_modules_first(name: str, waiting: Waiting, tmp_path: Path) -> None:
    module = tmp_path / "src" / name
    module.parent.mkdir(parents=True)
    module.write_text("mine = True\n")
    first = name.partition(".")[0].partition("/")[0]
    place = script(tmp_path, f"import {first}; print({first}.mine)")
    done = waiting.run(*waiting.env(sys.executable, place, PYTHONPATH=str(tmp_path / "src")))
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_vmtest_that_comes_before_ours_is_found_first(waiting: Waiting, tmp_path: Path) -> None:
    (tmp_path / "src" / "vmtest").mkdir(parents=True)
    (tmp_path / "src" / "vmtest" / "__init__.py").write_text("mine = True\n")
    place = script(tmp_path, "import vmtest; print(vmtest.mine)")
    paths = f"{tmp_path / 'src'}:{waiting.code}"
    done = waiting.run(*env(sys.executable, place, PYTHONPATH=paths))
    assert (done.stdout, done.stderr, waiting.taken) == ("True\n", "", True)


def test_packages_that_came_since_are_for_a_new_python(tmp_path: Path) -> None:
    """Wheels are laid over the image's site folders after the guest was saved."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    (packages,) = (tmp_path / "venv").glob("lib/*/site-packages")
    (tmp_path / "run").mkdir()
    waiting = Waiting(tmp_path / "run", python, os.pathsep.join(sys.path))
    assert waiting.answer == "ready\n"
    (packages / "more").mkdir()
    (packages / "more" / "came.py").write_text("since = 'since'")
    (packages / "more.pth").write_text(str(packages / "more"))
    done = waiting.run(*env(python, script(tmp_path, "import came; print(came.since)")))
    assert (done.stdout, done.stderr, waiting.taken) == ("since\n", "", True)
    waiting.close()


def test_every_guest_draws_its_own_random_numbers(tmp_path: Path) -> None:
    """A snapshot has one state of the generator: two processes with the same would draw alike."""
    text = "import random; random.seed = lambda: print('seeded')\n"
    done = subprocess.run(
        [sys.executable, "-c", text + "from vmtest.vm import standby\nstandby.run([b'/dev/null'])"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("seeded\n", "")


def test_one_that_was_killed_is_not_waited_for(waiting: Waiting, tmp_path: Path) -> None:
    os.kill(waiting.pid, signal.SIGKILL)
    waiting._shell.wait(60)
    done = waiting.run(*env(sys.executable, script(tmp_path, "print('a new one')")))
    assert (done.stdout, waiting.taken) == ("a new one\n", False)


def test_one_that_died_since_it_was_asked_for_is_not_waited_for(
    waiting: Waiting, tmp_path: Path
) -> None:
    """The test's own process id stands for one that was there a moment ago."""
    os.kill(waiting.pid, signal.SIGKILL)
    waiting._shell.wait(60)
    pid = Path(f"{waiting.place}.pid")
    pid.write_text(f"{os.getpid()}\n")
    done = waiting.run(*env(sys.executable, script(tmp_path, "print('a new one')")))
    pid.unlink()
    assert (done.stdout, waiting.taken) == ("a new one\n", True)


def test_one_that_dies_under_a_script_is_its_end(waiting: Waiting, tmp_path: Path) -> None:
    text = "import os, signal; os.kill(os.getppid(), signal.SIGKILL); print('it goes on')"
    done = waiting.run(*waiting.env(sys.executable, script(tmp_path, text)))
    assert done.returncode == 128 + signal.SIGKILL


def test_one_that_dies_before_it_answers_is_done_without(waiting: Waiting, tmp_path: Path) -> None:
    os.kill(waiting.pid, signal.SIGSTOP)
    words = env(sys.executable, script(tmp_path, "print('a new one')"))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(waiting.run, *words)
        while not waiting.taken:
            time.sleep(0.01)
        os.kill(waiting.pid, signal.SIGKILL)
        done = running.result()
    assert (done.returncode, done.stdout) == (0, "a new one\n")


@pytest.mark.parametrize("name", ["sitecustomize", "usercustomize"])
def test_what_python_imports_when_it_starts_is_imported(
    name: str, waiting: Waiting, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / f"{name}.py").write_text("print('first')")
    place = script(tmp_path, "print('then')")
    words = waiting.env(sys.executable, place, PYTHONPATH=str(tmp_path / "src"))
    again = [waiting.run(*words).stdout for _ in range(2)]
    assert again[0] == again[1]  # the second is a new Python: in a venv there are no user's
    assert waiting.taken


def test_a_module_that_was_blocked_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "sitecustomize.py").write_text("import sys\nsys.modules['blocked'] = None")
    (tmp_path / "run").mkdir()
    made = Waiting(tmp_path / "run", pythonpath=str(tmp_path / "src"))
    done = made.run(*made.env(sys.executable, script(tmp_path, "print('it runs')")))
    made.close()
    assert (done.returncode, done.stdout, made.answer) == (0, "it runs\n", "ready\n")


def test_ending_it_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    made = Waiting(tmp_path)
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_pytest_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "_pytest.py").write_text("raise ImportError")
    (tmp_path / "run").mkdir()
    made = Waiting(tmp_path / "run", pythonpath=str(tmp_path / "none"))
    assert made.answer == ""
    made.close()
