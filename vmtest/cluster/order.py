"""What goes between a coordinator and its workers: values, and no path of either's disk.

Kernel and guest image are named by the key and the digest of their entry in the cache.  Paths in
an order are relative to that entry.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from vmtest.errors import InfrastructureError
from vmtest.matrix.bench import Task
from vmtest.matrix.complaints import KnownSplats
from vmtest.matrix.engine import Assignment
from vmtest.model.kernels import InstalledWheel, Kernel, KernelImage, PathSpec, RootImage
from vmtest.model.results import KernelResult

TOPIC = "vmtest"
"""The topic of all messages of workers: a scheduler keeps the last of each topic, for ever."""
RESOURCE = "vm"
"""The resource of Dask's by which a worker says how many VMs it has room for."""
CHUNK = 8 << 20
"""Bytes of a file that travel at once."""

ORDER, KERNEL, IMAGE = "order", "kernel", "image"
"""What a worker may ask for, beside a wheel."""
WHEEL = "wheel "
"""How the name of a wheel begins that a worker asks for; the sha256 of its tree follows."""
BEGAN, PLACE, EVENT, NEEDS = "began", "place", "event", "needs"
"""What a worker says; ``PLACE`` is where the kernel's folder is on it."""


@dataclass(frozen=True, slots=True)
class Part:
    """An entry of the cache: ``size`` is what it takes on the disk, in bytes."""

    key: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Order:
    """A kernel that a worker is to run: an Assignment without files.

    ``guest`` is None for the worker's own root; ``wheels`` are what a worker asks for in the place
    of the trees of those of ``root``, which stay behind.
    """

    kernel: Kernel
    image: KernelImage
    part: Part
    root: RootImage
    guest: Part | None
    wheels: tuple[str, ...]
    task: Task
    note: str
    known_splats: KnownSplats
    accelerator: str
    warm: bool | None


@dataclass(frozen=True, slots=True)
class Call:
    """What is submitted: small, because a scheduler keeps it until the kernel has ended.

    ``sha256`` is the digest of the pickled order, which the worker asks for; ``code`` that of the
    coordinator's vmtest.  ``beside`` has the VM slots of each host of the cluster.
    """

    run: str
    kernel: str
    sha256: str
    code: str
    beside: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Unfit:
    """A worker could not take a kernel, and another may: it has no room, or is another vmtest."""

    why: str


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a call: a result, or an exception that the runner understands.

    ``folder`` is the kernel's folder on the worker, which waits there as a tar of ``size`` bytes.
    """

    token: str
    worker: str
    outcome: KernelResult | Exception | Unfit
    folder: str = ""
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a worker; ``token`` names the attempt, ``what`` is the object it is about."""

    run: str
    kernel: str
    token: str
    worker: str
    kind: str
    what: object = None

    def pack(self) -> dict[str, object]:
        """As it travels."""
        return {"run": self.run, "said": pickle.dumps(self)}

    @classmethod
    def unpack(cls, message: object, run: str) -> Said | None:
        """What ``pack`` made for ``run``; None for anything else, which is not read."""
        if not isinstance(message, dict) or message.get("run") != run:
            return None
        said = pickle.loads(message["said"])
        return said if isinstance(said, Said) else None


def order_of(
    given: Assignment, image: Part, guest: Part | None, accelerator: str, warm: bool | None
) -> Order:
    """``given`` as an order, with its files named relative to the entries ``image``, ``guest``."""
    place = given.image.image.parents[1]
    files = replace(
        given.image,
        image=given.image.image.relative_to(place),
        modules=_relative(given.image.modules, place),
        config=_relative(given.image.config, place),
    )
    path = None if given.root.path is None else Path(given.root.path.name)
    return Order(
        # What it was asked for as may be a path, and a worker has no use for it.
        kernel=replace(given.kernel, spec=PathSpec(files.image)),
        image=files,
        part=image,
        root=replace(
            given.root,
            path=path,
            wheels=tuple(replace(wheel, tree=b"") for wheel in given.root.wheels),
        ),
        guest=guest,
        wheels=tuple(map(name_of, given.root.wheels)),
        task=given.task,
        note=given.note,
        known_splats=given.known_splats,
        accelerator=accelerator,
        warm=warm,
    )


def name_of(wheel: InstalledWheel) -> str:
    """What a worker asks for that lacks ``wheel``."""
    return WHEEL + hashlib.sha256(wheel.tree).hexdigest()


def _relative(path: Path | None, place: Path) -> Path | None:
    return None if path is None else path.relative_to(place)


def entry_place(path: Path, cache: Path, kind: str, what: str) -> Path:
    """The entry of ``cache`` that ``path`` is in; raises InfrastructureError for one in none."""
    folder = cache / kind
    if not path.is_relative_to(folder):
        raise InfrastructureError(
            f"{what}: {path} is not in the cache, and workers get only what is there; "
            'write root = "debian" or root = "host"'
        )
    return folder / path.relative_to(folder).parts[0]


@cache
def code_digest() -> str:
    """The sha256 of all of vmtest's own code: a version alone does not tell two checkouts apart."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
