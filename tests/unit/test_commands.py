"""What goes along with a command, and the reading of its output: real processes, no VM."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pytest
from fake_session import HostSession

from vmtest.command import files as files_module
from vmtest.command import process as commands
from vmtest.command.files import (
    Command,
    Copy,
    check_program,
    members,
    pack_command,
    parse_copy,
    read_copies,
)
from vmtest.command.formats.format import Format
from vmtest.command.hints import hint
from vmtest.command.process import CommandRun, CommandSink
from vmtest.command.task import CommandWork
from vmtest.errors import DeadlineExceeded, UsageError
from vmtest.matrix.follow import Kernelside, status_words
from vmtest.model.kernels import Limits
from vmtest.model.results import Outcome, Status, TestResult
from vmtest.runs.rows import read_results

LIMITS = Limits(boot=10, silence=20, total=60)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder on the host."""
    folder = tmp_path / "host"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def made(path: Path, text: str = "x\n", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def names(*texts: str) -> set[str]:
    return {str(place) for place in members([parse_copy(text) for text in texts])}


def test_a_file_keeps_its_name_and_a_folder_is_whole(here: Path) -> None:
    made(here / "bin" / "loader")
    made(here / "data" / ".hidden")
    made(here / "data" / "deep" / "x y.txt")
    (here / "data" / "empty").mkdir()
    assert names("bin/loader", "data") == {
        "loader",
        "data",
        "data/.hidden",
        "data/deep",
        "data/deep/x y.txt",
        "data/empty",
    }


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("a:b", {"b"}),
        ("a:sub/b", {"sub/b"}),
        ("a:sub/", {"sub/a"}),
        ("a:.", {"a"}),
        ("d:e", {"e", "e/f"}),
        ("d:.", {".", "f"}),
        ("d/.", {".", "f"}),
        ("with:colon", {"with:colon"}),
    ],
)
def test_a_place_in_the_guest(text: str, places: set[str], here: Path) -> None:
    made(here / "a")
    made(here / "d" / "f")
    made(here / "with:colon")
    assert names(text) == places


def test_a_point_is_what_is_in_this_folder(here: Path) -> None:
    made(here / "a")
    made(here / "d" / "f")
    assert names(".") == {".", "a", "d", "d/f"}


def test_the_folders_of_git_and_of_vmtest_stay_behind(here: Path) -> None:
    made(here / "project" / ".git" / "HEAD")
    made(here / "project" / "sub" / ".vmtest" / "runs" / "x")
    made(here / "project" / ".gitignore")
    assert names("project/.") == {".", ".gitignore", "sub"}


def test_a_link_is_copied_as_what_it_names_under_its_own_name(here: Path) -> None:
    made(here / "loader-1.2", "the loader")
    (here / "loader").symlink_to("loader-1.2")
    ((place, path),) = members([parse_copy("loader")]).items()
    assert (str(place), path.read_text(), path.is_symlink()) == ("loader", "the loader", False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a:/etc/x", "outside of the working folder"),
        ("a:../x", "outside of the working folder"),
        ("/", "names no file"),
        ("", "names no file"),
        ("missing", "No such file"),
        ("pipe", "neither a file nor a folder"),
    ],
)
def test_what_cannot_be_copied_is_refused(text: str, why: str, here: Path) -> None:
    made(here / "a")
    os.mkfifo(here / "pipe")
    with pytest.raises(UsageError, match=why):
        names(text)


def test_two_files_of_one_place_are_refused(here: Path) -> None:
    made(here / "a" / "x")
    made(here / "b" / "x")
    with pytest.raises(UsageError, match="would both be x"):
        names("a/x", "b/x")


