"""What a guest is given, and asked for, of code of the suites' test modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

from vmtest.guest.payload import code_key
from vmtest.matrix.bench import Bench, Guest
from vmtest.model.results import KernelResult, Status
from vmtest.suites.payload import Payload
from vmtest.vm.bytecode import Bytecode, Codes, packed
from vmtest.vm.guest_code import GUEST_ROOT

_HEALTHY = (Status.PASSED, Status.FAILED, Status.COLLECTED, Status.NO_TESTS)


@dataclass(slots=True)
class Code:
    """Of the modules at ``places`` in a guest, by their keys: ``found`` in ``entry`` of ``kept``.

    Where ``entry`` is "" nothing is kept: nobody would restore this guest, or its first word may
    not be ours.  ``told`` is what the guest has compiled.
    """

    kept: Bytecode
    entry: str
    places: dict[str, str]
    found: Codes
    told: str = ""

    @classmethod
    def of(cls, payload: Payload, files: Sequence[str], bench: Bench, guest: Guest) -> Self:
        """That of ``files`` of ``payload``, of all suites without any, in this ``guest``."""
        # Wheels may bring another pytest, and both may run code when Python starts.
        foreign = bench.job.root.wheels or payload.pythonpath
        outside = any(".." in PurePosixPath(name).parts for name in payload.files)
        entry = "" if foreign or outside else bench.snapshots.name_of(guest.machine.spec)
        places = {}
        for name in payload.rewritten(files) if entry else ():
            place = f"{GUEST_ROOT}/suites/{name}"
            places[code_key(place, payload.files[name])] = place
        found = bench.bytecode.find(entry, list(places)) if places else {}
        return cls(bench.bytecode, entry, places, found)

    @property
    def laid(self) -> bytes:
        """The payload's file with what is kept, and with the places of what is not."""
        return packed(self.found, list(self._missing().values())) if self.places else b""

    def tell(self, told: str) -> None:
        """Take what the guest ``told``; it is not kept yet."""
        self.told = told

    def keep(self, result: KernelResult) -> None:
        """Keep what the guest told that came to ``result``, if its kernel is in order."""
        if result.status in _HEALTHY and not result.splats and not result.known_splats:
            self.kept.keep(self.entry, list(self._missing()), self.told)

    def _missing(self) -> dict[str, str]:
        return {key: place for key, place in self.places.items() if key not in self.found}
