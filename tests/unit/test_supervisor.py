"""The supervisor and the reaper with real processes: nothing they know survives its runner."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults.fixtures import Noticed
from tests.faults.left import PATIENCE, watched
from vmtest.host import reaper
from vmtest.host.process import Supervised
from vmtest.host.sessions import Sessions

# A tree as vng's: a shell that starts a shell that starts the long-lived process.
TREE = "sh -c 'sleep 300 & echo $! >PID; echo started; wait' & wait"


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether it has ended; its new parent may not have taken notice yet (state Z)."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def removed(folder: Path, within: float = 5.0) -> bool:
    """Whether it goes: the reaper removes it a moment after what ran in it has ended."""
    deadline = time.monotonic() + within
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not folder.exists()


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


@pytest.mark.parametrize("number", [None, signal.SIGSTOP, signal.SIGKILL], ids=str)
def test_sigkill_of_the_runner_ends_the_whole_tree_and_its_folder(
    tmp_path: Path, number: signal.Signals | None, noticed: Noticed
) -> None:
    """Whatever became of the supervisor before."""
    folder = tmp_path / "a vm\nof two lines"
    folder.mkdir()
    runner = (
        "import os, sys, time; from pathlib import Path;"
        "from vmtest.host.process import Supervised;"
        f"p = Supervised.start(['sh', '-c', {TREE!r}], os.environ, Path({str(folder)!r}));"
        "os.read(p.descriptor, 100); print(p._process.pid, flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", runner], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        supervisor = int(process.stdout.readline())
        pid = int((folder / "PID").read_text())
        if number is not None:
            os.kill(supervisor, number)
        assert not gone(pid, 0.1)
        process.kill()
        with noticed.here():
            assert gone(pid) and removed(folder)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=str)
def test_ending_it_ends_the_tree_without_its_supervisor(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.process._PATIENCE", 0.2)
    folder = tmp_path / "vm"
    folder.mkdir()
    process, pid = start(folder)
    os.kill(process._process.pid, number)
    assert not gone(pid, 0.1)
    process.end()
    process.close()
    assert gone(pid, 0.1)
    assert not folder.exists()


COMMAND = """
from vmtest.host import interrupt
with interrupt.started(["sh", "-c", {script!r}]) as process:
    print(process.stdout.readline().decode(), end="", flush=True)
    process.wait()
"""


@pytest.mark.parametrize("ignored", ["", "trap '' TERM; "], ids=["polite", "stubborn"])
def test_sigkill_of_the_runner_ends_a_command_with_its_children(ignored: str) -> None:
    script = f"{ignored}sh -c 'sleep 300 & echo $!; wait' & wait"
    runner = COMMAND.format(script=script)
    with subprocess.Popen([sys.executable, "-c", runner], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert not gone(pid, 0.1)
        process.kill()
    assert gone(pid)


STARTS = """
import os, sys
from pathlib import Path
from vmtest.host import interrupt
from vmtest.host.process import Supervised

def tell(event, arguments):
    if event == "subprocess.Popen":
        print(*arguments[1], flush=True)

sys.addaudithook(tell)
"""


@pytest.mark.parametrize(
    "start",
    [
        "with interrupt.started(['sleep', '0']) as process: process.wait()",
        "Supervised.start(['sleep', '0'], os.environ, Path('vm')).end()",
    ],
    ids=["command", "VM"],
)
def test_the_reaper_is_there_before_what_it_may_have_to_end(start: str, tmp_path: Path) -> None:
    (tmp_path / "vm").mkdir()
    process = [sys.executable, "-c", STARTS + start]
    said = subprocess.run(process, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    first, second = said.stdout.splitlines()
    assert first.endswith("/reaper.py") and "sleep 0" in second


def test_a_command_that_has_ended_leaves_the_reaper_nothing_to_do() -> None:
    """Its number may be another's by then."""
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as process:
        sessions = Sessions()
        sessions.add(process.pid, 0)
        sessions.remove(process.pid)
        sessions.end()
        assert process.poll() is None
        process.kill()


def test_a_reaper_that_was_killed_has_a_successor() -> None:
    """It ends what was listed before it, too."""
    with (
        subprocess.Popen(["sleep", "300"], start_new_session=True) as first,
        subprocess.Popen(["sleep", "300"], start_new_session=True) as second,
    ):
        sessions = Sessions()
        sessions.add(first.pid, 0)
        killed = sessions._reaper
        assert killed is not None
        killed.kill()
        killed.wait()
        sessions.add(second.pid, 0)
        sessions.end()
        assert [first.wait(), second.wait()] == [-signal.SIGKILL, -signal.SIGKILL]


