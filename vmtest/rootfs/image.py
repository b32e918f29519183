"""The guest's user space: a small Debian built once, or a folder, an image, the host's root.

The image is a squashfs with Python, pytest, libbpf, bpftool and sshd; no systemd, no
udev, no SSH host keys (every VM gets its own).  It is cached by what it is made of,
which does not include the mirror it came from.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vmtest.errors import ImageError
from vmtest.host import interrupt
from vmtest.host.cache import (
    disk_full,
    require_space,
    sha256_file,
    sha256_json,
)
from vmtest.host.debian import Mirror, Mirrors, clean_environment, host_options
from vmtest.host.plain import plain_folder
from vmtest.host.requirements import NAMESPACES_CURE, namespaces_refused
from vmtest.host.sessions import SESSIONS
from vmtest.model.kernels import GuestSpec, RootImage
from vmtest.model.versions import unique
from vmtest.rootfs import images
from vmtest.rootfs.disks import NEEDED_FOLDERS, check_inside, filesystem_in, require
from vmtest.rootfs.images import GUEST_PYTHON, Log, quiet

RECIPE = 1
"""Raised when the recipe changes in a way that its texts below do not show."""

PACKAGES = (
    "bpftool",
    "busybox-static",
    "iproute2",
    "kmod",
    "libbpf1",
    "openssh-server",
    "procps",
    "python3",
    "python3-pytest",
    "util-linux",
)
"""What every guest image holds; ``GuestSpec.packages`` come on top."""

# From trixie on openssh-server depends on "systemd | systemd-standalone-sysusers", and apt takes
# the first. Every suite that has libbpf1 has the second, which conflicts with the first.
_USERS = "systemd-standalone-sysusers"

_DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/i18n/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bash-completion/*",
    "path-exclude=/usr/share/zoneinfo/*",
)
# mmdebstrap gives these to sh with the image's root as $1.
_CLEAN = (
    'rm -rf "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/apt.conf.d/99mmdebstrap '
    '"$1"/etc/apt/sources.list.d/* "$1"/var/cache/debconf/* "$1"/var/log/*.log '
    '"$1"/var/log/apt && : >"$1"/etc/apt/sources.list'
)
# While hooks run, the host's /dev, /proc and /sys are mounted there: nothing below them is
# to be touched (mmdebstrap leaves them empty, but for a few device nodes, in its tar).
_PLACES = (
    'cd "$1" && mkdir -p run tmp && chmod 755 . run && chmod 1777 tmp && : >etc/machine-id && '
    "ln -sf /proc/mounts etc/mtab"
)
# virtme-ng mounts seven file systems before its init runs; util-linux' mount, with its six
# libraries, takes 50 ms a time on an emulated CPU. The package "mount" brings it back.
_MOUNT = (
    'cd "$1" && for name in mount umount; do '
    "test -e usr/bin/$name || ln -s busybox usr/bin/$name; done"
)
_HOOKS = (_CLEAN, _PLACES, _MOUNT)

_BUILD_SPACE = 1 << 30
_CLEAN_UP = 3.0  # seconds
_TAIL = 6
_MISSING = re.compile(r"^E: Unable to locate package (\S+)", re.MULTILINE)


def prepare(
    spec: GuestSpec,
    cache: Path,
    mirrors: Mirrors | Callable[[], Mirrors] | None = None,
    *,
    check_valid_until: bool = True,
    log: Log = quiet,
) -> RootImage:
    """The root that ``spec`` asks for, built when the cache lacks it.

    ``mirrors`` say where Debian comes from (a function is asked only when something
    has to be built).  Raises ImageError with the end of the build's log, and UsageError when no
    mirror is known.
    """
    if spec.root == "host":
        return host_root()
    if spec.root != "debian":
        return _given(Path(spec.root))
    key = image_key(spec)

    def make(image: Path, folder: Path) -> dict[str, object]:
        known = mirrors() if callable(mirrors) else mirrors
        mirror = known.of(spec.suite) if known is not None else None
        if mirror is None:
            raise ImageError(
                f"guest image: {spec.suite} is not built yet and no Debian mirror is known for "
                f"it; set one in kernels.toml, or bring an image with: vmtest image import FILE"
            )
        require_space(cache, _BUILD_SPACE, "guest image")
        _build(spec, mirror, image, folder, check_valid_until, cache, log)
        check_inside(image)
        return {"suite": spec.suite, "packages": list(_packages(spec))}

    return images.take(cache, key, make, log)


def image_key(spec: GuestSpec) -> str:
    """What names the image of ``spec`` in the cache: a digest of what it is made of."""
    made_of = {
        "recipe": RECIPE,
        "suite": spec.suite,
        "packages": list(_packages(spec)),
        "dpkg": list(_DPKG_OPTIONS),
        "hooks": list(_HOOKS),
    }
    return f"{spec.suite}-{sha256_json(made_of)[:16]}"


def is_built(spec: GuestSpec, cache: Path) -> bool:
    """Whether ``cache`` has the image of ``spec``."""
    return images.cached(cache, image_key(spec)) is not None


def _packages(spec: GuestSpec) -> tuple[str, ...]:
    for name in spec.packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            raise ImageError(f"guest image: packages: {name!r} is not the name of a Debian package")
    users = () if "systemd" in spec.packages else (_USERS,)
    return tuple(sorted({*PACKAGES, *users, *spec.packages}))


# --- roots that are not built -----------------------------------------------------------


def host_root() -> RootImage:
    """The root of this machine."""
    return RootImage("host", None, _host_digest(), sys.executable)


def _host_digest() -> str:
    return sha256_json(["host", os.uname().machine, sys.version])


def _given(path: Path) -> RootImage:
    """The root in a folder or an image that the user names."""
    if path.is_dir():
        lacking = [name for name in NEEDED_FOLDERS if not (path / name).is_dir()]
        if lacking:
            raise ImageError(
                f"guest root: {path} has no folder {', '.join(lacking)}, which a guest mounts on; "
                f"make it there (empty)"
            )
        python = _python_in(path)
        status = path / "var/lib/dpkg/status"
        digest = (
            sha256_file(status)
            if status.is_file()
            else sha256_json(sorted(entry.name for entry in path.iterdir()))
        )
        return RootImage("directory", path.absolute(), digest, python)
    try:
        filesystem = filesystem_in(path)
    except OSError as error:
        raise ImageError(
            f'guest root: {path}: {error.strerror}; root is "debian", "host" or the path of a '
            f"folder or an image"
        ) from error
    check_inside(path.absolute(), filesystem)
    digest = sha256_file(path)
    return RootImage("disk", path.absolute(), digest, GUEST_PYTHON, filesystem=filesystem)


def own_disk(spec: GuestSpec) -> RootImage | None:
    """The image that ``spec`` names, of which only the file system was looked at; None for none."""
    path = Path(spec.root)
    with suppress(ImageError, OSError):
        if spec.root not in ("debian", "host") and path.is_file():
            image, filesystem = path.absolute(), filesystem_in(path)
            return RootImage("disk", image, "", GUEST_PYTHON, filesystem=filesystem)
    return None


def _python_in(root: Path) -> str:
    for place in ("usr/bin/python3", "bin/python3", "usr/local/bin/python3"):
        if os.path.lexists(root / place):
            return f"/{place}"
    raise ImageError(f"guest root: {root} has no python3; install python3 and python3-pytest in it")


# --- building ---------------------------------------------------------------------------


def _build(
    spec: GuestSpec,
    mirror: Mirror,
    image: Path,
    folder: Path,
    check_valid_until: bool,
    cache: Path,
    log: Log,
) -> None:
    """Run mmdebstrap into sqfstar; as an ordinary user both in a user namespace."""
    bootstrap = require("mmdebstrap", "mmdebstrap", "to build the guest image")
    packer = [require("sqfstar", "squashfs-tools", "to pack the guest image")]
    mode = "root"
    if os.geteuid() != 0:
        mode = "unshare"
        check_user_namespaces()
        # Without this, squashfs gives / the builder's uid: the tar has no entry for it.
        packer = [require("unshare", "util-linux", "to pack it"), "-r", "--map-auto", *packer]
    packer += ["-quiet", "-no-progress", "-comp", "lz4", "-Xhc", "-root-mode", "755", str(image)]
    with _sources(spec, mirror) as sources:
        command = [
            bootstrap,
            f"--mode={mode}",
            "--variant=essential",
            "--format=tar",
            f"--include={','.join(_packages(spec))}",
            "--architectures=amd64",
            '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Languages "none"',
            '--aptopt=Acquire::Retries "3"',
            *([] if check_valid_until else ['--aptopt=Acquire::Check-Valid-Until "false"']),
            *(f"--aptopt={line}" for line in host_options()),
            *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
            *(f"--customize-hook={hook}" for hook in _HOOKS),
            spec.suite,
            "-",
            str(sources),
        ]
        kept = cache / "logs" / f"{folder.name.partition('@')[0]}.log"
        log(f"building the guest image ({spec.suite}, {len(_packages(spec))} packages)")
        _run(command, packer, kept, sources.parent, log, spec.suite)
    kept.unlink(missing_ok=True)


@contextmanager
def _sources(spec: GuestSpec, mirror: Mirror) -> Iterator[Path]:
    """A one-line source that mmdebstrap reads, and the keys it names, readable by its namespace.

    The source may have a password: it is for its owner, who reads it before there is a namespace,
    and the folder above, in which mmdebstrap unpacks it too, is listed by nobody else.
    """
    # mmdebstrap and apt read signs in a path: theirs are in a folder where there are none.
    SESSIONS.ready()
    above = plain_folder("vmtest-image-", short=False)
    SESSIONS.add_folder(above)
    folder = above / "sources"
    try:
        above.chmod(0o711)
        folder.mkdir()
        folder.chmod(0o711)
        signed_by = mirror.signed_by
        if "\n" in signed_by:
            (folder / "keys.asc").write_text(
                "\n".join("" if line == "." else line for line in signed_by.strip().splitlines())
                + "\n",
                encoding="ascii",
            )
            signed_by = str(folder / "keys.asc")
        sources = folder / "guest.list"
        sources.touch(mode=0o600)
        sources.write_text(
            f"deb [signed-by={','.join(signed_by.split())}] {mirror.uri} {spec.suite} main\n",
            encoding="utf-8",
        )
        yield sources
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # What mmdebstrap left when it was killed is removed at the end, when it is known whether
        # the host's /dev is mounted there.
        with suppress(OSError):
            above.rmdir()
            SESSIONS.remove_folder(above)


def check_user_namespaces() -> None:
    """Raise ImageError, with the cure, when an ordinary user cannot build here."""
    require("newuidmap", "uidmap", "to build the guest image as an ordinary user")
    if why := namespaces_refused():
        raise ImageError(
            f"guest image: an ordinary user may not make a user namespace here ({why}), and "
            f"building takes one; {NAMESPACES_CURE}"
        )
    user = pwd.getpwuid(os.geteuid()).pw_name
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        if not any(line.partition(":")[0] in (user, str(os.geteuid())) for line in lines):
            raise ImageError(
                f"guest image: {user} has no range of ids in {file}, which an ordinary user needs "
                f"to build it; as root: usermod --add-subuids 100000-165535 "
                f"--add-subgids 100000-165535 {user}"
            )


def _run(
    command: list[str], packer: list[str], kept: Path, folder: Path, log: Log, suite: str
) -> None:
    """Run ``command | packer`` with both logs in ``kept``; raises ImageError with its end."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    environment = clean_environment({"TMPDIR": str(folder.parent)})
    with (
        kept.open("wb") as output,
        # mmdebstrap removes what it has unpacked when it is told to end.
        interrupt.started(command, env=environment, grace=_CLEAN_UP) as maker,
        _packing(packer, maker, output, environment) as packing,
    ):
        assert maker.stderr is not None
        for raw in maker.stderr:
            output.write(raw)
            output.flush()
            line = raw.decode("utf-8", "replace").strip()
            if line.startswith("I: ") and "running --" not in line:
                log(line.removeprefix("I: "))
    if maker.returncode == 0 and packing.returncode == 0:
        return
    text = kept.read_text(encoding="utf-8", errors="replace")
    if "No space left" in text:
        raise disk_full(kept.parent if _is_full(kept.parent) else folder.parents[1], "guest image")
    program, status = (
        ("mmdebstrap", maker.returncode)
        if maker.returncode != 0
        else ("sqfstar", packing.returncode)
    )
    absent = _no_such_package(text, suite)
    why = absent or f"guest image: {program} ended with status {status}{_cause(text)}"
    raise ImageError(f"{why}; the whole log is {kept}")


