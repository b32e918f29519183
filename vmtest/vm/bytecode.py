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

from vmtest.errors import InfrastructureError, VmtestError
from vmtest.host.cache import (
    hold,
    let_go,
    locked,
    publish,
    read_record,
    read_recorded,
    remove_unused,
    scratch,
    write_record,
)
from vmtest.vm.restore import KIND as SNAPSHOT
from vmtest.vm.snapshot import check_owner, keep_from_others

KIND = "bytecode"
"""The folder of the cache for it, and the kind of its entries."""
ROOM = 16 << 20
"""Bytes of an entry; what was used least recently makes room."""

_PACK, _RECORD = "pack", "bytecode.json"


class _Head(TypedDict):
    sizes: dict[str, Annotated[int, Field(ge=0, le=1 << 30)]]


_HEAD = TypeAdapter(_Head)

Codes = Mapping[str, bytes]
"""Marshalled code by its key (vmtest/guest/bytecode.py)."""


def places(cache: Path) -> list[Path]:
    """The folders of all entries in ``cache``, damaged ones too."""
    return sorted(path for path in (cache / KIND).glob("*") if path.is_dir())


def read_entry(place: Path) -> dict[str, bytes]:
    """The codes of the entry in the folder ``place``.

    Raises ValueError with the file and what is wrong with it.
    """
    _, pack = read_recorded(place, _RECORD, _PACK, "pack")
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
        self._used: dict[str, dict[str, bytes]] = {}
        self._new: set[str] = set()

    def find(self, entry: str, keys: Sequence[str]) -> Codes:
        """What is there of ``keys`` in ``entry``."""
        there = self._used.setdefault(entry, {})
        missing = [key for key in keys if key not in there]
        if missing and self._root is not None:
            with _held(self._root, entry):
                kept = _read(self._root, entry)
            there |= {key: kept[key] for key in missing if key in kept}
        return {key: there[key] for key in keys if key in there}

    def keep(self, entry: str, keys: Sequence[str], told: str) -> None:
        """Have in ``entry`` what a guest ``told``, base64, of the ``keys`` that it could have."""
        with suppress(ValueError):
            codes = unpacked(base64.b64decode(told, validate=True))
            asked = {key: code for key, code in codes.items() if key in keys}
            if asked:
                self._used.setdefault(entry, {}).update(asked)
                self._new.add(entry)

    def publish(self) -> None:
        """Put what is new into the cache; where that cannot be, it is compiled again next time."""
        new, self._new = self._new, set()
        if self._root is None or not new:
            return
        with suppress(InfrastructureError, OSError):
            for entry in new:
                _publish(self._root, entry, self._used[entry])
            _clear(self._root)


def _read(root: Path, entry: str) -> Codes:
    """The codes of ``entry``, none where they are not whole, or another user's."""
    place = root / KIND / entry
    try:
        with (place / _PACK).open("rb") as file:
            check_owner(file)
            pack = file.read()
        record = read_record(place / _RECORD)
        whole = record is not None and record.get("pack") == hashlib.sha256(pack).hexdigest()
        return unpacked(pack) if whole else {}
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
    with _held(root, entry) as lock, locked(root, lock), scratch(root, lock) as folder:
        kept: dict[str, bytes] = {}
        room = ROOM
        for key, code in [*codes.items(), *_read(root, entry).items()]:
            if key not in kept and len(code) <= room:
                kept[key] = code
                room -= len(code)
        pack = packed(kept)
        made = folder / "entry"
        made.mkdir()
        (made / _PACK).write_bytes(pack)
        write_record(made / _RECORD, {"pack": hashlib.sha256(pack).hexdigest()})
        keep_from_others(made)
        publish(made, root / KIND / entry)


def _clear(root: Path) -> None:
    """Remove the entries whose snapshots are gone."""
    for place in places(root):
        if not (root / f"{SNAPSHOT}s" / place.name).is_dir():
            remove_unused(root, f"{KIND}-{place.name}", place)
