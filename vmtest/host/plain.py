"""Paths that any program takes as they are: no shell, list or option reads a sign in them.

virtme-ng, make and mmdebstrap put paths unquoted into shell commands, and a unix socket's
path has 107 bytes at most.  What they are given stands in a folder from here.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from vmtest.errors import InfrastructureError

_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")
_SOCKET = 107
"""The bytes that a unix socket's path may have (unix(7)), without the last NUL."""
_LONGEST_NAME = len("vmtest-probe-01234567/virtme01234567")
"""Our folder, and below it the longest socket that virtme-ng makes there."""
_USUAL = ("/tmp", "/var/tmp", "/dev/shm")


def is_plain(path: Path) -> bool:
    """Whether ``path`` holds nothing but letters, digits and ``/ . _ + -``."""
    return _PLAIN.fullmatch(str(path)) is not None


def usual_places() -> tuple[str, ...]:
    """Where temporary folders go here: TMPDIR, then what every system has."""
    given = os.environ.get("TMPDIR")
    return tuple(dict.fromkeys([*([given] if given else ()), *_USUAL]))


def plain_folder(prefix: str, places: Iterable[str] = (), *, short: bool = True) -> Path:
    """A new folder for this user alone, whose path is plain; the caller removes it.

    In the first of ``places``, then of the usual ones, that will do; ``short`` leaves room for a
    unix socket in it.  Raises InfrastructureError that says of each
    why not.
    """
    refused = []
    for place in dict.fromkeys([*places, *usual_places()]):
        why = _unfit(Path(place), short)
        if not why:
            try:
                return Path(tempfile.mkdtemp(prefix=prefix, dir=place))
            except OSError as error:
                why = error.strerror or str(error)
        refused.append(f"{place!r}: {why}")
    raise InfrastructureError(
        f"there is no folder for temporary files: {'; '.join(refused)}; set TMPDIR to a folder "
        f"that you may write to, with a short path of letters, digits and . _ + -"
    )


def _unfit(place: Path, short: bool) -> str:
    """Why no folder of ours can be in ``place``, "" when one can."""
    if not place.is_absolute():
        return "is not an absolute path"
    if not is_plain(place):
        return "its path has characters that a shell would read"
    if short and len(str(place)) + 1 + _LONGEST_NAME > _SOCKET:
        return f"its path is too long for a unix socket in it ({len(str(place))} bytes)"
    return "" if place.is_dir() else "there is no such folder"
