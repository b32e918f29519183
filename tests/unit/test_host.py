"""What the host has: which virtiofsd virtme-ng would take."""

from __future__ import annotations

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
