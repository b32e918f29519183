"""A loader that waits in a guest for its objects: what of a verify can be done before a save."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vmtest.host.files import FileContent, tar
from vmtest.matrix.payload import Installed, by_standby, in_guest_environment, install, library_path
from vmtest.model.kernels import Library
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.restore import Started
from vmtest.vm.session import Session, Stream

PLAN = f"{GUEST_ROOT}/verify.json"
"""Where the plan lies in the guest."""
OBJECTS = "objects"
"""The folder of a payload with the objects."""


def loader_member(number: int) -> str:
    """The place in a payload of the loader of that ``number``."""
    return f"loaders/{number}"


def loader_argv(python: str, libbpf: str, *, waits: bool = False) -> list[str]:
    """The command of the loader, by the ``libbpf`` of that version ("": by the guest's own).

    One that ``waits`` reads the plan after an answer.
    """
    chosen = ["env", f"LD_LIBRARY_PATH={library_path(libbpf)}"] if libbpf else []
    main = f"{GUEST_ROOT}/vmtest/guest/loader/main.py"
    argv = [*chosen, python, "-S", main, PLAN, *(["wait"] if waits else [])]
    return by_standby(in_guest_environment(argv))


def parted(archive: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The payload ``archive`` without its objects, and the objects by their place in it."""
    rest: dict[str, FileContent | bytes] = {}
    objects: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            file = members.extractfile(member)
            assert file is not None  # we pack files only
            data = file.read()
            if member.name.startswith(f"{OBJECTS}/"):
                objects[member.name] = data
            elif member.mode & 0o100:  # another loader
                rest[member.name] = FileContent(data, True, hashlib.sha256(data).hexdigest())
            else:
                rest[member.name] = data
    return tar(rest), objects


@dataclass(frozen=True, slots=True)
class Ready:
    """What a guest has that was prepared: what ``install`` found, and the loader that waits."""

    installed: Installed
    loader: Stream


@dataclass(frozen=True, slots=True)
class LoaderAhead:
    """Prepares a guest: ``code`` is in it, and a loader has started.

    Two that are equal prepare alike.  Calling one raises SessionLost, DeadlineExceeded,
    InfrastructureError and OSError.
    """

    code: bytes
    python: str
    libbpf: str
    config: Path | None
    libraries: tuple[Library, ...]

    def __call__(self, started: Started) -> Ready:
        """Prepare the guest that ``started``."""
        session = started.session
        found = install(session, self.code, _go_on, self.config, self.libraries)
        session.run(["mkdir", "-p", f"{GUEST_ROOT}/{OBJECTS}"])
        return Ready(found, session.stream(loader_argv(self.python, self.libbpf, waits=True)))


def _go_on() -> None:
    """Nobody interrupts it but the end of the guest, and its deadline."""


def put_objects(session: Session, objects: Mapping[str, bytes]) -> None:
    """Write the ``objects`` into a guest that is prepared."""
    for place, data in objects.items():
        session.put(data, f"{GUEST_ROOT}/{place}")
