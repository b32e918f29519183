"""An entry of the cache that is made once: read where it is whole, else made and published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vmtest.errors import ImageError
from vmtest.host.cache import disk_errors, hold, locked, publish, scratch

_T = TypeVar("_T")


def kept(
    cache: Path, kind: str, entry: str, read: Callable[[Path], _T], make: Callable[[Path], None]
) -> _T:
    """What ``read`` says of the ``entry`` of that ``kind``, which nobody removes from now on.

    ``read`` raises ValueError for one that is not whole.  ``make`` gets an empty folder, of which
    ``entry`` becomes the entry.  Raises ImageError, and what ``make`` raises.
    """
    place, name = cache / kind / entry, f"{kind}-{entry}"
    hold(cache, name)
    found = _whole(read, place)
    if found is not None:
        return found
    with locked(cache, name):
        if (found := _whole(read, place)) is not None:  # another runner was faster
            return found
        with scratch(cache, name) as folder, disk_errors(cache, entry):
            (folder / "entry").mkdir()
            make(folder)
            publish(folder / "entry", place)
    try:
        return read(place)
    except ValueError as error:
        raise ImageError(f"{place}: what was just made cannot be read back: {error}") from error


def _whole(read: Callable[[Path], _T], place: Path) -> _T | None:
    try:
        return read(place)
    except ValueError:
        return None