@contextmanager
def _packing(
    packer: list[str],
    maker: subprocess.Popen[bytes],
    output: IO[bytes],
    environment: Mapping[str, str],
) -> Iterator[subprocess.Popen[bytes]]:
    assert maker.stdout is not None
    with interrupt.started(
        packer, stdin=maker.stdout, stdout=output, stderr=output, env=environment
    ) as process:
        maker.stdout.close()  # the packer's now: it must see the end of it
        yield process


def _is_full(folder: Path) -> bool:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < 16 << 20


def _no_such_package(text: str, suite: str) -> str:
    """What a build's log says of packages that the archive does not have; "" for nothing."""
    absent = unique(_MISSING.findall(text))
    if not absent:
        return ""
    names = ", ".join(f'"{name}"' for name in absent)
    return f"[guest] packages: Debian {suite} has no package {names}; correct it in kernels.toml"


def _cause(text: str) -> str:
    """The errors in a build's log, in a few lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"(E|W|Err|FATAL|dpkg)\b ?:", line)]
    chosen = (telling or lines)[-_TAIL:]
    if f"{_USERS} : Conflicts" in text:
        chosen.append(
            'one of the packages needs systemd, which makes users itself: add "systemd" to '
            "[guest] packages"
        )
    return "".join(f"\n  {line}" for line in chosen)
