"""What a probe's answer is worth, and for how long: with a QEMU of our own that boots or not."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from vmtest.errors import InfrastructureError, UsageError
from vmtest.host.cache import read_record, write_record
from vmtest.model.kernels import Accelerator
from vmtest.vm import accel
from vmtest.vm.qemu import QEMU as NAME

# Counts its boots; KVM works once the file "works" is there, TCG always.
QEMU = """#!/bin/sh
case $1 in -L | --version) exit ;; esac
echo "$*" >>{folder}/boots
case "$*" in
    *accel=kvm*) [ -e {folder}/works ] || {{ echo "no MSR 0x10a"; exit 1; }} ;;
    *accel=tcg*) [ ! -e {folder}/broken ] || {{ echo "no TCG"; exit 1; }} ;;
esac
echo "VFS: Unable to mount root fs"
exec sleep 300
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with that QEMU and a device that everybody may open."""
    folder = tmp_path / "host"
    folder.mkdir()
    qemu = folder / NAME
    qemu.write_text(QEMU.format(folder=folder))
    qemu.chmod(0o755)
    (folder / "kvm").touch()
    parameters = folder / "modules" / "kvm_intel" / "parameters"
    parameters.mkdir(parents=True)
    (parameters / "nested").write_text("N\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(accel, "KVM_DEVICE", folder / "kvm")
    monkeypatch.setattr(accel, "MODULES", folder / "modules")
    return folder


def boots(host: Path) -> int:
    return len((host / "boots").read_text().splitlines())


def choose(host: Path, wanted: str = "auto", *, anew: bool = False) -> accel.Probe:
    return accel.choose(host / "kernel", host / "cache", wanted, anew=anew)


def memory(host: Path) -> tuple[Path, dict[str, Any]]:
    """What is remembered, and in which file."""
    (place,) = (host / "cache" / "accel").glob("*.json")
    found = read_record(place)
    assert found is not None
    return place, found


def age(host: Path, seconds: float) -> None:
    """Make what is remembered ``seconds`` older."""
    place, found = memory(host)
    write_record(place, {**found, "when": time.time() - seconds})


def test_a_failure_is_remembered_for_a_while(host: Path) -> None:
    assert "no MSR" in choose(host).why
    before = boots(host)
    assert choose(host).accelerator is Accelerator.TCG
    assert boots(host) == before


def test_a_failure_is_forgotten_after_that(host: Path) -> None:
    choose(host)
    (host / "works").touch()
    age(host, accel.FAILURE_KEPT + 1)
    assert choose(host).accelerator is Accelerator.KVM


def test_only_the_accelerator_that_failed_is_tried_again(host: Path) -> None:
    choose(host)
    before = boots(host)
    age(host, accel.FAILURE_KEPT + 1)
    choose(host)
    assert boots(host) == before + 1


def test_a_success_is_remembered_however_old(host: Path) -> None:
    (host / "works").touch()
    choose(host)
    before = boots(host)
    age(host, 100 * accel.FAILURE_KEPT)
    assert choose(host).accelerator is Accelerator.KVM
    assert boots(host) == before


def test_a_module_that_was_loaded_with_other_parameters_is_tried(host: Path) -> None:
    choose(host)
    (host / "works").touch()
    (host / "modules" / "kvm_intel" / "parameters" / "nested").write_text("Y\n")
    assert choose(host).accelerator is Accelerator.KVM


def test_a_device_that_was_made_anew_is_tried(host: Path) -> None:
    choose(host)
    (host / "works").touch()
    (host / "kvm").chmod(0o600)
    assert choose(host).accelerator is Accelerator.KVM


def test_asking_anew_boots_again(host: Path) -> None:
    choose(host)
    (host / "works").touch()
    assert choose(host, anew=True).accelerator is Accelerator.KVM


@pytest.mark.parametrize(("before", "slower"), [(0.0001, False), (100.0, True)])
def test_a_busy_moment_makes_no_limit_longer(host: Path, before: float, slower: bool) -> None:
    """How busy the host is stretches the limits already."""
    choose(host)
    place, found = memory(host)
    write_record(place, {**found, "tcg": {**found["tcg"], "seconds": before}})
    assert (choose(host, anew=True).seconds < before) is slower
    assert (choose(host).seconds == before) is not slower


def test_kvm_that_is_asked_for_by_name_is_tried_again(host: Path) -> None:
    with pytest.raises(UsageError, match="KVM does not work here: QEMU ended: no MSR"):
        choose(host, "kvm")
    (host / "works").touch()
    assert choose(host, "kvm").accelerator is Accelerator.KVM


def test_tcg_that_does_not_work_is_said_where_it_is_asked_for(host: Path) -> None:
    (host / "works").touch()
    (host / "broken").touch()
    with pytest.raises(InfrastructureError, match="without KVM: QEMU ended: no TCG"):
        choose(host, "tcg")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kvm": {}, "tcg": 1, "when": 0}'])
def test_a_damaged_memory_is_probed_anew(host: Path, text: str) -> None:
    choose(host)
    (place,) = (host / "cache" / "accel").glob("*.json")
    place.write_text(text)
    assert choose(host).accelerator is Accelerator.TCG
    assert json.loads(place.read_text())["tcg"]["why"] == ""


def test_a_changed_digit_is_probed_anew(host: Path) -> None:
    choose(host)
    (place,) = (host / "cache" / "accel").glob("*.json")
    place.write_text(place.read_text().replace('"seconds": 0.0', '"seconds": 9.0'))
    before = boots(host)
    choose(host)
    assert boots(host) > before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_a_probed_kernel_is_held_as_a_guest_is(host: Path) -> None:
    choose(host)
    lines = (host / "boots").read_text().splitlines()
    assert len(lines) == 2  # KVM and TCG
    assert all("-sandbox on," in line and "spawn=deny" in line for line in lines)
    assert all("-runas 65534:65534" in line for line in lines)
