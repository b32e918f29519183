"""Kernels: what was asked (``Kernel``), what it is today, its files; and the guest's root image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal

from vmtest.model.versions import KernelVersion

Signed = Literal["metadata", "packages", "both"]
"""What a repository's key signs: its repomd.xml, each .rpm, or both."""


class Network(StrEnum):
    """What network card a VM has; NONE is false."""

    NONE = ""
    CLOSED = "closed"
    """A card with an address and nobody behind it."""
    OUTBOUND = "outbound"
    """A card that reaches what the host reaches, and the host's own loopback."""


class Accelerator(StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class ArchiveSpec:
    """A kernel from the suites of the archive ``archive`` in kernels.toml.

    ``table`` is the key that names it there.  ``version`` is an exact upstream or package
    version, or a pattern that ends in ``.*`` (the newest match), or ``*``.  ``suites`` narrows
    the archive's.
    """

    table: ClassVar[str]

    archive: str
    version: str
    suites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AptSpec(ArchiveSpec):
    """A kernel from an ``[apt.NAME]``."""

    table: ClassVar[str] = "apt"


@dataclass(frozen=True, slots=True)
class DnfSpec(ArchiveSpec):
    """A kernel from a ``[dnf.NAME]``; its suites are repositories."""

    table: ClassVar[str] = "dnf"


@dataclass(frozen=True, slots=True)
class OciSpec(ArchiveSpec):
    """A kernel from an ``[oci.NAME]``; its versions are tags."""

    table: ClassVar[str] = "oci"


MAINLINE = "mainline"
"""The name of the archive of upstream's tags, which needs no table in kernels.toml."""


@dataclass(frozen=True, slots=True)
class MainlineSpec(ArchiveSpec):
    """A tag of upstream's (``v6.6.17``) as Ubuntu's mainline archive builds it, or a pattern."""

    table: ClassVar[str] = MAINLINE


@dataclass(frozen=True, slots=True)
class PathSpec:
    """A kernel from files: vmlinuz, bzImage or ELF, its modules and its config."""

    image: Path
    modules: Path | None = None
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A .deb or .rpm: its path, or its URL, which has a ``sha256`` (in hex) always."""

    place: Path | str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class PackageSpec:
    """A kernel from package files: one holds the image, the same or others the modules."""

    files: tuple[PackageFile, ...]


@dataclass(frozen=True, slots=True)
class TreeSpec:
    """A kernel built from the git tree at ``path``.

    ``rev`` None is its present state; ``config`` a fragment on top of ours.
    """

    path: Path
    rev: str | None = None
    config: Path | None = None


KernelSpec = ArchiveSpec | PathSpec | PackageSpec | TreeSpec
"""What kernels.toml asks for, one kind a source."""


@dataclass(frozen=True, slots=True)
class LockedSpec:
    """A kernel as kernels.lock has it: ``exact`` is what its source would be asked for.

    ``key``, ``version``, ``origin`` and ``digest`` are those of a ``Resolved``.
    """

    exact: KernelSpec
    key: str
    version: str
    origin: str
    digest: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines in seconds, as configured for KVM; scaled when emulated.

    ``stall`` is how long a guest may be silent after its kernel said that it stalls.
    """

    boot: float
    silence: float
    total: float
    stall: float = 20.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One ``[[kernel]]`` of kernels.toml: what was asked for.

    ``retries`` is how often a boot that failed is tried again.
    """

    name: str
    spec: KernelSpec | LockedSpec
    tags: tuple[str, ...] = ()
    gate: bool = True
    memory_mib: int = 1024
    cpus: int = 1
    limits: Limits = Limits(boot=30.0, silence=60.0, total=300.0)
    cmdline: tuple[str, ...] = ()
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Archive:
    """A table of kernels.toml that says where packages are: one ``[apt.NAME]``, for example.

    ``suites`` are the parts that have an index each.  ``mirror`` and ``keyring`` are None where
    the host knows them.  ``max_index_age`` is in seconds.
    """

    asks: ClassVar[type[ArchiveSpec]]

    name: str
    suites: tuple[str, ...] = ()
    mirror: str | None = None
    keyring: Path | None = None
    max_index_age: float = 3600.0

    @property
    def label(self) -> str:
        """What errors call it: the heading of its table."""
        return f"[{self.asks.table}.{self.name}]"

    def ask(self, version: str, suites: tuple[str, ...] = ()) -> ArchiveSpec:
        """The request for ``version`` from it, or from those of its suites."""
        return self.asks(self.name, version, suites)


@dataclass(frozen=True, slots=True)
class AptArchive(Archive):
    """One ``[apt.NAME]``: suites of Debian or another distribution, and where they are.

    ``distribution`` is its ID in /etc/os-release: it decides whose mirrors and keys are meant
    where ``mirror`` and ``keyring`` are None.  ``flavour`` is the kernels' (``generic``,
    ``azure``, ``rt``).  ``check_valid_until`` false accepts an index past its date.
    """

    asks: ClassVar[type[ArchiveSpec]] = AptSpec

    security_mirror: str | None = None
    check_valid_until: bool = True
    distribution: str = "debian"
    components: tuple[str, ...] = ("main",)
    flavour: str = "generic"


@dataclass(frozen=True, slots=True)
class DnfArchive(Archive):
    """One ``[dnf.NAME]``: repositories of .rpm packages, ``suites`` their paths below ``mirror``.

    ``mirror_list`` is the URL of a list of mirrors, which takes the place of ``mirror``.
    ``signed`` is what ``keyring`` signs.  ``kernel`` is the name of the kernels' package.
    """

    asks: ClassVar[type[ArchiveSpec]] = DnfSpec

    mirror_list: str | None = None
    signed: Signed = "metadata"
    kernel: str = "kernel"


@dataclass(frozen=True, slots=True)
class OciArchive(Archive):
    """One ``[oci.NAME]``: a container image, its only suite; ``tags`` is a pattern of re."""

    asks: ClassVar[type[ArchiveSpec]] = OciSpec

    tags: str = ".*"


@dataclass(frozen=True, slots=True)
class MainlineArchive(Archive):
    """The archive of upstream's tags, there where kernels.toml has a ``mainline`` kernel."""

    asks: ClassVar[type[ArchiveSpec]] = MainlineSpec

    name: str = MAINLINE
    suites: tuple[str, ...] = (MAINLINE,)

    @property
    def label(self) -> str:
        """What errors call it."""
        return MAINLINE

    def ask(self, version: str, suites: tuple[str, ...] = ()) -> ArchiveSpec:
        """The request for ``version``; 6.6.17 is the tag v6.6.17."""
        tag = version if version.startswith(("v", "*")) or version.endswith(".*") else f"v{version}"
        return MainlineSpec(self.name, tag, suites)


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """``[guest]``: the user space to boot on.

    ``root`` is ``debian`` (built here from ``suite`` with ``packages``), ``host``, or the path of a
    directory or an image.  ``wheels`` are laid over one that is built here.
    ``libbpf`` are versions (``1.5``, ``newest``) or paths that are laid over the root's own; the
    first is what suites and commands get.  ``requirements`` are pip's, and so is ``pytest``, in
    place of the root's ("" keeps that): they come to more wheels.  ``project`` is the
    pyproject.toml that some of them are from.
    """

    root: str = "debian"
    suite: str = "trixie"
    packages: tuple[str, ...] = ()
    wheels: tuple[Path, ...] = ()
    libbpf: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    pytest: str = ""
    project: Path | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a ``Kernel`` means today, before anything is downloaded.

    ``key`` names the exact thing (it decides whether the store has it),
    ``size`` is what a download would cost in bytes, ``note`` says what the user
    should know (a suite that is gone, for one).  ``digest`` is that of the image it
    becomes, empty where only a download tells.
    """

    kernel: Kernel
    version: KernelVersion
    key: str
    origin: str
    size: int = 0
    cached: bool = False
    note: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel in the store, ready to boot.

    ``image`` is the ELF (or the compressed image where the ELF would not
    boot), ``modules`` is ``.../lib/modules/RELEASE`` with its ``modules.dep``,
    ``digest`` the sha256 of what it was made of.
    """

    name: str
    version: KernelVersion
    release: str
    image: Path
    modules: Path | None
    config: Path | None
    digest: str
    origin: str
    note: str = ""


