"""The locks that CI installs from: a hash of everything, and no place to fetch it from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / ".ci/lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUN = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
EXTRAS = [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
TOOLS = [*RUN, *EXTRAS, *(LOCKS / "tools.in").read_text(encoding="utf-8").split()]
PIN = re.compile(
    r"^(\S+?)==(\S+)(?: ; .*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def pins(name: str) -> dict[str, list[str]]:
    """The versions of each package in a lock; another Python may have another one."""
    found: dict[str, list[str]] = {}
    for package, version, _ in PIN.findall((LOCKS / name).read_text(encoding="utf-8")):
        found.setdefault(canonicalize_name(package), []).append(version)
    return found


@pytest.mark.parametrize(("name", "wanted"), [("run.txt", RUN), ("tools.txt", TOOLS)])
def test_a_lock_has_all_that_the_project_asks_for(name: str, wanted: list[str]) -> None:
    locked = pins(name)
    asked = [Requirement(line) for line in wanted]
    lacking = [
        str(one)
        for one in asked
        if not any(map(one.specifier.contains, locked.get(canonicalize_name(one.name), [])))
    ]
    assert lacking == []
    assert len(asked) > len(PROJECT["project"]["dependencies"])


@pytest.mark.parametrize("name", ["run.txt", "tools.txt"])
def test_every_line_of_a_lock_is_a_version_with_its_hashes(name: str) -> None:
    text = (LOCKS / name).read_text(encoding="utf-8")
    assert PIN.sub("", text).strip() == ""


def test_what_runs_has_one_version_in_both_locks() -> None:
    tools = pins("tools.txt")
    assert {name: tools.get(name) for name in pins("run.txt")} == pins("run.txt")


@pytest.mark.parametrize("workflow", ["kernels.yml", "release.yml"])
def test_a_workflow_installs_by_hash_what_it_did_not_build_itself(workflow: str) -> None:
    text = (ROOT / ".github/workflows" / workflow).read_text(encoding="utf-8")
    installs = re.findall(r"pip install (.*)", text)
    assert installs
    assert [
        one for one in installs if not one.startswith(("--require-hashes ", "--no-deps "))
    ] == []
