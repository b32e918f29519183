"""Kernels built from a git tree by ``vng --build``: in a worktree and an ``O=`` folder of our own.

Below ``trees/`` in the cache stand our repository, a worktree a tree, and a build folder a
tree and config, which stays: the next commit compiles what changed.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from vmtest.errors import KernelUnavailable
from vmtest.host import requirements as host
from vmtest.host.cache import ensure, find_tool, locked, require_space, require_tool, sha256_json
from vmtest.host.plain import is_plain
from vmtest.kernels.kconfig import parse
from vmtest.kernels.source import spec_of
from vmtest.kernels.store.entry import copy_modules, finish
from vmtest.kernels.store.store import Manifest, Store
from vmtest.kernels.tree.kbuild import Maker
from vmtest.kernels.tree.repository import GitTree
from vmtest.model.kernels import Kernel, KernelImage, Progress, Resolved, TreeSpec

_SPACE = 8 << 30


@dataclass(frozen=True, slots=True)
class TreeSource:
    """Git trees of the user's, which are only ever read."""

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """Which commit it is, and whether that is built already with this config and compiler.

        Raises KernelUnavailable for a folder that is not a kernel's tree or lacks the revision.
        """
        spec = spec_of(kernel, TreeSpec)
        tree = GitTree(spec.path, kernel.name)
        commit, note = tree.commit(spec.rev)
        repository = tree.repository(trees_folder(store))
        if note:
            commit = tree.snapshot(repository)
        version = tree.version(commit, repository)
        made_of = [commit, _config_text(kernel), *_toolchain()]
        digest = sha256_json(made_of)
        key = f"tree-{version}-{commit[:12]}-{digest[:12]}"
        return Resolved(
            kernel=kernel,
            version=version,
            key=key,
            origin=f"tree {spec.path.name} {commit}",
            cached=store.get(key) is not None,
            note=note,
            digest=digest,
        )

    def fetch(
        self, resolved: Resolved, store: Store, progress: Progress | None = None
    ) -> KernelImage:
        """Build what ``resolved`` names; see :class:`Source`.

        Raises BuildFailed with the compiler's first error and the path of the log.
        """
        kernel = resolved.kernel
        found = store.take(resolved.key, kernel.name)
        if found is None:
            with locked(store.root, _lock(kernel), lambda: _tell(progress)):
                found = store.add(
                    resolved.key,
                    lambda entry: _fill(entry, resolved, store, progress),
                    name=kernel.name,
                )
        return replace(found, note="; ".join(filter(None, (found.note, resolved.note))))


def _lock(kernel: Kernel) -> str:
    """The lock of a tree's one worktree: one build at a time."""
    return f"tree-{sha256_json(str(spec_of(kernel, TreeSpec).path.resolve()))[:16]}"


def _tell(progress: Progress | None) -> None:
    if progress is not None:
        progress(0, 0)  # whoever waits can be ended as whoever builds


def trees_folder(store: Store) -> Path:
    """Where our repositories, worktrees and build folders are."""
    return store.root / "trees"


def _config_text(kernel: Kernel) -> str:
    """Our fragment and then the user's, of which the last word on a symbol holds."""
    text = files("vmtest.kernels.tree").joinpath("guest.config").read_text(encoding="utf-8")
    config = spec_of(kernel, TreeSpec).config
    if config is None:
        return text
    try:
        return f"{text}\n{config.read_text(encoding='utf-8')}"
    except OSError as error:
        raise KernelUnavailable(
            f"{kernel.name}: {config}: {error.strerror}; correct tree.config in kernels.toml"
        ) from error


def _toolchain() -> list[str]:
    """What the result depends on beside the source; a missing compiler is told by the build."""

    def version(name: str) -> str:
        tool = find_tool(name)
        if tool is None:
            return ""
        done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
        return f"{name} {done.stdout.partition(chr(10))[0]}"

    return [version("gcc"), version("ld"), version("pahole")]


def _fill(entry: Path, resolved: Resolved, store: Store, progress: Progress | None) -> Manifest:
    kernel = resolved.kernel
    for tool in host.BUILD_TOOLS:
        require_tool(tool.command, tool.package, f"to build a kernel: {tool.purpose}")
    spec = spec_of(kernel, TreeSpec)
    tree = GitTree(spec.path, kernel.name)
    folder = ensure(trees_folder(store))
    if not is_plain(folder):
        raise KernelUnavailable(
            f"{kernel.name}: a kernel cannot be built in {str(folder)!r}: make would read signs "
            f"in the path; set VMTEST_CACHE to a folder whose path has only letters, digits and "
            f". _ + -"
        )
    repository = tree.repository(folder)
    name = repository.stem.removeprefix("repository-")
    text = _config_text(kernel)
    commit = resolved.origin.rpartition(" ")[2]
    build = folder / f"build-{name}-{sha256_json(text)[:12]}"
    # What stands there already is not needed again.
    require_space(folder, _SPACE if not build.is_dir() else _SPACE // 4, f"{kernel.name}: building")
    source = folder / f"source-{name}"
    tree.check_out(repository, commit, source)
    log = ensure(store.root / "logs") / f"{resolved.key}.log"
    maker = Maker(kernel.name, source, ensure(build), log, progress)
    maker.configure(text)
    maker.build()
    return _collect(maker, entry, resolved)


def _collect(maker: Maker, entry: Path, resolved: Resolved) -> Manifest:
    """Take image, config and modules out of the build folder, which stays as it is."""
    config = (maker.folder / ".config").read_text(encoding="utf-8")
    modules = entry / "lib" / "modules"
    if "m" in parse(config).values():
        installed = entry.parent / "modules"
        maker.make("INSTALL_MOD_STRIP=1", f"INSTALL_MOD_PATH={installed}", "modules_install")
        for found in (installed / "lib" / "modules").glob("*"):
            copy_modules(found, modules / found.name, maker.name)
    else:
        # All that a make would install, which takes seconds to find that out.
        release = (maker.folder / "include" / "config" / "kernel.release").read_text().strip()
        (modules / release).mkdir(parents=True)
        for built_in in maker.folder.glob("modules.*"):
            shutil.copyfile(built_in, modules / release / built_in.name)
    return finish(
        entry,
        maker.folder / "arch" / "x86" / "boot" / "bzImage",
        name=f"{maker.name}: {resolved.origin}",
        version=None,
        digest=resolved.digest,
        origin=resolved.origin,
        config=config,
    )
