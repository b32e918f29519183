"""How the command ends when something breaks that nobody expected, or cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command import vmtest

from vmtest.api import page
from vmtest.errors import MORE_MEMORY
from vmtest.model.events import Event, Note
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.runs import matrix_json

# A bug of ours, in what nearly every subcommand calls first.
BROKEN = """
import sys
from vmtest.config import file
from vmtest.api import project
from vmtest.cli import objects, report
from vmtest.host import cache

def broken(*given, **named):
    raise KeyError("\\x1b]0;title\\x07 a bug")

for module, name in (
    (file, "load"), (file, "find"), (project, "load_config"), (project, "load_config_or_builtin"),
):
    setattr(module, name, broken)
import vmtest.cli.main as main
for module in list(sys.modules.values()):
    for name in ("default_cache", "inspect_object", "build_all", "read", "examine"):
        if module.__name__.startswith("vmtest.cli.") and hasattr(module, name):
            setattr(module, name, broken)
sys.argv = ["vmtest", *sys.argv[1:]]
from vmtest.__main__ import main
main()
"""


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A process that imports the command itself."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["run"], 70),
        (["verify", "x.o"], 70),
        (["exec", "--kernel", ">=6", "--", "true"], 70),
        (["exec", "--kernel", "6.12", "--", "true"], 125),
        (["shell", "6.12"], 125),
        (["known"], 70),
        (["build"], 70),
        (["doctor"], 70),
        (["kernels", "list"], 70),
        (["kernels", "lock"], 70),
        (["kernels", "available"], 70),
        (["kernels", "outdated"], 70),
        (["kernels", "prune"], 70),
        (["image", "export", "x.tar"], 70),
        (["bisect", "--good", "6.1", "--bad", "6.12"], 70),
        (["bisect", "step"], 128),
    ],
)
def test_a_bug_never_says_that_tests_failed(
    arguments: list[str], status: int, tmp_path: Path
) -> None:
    done = python("-c", BROKEN, *arguments, cwd=tmp_path)
    assert done.returncode == status, done
    assert "Traceback (most recent call last)" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("vmtest: a bug in vmtest: KeyError: ")
    assert last.endswith("please report it to its maintainers, with the lines above")
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["run"], 3), (["report"], 3), (["shell", "6.12"], 125), (["bisect", "step"], 128)],
)
@pytest.mark.parametrize("place", ["import", "command"])
def test_too_little_memory_is_named_and_is_nobodys_bug(
    place: str, arguments: list[str], status: int, tmp_path: Path
) -> None:
    """vmtest asks nobody to report it, and prints no traceback."""
    if place == "command":
        done = python("-c", BROKEN.replace("KeyError(", "MemoryError("), *arguments, cwd=tmp_path)
    else:
        (tmp_path / "typer.py").write_text("raise MemoryError\n")
        done = python("-m", "vmtest", *arguments, cwd=tmp_path)
        status = 3 if status == 125 else status
    assert done.returncode == status, done
    assert (
        done.stderr == f"vmtest: error: vmtest has too little memory (MemoryError); {MORE_MEMORY}\n"
    )


BUFFERS = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
"""Python writes to a stream at other moments, and fails at others."""


@BUFFERS
def test_a_message_of_memory_that_nobody_can_write_ends_with_its_own_status(
    unbuffered: str, tmp_path: Path
) -> None:
    """And not with Python's 1, which says that tests failed, or its 120."""
    command = ["prlimit", f"--as={20 << 20}", sys.executable, "-m", "vmtest", "run"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, env=environment, stderr=full, check=False)
    assert done.returncode == 3


def test_a_page_for_which_there_is_no_memory_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*_: object, **__: object) -> str:
        raise MemoryError

    monkeypatch.setattr(page, "page_of", starved)
    said: list[Event] = []
    page.leave_page(Matrix(SCHEMA, "run", "", 1.0, (), ()), tmp_path, said.append)
    assert said == [
        Note(
            f"report.html could not be made: vmtest has too little memory (MemoryError); "
            f"{MORE_MEMORY}"
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "status"), [(["run"], 70), (["bisect", "step"], 128), (["--version"], 70)]
)
def test_an_installation_that_is_broken_never_says_that_tests_failed(
    arguments: list[str], status: int, tmp_path: Path
) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('no typer')\n")
    done = python("-m", "vmtest", *arguments, cwd=tmp_path)
    assert done.returncode == status
    last = done.stderr.splitlines()[-1]
    assert last.startswith("vmtest: a bug in vmtest, or a broken installation")


