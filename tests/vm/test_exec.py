"""``vmtest exec`` against a real kernel: status, copies, tests read from output, and every end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from any_guest import in_guest
from command import Said, vmtest
from real_kernels import KERNEL

from vmtest.model.kernels import KernelImage

Make = Callable[..., Path]


@pytest.fixture
def bare(project: Make) -> Make:
    """A project without any suite, with ``scripts`` beside its kernels.toml."""

    def make(extra: str = "", more: str = "", **scripts: str) -> Path:
        folder = project("", extra)
        config = folder / "kernels.toml"
        config.write_text(config.read_text().split("[[suite]]")[0] + more)
        for name, text in scripts.items():
            script = folder / f"{name}.sh"
            script.write_text(f"#!/bin/sh\n{text}\n")
            script.chmod(0o755)
        return folder

    return make


def kernel_of(folder: Path) -> dict[str, Any]:
    (only,) = json.loads((folder / ".vmtest" / "latest" / "matrix.json").read_text())["kernels"]
    return dict(only)


def outcomes(folder: Path) -> dict[str, str]:
    tests = kernel_of(folder)["tests"]
    return {test["test"]: test["outcome"] for test in tests}


def log(folder: Path) -> str:
    return (folder / ".vmtest" / "latest" / KERNEL / "command.log").read_text()


def ends(said: Said, status: int, *parts: str) -> None:
    """Assert how a run ended: its status, no traceback, and ``parts`` in its report."""
    assert said.status == status, said
    assert "Traceback" not in said.err, said.err
    for part in parts:
        assert part in said.err, f"{part!r} is not in:\n{said.err}"


def test_the_kernels_config_lies_where_loaders_look_for_it(bare: Make, image: KernelImage) -> None:
    assert image.config is not None
    said = vmtest("exec", "sh", "-c", "cat /boot/config-$(uname -r)", cwd=bare())
    assert said.status == 0, said
    assert said.out == image.config.read_text()


def test_output_is_shown_alone_and_the_status_passed_on(bare: Make, image: KernelImage) -> None:
    folder = bare()
    said = in_guest("exec", "sh", "-c", "uname -r; pwd; echo on stderr >&2; exit 42", cwd=folder)
    ends(
        said,
        42,
        "on stderr",
        "FAILED",
        "exit status 42",
        "(exit status 42)",
        f"{KERNEL}/command.log",
    )
    assert said.out == f"{image.release}\n/tmp/vmtest/work\n"
    assert sorted(log(folder).splitlines()) == sorted([*said.out.splitlines(), "on stderr"])
    assert kernel_of(folder)["exit_status"] == 42
    again = vmtest("report", cwd=folder)
    assert again.status == 42
    (run,) = (folder / ".vmtest" / "runs").glob("2*")
    assert f"log of {KERNEL}: .vmtest/runs/{run.name}/{KERNEL}/command.log" in again.out


def test_copies_and_objects_are_there_and_reports_are_written(bare: Make) -> None:
    folder = bare(
        more='[[object]]\nname = "own"\npath = "own.o"\n',
        run='set -e; cat data/deep/x; cmp "$VMTEST_OBJECTS/own.o" data/own.o; test -x data/tool.sh',
    )
    header = bytearray(64)
    header[:6], header[18] = b"\x7fELF\x02\x01", 247  # EM_BPF, little-endian
    (folder / "own.o").write_bytes(header)
    deep = folder / "data" / "deep"
    deep.mkdir(parents=True)
    (deep / "x").write_text("from the host\n")
    (folder / "data" / "own.o").write_bytes(header)
    (folder / "data" / "tool.sh").write_text("")
    (folder / "data" / "tool.sh").chmod(0o755)
    files = ("--junit", "j.xml", "--markdown", "m.md", "--json", "m.json")
    copies = ("--copy", "run.sh:bin/run", "--copy", "data")
    said = in_guest("exec", *copies, *files, "--", "./bin/run", cwd=folder)
    ends(said, 0, "PASSED", "1 passed")
    assert said.out == "from the host\n"
    assert [name for name, _ in kernel_of(folder)["objects"]] == ["own"]
    assert 'name="./bin/run"' in (folder / "j.xml").read_text()
    assert "1 passed" in (folder / "m.md").read_text()
    assert json.loads((folder / "m.json").read_text())["command"] == ["./bin/run"]


GOTEST = """
echo '=== RUN   TestA'
echo '--- PASS: TestA (0.10s)'
echo '=== RUN   TestB'
echo '    b_test.go:3: want 2'
echo '--- FAIL: TestB (0.00s)'
exit 1
"""
JUNIT = """
cat >out.xml <<E
<testsuite><testcase classname="c" name="a"/>
<testcase name="b"><skipped message="no BTF"/></testcase></testsuite>
E
"""


def test_a_row_a_test_of_gotest(bare: Make) -> None:
    folder = bare(t=GOTEST)
    said = in_guest("exec", "--copy", "t.sh", "--results", "gotest", "./t.sh", cwd=folder)
    ends(said, 1, "b_test.go:3: want 2", "1 failed, exit status 1")
    assert outcomes(folder) == {"TestA": "passed", "TestB": "failed"}


def test_a_row_a_test_of_a_junit_file(bare: Make) -> None:
    folder = bare(t=JUNIT)
    said = in_guest("exec", "--copy", "t.sh", "--results", "junit:out.xml", "./t.sh", cwd=folder)
    ends(said, 0, "no BTF")
    assert outcomes(folder) == {"c::a": "passed", "b": "skipped"}
    assert (folder / ".vmtest" / "latest" / KERNEL / "command.xml").stat().st_size > 0


def test_a_panic_under_a_command_keeps_what_had_finished(bare: Make) -> None:
    folder = bare(t="echo 1..3; echo ok 1 - first; sleep 1; echo c >/proc/sysrq-trigger; echo ok 2")
    said = in_guest("exec", "--copy", "t.sh", "--results", "tap", "./t.sh", cwd=folder)
    ends(said, 1, "PANICKED", "sysrq triggered crash", "while test 2 ran")
    assert outcomes(folder) == {"first": "passed", "test 2": "lost", "test 3": "not run"}
    assert log(folder) == "1..3\nok 1 - first\n"


def test_a_silent_command_is_given_up_at_the_deadline(bare: Make) -> None:
    folder = bare('silence_timeout = "3s"')
    config = folder / "kernels.toml"
    config.write_text(config.read_text().replace('silence_timeout = "20s"\n', ""))
    said = in_guest("exec", "sh", "-c", "echo so far; sleep 3600", cwd=folder)
    ends(said, 1, "TIMED_OUT", "silence deadline", "while sh -c 'echo so far; sleep 3600' ran")
    assert said.out == log(folder) == "so far\n"
    assert list(outcomes(folder).values()) == ["lost"]


@pytest.mark.parametrize(
    ("parent", "status", "row"), [(2, "SPLAT", "passed"), (1, "TIMED_OUT", "lost")]
)
def test_only_a_hung_process_ends_a_quiet_command(
    parent: int, status: str, row: str, bare: Make
) -> None:
    """The reports are written into the kernel's log, as it words them itself."""
    folder = bare('stall_timeout = "1s"')
    script = (
        "for line in 'INFO: task kworker/u4:0:11 blocked for more than 3 seconds.'"
        f" 'task:kworker/u4:0 state:D stack:0 pid:11 tgid:11 ppid:{parent} flags:0x4';"
        ' do echo "$line" >/dev/kmsg; done; sleep 15; echo done'
    )
    said = in_guest("exec", "sh", "-c", script, cwd=folder)
    assert said.status == 1, said
    assert kernel_of(folder)["status"] == status, said.err
    assert list(outcomes(folder).values()) == [row]
    assert ("done" in said.out) == (status == "SPLAT")


