"""Kernels from files: a vmlinuz, bzImage or ELF, with its modules."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.errors import KernelUnavailable
from vmtest.kernels.source import spec_of
from vmtest.kernels.store.entry import copy_modules, finish
from vmtest.kernels.store.store import Manifest, Store
from vmtest.kernels.store.vmlinux import decompress, unpack
from vmtest.model.kernels import Kernel, KernelImage, PathSpec, Progress, Resolved
from vmtest.model.versions import KernelVersion

_LARGEST_IMAGE = 1 << 30
_ELF_SPACE = 200 << 20
_VERMAGIC = re.compile(rb"vermagic=(\S+) ")


@dataclass(frozen=True, slots=True)
class PathSource:
    """Files of the user's, which are only ever read."""

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """Read the image and list the modules.

        Raises KernelUnavailable for what is missing, unreadable, no kernel, or does not
        belong together.
        """
        spec = spec_of(kernel, PathSpec)
        raw = _read_image(kernel, spec.image)
        release = unpack(raw, f"{kernel.name}: {spec.image}").release
        modules = _modules(kernel, spec, release)
        config = _config(kernel, spec, modules, release)
        digest = hashlib.sha256(raw)
        for line in _listing(modules) if modules is not None else ():
            digest.update(line.encode("utf-8", "surrogateescape"))
        digest.update(config.read_bytes() if config is not None else b"")
        key = f"{release}-{digest.hexdigest()[:16]}"
        cached = store.get(key) is not None
        return Resolved(
            kernel=kernel,
            version=_version(kernel, release),
            key=key,
            origin=f"path {spec.image}",
            size=0,
            cached=cached,
            note="" if modules is not None else "no modules were given",
            digest=_digest(key),
        )

    def fetch(
        self, resolved: Resolved, store: Store, progress: Progress | None = None
    ) -> KernelImage:
        """Copy what ``resolved`` names into the store; see :class:`Source`."""
        kernel = resolved.kernel
        spec = spec_of(kernel, PathSpec)
        found = store.take(resolved.key, kernel.name)
        if found is None:
            modules = _modules(kernel, spec, resolved.version.text)
            need = spec.image.stat().st_size + _ELF_SPACE
            if modules is not None:
                need += sum(int(line.split("\0")[1]) for line in _listing(modules))
            found = store.add(
                resolved.key,
                lambda entry: self._fill(entry, resolved, modules, progress),
                name=kernel.name,
                need=need,
            )
        return replace(found, note="; ".join(filter(None, (found.note, resolved.note))))

    def _fill(
        self, entry: Path, resolved: Resolved, modules: Path | None, progress: Progress | None
    ) -> Manifest:
        kernel = resolved.kernel
        spec = spec_of(kernel, PathSpec)
        release = resolved.version.text
        size = spec.image.stat().st_size
        if progress is not None:
            progress(0, size)
        if modules is not None:
            copy_modules(modules, entry / "lib" / "modules" / release, kernel.name)
        config = _config(kernel, spec, modules, release)
        text = config.read_text(encoding="utf-8", errors="replace") if config else None

        def unchanged(found: str) -> None:
            if found != release:
                raise KernelUnavailable(
                    f"{kernel.name}: {spec.image} changed from {release} to {found} while it "
                    f"was being read; run the command again"
                )

        manifest = finish(
            entry,
            spec.image,
            name=f"{kernel.name}: {spec.image}",
            version=release,
            digest=_digest(resolved.key),
            origin=resolved.origin,
            config=text,
            check=unchanged,
        )
        if progress is not None:
            progress(size, size)
        return manifest


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()  # the key has a digest of all that was read


def _version(kernel: Kernel, release: str) -> KernelVersion:
    try:
        return KernelVersion.parse(release)
    except ValueError as error:
        raise KernelUnavailable(f"{kernel.name}: {error}") from error


def _read_image(kernel: Kernel, path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise KernelUnavailable(
                f"{kernel.name}: {path} is a folder; give the kernel file in it "
                f"(arch/x86/boot/bzImage in a build tree)"
            )
        if status.st_size > _LARGEST_IMAGE:
            raise KernelUnavailable(
                f"{kernel.name}: {path} is not a kernel: it is larger than 1 GiB"
            )
        return path.read_bytes()
    except OSError as error:
        raise KernelUnavailable(
            f"{kernel.name}: {path}: {error.strerror}; correct path in kernels.toml"
        ) from error


def _modules(kernel: Kernel, spec: PathSpec, release: str) -> Path | None:
    """The folder that holds what belongs to ``lib/modules/RELEASE``."""
    given = spec.modules
    if given is None:
        return None
    if not given.is_dir():
        raise KernelUnavailable(
            f"{kernel.name}: modules: {given}: no such folder; give lib/modules/{release} or what "
            f"INSTALL_MOD_PATH was"
        )
    for root in ("lib/modules", "usr/lib/modules", "."):
        found = given / root / release
        if found.is_dir():
            return found
    others = [
        entry.name
        for root in ("lib/modules", "usr/lib/modules")
        if (given / root).is_dir()
        for entry in (given / root).iterdir()
    ]
    if others:
        raise KernelUnavailable(
            f"{kernel.name}: modules: {given} holds {', '.join(sorted(others)[:3])} and the kernel "
            f"{spec.image} is {release}; give the modules of that kernel"
        )
    if given.name == release and (given / "kernel").is_dir():
        return given
    module = next(given.rglob("*.ko*"), None)
    if module is None:
        raise KernelUnavailable(
            f"{kernel.name}: modules: {given} holds no modules; give lib/modules/{release} or "
            f"what INSTALL_MOD_PATH was, or leave modules out"
        )
    built_for = _vermagic(module)
    if built_for is not None and built_for != release:
        raise KernelUnavailable(
            f"{kernel.name}: modules: {given} was built for {built_for} and the kernel "
            f"{spec.image} is {release}; give the modules of that kernel"
        )
    return given


def _vermagic(module: Path) -> str | None:
    """The release a module was built for, None when that cannot be read."""
    try:
        raw = decompress(module.read_bytes(), str(module))
    except (OSError, KernelUnavailable):
        return None
    match = _VERMAGIC.search(raw)
    return match.group(1).decode("ascii", "replace") if match else None


def _config(kernel: Kernel, spec: PathSpec, modules: Path | None, release: str) -> Path | None:
    """The config given, or the one that lies where distributions and builds put it."""
    if spec.config is not None:
        if not spec.config.is_file():
            raise KernelUnavailable(
                f"{kernel.name}: config: {spec.config}: no such file; correct it or leave it out"
            )
        return spec.config
    beside = [spec.image.with_name(f"config-{release}")]
    if modules is not None:
        beside.append(modules / "config")
    resolved = spec.image.resolve()
    if resolved.parts[-4:-1] == ("arch", "x86", "boot"):
        beside.append(resolved.parents[3] / ".config")
    elif resolved.name == "vmlinux":
        beside.append(resolved.with_name(".config"))
    return next((path for path in beside if path.is_file()), None)


def _listing(modules: Path) -> list[str]:
    """A line a file: path, size and time of change, in a stable order."""
    lines = []
    for folder, _, files in os.walk(modules):
        for name in files:
            path = Path(folder) / name
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                relative = path.relative_to(modules)
                lines.append(f"{relative}\0{status.st_size}\0{status.st_mtime_ns}\n")
    return sorted(lines)
