"""The disks for kernels that mount no folder of the host's, and the script that mounts them."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from vmtest.errors import InfrastructureError, Interrupted
from vmtest.host import interrupt
from vmtest.host.cache import find_tool
from vmtest.host.requirements import search_path
from vmtest.model.kernels import KernelImage
from vmtest.model.versions import KernelVersion
from vmtest.rootfs.disks import unlike
from vmtest.vm import shared
from vmtest.vm.folder import VmFolder

# As virtme-ng 1.42 writes it.
INIT = (
    'ro init=/bin/sh -- -c "mount -t tmpfs run /run; mkdir -p /run/virtme/guesttools; '
    "/bin/mount -n -t 9p -o ro,version=9p2000.L,trans=virtio,access=any,msize=524288 "
    "virtme.guesttools /run/virtme/guesttools; mkdir -p /run/virtme/modules; "
    "/bin/mount -n -t 9p -o ro,version=9p2000.L,trans=virtio,access=any,msize=524288 "
    'virtme.modules /run/virtme/modules; exec /run/virtme/guesttools/bin/virtme-ng-init"'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VmFolder:
    """A VM's folder with tools and modules, and a QEMU that prints what it is given."""
    made = VmFolder(tmp_path / "vm", "disk")
    tools = made.packages / "virtme/guest/bin"
    tools.mkdir(parents=True)
    (tools / "virtme-ng-init").touch()
    (tmp_path / "modules/kernel").mkdir(parents=True)
    emulator = tmp_path / "bin/qemu-system-x86_64"
    emulator.parent.mkdir()
    emulator.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    emulator.chmod(0o755)
    monkeypatch.setenv("PATH", f"{emulator.parent}:/usr/bin:/bin")
    return made


def kernel(modules: Path | None) -> KernelImage:
    return KernelImage(
        "k", KernelVersion.parse("6.1"), "6.1", Path("vmlinux"), modules, None, "", ""
    )


def qemu(folder: VmFolder, *words: str) -> list[str]:
    done = subprocess.run(
        [str(folder.path / shared.QEMU), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_guest_mounts_disks_where_virtme_ng_would_mount_folders(
    folder: VmFolder, tmp_path: Path
) -> None:
    shared.put_disks(kernel(tmp_path / "modules"), "squashfs", folder)
    words = ["-m", "1G", "", "-chardev", "socket,id=a b,path=/x", "-append", INIT]
    *others, init = qemu(folder, *words)
    assert others == words[:-1]
    assert "9p" not in init
    assert "/bin/mount -n -t squashfs -o ro /dev/vdb /run/virtme/guesttools;" in init
    assert "/bin/mount -n -t squashfs -o ro /dev/vdc /run/virtme/modules;" in init
    assert init.startswith(INIT.partition(" /bin/mount")[0])


def test_the_disks_hold_tools_and_modules_in_that_order(folder: VmFolder, tmp_path: Path) -> None:
    shared.put_disks(kernel(tmp_path / "modules"), "squashfs", folder)
    options = shared.disks(folder)
    assert options.index("tools.disk") < options.index("modules.disk")
    assert options.count("readonly=on") == 2
    listed = subprocess.run(
        ["unsquashfs", "-l", str(folder.path / "tools.disk")], capture_output=True, text=True
    )
    assert "squashfs-root/bin/virtme-ng-init" in listed.stdout


@pytest.mark.skipif(find_tool("mke2fs") is None, reason="e2fsprogs is not installed")
def test_a_kernel_without_squashfs_has_its_disks_as_ext4(folder: VmFolder, tmp_path: Path) -> None:
    (tmp_path / "modules/kernel/a.ko").write_bytes(b"\x7fELF" * 5000)
    shared.put_disks(kernel(tmp_path / "modules"), "ext4", folder)
    (init,) = qemu(folder, INIT)
    assert "/bin/mount -n -t ext4 -o ro /dev/vdb /run/virtme/guesttools;" in init
    assert "/bin/mount -n -t ext4 -o ro /dev/vdc /run/virtme/modules;" in init
    image = folder.path / "modules.disk"
    assert unlike(image, "ext4") == ""
    dump = ["debugfs", "-R", "cat /kernel/a.ko", str(image)]
    shown = subprocess.run(dump, capture_output=True, check=True, env={"PATH": search_path()})
    assert shown.stdout == b"\x7fELF" * 5000


def test_a_kernel_without_modules_has_one_disk(folder: VmFolder) -> None:
    shared.put_disks(kernel(None), "squashfs", folder)
    assert "modules.disk" not in shared.disks(folder)


def test_what_virtme_ng_asks_of_qemu_goes_through(folder: VmFolder) -> None:
    shared.put_disks(kernel(None), "squashfs", folder)
    assert qemu(folder, "--version") == ["--version"]


def test_a_virtme_ng_elsewhere_is_said(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"k: .*virtme-ng in vmtest's own environment"):
        shared.put_disks(kernel(None), "squashfs", VmFolder(tmp_path, "disk"))


def test_an_interrupt_ends_the_making_of_a_disk(folder: VmFolder, tmp_path: Path) -> None:
    packer = tmp_path / "bin/mksquashfs"
    packer.write_text("#!/bin/sh\nkill -s USR1 $PPID\nexec sleep 20\n")
    packer.chmod(0o755)
    with interrupt.interruptible() as scope:
        before = signal.signal(signal.SIGUSR1, lambda *_: scope.end())
        try:
            with pytest.raises(Interrupted):
                shared.put_disks(kernel(None), "squashfs", folder)
        finally:
            signal.signal(signal.SIGUSR1, before)
