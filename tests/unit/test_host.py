"""What the host has: the packages of runs and of tests, which virtiofsd virtme-ng would take."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from vmtest.host import requirements as host


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs there is."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(host, "_VIRTIOFSD", ())
    return tmp_path


def program(file: Path, version: str, status: int = 0) -> Path:
    file.write_text(f"#!/bin/sh\necho '{version}'\nexit {status}\n")
    file.chmod(0o755)
    return file


def test_a_virtiofsd_in_rust_is_found(folder: Path) -> None:
    made = program(folder / "virtiofsd", "virtiofsd 1.13.2")
    assert host.find_virtiofsd() == str(made)


def test_qemus_own_virtiofsd_does_not_count(folder: Path) -> None:
    program(folder / "virtiofsd", "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)")
    assert host.find_virtiofsd() is None


def test_one_that_does_not_run_is_passed_over_as_virtme_ng_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(folder / "virtiofsd", "", 1)
    other = program(folder / "other", "virtiofsd 1.13.2")
    monkeypatch.setattr(host, "_VIRTIOFSD", (str(other),))
    assert host.find_virtiofsd() == str(other)


def test_without_any_there_is_none(folder: Path) -> None:
    assert host.find_virtiofsd() is None


def lacking(installed: set[str], *, tests: bool) -> list[str]:
    return [need.packages[0] for need in host.missing(installed, tests=tests)]


def test_a_user_is_not_asked_for_what_only_tests_need() -> None:
    wanted = lacking(set(), tests=False)
    assert {"qemu-system-x86", "clang"} <= set(wanted)
    assert {"flex", "gpg", "libarchive-tools", "clang-format"}.isdisjoint(wanted)


def test_what_tests_need_includes_all_that_a_run_and_a_kernel_build_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = lacking(set(), tests=True)
    assert set(lacking(set(), tests=False)) <= set(wanted)
    monkeypatch.setattr(host, "search_path", lambda: "")
    monkeypatch.setattr(host, "Path", lambda name: Path("/absent"))
    builds = host.missing_for_builds()
    assert {"flex", "libssl-dev"} <= set(builds) <= set(wanted)


def test_a_package_is_asked_for_once() -> None:
    wanted = lacking(set(), tests=True)
    assert sorted(wanted) == sorted(set(wanted))


def test_what_is_installed_is_not_asked_for() -> None:
    everything = set(lacking(set(), tests=True))
    assert lacking(everything - {"flex"}, tests=True) == ["flex"]


def test_set_up_of_the_tests_installs_what_they_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = set(lacking(set(), tests=True))
    monkeypatch.setattr(host, "installed_packages", lambda: everything - {"bison"})
    monkeypatch.setattr("vmtest.host.requirements.shutil.which", lambda name, **_: None)
    assert host.main([]) == 0
    assert host.main(["--tests"]) == 1
    assert "bison" in capsys.readouterr().out
    commands = configparser.ConfigParser(interpolation=None)
    commands.read(Path(__file__).parents[2] / "tox.ini")
    assert "python -m vmtest.host --tests" in commands["testenv:setup"]["commands"].splitlines()
