"""A bisect over a git tree, end to end: real git, vng --build and guests, a build that copies.

What the tree builds is one of two kernels that are here: 6.12, which has a kfunc, or 6.1.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from command import Said, vmtest
from real_kernels import PROJECT, boot_modules, image_of, known_accelerator
from small_trees import BUILD, MAKEFILE, commit, git

from vmtest.bisect.journal import JOURNAL
from vmtest.host.requirements import missing_for_builds
from vmtest.model.kernels import KernelImage, RootImage
from vmtest.model.project import Config
from vmtest.objects.compile import build_all
from vmtest.vm.accel import Probe

pytestmark = pytest.mark.skipif(
    bool(missing_for_builds()), reason="what building a kernel needs is not installed on this host"
)

CONFIG = """
schema = 1
[guest]
root = "{root}"
[[kernel]]
name = "mine"
path = "bzImage"
"""
KFUNC = ("--verify", "kfunc.bpf.o:reads_by_pointer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: RootImage) -> Path:
    made = tmp_path_factory.mktemp("gitbisect")
    build_all(PROJECT / "tests" / "verify", made)
    (made / "kernels.toml").write_text(CONFIG.format(root=root.path))
    return made


@pytest.fixture(scope="module")
def tree(folder: Path, settings: Config, cache: Path, probe: Probe) -> Path:
    """Eight commits; the third to the fifth do not build, the kfunc is gone from the sixth on."""

    known_accelerator(cache, folder / "cache")

    def places(image: KernelImage) -> str:
        modules = boot_modules(image, folder)
        packed = image.image.with_name(f"vmlinuz-{image.release}")
        return f"{packed}\n{image.config}\n{modules}\n"

    old, new = (places(image_of(name, settings, cache)) for name in ("6.12", "6.1"))
    made = folder / "linux"
    made.mkdir()
    git(made, "init", "--quiet", "-b", "main")
    commit(made, "Makefile", MAKEFILE)
    begin = "{ echo CONFIG_X86_64=y; echo CONFIG_MODULE=m; }"
    build = BUILD.replace(begin, 'cat "$(sed -n 2p kernel)"')
    build = build.replace("cp image ", 'cp "$(sed -n 1p kernel)" ')
    build = re.sub(
        r"modules_install\).*?;;",
        'modules_install)\n    mkdir -p "$3/lib/modules"\n'
        '    cp -r "$(sed -n 3p kernel)" "$3/lib/modules/" ;;',
        build,
        flags=re.DOTALL,
    )
    commit(made, "build.sh", build)
    commit(made, "kernel", old)
    for n in range(1, 9):
        if n == 3:
            commit(made, "broken")
        elif n == 6:
            (made / "broken").unlink()
            git(made, "rm", "--quiet", "broken")
            commit(made, "kernel", new)
        else:
            commit(made, f"state-{n}")
    return made


def options(folder: Path, tree: Path) -> Sequence[str]:
    return ("--source", "tree", str(tree), "--good", "main~8", "--bad", "main", *KFUNC)


def own_cache(folder: Path) -> Mapping[str, str]:
    """A store of its own, so that the tests' trees do not stay in the user's."""
    return {"VMTEST_CACHE": str(folder / "cache")}


def journal(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob(f".vmtest/runs/*/{JOURNAL}")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def resumed(folder: Path, tree: Path) -> tuple[int, Said]:
    """The status of a bisect that was ended after its first answer, and the one that went on."""
    command = [sys.executable, "-m", "vmtest", "bisect", *options(folder, tree)]
    first = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **own_cache(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while first.poll() is None and not any(
        '"told"' in file.read_text() for file in folder.glob(f".vmtest/runs/*/{JOURNAL}")
    ):
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    first.communicate()
    again = ("bisect", *options(folder, tree), "--resume")
    return first.returncode, vmtest(*again, cwd=folder, environment=own_cache(folder), timeout=900)


def test_a_bisect_that_was_ended_is_gone_on_with(folder: Path, resumed: tuple[int, Said]) -> None:
    status, said = resumed
    assert (status, said.status) == (130, 0), said
    told = [line["kernel"] for line in journal(folder) if line["event"] == "told"]
    assert len(told) == len(set(told))


def test_commits_that_do_not_build_are_skipped_and_make_the_culprit_a_range(
    folder: Path, tree: Path, resumed: tuple[int, Said]
) -> None:
    answer = journal(folder)[-1]
    assert answer["commit"] == git(tree, "rev-parse", "main~2")
    assert len(answer["between"]) == 3
    assert "last good: " + git(tree, "rev-parse", "main~6")[:12] in resumed[1].out
    assert resumed[1].out.count("skip: does not build: ") >= 3


def test_the_end_names_commit_author_difference_and_the_log_of_the_failing_run(
    folder: Path, tree: Path, resumed: tuple[int, Said]
) -> None:
    said = resumed[1].out
    culprit = git(tree, "rev-parse", "main~2")
    date = git(tree, "show", "--no-patch", "--format=%aI", culprit)
    assert f"  {culprit}\n    kernel\n    t <t@example.org>, {date}" in said
    assert re.search(r"\n    [0-9a-f]{12}  unsupported \(kfunc\): .*bpf_dynptr_from_skb", said)
    assert re.search(r"\n    [0-9a-f]{12}  accepted, \d+ instructions", said)
    logs = re.search(rf"^  logs of {culprit[:12]}: (.*)$", said, re.MULTILINE)
    assert logs is not None
    assert all((folder / log).is_file() for log in logs.group(1).split(", "))
    assert "console.log" in logs.group(1)


def test_the_command_that_it_names_reproduces_an_end(
    folder: Path, resumed: tuple[int, Said]
) -> None:
    named = re.search(r"^  [0-9a-f]{12} \(bad\): vmtest (.*)$", resumed[1].out, re.MULTILINE)
    assert named is not None, resumed
    again = vmtest(*shlex.split(named.group(1)), cwd=folder, environment=own_cache(folder))
    assert again.status == 1, again
    assert "vmtest bisect step: bad: unsupported (kfunc)" in again.out


def test_git_bisect_run_with_steps_comes_to_the_same(
    folder: Path, tree: Path, resumed: tuple[int, Said]
) -> None:
    git(tree, "bisect", "start", "main", "main~8")
    command = [sys.executable, "-m", "vmtest", "bisect", "step"]
    command += ["--config", str(folder / "kernels.toml")]
    command += ["--verify", f"{folder}/kfunc.bpf.o:reads_by_pointer"]
    done = subprocess.run(
        ["git", "-C", str(tree), "bisect", "run", *command],
        env={**os.environ, **own_cache(folder)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    log = git(tree, "bisect", "log")
    git(tree, "bisect", "reset")
    found = set(re.findall(r"^# possible first bad commit: \[(\w+)\]", log, re.MULTILINE))
    assert found == set(git(tree, "rev-list", "main~6..main~2").split()), done
