"""Kernels built from a git tree by ``vng --build``: in a worktree and an ``O=`` folder of our own.

Below ``trees/`` in the cache stand our repository, a worktree a tree, and a build folder a
tree and config, which stays: the next commit compiles what changed.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from vmtest import host
from vmtest.cache import (
    disk_full,
    ensure,
    find_tool,
    locked,
    remove_tree,
    require_space,
    require_tool,
    sha256_json,
)
from vmtest.errors import BuildFailed, KernelUnavailable
from vmtest.kernels.assemble import copy_modules, finish
from vmtest.kernels.gittree import GitTree
from vmtest.kernels.kconfig import parse
from vmtest.kernels.store import Manifest, Store
from vmtest.model import Kernel, KernelImage, Progress, Resolved, TreeSpec
from vmtest.vm.process import Supervised
from vmtest.vm.vng import find_vng, vng_environment

_SPACE = 8 << 30
_LOCAL_VERSION = "LOCALVERSION=-virtme"  # as vng --build has it
_ERROR_MARKS = (" error: ", "error: ", "Error ", "*** ")


@dataclass(frozen=True, slots=True)
class TreeSource:
    """Git trees of the user's, which are only ever read."""

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """Which commit it is, and whether that is built already with this config and compiler.

        Raises KernelUnavailable for what is no kernel's tree, or has no such revision.
        """
        spec = _spec(kernel)
        tree = GitTree(spec.path, kernel.name)
        commit, note = tree.commit(spec.rev)
        repository = tree.repository(_folder(store))
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
            found = store.add(
                resolved.key,
                lambda entry: _fill(entry, resolved, store, progress),
                name=kernel.name,
            )
        return replace(found, note="; ".join(filter(None, (found.note, resolved.note))))


def _spec(kernel: Kernel) -> TreeSpec:
    if not isinstance(kernel.spec, TreeSpec):
        raise TypeError(f"{kernel.name}: {kernel.spec!r} is not for this source")
    return kernel.spec


def _folder(store: Store) -> Path:
    return store.root / "trees"


def _config_text(kernel: Kernel) -> str:
    """Our fragment and then the user's, of which the last word on a symbol holds."""
    text = files("vmtest.kernels").joinpath("guest.config").read_text(encoding="utf-8")
    config = _spec(kernel).config
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
    spec = _spec(kernel)
    tree = GitTree(spec.path, kernel.name)
    folder = ensure(_folder(store))
    repository = tree.repository(folder)
    name = repository.stem.removeprefix("repository-")
    text = _config_text(kernel)
    commit = resolved.origin.rpartition(" ")[2]
    with locked(store.root, f"tree-{name}"):  # one worktree: one build at a time
        require_space(folder, _SPACE, f"{kernel.name}: building a kernel")
        source = folder / f"source-{name}"
        tree.check_out(repository, commit, source)
        build = ensure(folder / f"build-{name}-{sha256_json(text)[:12]}")
        log = ensure(store.root / "logs") / f"{resolved.key}.log"
        maker = _Maker(kernel.name, source, build, log, progress)
        maker.configure(text)
        maker.build()
        return _collect(maker, entry, resolved)


def _collect(maker: _Maker, entry: Path, resolved: Resolved) -> Manifest:
    """Take image, config and modules out of the build folder, which stays as it is."""
    installed = entry.parent / "modules"
    maker.make("INSTALL_MOD_STRIP=1", f"INSTALL_MOD_PATH={installed}", "modules_install")
    for modules in (installed / "lib" / "modules").glob("*"):
        copy_modules(modules, entry / "lib" / "modules" / modules.name)
    return finish(
        entry,
        maker.folder / "arch" / "x86" / "boot" / "bzImage",
        name=f"{maker.name}: {resolved.origin}",
        version=None,
        digest=resolved.digest,
        origin=resolved.origin,
        config=(maker.folder / ".config").read_text(encoding="utf-8"),
    )


