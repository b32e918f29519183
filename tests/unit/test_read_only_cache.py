"""A cache that can only be read, with what is wanted in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_seal import KEY, fill

from vmtest.errors import InfrastructureError
from vmtest.host.cache import locked
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import Accelerator
from vmtest.vm import accel
from vmtest.vm.qemu import QEMU


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """A cache with a kernel, mounted read-only."""
    Store(tmp_path / "cache").add(KEY, fill)
    place = tmp_path / "mounted"
    place.mkdir()
    mounting = [
        ["--bind", str(tmp_path / "cache"), str(place)],
        ["-o", "remount,ro,bind", str(place)],
    ]
    for arguments in mounting:
        done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip("mounting needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_kernel_in_it_is_used(cache: Path) -> None:
    assert Store(cache).add(KEY, fill).release == "6.1.10"


def test_a_kernel_that_is_not_in_it_names_the_cure(cache: Path) -> None:
    with pytest.raises(InfrastructureError, match="set VMTEST_CACHE to a folder you may write to"):
        Store(cache).add("another", fill)


def test_a_probe_that_cannot_be_kept_is_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    qemu = tmp_path / QEMU
    qemu.write_text("#!/bin/sh\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    works = {name: accel.Probe(Accelerator(name), 1.0, "") for name in ("kvm", "tcg")}
    monkeypatch.setattr(accel, "_probe_both", lambda qemu, image, known: works)
    assert accel.choose(Path("kernel"), cache).seconds == 1.0


def test_it_is_not_waited_for(cache: Path) -> None:
    held = 0
    with locked(cache, "any"), locked(cache, "any"):
        held += 1
    assert held == 1