RootKind = Literal["disk", "directory", "host"]

Share = Literal["9p", "virtiofs", "disk"]
"""How a guest reads what is the host's: 9P works on every host, virtiofs needs a daemon there.

For kernels that have neither it lies on more disks.
"""

Filesystem = Literal["squashfs", "ext4", "erofs"]
"""What is on a guest's disks: squashfs, and another one for kernels that have none."""


@dataclass(frozen=True, slots=True)
class Library:
    """A libbpf for the guest: ``version`` is ``1.5``, ``origin`` a package or a path.

    ``data`` is the shared object, ``sha256`` its digest.
    """

    version: str
    origin: str
    sha256: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class InstalledWheel:
    """The wheel ``name``, ready for the guest: ``tree`` is what it has below /usr/local.

    That is a tar without its end; ``sha256`` is its digest.
    """

    name: str
    sha256: str
    tree: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RootImage:
    """The guest's user space.

    ``kind`` is ``disk`` (an image at ``path``, with that ``filesystem``), ``directory`` (a tree at
    ``path``) or ``host`` (the host's own root, no path); ``digest`` names what
    it was made of, ``python`` is the interpreter inside the guest; ``note`` is what the
    user should know of how it came here; ``libraries`` are laid over its own libbpf,
    ``wheels`` over its /usr/local.
    """

    kind: RootKind
    path: Path | None
    digest: str
    python: str
    note: str = ""
    libraries: tuple[Library, ...] = ()
    wheels: tuple[InstalledWheel, ...] = ()
    filesystem: Filesystem = "squashfs"


Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all while something is fetched; of a tree that is built,
with files made and 0."""
