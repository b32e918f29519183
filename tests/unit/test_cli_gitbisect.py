"""``vmtest bisect --source tree`` and ``step`` as far as they get without a VM: bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from command import Said, vmtest
from small_trees import commit, everything, git, make_tree
from typer.testing import CliRunner

from vmtest.bisect.journal import JOURNAL
from vmtest.cli.bisect.packages import with_tree
from vmtest.cli.main import app
from vmtest.host.cache import find_tool
from vmtest.host.requirements import BUILD_TOOLS, missing_for_builds

pytestmark = pytest.mark.skipif(
    bool(missing_for_builds()) or find_tool("depmod") is None,
    reason="what building a kernel needs is not installed on this host",
)

CONFIG = """
schema = 1
[guest]
root = "host"
[[kernel]]
name = "mine"
path = "bzImage"
[[suite]]
name = "net"
tests = "test_net.py"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VMTEST_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "kernels.toml").write_text(CONFIG)
    (folder / "test_net.py").write_text("def test_it(): pass\n")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of which nothing after the fourth commit builds."""
    folder = make_tree(tmp_path / "linux")
    commit(folder, "broken")
    for n in range(3):
        commit(folder, "state", str(n))
    return folder


def bisect(project: Path, tree: Path, *arguments: str, **more: Mapping[str, str]) -> Said:
    return vmtest("bisect", "--source", "tree", str(tree), *arguments, cwd=project, **more)  # type: ignore[arg-type]  # environment


ENDS = ("--good", "HEAD~3", "--bad", "HEAD")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--good", "v6.66", "--bad", "HEAD"), "no revision v6.66; fetch it there, or correct --"),
        (("--good", "HEAD", "--bad", "main"), "are the same commit; choose another end"),
        (("--good", "HEAD", "--bad", "HEAD~2"), "out of order; or did you mean --find fixed?"),
        ((*ENDS, "--find", "fixed"), "out of order; or did you mean --find broken?"),
        ((*ENDS, "--jobs", "2"), "--jobs: is for packages"),
        ((*ENDS, "--cached"), "--cached: is for packages"),
        ((*ENDS, "--archive", "debian"), "--archive: is for packages"),
        ((*ENDS, "--suite", "ent"), 'there is no suite "ent"'),
        ((*ENDS, "--resume"), "there is no interrupted bisect of this question"),
        ((*ENDS, "--kconfig", "absent"), "absent: there is no such file"),
        (("--good", "HEAD~3"), "Missing option '--bad'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_run_begins(
    project: Path, tree: Path, arguments: tuple[str, ...], said: str
) -> None:
    bisect(project, tree, *arguments).refuses(2, said)
    assert not (project / ".vmtest").exists()


def test_a_folder_that_is_no_tree_is_named(project: Path, tmp_path: Path) -> None:
    bisect(project, tmp_path / "absent", *ENDS).refuses(2, "absent: no such folder; correct the")
    bisect(project, tmp_path, *ENDS).refuses(
        2, f"{tmp_path} is not a git repository; the tree's path"
    )


def test_a_shallow_clone_without_an_end_is_said_to_be_one(
    project: Path, tree: Path, tmp_path: Path
) -> None:
    shallow = tmp_path / "shallow"
    git(tree, "clone", "--quiet", "--depth", "2", f"file://{tree}", str(shallow))
    bisect(project, shallow, *ENDS).refuses(2, "it is a shallow clone: git fetch --unshallow")


def test_a_config_fragment_without_a_tree_is_refused(project: Path) -> None:
    ends = ("--good", "6.1", "--bad", "6.12")
    vmtest("bisect", *ends, "--kconfig", "x", cwd=project).refuses(2, "add --source tree PATH")


def test_without_a_path_the_tree_is_that_of_the_current_folder(project: Path, tree: Path) -> None:
    config = ("--config", str(project / "kernels.toml"))
    ends = ("--good", "main", "--bad", "HEAD")
    said = vmtest("bisect", "--source", "tree", *ends, *config, cwd=tree)
    said.refuses(2, "are the same commit")


def test_ends_that_do_not_build_are_no_ends_and_the_compiler_is_quoted(
    project: Path, tree: Path
) -> None:
    before = everything(tree)
    said = bisect(project, tree, *ENDS)
    said.refuses(2, "one end has no verdict", "does not build: ", "error: expected ;")
    assert everything(tree) == before
    (file,) = project.glob(f".vmtest/runs/*/{JOURNAL}")
    events = [json.loads(line)["event"] for line in file.read_text().splitlines()]
    assert events == ["question", "round", "told", "told", "error"]


def test_changes_that_are_not_committed_are_said_to_be_left_out(project: Path, tree: Path) -> None:
    (tree / "state").write_text("mine")
    said = bisect(project, tree, *ENDS)
    assert "note: " in said.out and "has 1 changed files that are not committed" in said.out


@pytest.mark.parametrize(
    ("written", "parsed"),
    [
        ("--source tree x --good a", "--source tree --tree x --good a"),
        ("--good a --source tree x", "--good a --source tree --tree x"),
        ("--source=tree x --good a", "--source=tree --tree x --good a"),
        ("--source tree --good a", "--source tree --good a"),
        ("--source tree", "--source tree"),
        ("--source apt --good a", "--source apt --good a"),
        ("step x --rev tree y", "step x --rev tree y"),
    ],
)
def test_a_path_may_follow_the_word_tree(written: str, parsed: str) -> None:
    assert with_tree(written.split()) == parsed.split()


def without_gcc(folder: Path) -> Mapping[str, str]:
    """An environment whose PATH has what a build needs but the compiler."""
    folder.mkdir()
    for name in ("sh", "qemu-system-x86_64", *(tool.command for tool in BUILD_TOOLS)):
        found = find_tool(name)
        if name != "gcc" and found is not None:
            (folder / name).symlink_to(found)
    return {"PATH": str(folder)}


def test_without_a_compiler_it_stops_and_can_be_gone_on_with(
    project: Path, tree: Path, tmp_path: Path
) -> None:
    said = bisect(project, tree, *ENDS, environment=without_gcc(tmp_path / "bin"))
    said.refuses(3, "gcc is not installed and is needed to build a kernel")
    assert "to go on: vmtest bisect --source tree" in said.out and "--resume" in said.out
    again = bisect(project, tree, *ENDS, "--resume")
    again.refuses(2, "one end has no verdict")


def test_one_that_still_runs_is_not_resumed(project: Path, tree: Path, tmp_path: Path) -> None:
    bisect(project, tree, *ENDS, environment=without_gcc(tmp_path / "bin"))
    (file,) = project.glob(f".vmtest/runs/*/{JOURNAL}")
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2);"
         "print(); input()", str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        bisect(project, tree, *ENDS, "--resume").refuses(2, "this bisect is still running")
    finally:
        holder.communicate(b"\n")


def step(project: Path, tree: Path, *arguments: str, **more: Mapping[str, str]) -> Said:
    config = ("--config", str(project / "kernels.toml"))
    return vmtest("bisect", "step", *config, *arguments, cwd=tree, **more)  # type: ignore[arg-type]  # environment


def test_a_step_that_does_not_build_cannot_tell(project: Path, tree: Path) -> None:
    said = step(project, tree)
    assert said.status == 125, said
    assert "vmtest bisect step: skip: does not build: " in said.out
    assert "status 1: net/core/sock.c:7:1: error: expected ;" in said.out


def test_a_step_builds_what_is_there_and_not_what_is_committed(project: Path, tree: Path) -> None:
    git(tree, "checkout", "--quiet", "HEAD~4")
    (tree / "build.sh").write_text("echo 'a.c:1:1: error: mine'; exit 1\n")
    said = step(project, tree)
    assert said.status == 125 and "a.c:1:1: error: mine" in said.out, said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rev", "v6.66"), "has no revision v6.66"),
        (("--suite", "ent"), 'there is no suite "ent"'),
        (("/",), "/ is not a git repository"),
        (("--verify", "none.o", "-k", "x"), "leave --suite and -k out"),
        (("--accel", "hvf"), "write auto, kvm or tcg"),
    ],
)
def test_a_step_that_is_not_configured_rightly_stops_git(
    project: Path, tree: Path, arguments: tuple[str, ...], said: str
) -> None:
    step(project, tree, *arguments).refuses(128, said)


def test_a_bug_of_ours_stops_git_and_makes_no_commit_bad(
    project: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.cli.bisect.step.tree_at", lambda path: path / 1)
    monkeypatch.chdir(tree)
    config = ["--config", str(project / "kernels.toml")]
    assert CliRunner().invoke(app, ["bisect", "step", *config]).exit_code == 128


def test_a_step_without_a_compiler_stops_git(project: Path, tree: Path, tmp_path: Path) -> None:
    said = step(project, tree, environment=without_gcc(tmp_path / "bin"))
    said.refuses(128, "gcc is not installed and is needed to build a kernel")


def test_git_bisect_run_skips_what_a_step_cannot_tell(project: Path, tree: Path) -> None:
    git(tree, "bisect", "start", "HEAD", "HEAD~3")
    command = [sys.executable, "-m", "vmtest", "bisect", "step"]
    command += ["--config", str(project / "kernels.toml")]
    done = subprocess.run(
        ["git", "-C", str(tree), "bisect", "run", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "only 'skip'ped commits left to test" in done.stdout + done.stderr, done
