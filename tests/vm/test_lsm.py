"""A BPF LSM that is not active: told, and called once the remedy is applied."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from real_kernels import PROJECT, image_of
from verifying import Loading, loads

from vmtest.matrix.payload import in_guest_environment
from vmtest.model.kernels import RootImage
from vmtest.model.project import Config
from vmtest.objects.compile import build_all
from vmtest.vm.accel import Probe
from vmtest.vm.deadlines import Scale
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.machine import Machine, MachineSpec

# Debian's 5.10 has CONFIG_BPF_LSM, and no bpf in CONFIG_LSM.
WITHOUT = "5.10"
COUNTS = f"""
import sys
sys.path.insert(0, {GUEST_ROOT!r})
import pathlib
from vmtest.guest.loader import autoattach
from vmtest.guest.objects import BpfObject
with BpfObject(pathlib.Path({GUEST_ROOT!r}, "objects", "lsm.o")) as opened:
    opened.load()
    with autoattach._where_it_says(opened, opened.programs["counts_opens"]):
        for _ in range(5):
            open("/proc/self/stat").close()
    print(opened.get_global("opens"))
"""


TO_A_CGROUP = f"""
import pathlib
from vmtest.guest.attach import attached_to_cgroup
from vmtest.guest.cgroup import temporary_cgroup
from vmtest.guest.objects import BpfObject
with BpfObject(pathlib.Path({GUEST_ROOT!r}, "objects", "lsm.o")) as opened:
    opened.load()
    with temporary_cgroup() as group, attached_to_cgroup(opened.programs["counts_opens"], group):
        pass
"""

Boot = Callable[..., AbstractContextManager[Loading]]


@pytest.fixture(scope="module")
def booted(
    settings: Config,
    cache: Path,
    root: RootImage,
    probe: Probe,
    tmp_path_factory: pytest.TempPathFactory,
) -> Boot:
    """Boots the kernel with more words on its command line, for as long as a `with` lasts."""
    image = image_of(WITHOUT, settings, cache)
    folder = tmp_path_factory.mktemp("lsm")
    (made,) = (p for p in build_all(PROJECT / "tests" / "verify", folder) if "lsm" in p.name)
    assert image.config is not None
    config = image.config.read_bytes()

    @contextmanager
    def boot(*cmdline: str) -> Iterator[Loading]:
        spec = MachineSpec(
            image, root, probe, folder / f"console-{len(cmdline)}.log", cmdline=cmdline
        )
        with Machine(spec) as machine:
            session = machine.connect(30.0 * Scale.now(probe.seconds, 1).factor)
            yield Loading(session, {"lsm": made.read_bytes()}, config)
            session.close()

    return boot


@pytest.fixture(scope="module")
def inactive(booted: Boot) -> Iterator[Loading]:
    """The kernel as it boots by itself."""
    with booted() as loading:
        yield loading


def attachment(loading: Loading, program: str) -> dict[str, Any]:
    return dict(loads(loading.run(["lsm"], attach=True))["lsm", program]["attachment"])


def opens(loading: Loading) -> int:
    said = loading.session.run(in_guest_environment(["python3", "-c", COUNTS]))
    assert said.status == 0, said.stderr
    return int(said.stdout)


def test_a_bpf_lsm_that_is_not_active_is_told_and_its_remedy_has_programs_called(
    inactive: Loading, booted: Boot
) -> None:
    for program in ("counts_opens", "on_the_hooks_function"):
        told = attachment(inactive, program)
        assert told["attached"]
        assert told["reason"]["code"] == "lsm-inactive"
    assert opens(inactive) == 0
    remedy = re.search(r'cmdline = \["(lsm=[^"]+)"\]', told["reason"]["remedy"])
    assert remedy is not None
    with booted(remedy[1]) as loading:
        assert attachment(loading, "counts_opens")["reason"] is None
        assert opens(loading) >= 5


def test_a_suite_does_not_wait_for_an_lsm_program_that_is_never_called(inactive: Loading) -> None:
    said = inactive.session.run(in_guest_environment(["python3", "-c", TO_A_CGROUP]))
    assert b"this kernel never calls it: the BPF LSM is not active" in said.stderr
