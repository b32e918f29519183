"""Wheels of a few bytes, as a build would make them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest


def small_wheel(folder: Path, name: str, version: str, *requires: str) -> Path:
    """The wheel of a package with one module and what it ``requires``."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    needed = "".join(f"Requires-Dist: {one}\n" for one in requires)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"VERSION = {version!r}\n")
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        archive.writestr(f"{info}/METADATA", f"{head}{needed}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def small_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``folder`` all that pip finds: two versions of pytest, a plugin of it, and a helper."""
    folder.mkdir()
    for version in ("8.3.5", "8.4.2"):
        small_wheel(folder, "pytest", version)
    small_wheel(folder, "plugin", "1.0", "pytest>=8", "helper")
    small_wheel(folder, "helper", "0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder
