"""kernels.lock: what every kernel of kernels.toml exactly was when it was locked.

JSON with sorted keys, an entry a kernel, paths relative to the project: to be committed and
compared.  Who reads it gets kernels pinned to that; ``LockedSource`` holds them to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from vmtest.errors import UsageError
from vmtest.host.cache import write_json
from vmtest.host.lockfile import read_lock
from vmtest.model.kernels import (
    ArchiveSpec,
    Kernel,
    KernelSpec,
    LockedSpec,
    MainlineSpec,
    PackageFile,
    PackageSpec,
    PathSpec,
    Resolved,
    TreeSpec,
)
from vmtest.model.secrets import without_secrets
from vmtest.model.versions import KernelVersion

_SCHEMA = 1
_CURE = "make it with: vmtest kernels lock"


@dataclass(frozen=True, slots=True)
class LockEntry:
    """One kernel: the ``request`` as kernels.toml had it, and what that was.

    ``digest`` is the sha256 of what the image is made of, ``key`` its name in the store.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    request: Mapping[str, Any]
    version: str
    key: str
    digest: str
    origin: str

    @property
    def kernel_version(self) -> KernelVersion:
        """The version that was locked."""
        return KernelVersion.parse(self.version)


_ENTRY = TypeAdapter(LockEntry)

Lock = dict[str, LockEntry]
"""Entries by the kernel's name."""


def beside(config: Path) -> Path:
    """The lock file of a configuration: kernels.lock of kernels.toml."""
    return config.with_suffix(".lock")


def read(file: Path) -> Lock:
    """What :func:`write` wrote; raises UsageError when it is missing or cannot be understood."""

    def parsed(value: dict[str, Any]) -> Lock:
        entries = {name: _ENTRY.validate_python(entry) for name, entry in value["kernels"].items()}
        for entry in entries.values():
            KernelVersion.parse(entry.version)
        return entries

    def text() -> str:
        return file.read_text(encoding="utf-8")

    try:
        return read_lock(file, text, parsed, schema=_SCHEMA, cure=_CURE)
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist; {_CURE}") from None


def write(file: Path, lock: Lock) -> None:
    """Write ``lock`` so that a reader sees all of it or the old one."""
    entries = {name: asdict(entry) for name, entry in lock.items()}
    write_json(file, {"schema": _SCHEMA, "kernels": entries})


def entry_of(resolved: Resolved, base: Path) -> LockEntry:
    """The entry for a kernel whose digest is known; ``base`` is the project's folder."""
    assert resolved.digest and not isinstance(resolved.kernel.spec, LockedSpec)
    return LockEntry(
        request=request_of(resolved.kernel.spec, base),
        version=resolved.version.text,
        key=resolved.key,
        digest=resolved.digest,
        origin=_without(resolved.origin, base),
    )


def request_of(spec: KernelSpec, base: Path) -> dict[str, Any]:
    """``spec`` in the terms of kernels.toml, paths relative to ``base``."""

    def relative(path: Path | None) -> str | None:
        return None if path is None else os.path.relpath(path, base)

    def one(file: PackageFile) -> dict[str, str | None]:
        if isinstance(file.place, Path):
            return {"path": relative(file.place), "sha256": file.sha256}
        return {"url": without_secrets(file.place), "sha256": file.sha256}

    match spec:
        case MainlineSpec():
            return {"mainline": spec.version}
        case ArchiveSpec():
            return {spec.table: spec.archive, "version": spec.version, "suites": list(spec.suites)}
        case PathSpec():
            return {
                "path": relative(spec.image),
                "modules": relative(spec.modules),
                "config": relative(spec.config),
            }
        case PackageSpec():
            return {"package": [one(file) for file in spec.files]}
        case TreeSpec():
            config = relative(spec.config)
            return {"tree": {"path": relative(spec.path), "rev": spec.rev, "config": config}}


def _without(origin: str, base: Path) -> str:
    """``origin`` without the folder of the machine it was locked on."""
    return origin.replace(f"{base}{os.sep}", "")


def pin(kernels: Iterable[Kernel], lock: Lock, base: Path) -> tuple[Kernel, ...]:
    """``kernels`` as locked; raises UsageError naming all that are not, or not as asked for now."""
    pinned, problems = [], []
    for kernel in kernels:
        assert not isinstance(kernel.spec, LockedSpec)
        entry = lock.get(kernel.name)
        if entry is None:
            problems.append(f"{kernel.name} is not in it")
        elif entry.request != request_of(kernel.spec, base):
            problems.append(f"{kernel.name} was locked when kernels.toml asked for something else")
        else:
            pinned.append(replace(kernel, spec=_locked(kernel.spec, entry)))
    if problems:
        raise UsageError(
            f"kernels.lock does not fit kernels.toml: {'; '.join(problems)}; "
            f"lock again with: vmtest kernels lock"
        )
    return tuple(pinned)


def _locked(spec: KernelSpec, entry: LockEntry) -> LockedSpec:
    # A package version is exact, and so is a commit; the others are asked for one thing only.
    exact = spec
    if isinstance(spec, MainlineSpec):
        exact = replace(spec, version=entry.key.removeprefix("mainline-"))
    elif isinstance(spec, ArchiveSpec):
        exact = replace(spec, version=entry.version)
    elif isinstance(spec, TreeSpec):
        exact = replace(spec, rev=entry.origin.rpartition(" ")[2])
    return LockedSpec(exact, entry.key, entry.version, entry.origin, entry.digest)
