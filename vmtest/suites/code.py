"""What a guest is given, and asked for, of code of the suites' test modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from vmtest.guest.payload import code_key
from vmtest.matrix.bench import Bench, Guest
from vmtest.suites.payload import Payload
from vmtest.vm.bytecode import Bytecode, packed
from vmtest.vm.guest_code import GUEST_ROOT


@dataclass(frozen=True, slots=True)
class Code:
    """Of the modules at ``places`` in a guest, by their keys: what ``kept`` has in ``entry``.

    Where ``entry`` is "" nothing is kept: nobody would restore this guest.
    """

    kept: Bytecode
    entry: str
    places: dict[str, str]

    @classmethod
    def of(cls, payload: Payload, files: Sequence[str], bench: Bench, guest: Guest) -> Self:
        """That of ``files`` of ``payload``, of all suites without any, in this ``guest``."""
        # Wheels may bring another pytest, and both may run code when Python starts.
        foreign = bench.job.root.wheels or payload.pythonpath
        entry = "" if foreign else bench.snapshots.name_of(guest.machine.spec)
        places = {}
        for name in payload.rewritten(files) if entry else ():
            place = f"{GUEST_ROOT}/suites/{name}"
            places[code_key(place, payload.files[name])] = place
        return cls(bench.bytecode, entry, places)

    def laid(self) -> bytes:
        """The payload's file with what is kept, and with the places of what is not."""
        if not self.places:
            return b""
        found = self.kept.find(self.entry, list(self.places))
        return packed(found, [self.places[key] for key in self._missing()])

    def keep(self, told: str) -> None:
        """Keep what the guest ``told``."""
        self.kept.keep(self.entry, self._missing(), told)

    def _missing(self) -> list[str]:
        found = self.kept.find(self.entry, list(self.places))
        return [key for key in self.places if key not in found]