def test_too_much_is_refused_with_its_largest_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "COPY_LIMIT", 3 << 20)
    made(here / "d" / "small", "x" * (1 << 20))
    made(here / "d" / "large", "x" * (5 << 20))
    with pytest.raises(UsageError, match=r"6 MiB in all, more than 3.*d/large \(5 MiB\)"):
        names("d")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["./loader"], "only what `copy` names is copied; write `copy` ./loader -- ./loader"),
        (["target/x.test"], r"in the guest it is ./x.test"),
        (["./plain"], "is not executable"),
        (["x.test"], r"for the copied file write ./x.test"),
        ([""], "the command is empty"),
    ],
)
def test_a_program_that_would_not_be_there_is_refused(
    command: list[str], why: str, here: Path
) -> None:
    made(here / "loader", mode=0o755)
    there = {
        PurePosixPath("x.test"): made(here / "target" / "x.test", mode=0o755),
        PurePosixPath("plain"): made(here / "plain"),
    }
    with pytest.raises(UsageError, match=why):
        check_program(command, there)


@pytest.mark.parametrize("program", ["sh", "/bin/sh", "./x", "d/../x", "../objects/x.o"])
def test_a_program_that_is_there_is_taken(program: str, here: Path) -> None:
    check_program([program], {PurePosixPath("x"): made(here / "x", mode=0o755)})


def archived(command: Command) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(command.archive)) as archive:
        return {member.name: member for member in archive.getmembers()}


def test_the_archive_has_files_objects_and_our_package(here: Path) -> None:
    made(here / "x", mode=0o750)
    if os.geteuid() == 0:
        os.chown(here / "x", 1234, 1234)
    made(here / "d" / "to")
    (here / "d" / "link").symlink_to("to")
    (here / "o.o").write_bytes(b"\x7fELF\x02\x01" + bytes(12) + b"\xf7\0")
    copied = read_copies([parse_copy("x"), parse_copy("d")])
    command = pack_command(["./x"], copied, {"o": here / "o.o"})
    found = archived(command)
    assert found["work/x"].mode == 0o750
    assert found["work/x"].uid == 0
    assert found["work/d/link"].linkname == "to"
    assert found["objects/o.o"].isreg()
    assert "vmtest/guest/payload.py" in found
    assert command.copied
    assert [name for name, _ in command.objects] == ["o"]


def test_kernels_with_other_objects_get_the_files_that_were_read_first(here: Path) -> None:
    made(here / "x", "as it was", mode=0o755)
    copied = read_copies([parse_copy("x")])
    made(here / "x", "edited meanwhile", mode=0o755)
    with tarfile.open(fileobj=io.BytesIO(pack_command(["./x"], copied, {}).archive)) as archive:
        stream = archive.extractfile("work/x")
        assert stream is not None
        assert stream.read() == b"as it was"
    assert copied.digests == {"x": hashlib.sha256(b"as it was").hexdigest()}


class Watched:
    """A command run on this host, with everything that was told on the way."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder = folder
        guest = folder / "guest"
        guest.mkdir()
        unpack = ["tar", "-xf", "-", "-C", str(guest)]
        subprocess.run(unpack, input=command.archive, check=True)
        self.session = HostSession({"/tmp/vmtest": guest})
        self.results, self.log = io.BytesIO(), io.BytesIO()
        self.started: list[str] = []
        self.finished: list[TestResult] = []
        self.counts: list[int] = []
        self.shown: list[bytes] = []
        sink = CommandSink(
            self.results,
            self.log,
            folder / "command.xml",
            self.counts.append,
            self.started.append,
            self.finished.append,
            lambda out, err: self.shown.append(out + err),
        )
        self.run = CommandRun(command, sink)

    def execute(self, limits: Limits = LIMITS) -> None:
        self.run.execute(self.session, limits, lambda: None, Kernelside())

    def verdict(self, machine: object) -> tuple[Status, str]:
        return CommandWork(self.run).verdict(machine)  # type: ignore[arg-type]  # its console only

    def outcomes(self) -> dict[str, str]:
        return {row.test: row.outcome.value for row in self.run.done}


Watch = Callable[..., Watched]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    made_: list[Watched] = []

    def make(
        command: Sequence[str], results: str | None = None, copies: Sequence[Copy] = ()
    ) -> Watched:
        format_ = None if results is None else Format.parse(results)
        watched = Watched(tmp_path, pack_command(command, read_copies(copies), {}, format_))
        made_.append(watched)
        return watched

    yield make
    for watched in made_:
        watched.session.close()


class Console:
    """A machine's console that said ``lines`` of one sign."""

    def __init__(self, *lines: str) -> None:
        self.console = self
        self.spec = self
        self.memory_mib = 512
        self._lines = lines

    def findings(self, sign: object) -> list[object]:
        return [type("Finding", (), {"text": line})() for line in self._lines]


