"""The locks that CI installs from: a hash of everything, and no place to fetch it from."""

from __future__ import annotations

import configparser
import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_wheels import small_wheel

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / ".ci/lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUN = PROJECT["project"]["dependencies"]
BUILD = [*PROJECT["build-system"]["requires"], *(LOCKS / "build.in").read_text().split()]
EXTRAS = [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
TOX = configparser.ConfigParser(interpolation=None)
TOX.read(ROOT / "tox.ini")
LINT = TOX["testenv:lint"]["deps"].split()
TOOLS = [*RUN, *BUILD, *EXTRAS, *LINT, *(LOCKS / "tools.in").read_text(encoding="utf-8").split()]
PIN = re.compile(
    r"^(\S+?)==(\S+)(?: ; .*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def pins(name: str) -> dict[str, list[str]]:
    """The versions of each package in a lock; another Python may have another one."""
    found: dict[str, list[str]] = {}
    for package, version, _ in PIN.findall((LOCKS / name).read_text(encoding="utf-8")):
        found.setdefault(canonicalize_name(package), []).append(version)
    return found


@pytest.mark.parametrize(
    ("name", "wanted"), [("run.txt", RUN), ("build.txt", BUILD), ("tools.txt", TOOLS)]
)
def test_a_lock_has_all_that_the_project_asks_for(name: str, wanted: list[str]) -> None:
    locked = pins(name)
    asked = [Requirement(line) for line in wanted]
    lacking = [
        str(one)
        for one in asked
        if not any(map(one.specifier.contains, locked.get(canonicalize_name(one.name), [])))
    ]
    assert lacking == []
    assert asked


@pytest.mark.parametrize("name", ["run.txt", "build.txt", "tools.txt"])
def test_every_line_of_a_lock_is_a_version_with_its_hashes(name: str) -> None:
    text = (LOCKS / name).read_text(encoding="utf-8")
    assert PIN.sub("", text).strip() == ""


@pytest.mark.parametrize("name", ["run.txt", "build.txt"])
def test_what_is_in_two_locks_has_one_version(name: str) -> None:
    tools = pins("tools.txt")
    assert {one: tools.get(one) for one in pins(name)} == pins(name)


def test_what_a_user_gets_holds_nothing_that_only_builds() -> None:
    """The vulnerabilities of a release are asked of this lock, and its list is made from it."""
    builds = {canonicalize_name(Requirement(line).name) for line in BUILD}
    assert builds
    assert builds & set(pins("run.txt")) == set()


@pytest.mark.parametrize(
    "file", [".github/workflows/kernels.yml", ".github/workflows/release.yml", "action.yml"]
)
def test_a_workflow_installs_by_hash_what_it_did_not_build_itself(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    installs = re.findall(r'pip"? install (?:--quiet )?(.*)', text)
    assert installs
    assert [
        one for one in installs if not one.startswith(("--require-hashes ", "--no-deps "))
    ] == []


def locked(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``.ci/locked.py`` run with these."""
    argv = [sys.executable, ROOT / ".ci/locked.py", *arguments]
    return subprocess.run(argv, capture_output=True, text=True)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that pip finds."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def lock_of(wheel: Path, digest: str = "") -> Path:
    """The lock of a wheel, with the hash that it has where no other is given."""
    digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    name, version = wheel.name.split("-")[:2]
    path = wheel.parent.parent / "lock.txt"
    path.write_text(f"{name}=={version} \\\n    --hash=sha256:{digest}\n")
    return path


def test_what_has_the_hash_of_the_lock_is_fetched_and_older_files_go(index: Path) -> None:
    folder = index.parent / "wheels"
    folder.mkdir()
    small_wheel(folder, "one", "2.0")
    wheel = small_wheel(index, "one", "1.0")
    done = locked("fetch", lock_of(wheel), folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in folder.iterdir()] == [wheel.name]


def test_what_has_another_hash_is_not_fetched(index: Path) -> None:
    folder = index.parent / "wheels"
    done = locked("fetch", lock_of(small_wheel(index, "one", "1.0"), "0" * 64), folder)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not folder.exists() or not list(folder.iterdir())


def test_a_lock_without_what_a_package_needs_is_refused(index: Path) -> None:
    small_wheel(index, "helper", "0.1")
    lock = lock_of(small_wheel(index, "one", "1.0", "helper"))
    done = locked("fetch", lock, index.parent / "wheels")
    assert done.returncode == 1
    assert "helper" in done.stderr


def test_nothing_is_installed_that_was_not_fetched(index: Path) -> None:
    folder = index.parent / "wheels of the lock"
    folder.mkdir()
    small_wheel(folder, "one", "1.0")
    small_wheel(index, "other", "1.0")
    assert locked("install", folder, "--dry-run", "one").returncode == 0
    done = locked("install", folder, "--dry-run", "other")
    assert done.returncode == 1
    assert "No matching distribution found for other" in done.stderr


def test_the_script_of_ci_installs_only_what_was_fetched() -> None:
    text = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "pip " not in text
    # The environments, and the one that builds the wheel, which inherits from none of them.
    assert all(f"{kind}.install_command=$locked" in text for kind in ("testenv", "pkgenv"))
    assert re.findall(r"tox_root}/(\.[\w/.]+)", text) == [".ci/locked.py", ".venv/locked"]
