"""What every guest gets, whatever runs in it: our own code, a libbpf, an environment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmtest.errors import InfrastructureError
from vmtest.model.kernels import InstalledWheel, Library
from vmtest.rootfs.overlay import archive_of
from vmtest.vm import standby
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.session import Check, Session

MODULES = "modules"
"""The payload's file with the names of the kernel's modules that are loaded before anything."""


KNOWN_FAILURES, FAILED = "known_failures.json", "failed.json"


def module_list(modules: Sequence[str]) -> dict[str, bytes]:
    """The member of a payload that has the modules to load; none for none."""
    return {MODULES: "".join(f"{name}\n" for name in modules).encode()} if modules else {}


# Where distributions keep the kernel's config, and where libbpf looks for what __kconfig externs
# ask.  The guest's root is an image, in whose /boot is nothing that a test could miss; without the
# config everything else works as before.
LAY_CONFIG = (
    "read -r release </proc/sys/kernel/osrelease; place=/boot/config-$release; "
    f"[ ! -f {GUEST_ROOT}/config ] || "
    "[ -e $place ] || { { [ -w /boot ] || $box mount -t tmpfs vmtest /boot; } && "
    f"$box ln -s {GUEST_ROOT}/config $place; }} || "
    'echo "vmtest: the kernel\'s config could not be laid at $place" >/dev/kmsg'
)
"""The shell's words that lay the config, if it came along, at /boot/config-RELEASE.

``release`` is the kernel's afterwards."""