@dataclass(frozen=True, slots=True)
class _Maker:
    """Runs the build of ``source`` in ``folder``; everything it says goes to ``log``."""

    name: str
    source: Path
    folder: Path
    log: Path
    progress: Progress | None

    def configure(self, text: str) -> None:
        """Have the .config hold what ``text`` asks for; raises BuildFailed when it cannot."""
        self.log.write_bytes(b"")
        fragment = self.folder / "requested.config"
        config = self.folder / ".config"
        if fragment.is_file() and config.is_file():
            self.make("olddefconfig")  # of another commit: its new symbols take their defaults
        else:
            # vng takes whatever .config is there for one that is complete.
            config.unlink(missing_ok=True)
            new = self.folder / "new.config"
            new.write_text(text, encoding="utf-8")
            self._run([str(find_vng()), "--verbose", "--kconfig", "--config", str(new)])
            new.rename(fragment)
        wrong = differences(text, config.read_text(encoding="utf-8"))
        if wrong:
            fragment.unlink()
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise BuildFailed(
                f"{self.name}: the config did not become what was asked for: {wrong[0]}{more}; "
                f"something that it depends on is missing; see {config}"
            )

    def build(self) -> None:
        """Compile what has to be."""
        self._run([str(find_vng()), "--verbose", "--build"])

    def make(self, *arguments: str) -> None:
        """Run make for something that vng does not do."""
        make = require_tool("make", "make", "to build a kernel")
        self._run([make, _LOCAL_VERSION, *arguments])

    def _run(self, argv: list[str]) -> None:
        """Run ``argv`` in the source, ended with us; raises BuildFailed with what went wrong."""
        temporary = Path(tempfile.mkdtemp(prefix="vmtest-build-"))
        command = ["sh", "-c", 'cd "$0" && exec "$@"', str(self.source), *argv]
        environment = _environment(temporary)
        begin = self.log.stat().st_size
        process = Supervised.start([*command, f"O={self.folder}"], environment, temporary)
        try:
            with self.log.open("ab") as log:
                while True:
                    if self.progress is not None:
                        self.progress(0, 0)  # how much is to come nobody knows; it may end us
                    if not select.select([process.descriptor], [], [], 0.5)[0]:
                        continue
                    data = os.read(process.descriptor, 1 << 16)
                    if not data:
                        break
                    log.write(data)
            status = process.wait()
        finally:
            process.end()
            process.close()
            remove_tree(temporary)
        with self.log.open("rb") as log:
            log.seek(begin)
            text = log.read().decode("utf-8", "replace")
        if status == 0:
            return
        if "No space left" in text:
            raise disk_full(self.folder, f"{self.name}: building the kernel")
        raise BuildFailed(
            f"{self.name}: the build ended with status {status}: {first_error(text)}; "
            f"the whole log is {self.log}"
        )


def _environment(temporary: Path) -> Mapping[str, str]:
    """For a build that depends on nothing of the user's: no config of his for virtme-ng."""
    environment = vng_environment(os.environ, find_vng(), temporary)
    cache = os.environ.get("CCACHE_DIR", str(Path.home() / ".cache" / "ccache"))
    masquerade = Path("/usr/lib/ccache")
    if shutil.which("ccache") is not None and masquerade.is_dir():
        environment["PATH"] = f"{masquerade}:{environment['PATH']}"
    for name in ("KBUILD_OUTPUT", "KCONFIG_CONFIG", "MAKEFLAGS", "ARCH", "CROSS_COMPILE"):
        environment.pop(name, None)
    return {
        **environment,
        "HOME": str(temporary),
        "CCACHE_DIR": cache,
        "LC_ALL": "C",
        # The same source gives the same kernel, and ccache's hits do not depend on the time.
        "KBUILD_BUILD_USER": "vmtest",
        "KBUILD_BUILD_HOST": "vmtest",
        "KBUILD_BUILD_TIMESTAMP": "2000-01-01",
    }


def differences(requested: str, final: str) -> list[str]:
    """What ``requested`` asks for and the .config ``final`` does not have, a line a symbol.

    ``# CONFIG_X is not set`` asks that it be off; of several lines the last one holds.
    """
    wanted: dict[str, str] = {}
    for line in requested.splitlines():
        words = line.strip().removeprefix("# ")
        if words.startswith("CONFIG_") and words.endswith(" is not set"):
            wanted[words.removeprefix("CONFIG_").removesuffix(" is not set")] = "n"
        else:
            wanted.update(parse(line))
    config = parse(final)
    return [
        f"CONFIG_{symbol}={value} was asked for and it is {config.get(symbol, 'not set')}"
        for symbol, value in wanted.items()
        if config.get(symbol, "n") != value
    ]


def first_error(text: str) -> str:
    """The line of a build's output that says what is wrong: the compiler's first, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for mark in _ERROR_MARKS:
        for line in lines:
            if mark in line:
                return line[:300]
    return lines[-1][:300] if lines else "it says nothing"
