"""Why a command could not start, from what it said."""

from __future__ import annotations

import re

from vmtest.command.files import Command

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # what a shell says
_GLIBC = re.compile(r"version [`']((?:GLIBC|GLIBCXX)_[\d.]+)' not found")
_LIBRARY = re.compile(r"error while loading shared libraries: (\S+): cannot open shared object")


def hint(status: int, said: str, command: Command) -> str:
    """What may help a program that did not even start, "" where nothing is known."""
    if status == 0:
        return ""
    guest = "the guest's user space is [guest] of kernels.toml, Debian trixie unless it says else"
    if glibc := _GLIBC.search(said):
        return f"built for a newer C library ({glibc[1]}): {guest}; build it there or statically"
    if library := _LIBRARY.search(said):
        return (
            f"{library[1]} is not in the guest: add its Debian package to [guest] packages, "
            "copy it and set LD_LIBRARY_PATH, or link statically"
        )
    program = command.argv[0]
    if status == _NOT_FOUND and command.copied:
        return (
            f"{program} was copied: what it needs to start is missing, its loader (a musl or "
            f"foreign binary) or the interpreter in its first line; {guest}"
        )
    if status == _NOT_FOUND and program in said:
        return (
            f"{program} is searched in the guest and not on the host: copy it with --copy and "
            "call it by ./NAME, or add its Debian package to [guest] packages"
        )
    if status == _NOT_EXECUTABLE and command.copied:
        return f"{program} cannot be executed there: is it built for x86-64 Linux?"
    return ""