def run_of(folder: Path, *statuses: Status) -> Path:
    """A run's folder with a kernel for each of ``statuses``."""
    kernels = tuple(
        replace(
            KernelResult(f"k{n}", status),
            tests=(TestResult("t.py::\x1b[31ma", "s", Outcome.PASSED),),
        )
        for n, status in enumerate(statuses)
    )
    run = folder / "run"
    run.mkdir()
    matrix = Matrix(SCHEMA, "run", "2026-01-01T00:00:00+00:00", 1.0, ("s",), kernels)
    (run / "matrix.json").write_text(matrix_json.dumps(matrix))
    return run


@pytest.mark.parametrize(
    ("status", "ends"),
    [(Status.PASSED, 3), (Status.FAILED, 1), (Status.NO_TESTS, 3), (Status.CANCELLED, 130)],
)
def test_a_report_that_cannot_be_written_hides_nothing(
    status: Status, ends: int, tmp_path: Path
) -> None:
    run = run_of(tmp_path, status)
    files = ("--junit", "/dev/full", "--markdown", "gone/m.md", "--json", "m.json")
    said = vmtest("report", str(run), *files, cwd=tmp_path)
    assert said.status == ends
    assert status.value in said.out, "the table is shown"
    assert json.loads((tmp_path / "m.json").read_text())["run"] == "run", "so is what can be"
    assert said.err.splitlines() == [
        "vmtest: error: cannot write /dev/full: No space left on device; make room there",
        "vmtest: error: cannot write gone/m.md: No such file or directory; "
        "is its folder still there?",
    ]


def test_a_report_may_go_where_the_table_goes(tmp_path: Path) -> None:
    run = run_of(tmp_path, Status.PASSED)
    said = vmtest("report", str(run), "--json", "/dev/stdout", cwd=tmp_path)
    assert said.status == 0
    assert json.loads(said.out[said.out.index("{") :])["run"] == "run"
    assert "PASSED" in said.out[: said.out.index("{")]


def test_a_message_with_a_strangers_text_moves_no_cursor(tmp_path: Path) -> None:
    said = vmtest("report", "\x1b]0;title\x07run", cwd=tmp_path)
    assert said.status == 2
    assert "\x1b" not in said.err
    assert "\\x07" not in said.err, "the whole sequence is gone"


@BUFFERS
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["report", "-h"], ["--version"], ["report", "run"], ["report", "failed"]],
    ids=" ".join,
)
def test_output_that_nobody_reads_is_neither_an_error_nor_a_failed_test(
    arguments: list[str], unbuffered: str, tmp_path: Path
) -> None:
    run_of(tmp_path, Status.PASSED)
    (tmp_path / "other").mkdir()
    run_of(tmp_path / "other", Status.FAILED).rename(tmp_path / "failed")
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "vmtest", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


@BUFFERS
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["report", "run"], 0),
        (["report", "failed"], 1),
        (["run"], 2),
        (["no-such-command"], 2),
        (["bisect", "step"], 128),
    ],
    ids=["passed", "failed", "run", "no-such-command", "bisect-step"],
)
@pytest.mark.parametrize(
    "streams",
    [">/dev/full 2>told", "2>/dev/full", "2> >(exit)", ">&- 2>told", "2>&-", ">&- 2>&-"],
)
def test_a_stream_that_cannot_be_written_changes_no_verdict(
    streams: str, arguments: list[str], status: int, unbuffered: str, tmp_path: Path
) -> None:
    """To git, which runs ``bisect step``, Python's own 1 and 120 would say that a commit is bad."""
    run_of(tmp_path, Status.PASSED)
    (tmp_path / "other").mkdir()
    run_of(tmp_path / "other", Status.FAILED).rename(tmp_path / "failed")
    told = tmp_path / "told"
    told.touch()
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -m vmtest "$@" {streams}', sys.executable, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr + told.read_text()
    assert "Traceback" not in said
    if "/dev/full 2>" in streams and status == 0:
        full = "standard output: No space left on device; make room there"
        assert (done.returncode, said) == (3, f"vmtest: error: {full}\n")
    else:
        assert done.returncode == status


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """What is said would be written over it."""
    run_of(tmp_path, Status.PASSED)
    command = 'exec "$0" -m vmtest report run --json m.json <&- >&- 2>&-'
    subprocess.run(["bash", "-c", command, sys.executable], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "m.json").read_text())["run"] == "run"


def test_a_program_that_is_started_has_streams_where_ours_were_closed(tmp_path: Path) -> None:
    text = "import subprocess; from vmtest.cli import streams; streams.guard()\n"
    text += "subprocess.run(['sh', '-c', 'ls -l /proc/self/fd/[012] >seen'], check=True)"
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    subprocess.run(["bash", "-c", command, sys.executable, text], cwd=tmp_path, check=True)
    seen = (tmp_path / "seen").read_text().splitlines()
    assert [line.rpartition("/")[2] for line in seen] == ["null", "seen", "null"]