def script(text: str) -> list[str]:
    return ["sh", "-c", text]


def test_a_command_that_ends_with_zero_passed(watch: Watch) -> None:
    watched = watch(script("echo said; echo on stderr >&2"))
    watched.execute()
    assert watched.verdict(Console()) == (Status.PASSED, "")
    (row,) = watched.run.end()
    assert (row.suite, row.outcome) == ("sh", Outcome.PASSED)
    assert row.message.startswith("exit status 0: ")
    assert sorted(watched.log.getvalue().splitlines()) == [b"on stderr", b"said"]
    assert sorted(b"".join(watched.shown).splitlines()) == [b"on stderr", b"said"]


def test_a_command_that_fails_has_status_last_line_and_output(watch: Watch) -> None:
    watched = watch(script("echo first; echo last; exit 3"))
    watched.execute()
    assert watched.verdict(Console()) == (Status.FAILED, "exit status 3: last")
    (row,) = watched.run.end()
    assert row.outcome is Outcome.FAILED
    assert row.message == "exit status 3: last"
    assert row.details.startswith("$ sh -c 'echo first; echo last; exit 3'\n")
    assert row.output == "first\nlast\n"
    assert watched.run.status == 3


def test_a_signal_is_named(watch: Watch) -> None:
    watched = watch(script("kill -SEGV $$"))
    watched.execute()
    status, reason = watched.verdict(Console())
    assert (status, watched.run.status) == (Status.FAILED, 139)
    assert reason.startswith("exit status 139 (SIGSEGV): ")


def test_a_command_killed_for_memory_is_lost(watch: Watch) -> None:
    watched = watch(script("kill -KILL $$"))
    watched.execute()
    status, reason = watched.verdict(Console("Out of memory: Killed process 9"))
    assert status is Status.LOST
    assert "ran out of memory (512 MiB" in reason
    (row,) = watched.run.end(reason, lost=True)
    assert row.outcome is Outcome.LOST


def test_arguments_arrive_as_they_are(watch: Watch) -> None:
    odd = ["a b", "$HOME", "'", '"', ";", "*", "\\", "", "ü", "-n"]
    watched = watch(["printf", "<%s>\\n", *odd])
    watched.execute()
    assert watched.log.getvalue().decode().splitlines() == [f"<{part}>" for part in odd]


def test_a_program_that_is_not_there_is_explained(watch: Watch) -> None:
    watched = watch(["no-such-program"])
    watched.execute()
    status, reason = watched.verdict(Console())
    assert status is Status.FAILED
    assert reason.startswith("exit status 127: sh: 1: no-such-program: not found; no-such-program")
    assert "--copy" in watched.run.end()[0].details


def test_the_working_folder_holds_the_copies(watch: Watch, here: Path) -> None:
    made(here / "x.sh", "#!/bin/sh\npwd; cat data\n", 0o755)
    made(here / "data", "from the host\n")
    watched = watch(["./x.sh"], copies=[parse_copy("x.sh"), parse_copy("data")])
    watched.execute()
    folder, text = watched.log.getvalue().decode().splitlines()
    assert folder.endswith("/guest/work")
    assert text == "from the host"


