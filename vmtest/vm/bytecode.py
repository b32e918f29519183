"""Code of suites' test modules, compiled in a kernel's guests and kept for its later guests.

A guest's kernel can have made anything of it.  So there is an entry of the cache for each snapshot:
what one kernel made runs on no other.  In it, a code's key has the digest of its module's text.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from vmtest.errors import VmtestError
from vmtest.host.cache import ensure, hold, let_go, remove_unused, scratch, try_locked
from vmtest.vm.restore import KIND as SNAPSHOT
from vmtest.vm.snapshot import check_owner

KIND = "bytecode"
"""The folder of the cache for it, and the kind of its entries."""
ROOM = 16 << 20
"""Bytes of an entry; what was used least recently makes room."""


class _Head(TypedDict):
    sizes: dict[str, Annotated[int, Field(ge=0, le=1 << 30)]]


_HEAD = TypeAdapter(_Head)

Codes = Mapping[str, bytes]
"""Marshalled code by its key (vmtest/guest/bytecode.py)."""


def places(cache: Path) -> list[Path]:
    """The files of all entries in ``cache``, damaged ones too."""
    return sorted((cache / KIND).glob("*"))


def read_entry(place: Path) -> dict[str, bytes]:
    """The codes of the entry in the file ``place``; raises ValueError with what is wrong."""
    try:
        return _whole(place.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _whole(data: bytes) -> dict[str, bytes]:
    """What is in an entry: its digest, a line feed, a pack; raises ValueError."""
    digest, _, pack = data.partition(b"\n")
    if digest.decode(errors="replace") != hashlib.sha256(pack).hexdigest():
        raise ValueError("has not the sha256 that it begins with")
    return unpacked(pack)


def packed(codes: Codes, wanted: Sequence[str] = ()) -> bytes:
    """A line of JSON with the ``sizes`` of ``codes`` and the places ``wanted``, then the codes."""
    head = {"sizes": {key: len(code) for key, code in codes.items()}, "wanted": wanted}
    return b"\n".join([json.dumps(head).encode(), b"".join(codes.values())])


def unpacked(pack: bytes) -> dict[str, bytes]:
    """The codes in a ``pack`` as :func:`packed` makes it; raises ValueError where it is none."""
    head, _, rest = pack.partition(b"\n")
    sizes = _HEAD.validate_json(head)["sizes"]
    if sum(sizes.values()) != len(rest):
        raise ValueError("it has another size than its first line says")
    stream = io.BytesIO(rest)
    return {key: stream.read(size) for key, size in sizes.items()}


class Bytecode:
    """The entries in the cache ``root`` as one kernel's work uses them; None keeps nothing.

    What a guest compiled serves the next guest of the same work at once, and other work after
    :meth:`publish`.  Used by one thread.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._there: dict[str, dict[str, bytes]] = {}
        self._new: set[str] = set()

    def find(self, entry: str, keys: Sequence[str]) -> Codes:
        """What is there of ``keys`` in ``entry``."""
        there = self._there.setdefault(entry, {})
        missing = [key for key in keys if key not in there]
        if missing and self._root is not None:
            with _held(self._root, entry):
                kept = _read(self._root, entry)
            there |= {key: kept[key] for key in missing if key in kept}
        return {key: there[key] for key in keys if key in there}

    def keep(self, entry: str, keys: Sequence[str], told: str) -> None:
        """Have in ``entry`` what a guest ``told``, base64, of ``keys``; what is there stays."""
        there = self._there.setdefault(entry, {})
        with suppress(ValueError):
            codes = unpacked(base64.b64decode(told, validate=True))
            new = {key: code for key, code in codes.items() if key in keys and key not in there}
            if new:
                there |= new
                self._new.add(entry)

    def publish(self) -> None:
        """Put what is new into the cache; where that cannot be, it is compiled again next time."""
        new, self._new = self._new, set()
        if self._root is None or not new:
            return
        with suppress(VmtestError, OSError):
            for entry in new:
                _publish(self._root, entry, self._there[entry])
            _clear(self._root)


def _read(root: Path, entry: str) -> Codes:
    """The codes of ``entry``, none where they are not whole, or another user's."""
    try:
        with (root / KIND / entry).open("rb") as file:
            check_owner(file)
            return _whole(file.read())
    except (VmtestError, OSError, ValueError):
        return {}  # it is made anew, as if it had not been there


@contextmanager
def _held(root: Path, entry: str) -> Iterator[str]:
    """Nobody removes ``entry`` meanwhile; its lock's name."""
    lock = f"{KIND}-{entry}"
    hold(root, lock)
    try:
        yield lock
    finally:
        let_go(root, lock)


def _publish(root: Path, entry: str, codes: Codes) -> None:
    with _held(root, entry) as lock, try_locked(root, lock) as ours:
        if not ours:
            return  # who has it publishes the same, or more
        kept: dict[str, bytes] = {}
        room = ROOM
        for key, code in [*codes.items(), *_read(root, entry).items()]:
            if key not in kept and len(code) <= room:
                kept[key] = code
                room -= len(code)
        pack = packed(kept)
        with scratch(root, lock) as folder:
            made = folder / "entry"
            made.write_bytes(hashlib.sha256(pack).hexdigest().encode() + b"\n" + pack)
            made.chmod(0o644)  # whatever the umask: others may not write to it
            made.replace(ensure(root / KIND) / entry)


def _clear(root: Path) -> None:
    """Remove the entries whose snapshots are gone."""
    for place in places(root):
        if not (root / f"{SNAPSHOT}s" / place.name).is_dir():
            remove_unused(root, f"{KIND}-{place.name}", place)
