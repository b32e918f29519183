"""The QEMU that is installed, and what holds one that a guest has broken out of.

Its seccomp sandbox starts no program.  A QEMU that root starts opens what it was given and then
gives root up, before any device of the guest works: QEMU holds its big lock until then.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vmtest.errors import os_words
from vmtest.kernels.kconfig import share_of
from vmtest.model.kernels import KernelImage, RootImage

QEMU = "qemu-system-x86_64"
USER = "nobody"
"""Whom a QEMU that root starts becomes."""
_RUN_WITH = (9, 1)
"""The version from which on QEMU wants ``-run-with user=`` and warns of ``-runas``."""


@dataclass(frozen=True, slots=True)
class Drop:
    """How a QEMU gives up root: QEMU's ``option``, or ``why`` it stays root; neither for a user."""

    option: str = ""
    why: str = ""


def qemu_version() -> str:
    """The first line of ``qemu --version``, "" when there is no QEMU."""
    try:
        done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0]


def confined(option: str) -> str:
    """QEMU's options for its sandbox, and the ``option`` of a :class:`Drop`.

    A filter of set*uid would keep QEMU from giving root up, and is not needed behind that: an
    ordinary user's process cannot become another, and the sandbox has set no_new_privs.
    """
    elevate = "" if option else "elevateprivileges=deny,"
    sandbox = f"-sandbox on,obsolete=deny,{elevate}spawn=deny,resourcecontrol=deny"
    return f"{sandbox} {option}".rstrip()


def drop() -> Drop:
    """How a QEMU that this process starts gives up root, as far as the host decides."""
    return _drop(shutil.which(QEMU) or "") if os.geteuid() == 0 else Drop()


@cache
def _drop(qemu: str) -> Drop:
    del qemu  # what the answer is remembered for
    try:
        user = pwd.getpwnam(USER)
        _try(user.pw_uid, user.pw_gid)
    except KeyError:
        return Drop(why=f"there is no user {USER} here")
    except (OSError, subprocess.SubprocessError) as error:
        words = os_words(error) if isinstance(error, OSError) else str(error)
        why = f"root may not start a process as {USER} here and end it: {words}"
        return Drop(why=f"{why} (capabilities SETUID, SETGID and KILL)")
    ids = f"{user.pw_uid}:{user.pw_gid}"
    found = re.search(r"version (\d+)\.(\d+)", qemu_version())
    new = found is not None and (int(found[1]), int(found[2])) >= _RUN_WITH
    return Drop(f"-run-with user={ids}" if new else f"-runas {ids}")


def _try(uid: int, gid: int) -> None:
    """Start a process of that user and kill it; raises OSError and SubprocessError."""
    with subprocess.Popen(
        ["cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=uid,
        group=gid,
        extra_groups=[gid],
    ) as process:
        process.kill()


def drop_for(image: KernelImage, root: RootImage) -> Drop:
    """How the QEMU of a guest of ``image`` on ``root`` gives up root.

    With a folder as its root it does not: it opens that folder's files when the guest asks.
    """
    if root.kind != "disk":
        return Drop()
    found = drop()
    if not found.option or image.modules is None or share_of(image) != "9p":
        return found
    closed = _closed(image.modules.resolve())
    if not closed:
        return found
    return Drop(why=f"only root may read {closed}, a module's file: chmod -R a+rX its folder")


@cache
def _closed(folder: Path) -> str:
    """The first file or folder in ``folder`` that others than its owner may not read, or ""."""
    for place, _, _ in os.walk(folder):
        if Path(place).stat().st_mode & 0o005 != 0o005:
            return place
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not entry.stat().st_mode & 0o004:
                    return entry.path
    return ""
