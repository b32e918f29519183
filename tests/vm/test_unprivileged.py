"""Root starts a guest, and its QEMU is an ordinary user: booted, saved, restored, ended."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from test_machine import folder_of, processes_with

from vmtest.model.kernels import KernelImage, RootImage
from vmtest.vm.accel import Probe
from vmtest.vm.deadlines import Scale
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.restore import Snapshots, Started, running_guest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")


@contextmanager
def guest(spec: MachineSpec, snapshots: Snapshots, probe: Probe) -> Iterator[Started]:
    factor = Scale.now(probe.seconds, 1).factor
    limit = 30.0 * factor
    with running_guest(spec, snapshots, limit, factor, lambda machine, stack: None) as started:
        yield started
        started.session.close()


def qemu_of(machine: Machine) -> int:
    """The process of a machine's QEMU."""
    folder = os.fsencode(folder_of(machine))
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        words = entry.read_bytes().split(b"\0")
        if words[0].endswith(b"qemu-system-x86_64") and any(folder in word for word in words):
            return int(entry.parent.name)
    raise AssertionError(f"no QEMU in {folder_of(machine)}")


def rights(pid: int) -> set[tuple[str, str]]:
    """What the kernel says of the rights of a process, over all of its threads."""
    named = ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapInh", "CapAmb", "NoNewPrivs")
    found = set()
    for entry in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = dict(line.partition(":")[::2] for line in entry.read_text().splitlines())
        found |= {(name, " ".join(lines[name].split())) for name in (*named, "Seccomp")}
    return found


NOBODY = {
    ("Uid", "65534 65534 65534 65534"),
    ("Gid", "65534 65534 65534 65534"),
    ("Groups", "65534"),
    *((name, "0" * 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")),
    ("NoNewPrivs", "1"),
    ("Seccomp", "2"),
}


def is_gone(folder: Path) -> bool:
    deadline = time.monotonic() + 10
    while (folder.exists() or processes_with(str(folder))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not folder.exists() and not processes_with(str(folder))


# Twice a guest by a runner of its own: whether it was restored, what was noted, who QEMU was.
TWICE = """
import pickle, sys
from pathlib import Path
from test_unprivileged import folder_of, guest, qemu_of, Snapshots
spec, probe, cache = pickle.loads(Path(sys.argv[1]).read_bytes())
for _ in range(2):
    snapshots = Snapshots(cache)
    with guest(spec, snapshots, probe) as started:
        qemu = Path(f"/proc/{qemu_of(started.machine)}")
        try:
            seen = qemu.joinpath("exe").readlink()
        except PermissionError:
            seen = "not to be seen"
        print(started.warm, qemu.stat().st_uid, seen, folder_of(started.machine))
    snapshots.publish()
    print(snapshots.notes)
"""


def test_a_guests_qemu_is_nobody_booted_and_restored_and_leaves_nothing(
    spec: MachineSpec, probe: Probe, tmp_path: Path
) -> None:
    came = []
    for _ in range(2):
        snapshots = Snapshots(tmp_path / "cache")
        with guest(spec, snapshots, probe) as started:
            came.append("restored" if started.warm else "booted")
            folder = folder_of(started.machine)
            assert rights(qemu_of(started.machine)) == NOBODY
            done = started.session.run(["sh", "-c", "modprobe veth && id -u && uname -r"])
            assert done.stdout.decode() == f"0\n{spec.image.release}\n", done
        snapshots.publish()
        assert snapshots.notes == []
        assert is_gone(folder)
    assert came == ["booted", "restored"]


def test_a_guest_is_saved_where_root_may_not_look_into_other_users_processes(
    spec: MachineSpec, probe: Probe, tmp_path: Path
) -> None:
    """As in most containers, whose root has no CAP_SYS_PTRACE."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed on this host")
    (tmp_path / "given").write_bytes(pickle.dumps((spec, probe, tmp_path / "cache")))
    bounded = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]
    done = subprocess.run(
        [*bounded, sys.executable, "-c", TWICE, str(tmp_path / "given")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    booted, notes, restored, notes_again = done.stdout.splitlines()
    assert (notes, notes_again) == ("[]", "[]")
    for line, warm in ((booted, "False"), (restored, "True")):
        said, folder = line.rsplit(" ", 1)
        assert said == f"{warm} 65534 not to be seen"  # the kernel hides its files behind root
        assert is_gone(Path(folder))


def test_modules_that_only_root_may_read_are_there_all_the_same(
    spec: MachineSpec, image: KernelImage, probe: Probe, tmp_path: Path
) -> None:
    """The guest needs them, so its QEMU stays root; a run says so in the kernel's note."""
    assert image.modules is not None
    modules = tmp_path / "modules" / image.release
    shutil.copytree(image.modules, modules, symlinks=True)
    modules.chmod(0o700)
    with guest(
        replace(spec, image=replace(image, modules=modules)), Snapshots(None), probe
    ) as started:
        assert ("Uid", "0 0 0 0") in rights(qemu_of(started.machine))
        assert started.session.run(["modprobe", "veth"]).status == 0


def test_on_the_hosts_own_root_qemu_stays_root(
    spec: MachineSpec, probe: Probe, image: KernelImage
) -> None:
    """It reads the host's files for the guest, as docs/explanation/security.md says."""
    if not Path("/usr/sbin/sshd").exists():
        pytest.skip('root = "host" needs sshd on the host')
    spec = replace(spec, root=RootImage("host", None, "", "python3"))
    with guest(spec, Snapshots(None), probe) as started:
        assert ("Uid", "0 0 0 0") in rights(qemu_of(started.machine))
