"""A VM's own folder: names of our own making for all that virtme-ng is given.

virtme-ng puts ``--run``, ``--root`` and ``--qemu-opts`` unquoted into a shell, and what it
finds beside the kernel into others.  A path of the cache or of the user's can hold anything,
so it only ever stands at the other end of a link.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from vmtest.errors import InfrastructureError
from vmtest.host.plain import is_plain, plain_folder
from vmtest.host.sessions import SESSIONS
from vmtest.model.kernels import KernelImage, RootImage, RootKind
from vmtest.rootfs.disks import unlike

INIT = "virtme-ng-init"


@dataclass(frozen=True, slots=True)
class VmFolder:
    """What one VM's ``vng`` is given: ``path`` is plain and short, and so are all names in it."""

    path: Path
    root_kind: RootKind

    @property
    def socket(self) -> Path:
        """Where QEMU connects to with the port of SSH."""
        return self.path / "ssh"

    @property
    def wire(self) -> Path:
        """Where QEMU connects to with the port of the wire."""
        return self.path / "wire"

    @property
    def monitor(self) -> Path:
        """Where QEMU connects to with its monitor, if it shall have one."""
        return self.path / "qmp"

    @property
    def memory(self) -> Path:
        """What QEMU opens as its guest's memory, if the guest can be saved or was."""
        return self.path / "memory"

    @property
    def kernel(self) -> Path:
        """The kernel to boot; virtme-ng finds ``lib/modules`` beside it."""
        return self.path / "kernel"

    @property
    def root(self) -> Path | None:
        """The guest's root, None for the host's own."""
        return None if self.root_kind == "host" else self.path / "root"

    @property
    def programs(self) -> Path:
        """A folder for PATH, in front: what virtme-ng need not find out anew."""
        return self.path / "bin"

    @property
    def packages(self) -> Path:
        """A folder for PYTHONPATH with virtme in it, whose guest tools a guest is given."""
        return self.path / "python"


def make_folder(vng: Path, image: KernelImage, root: RootImage) -> VmFolder:
    """Make the folder of a VM in which ``vng`` boots ``image`` on ``root``; the caller removes it.

    If this process is killed before that, the reaper does.

    Raises InfrastructureError for a file that is gone, has another file system than it should, or
    cannot be passed on.
    """
    # On the host's own root the modules are read through this folder, and the guest's own
    # file systems lie over /var/tmp and /dev.
    places = ("/tmp",) if root.kind == "host" else ()
    SESSIONS.ready()
    folder = VmFolder(plain_folder("vmtest-", places), root.kind)
    SESSIONS.add_folder(folder.path)
    try:
        _put_kernel(image, folder)
        _put_strings(image, folder.programs)
        if folder.root is not None and root.path is not None:
            _check_root(image, root, root.path)
            folder.root.symlink_to(root.path.absolute())
        _link_virtme(vng, folder.packages, alone=root.kind == "disk")
    except OSError as error:
        remove_folder(folder.path)
        raise InfrastructureError(
            f"{image.name}: cannot prepare the VM's folder {folder.path}: {error.strerror}"
        ) from error
    except BaseException:
        remove_folder(folder.path)
        raise
    return folder


def remove_folder(path: Path) -> None:
    """Remove the folder of a VM that has ended, or that does not start."""
    shutil.rmtree(path, ignore_errors=True)
    SESSIONS.remove_folder(path)


def _put_kernel(image: KernelImage, folder: VmFolder) -> None:
    real = image.image.resolve()
    if not real.is_file():
        raise InfrastructureError(
            f"{image.name}: {image.image} does not exist any more; run the command again to "
            f"fetch the kernel again"
        )
    if is_plain(real):
        folder.kernel.symlink_to(real)
    else:
        # virtme-ng asks "file" for the release, whose answer begins with the real path.
        _same_file(real, folder.kernel)
    # Without this folder virtme-ng would take the modules of a folder above it, or the host's.
    modules = folder.path / "lib" / "modules"
    modules.mkdir(parents=True)
    if image.modules is None:
        return
    target = image.modules.resolve()
    if not is_plain(target):
        _check_modules(image, target)
    (modules / image.release).symlink_to(target)