def test_the_environment_is_that_of_suites(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_HOST", "1")
    watched = watch(["env"])
    watched.execute()
    found = dict(line.split("=", 1) for line in watched.log.getvalue().decode().splitlines())
    assert found["VMTEST_OBJECTS"].endswith("/objects")
    assert "OF_THE_HOST" not in found


def test_standard_input_is_empty(watch: Watch) -> None:
    watched = watch(["cat"])
    watched.execute()
    assert watched.run.status == 0


def test_rows_are_told_as_they_come(watch: Watch) -> None:
    text = "echo 1..2; echo ok 1 - a; echo not ok 2 - b; exit 1"
    watched = watch(script(text), "tap")
    watched.execute()
    assert watched.counts == [2]
    assert watched.verdict(Console()) == (Status.FAILED, "1 failed, exit status 1")
    assert [row.test for row in watched.finished] == ["a", "b"]
    watched.results.seek(0)
    lines = watched.results.getvalue().decode().splitlines(keepends=True)
    assert read_results(lines) == tuple(watched.finished)


def test_a_running_test_is_told_and_lost_with_the_machine(watch: Watch) -> None:
    lines = ("=== RUN   TestA", "--- PASS: TestA (0.00s)", "=== RUN   TestB")
    text = "; ".join([*(f"echo '{line}'" for line in lines), "sleep 5"])
    watched = watch(script(text), "gotest")
    with pytest.raises(DeadlineExceeded) as caught:
        watched.execute(Limits(boot=10, silence=1.0, total=60))
    assert caught.value.kind == "silence"
    assert watched.run.running == "TestB"
    assert watched.started[-1] == "TestB"
    watched.run.end("silence deadline passed", lost=True)
    assert watched.outcomes() == {"TestA": "passed", "TestB": "lost"}


def test_a_command_without_results_is_lost_with_the_machine(watch: Watch) -> None:
    watched = watch(script("echo so far; sleep 5"))
    with pytest.raises(DeadlineExceeded):
        watched.execute(Limits(boot=10, silence=1.0, total=60))
    assert watched.run.running == "sh -c 'echo so far; sleep 5'"
    (row,) = watched.run.end("kernel panicked", lost=True)
    assert (row.outcome, row.message, row.output) == (Outcome.LOST, "kernel panicked", "so far\n")


def test_failing_rows_fail_a_command_that_ends_with_zero(watch: Watch) -> None:
    watched = watch(script("echo 1..1; echo not ok 1"), "tap")
    watched.execute()
    assert watched.verdict(Console()) == (Status.FAILED, "1 failed, exit status 0")


def test_missing_rows_fail_a_command_that_ends_with_zero(watch: Watch) -> None:
    watched = watch(script("echo 1..2; echo ok 1"), "tap")
    watched.execute()
    assert watched.verdict(Console()) == (Status.FAILED, "1 lost, exit status 0")


def test_passing_rows_do_not_save_a_command_that_fails(watch: Watch) -> None:
    watched = watch(script("echo 1..1; echo ok 1; echo then it broke; exit 7"), "tap")
    watched.execute()
    assert watched.verdict(Console()) == (Status.FAILED, "exit status 7: then it broke")


@pytest.mark.parametrize("kind", ["tap", "gotest"])
def test_output_without_a_test_is_no_pass(kind: str, watch: Watch) -> None:
    watched = watch(["echo", "hello"], kind)
    watched.execute()
    status, reason = watched.verdict(Console())
    assert status is Status.NO_TESTS
    assert f"--results {kind}" in reason


def test_a_command_that_fails_before_its_first_test_has_a_row(watch: Watch) -> None:
    watched = watch(script("echo no bpffs >&2; exit 2"), "tap")
    watched.execute()
    assert watched.verdict(Console()) == (Status.FAILED, "exit status 2: no bpffs")
    assert list(watched.outcomes().values()) == ["failed"]


def test_a_last_line_without_a_line_break_counts(watch: Watch) -> None:
    watched = watch(["printf", "1..1\\nok 1 - a"], "tap")
    watched.execute()
    assert watched.verdict(Console()) == (Status.PASSED, "")


XML = (
    '<testsuite><testcase name="a"/>'
    '<testcase name="b"><failure message="no"/></testcase></testsuite>'
)


def test_a_junit_file_is_fetched_read_and_kept(watch: Watch) -> None:
    watched = watch(script(f"mkdir 'o d'; echo '{XML}' >'o d/j.xml'; exit 1"), "junit:o d/j.xml")
    watched.execute()
    assert watched.verdict(Console()) == (Status.FAILED, "1 failed, exit status 1")
    assert watched.outcomes() == {"a": "passed", "b": "failed"}
    assert (watched.folder / "command.xml").read_text().strip() == XML


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("true", "j.xml: cannot be read in the guest: "),
        ("mkdir j.xml", "j.xml: cannot be read in the guest: "),
        ("echo '<testsuite>' >j.xml", "j.xml: it is not XML"),
        ("echo '<html/>' >j.xml", "j.xml: its root is <html>"),
    ],
)
def test_a_junit_file_that_cannot_be_read_is_no_pass(text: str, why: str, watch: Watch) -> None:
    watched = watch(script(text), "junit:j.xml")
    watched.execute()
    status, reason = watched.verdict(Console())
    assert status is Status.FAILED
    assert why in reason
    assert list(watched.outcomes().values()) == ["error"]