# A restored guest has translated no command yet: each takes 50 ms, 12 if it is linked statically.
_BOX = "box=/bin/busybox; [ -x $box ] || box="
# bpffs: mounting it loads a module on some kernels (0.15 s emulated), so it is
# left to here, off the way to the first SSH session.
_UNPACK = (
    f"$box mkdir -p {GUEST_ROOT} && tar -xf {GUEST_ROOT}.tar -C {GUEST_ROOT} && "
    f"$box rm {GUEST_ROOT}.tar && "
    f"{{ [ ! -f {GUEST_ROOT}.config ] || $box mv {GUEST_ROOT}.config {GUEST_ROOT}/config; }} && "
    f"{{ {LAY_CONFIG}; }} && "
    "{ $box grep -q ' /sys/fs/bpf ' /proc/mounts || $box mount -t bpf bpf /sys/fs/bpf; } && "
    # What [[object]] modules and --module name; a kernel without one says so, in its log too.
    f"{{ [ ! -f {GUEST_ROOT}/{MODULES} ] || while read -r module; do modprobe -q $module || "
    'echo "vmtest: this kernel has no module $module" | tee /dev/kmsg >&2; '
    f'done <{GUEST_ROOT}/{MODULES}; }} && [ -n "$release" ] && echo "$release"'
)
LIBRARY_FOLDERS = "/usr/lib/*-linux-gnu /lib/*-linux-gnu /usr/lib64 /lib64 /usr/lib /lib"
"""Where a guest's own libbpf.so.1 is searched: patterns, for a shell."""
_NO_LIBBPF = 9
# The versions in "$@" go to their folders, the guest's own libbpf is named, and the first version
# is laid over it.
_LIBBPF = (
    f"for version; do $box mkdir -p {GUEST_ROOT}/libbpf/$version && "
    f"$box mv {GUEST_ROOT}-libbpf-$version "
    f"{GUEST_ROOT}/libbpf/$version/libbpf.so.1 || exit; done; "
    f"for place in {LIBRARY_FOLDERS}; do "
    "own=$place/libbpf.so.1; test -e $own || continue; $box readlink -f $own; test $# = 0 || "
    f'$box mount --bind {GUEST_ROOT}/libbpf/"$1"/libbpf.so.1 $own; exit; done; '
    f"test $# = 0 || exit {_NO_LIBBPF}"
)
# Before anything runs: the image has nothing in /usr/local, where Debian's Python looks between the
# standard library and the image's packages, and PATH before all other folders.  Whoever dropped
# privileges in the guest reads it too.
_WHEELS = (
    f"{{ [ ! -f {GUEST_ROOT}-wheels.tar ] || {{ (umask 022 && mkdir {GUEST_ROOT}-wheels && "
    f"tar -xf {GUEST_ROOT}-wheels.tar -C {GUEST_ROOT}-wheels) && rm {GUEST_ROOT}-wheels.tar && "
    f"mount --bind {GUEST_ROOT}-wheels /usr/local; }}; }}"
)
_ABSENT = re.compile(r"^vmtest: this kernel has no module (.*)$", re.M)
_LIBBPF_FILE = re.compile(r"libbpf\.so\.(\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class Installed:
    """What a guest says: the ``release`` that it runs, and the version of its libbpf ("1.5").

    ``libbpf`` is "" where there is none, or its file's name does not say.  ``absent`` are the
    modules that were asked for and that its kernel does not have.
    """

    release: str
    libbpf: str
    absent: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What somebody who reads the kernel's result should know, "" for nothing."""
        return f"it has no module {', '.join(self.absent)}" if self.absent else ""


def install(
    session: Session,
    archive: bytes,
    check: Check,
    config: Path | None = None,
    libraries: Sequence[Library] = (),
    wheels: tuple[InstalledWheel, ...] = (),
) -> Installed:
    """Copy the payload ``archive`` into the guest by SFTP and unpack it.

    ``config`` is the kernel's, which is laid where libbpf and others look for it.  The first of
    ``libraries`` is laid over the guest's own libbpf; all are put where :func:`library_path` says.
    ``wheels`` are laid over /usr/local.

    Raises SessionLost, InfrastructureError when the guest has no room, or OSError when ``config``
    cannot be read.
    """
    session.put(archive, f"{GUEST_ROOT}.tar")
    if config is not None:
        session.put(config.read_bytes(), f"{GUEST_ROOT}.config")
    for library in libraries:
        session.put(library.data, f"{GUEST_ROOT}-libbpf-{library.version}")
    if wheels:
        session.put(archive_of(wheels), f"{GUEST_ROOT}-wheels.tar")
    versions = [library.version for library in libraries]
    script = f"{_BOX}; {_WHEELS} && {_UNPACK} && {{ {_LIBBPF}; }}"
    done = session.run(["sh", "-c", script, "sh", *versions], check=check)
    if done.status == _NO_LIBBPF:
        raise InfrastructureError(
            "[guest] libbpf is laid over the libbpf.so.1 of the guest's root, which has none; "
            "install one there"
        )
    if done.status != 0:
        said = done.stderr.decode(errors="replace")[-400:].strip()
        cure = "; raise memory in kernels.toml" if "No space left" in said else ""
        raise InfrastructureError(f"cannot unpack the payload in the guest: {said}{cure}")
    release, _, own = done.stdout.decode().strip().partition("\n")
    named = _LIBBPF_FILE.search(own)
    absent = tuple(_ABSENT.findall(done.stderr.decode(errors="replace")))
    return Installed(release, (*versions, named[1] if named else "")[0], absent)


def library_path(version: str) -> str:
    """The folder in a guest with the libbpf of that version, for LD_LIBRARY_PATH."""
    return f"{GUEST_ROOT}/libbpf/{version}"


PYTEST_SIDE = {
    # Not options of run.py: pytest started by hand in `vmtest shell` judges alike.
    "PYTEST_PLUGINS": "vmtest.guest.plugins.known_failures,vmtest.guest.plugins.needs,"
    "vmtest.guest.plugins.failed",
    "VMTEST_KNOWN_FAILURES": f"{GUEST_ROOT}/{KNOWN_FAILURES}",
    "VMTEST_FAILED": f"{GUEST_ROOT}/{FAILED}",
    # With root = "host" the plugin of an installed vmtest is in sight (vmtest/plugin), and only
    # vmtest.guest beside it: it is left out, and what pytest says of that is nobody's fault.
    "PYTEST_ADDOPTS": "-p no:vmtest -W 'ignore:Module already imported so cannot be rewritten; "
    "vmtest:pytest.PytestAssertRewriteWarning'",
}
"""What a pytest in the guest judges a suite's tests by.

A command that brings a pytest of its own does without: it may set PYTHONPATH, and the plugins
would not be found."""


def guest_environment(pythonpath: Sequence[str] = ()) -> dict[str, str]:
    """The environment of whatever runs in the guest.

    ``pythonpath`` are folders that Python imports from, after our own.
    """
    return {
        "HOME": "/run/vmtest/home",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": ":".join((GUEST_ROOT, *pythonpath)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VMTEST_OBJECTS": f"{GUEST_ROOT}/objects",
    }


def by_standby(argv: Sequence[str]) -> list[str]:
    """``argv``, a Python's of ``in_guest_environment``, by the one that waits in a saved guest."""
    return ["sh", "-c", standby.WORDS, "sh", *argv]


def in_guest_environment(
    argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> list[str]:
    """``argv`` run with ``environment`` and nothing of the SSH server's.

    Without an ``environment`` it is that of ``guest_environment``.
    """
    environment = guest_environment() if environment is None else environment
    return ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), *argv]