def test_a_command_that_fills_the_guests_memory_is_named(bare: Make) -> None:
    folder = bare()
    said = in_guest("exec", "tail", "/dev/zero", cwd=folder)
    ends(said, 137, "LOST", "ran out of memory (512 MiB; raise memory in kernels.toml)")


def test_a_child_that_keeps_the_output_open_delays_nobody(bare: Make) -> None:
    folder = bare()
    said = in_guest("exec", "sh", "-c", "sleep 3600 & echo done", cwd=folder)
    ends(said, 0, "PASSED")
    assert said.out == "done\n"


def test_a_program_that_the_guest_has_not_is_explained(bare: Make) -> None:
    folder = bare()
    said = in_guest("exec", "no-such-program", cwd=folder)
    ends(said, 127, "no-such-program is searched in the guest", "--copy")


def test_a_kernel_that_does_not_boot_is_125(bare: Make) -> None:
    folder = bare('cmdline = ["rdinit=/bin/busybox"]\nretries = 0')
    ends(vmtest("exec", "true", cwd=folder), 125, "BOOT_FAILED", "Attempted to kill init")


def test_several_kernels_are_a_table_and_one_status(bare: Make) -> None:
    folder = bare()
    config = folder / "kernels.toml"
    text = config.read_text()
    twin = text[text.index("[[kernel]]") :].replace(f'name = "{KERNEL}"', 'name = "twin"')
    config.write_text(text + twin)
    said = in_guest("exec", "--jobs", "1", "--", "sh", "-c", "echo the end; exit 42", cwd=folder)
    assert said.status == 1, said
    for part in ("twin", KERNEL, "exit status 42: the end", "2 kernels: 2 failed (exit status 1)"):
        assert part in said.out
    assert (folder / ".vmtest" / "latest" / "twin" / "command.log").read_text() == "the end\n"


def test_a_test_tools_program_runs_as_if_it_ran_here(bare: Make) -> None:
    folder = bare(tool='cat testdata/input; echo "$1" >&2; exit 3')
    (folder / "testdata").mkdir()
    (folder / "testdata" / "input").write_text("from testdata\n")
    tool = str(folder / "tool.sh")
    said = vmtest("go-exec", "--kernel", KERNEL, tool, "-test.v", cwd=folder)
    assert (said.status, said.out, said.err) == (3, "from testdata\n", "-test.v\n")