KILLED = """
import os, subprocess, sys
from pathlib import Path
from vmtest.host import interrupt, process, sessions

def die(*_, **__):
    os.kill(os.getpid(), 9)

def start():
    if sys.argv[1] == "VM":
        process.Supervised.start(["sleep", "300"], os.environ, Path("vm").absolute())
    else:
        interrupt.run(["sleep", "300"])

sessions.SESSIONS.ready()
"""
MOMENTS = {
    "before it is there": "subprocess._fork_exec = die; start()",
    "before its start is known": (
        "fork = subprocess._fork_exec; subprocess._fork_exec = lambda *a: die(fork(*a)); start()"
    ),
    "before it is listed": (
        "begin = subprocess.Popen; subprocess.Popen = lambda *a, **b: die(begin(*a, **b)); start()"
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("what", ["command", "VM"])
def test_sigkill_of_the_runner_in_the_middle_of_a_start_leaves_nothing(
    what: str, moment: str, tmp_path: Path, noticed: Noticed
) -> None:
    """Neither a process, also of the reaper's, nor the folder of a VM."""
    (tmp_path / "vm").mkdir()
    with watched(tmp_path) as before:
        runner = [sys.executable, "-c", KILLED + MOMENTS[moment], what]
        with noticed.here():
            done = subprocess.run(runner, cwd=tmp_path, check=False, stderr=subprocess.DEVNULL)
            assert before.wait(PATIENCE) == []
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "vm").exists() == (what == "command")


TRACED = """
lines = 0

def trace(frame, event, _):
    global lines
    files = (interrupt.__file__, sessions.__file__, subprocess.__file__)
    if event == "line" and frame.f_code.co_filename in files:
        lines += 1
        if lines > int(sys.argv[2]):
            die()
    return trace

sys.settrace(trace)
start()
"""


def test_sigkill_at_any_line_of_a_commands_start_leaves_no_process(tmp_path: Path) -> None:
    """At every 15th of the 285 lines of ours and of Python's."""
    command = [sys.executable, "-c", KILLED + TRACED, "command"]
    # Python has three lines more for each variable; behind the last line it waits for the sleep.
    env = {"PATH": os.environ["PATH"]}
    with watched(tmp_path) as before:
        runners = [subprocess.Popen([*command, str(at)], env=env) for at in range(0, 270, 15)]
        ends = [one.wait() for one in runners]
        assert before.wait(PATIENCE) == []
    assert ends == [-signal.SIGKILL] * len(runners)


def test_where_a_command_cannot_start_nothing_is_left_to_end() -> None:
    sessions = Sessions()
    with pytest.raises(FileNotFoundError):
        sessions.popen(["/no/such/command"], 0)
    assert sessions._listed == {}
    began = time.monotonic()
    sessions.end()
    assert time.monotonic() - began < reaper.BEGINS


FILLS = """
from vmtest.host import interrupt
from vmtest.host.sessions import SESSIONS
from pathlib import Path
SESSIONS.ready()
SESSIONS.add_folder(Path("filled"))
with interrupt.started(["sh", "-c", {script!r}]) as process:
    print(process.stdout.readline().decode(), end="", flush=True)
    process.wait()
"""


def test_sigkill_of_the_runner_removes_a_folder_that_a_command_still_fills(tmp_path: Path) -> None:
    """The command cleans up for a while after SIGTERM, and its folder is there until it ends."""
    (tmp_path / "filled").mkdir()
    script = (
        "exec 2>/dev/null; trap 'sleep 0.5; ls filled >seen; mkdir -p filled/more; exit' TERM; "
        "touch filled/first; echo $$; while :; do sleep 0.1; done"
    )
    runner = [sys.executable, "-c", FILLS.format(script=script)]
    with subprocess.Popen(runner, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    assert gone(pid)
    assert (tmp_path / "seen").read_text() == "first\n"
    assert removed(tmp_path / "filled")


@pytest.mark.parametrize("place", ["dev", "a place\nof two lines", "a\rplace\x0b"])
def test_nothing_that_is_mounted_in_a_folder_is_removed(place: str, tmp_path: Path) -> None:
    """As mmdebstrap's mounts of the host's devices, when it was killed."""
    (tmp_path / "image" / place).mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    named = {-2: "image", -3: "plain"}
    lines = [f"+{n} 0 {os.fsencode(tmp_path / name).hex()}\n" for n, name in named.items()]
    script = 'mount -t tmpfs none "$1"; touch "$1/precious"; "$2" -I -S "$3"; ls "$1"; umount "$1"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    arguments = [str(tmp_path / "image" / place), sys.executable, reaper.__file__]
    done = subprocess.run(
        ["unshare", *user, "--mount", "sh", "-ec", script, "sh", *arguments],
        input="".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "precious\n"
    assert not (tmp_path / "plain").exists()


# An ordinary user with a range of ids, whatever this host has, makes what mmdebstrap leaves.
MAPPED = """
import os, subprocess, sys
from vmtest.host import reaper
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
script = 'cd "$0"; mkdir -p a/b; touch a/b/c; chown -R 1:1 a; chmod 700 a'
subprocess.run(["unshare", "-r", "--map-auto", "sh", "-ec", script, sys.argv[1]], check=True)
assert not os.access(os.path.join(sys.argv[1], "a"), os.R_OK)
sys.exit(reaper.main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file of ids")
def test_files_of_other_user_ids_are_removed_for_an_ordinary_user(tmp_path: Path) -> None:
    """As those of a guest image that an ordinary user was making when the run was killed."""
    (tmp_path / "ids").write_text("65534:100000:65536\n")
    folder = Path(tempfile.mkdtemp(prefix="vmtest image-"))  # tmp_path is root's alone
    os.chown(folder, 65534, 65534)
    mount = 'for file in /etc/subuid /etc/subgid; do mount --bind "$1" $file; done; shift; "$@"'
    runner = [sys.executable, "-c", MAPPED, str(folder)]
    subprocess.run(
        ["unshare", "--mount", "sh", "-ec", mount, "sh", str(tmp_path / "ids"), *runner],
        input=f"+-2 0 {os.fsencode(folder).hex()}\n",
        text=True,
        check=True,
    )
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