def _put_strings(image: KernelImage, folder: Path) -> None:
    """Have a ``strings`` that knows the kernel's release.

    virtme-ng looks for it in an ELF, by reading all of it: 0.2 s, and more on a busy machine.
    """
    folder.mkdir()
    program = folder / "strings"
    program.write_text(f"#!/bin/sh\necho {shlex.quote(f'Linux version {image.release}')}\n")
    program.chmod(0o755)


def _same_file(file: Path, name: Path) -> None:
    """Have ``file`` under ``name`` without a link to its path: a second name, else a copy."""
    with suppress(OSError):  # on another disk, or another user's
        os.link(file, name)
        return
    shutil.copyfile(file, name)


def _check_modules(image: KernelImage, modules: Path) -> None:
    """Raise InfrastructureError where virtme-ng would give the path of modules to a shell.

    It unpacks those that end in .zst by one, with the real path.
    """
    listed = (modules / "modules.dep").read_text(encoding="utf-8", errors="replace")
    if any(line.partition(":")[0].endswith(".zst") for line in listed.splitlines()):
        raise InfrastructureError(
            f"{image.name}: its modules are packed with zstd, and virtme-ng would read the path "
            f"of their folder {str(modules)!r} as a command; set VMTEST_CACHE to a folder whose "
            f"path has only letters, digits and . _ + -"
        )


def _check_root(image: KernelImage, root: RootImage, path: Path) -> None:
    """Raise InfrastructureError for a disk with another file system, whose format QEMU would guess.

    One that names another file (qcow2 has backing files) would put that into the guest.
    """
    if root.kind == "disk" and (found := unlike(path, root.filesystem)):
        raise InfrastructureError(
            f"{image.name}: the guest image {path} is not {root.filesystem} (it begins with "
            f"{found}); remove its folder from the cache, or make the image with mksquashfs"
        )


def _link_virtme(vng: Path, folder: Path, *, alone: bool) -> None:
    """Have ``folder`` hold the virtme of ``vng``: this Python's packages can stand anywhere.

    A guest that can do ``alone``, without the host's files, gets our init (``init.sh``) in
    front of virtme-ng's: what runs from the host's file system keeps QEMU from saving it.
    """
    found = find_spec("virtme")
    virtme = folder / "virtme"
    virtme.mkdir(parents=True)
    if found is None or vng.parent != Path(sys.executable).parent:
        virtme.rmdir()  # a vng of the system's, whose packages are in one of the system's folders
        return
    for place in found.submodule_search_locations or ():
        package = Path(place).absolute()
        for entry in package.iterdir():
            if entry.name != "guest":  # with what was compiled of it
                (virtme / entry.name).symlink_to(entry)
        if alone:
            _put_tools(package / "guest", virtme / "guest")
        else:
            (virtme / "guest").symlink_to(package / "guest")
        return


def _put_tools(source: Path, tools: Path) -> None:
    """Copy virtme-ng's guest tools, with our init in front of theirs where they have one."""
    shutil.copytree(source, tools, ignore=shutil.ignore_patterns("__pycache__"))
    for place in (tools, *tools.rglob("*")):
        if not place.is_symlink():  # a QEMU that gave up root reads them, whatever the umask was
            mode = place.stat().st_mode
            place.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    theirs = tools / "bin" / INIT
    if not theirs.is_file():
        return
    theirs.rename(theirs.with_name(f"{INIT}.real"))
    for name, script in ((INIT, "init.sh"), (f"{INIT}.second", "init-second.sh")):
        made = theirs.with_name(name)
        made.write_bytes((files("vmtest.vm") / script).read_bytes())
        made.chmod(0o755)
