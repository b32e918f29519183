"""What a command takes from the project: built first, then read once."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vmtest.config.schema import is_path
from vmtest.model.kernels import Kernel, PackageSpec, PathSpec, TreeSpec
from vmtest.model.project import Config
from vmtest.objects.compile import run_build
from vmtest.runs.folder import BUILD_LOG


def build_first(
    settings: Config, say: Callable[[str], None], named: Sequence[Path] | None = None
) -> Sequence[Path]:
    """Run ``[build]``, so that all that is read afterwards is what it left.

    ``named`` are objects that stand in for all those of kernels.toml: then there is nothing to
    build, unless they, or anything else that a VM is made of, lie in the project's folder, where
    ``[build]`` may be what makes them.  ``say`` is told what runs.  Returns the objects that
    it is known to make.  Raises BuildCommandFailed and InfrastructureError.
    """
    if settings.build is None:
        return ()
    if named is not None and not any(
        Path(os.path.normpath(path)).is_relative_to(settings.directory)
        for path in (*named, *parts(settings))
    ):
        return ()
    say(f"building: {shlex.join(settings.build)}")
    return run_build(settings.build, settings.directory, settings.directory / BUILD_LOG)


def parts(settings: Config) -> Iterator[Path]:
    """The files and folders that guest image and kernels are made of, where they are files."""
    yield from parts_of_guest(settings)
    for kernel in settings.kernels:
        yield from parts_of_kernel(kernel)


def parts_of_guest(settings: Config) -> Iterator[Path]:
    """Those that every kernel's guest is made of."""
    yield from settings.guest.wheels
    if settings.guest.project is not None:
        yield settings.guest.project
    yield from (Path(libbpf) for libbpf in settings.guest.libbpf if is_path(libbpf))
    if settings.guest.root not in ("debian", "host"):
        yield Path(settings.guest.root)


def parts_of_kernel(kernel: Kernel) -> Iterator[Path]:
    """Those that ``kernel`` is made of."""
    match kernel.spec:
        case PathSpec():
            yield kernel.spec.image
        case PackageSpec():
            yield from (f.place for f in kernel.spec.files if isinstance(f.place, Path))
        case TreeSpec():
            yield kernel.spec.path