def test_a_junit_file_that_is_too_large_is_not_read(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "JUNIT_LIMIT", 1 << 20)
    watched = watch(script("head -c 1100000 /dev/zero >j.xml"), "junit:j.xml")
    watched.execute()
    assert "j.xml: has more than 1 MiB" in watched.verdict(Console())[1]


def test_a_guest_whose_head_writes_on_fills_no_memory_of_the_host(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "JUNIT_LIMIT", 1 << 20)
    head = tmp_path / "bin" / "head"
    made(head, "#!/bin/sh\nexec dd if=/dev/zero bs=1M count=4 status=none\n")
    head.chmod(0o755)
    monkeypatch.setenv("PATH", f"{head.parent}:{os.environ['PATH']}")
    watched = watch(script("true"), "junit:j.xml")
    watched.execute()
    assert "j.xml: has more than 1 MiB" in watched.verdict(Console())[1]
    assert (watched.folder / "command.xml").stat().st_size == (1 << 20) + 1


def test_a_child_that_keeps_the_output_open_delays_nobody(watch: Watch) -> None:
    watched = watch(script("sleep 600 & echo $!"))
    watched.execute()  # with the child's end it would be a DeadlineExceeded
    os.kill(int(watched.log.getvalue()), signal.SIGKILL)
    assert watched.run.status == 0


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit status 0"),
        (139, "exit status 139 (SIGSEGV)"),
        (255, "exit status 255"),
        (128, "exit status 128"),
        (-1, "no exit status"),
    ],
)
def test_an_exit_status_in_words(status: int, words: str) -> None:
    assert status_words(status) == words


@pytest.mark.parametrize(
    ("status", "said", "copied", "help_"),
    [
        (1, "./x: /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./x)", True, "2.38"),
        (127, "./x: error while loading shared libraries: libz.so.1: cannot open shared object "
         "file: No such file", True, "libz.so.1 is not in the guest"),
        (127, "sh: 1: ./x: not found", True, "its loader"),
        (127, "sh: 1: ./x: not found", False, "--copy"),
        (126, "sh: 1: ./x: Exec format error", True, "x86-64"),
        (1, "something else", True, ""),
        (0, "version `GLIBC_2.38' not found", True, ""),
    ],
)  # fmt: skip
def test_a_program_that_cannot_start_is_explained(
    status: int, said: str, copied: bool, help_: str
) -> None:
    found = hint(status, said, Command(("./x",), b"", copied=copied))
    assert help_ in found
    assert bool(found) == bool(help_)


def test_a_commands_row_is_one_short_line_and_no_node_id() -> None:
    row = Command(("sh", "-c", "echo a::b\necho c" + "x" * 200), b"").row
    assert row.startswith("sh -c 'echo a: :b echo cxx")
    assert len(row) == 100
