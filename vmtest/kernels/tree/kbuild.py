"""One build of a kernel's source in an ``O=`` folder that stays: config, ``vng --build``, make."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vmtest.errors import InfrastructureError, KernelBuildFailed
from vmtest.host.cache import disk_full, remove_tree, require_tool
from vmtest.host.plain import plain_folder
from vmtest.host.process import Supervised
from vmtest.host.virtme import find_vng, vng_environment
from vmtest.kernels.kconfig import parse
from vmtest.model.kernels import Progress

_UNDER_WAY = "under-way"
"""In the build folder while something runs there; left by one that was killed."""
_IN_FLIGHT = 60.0  # seconds that making one file takes at most
_FULL = 64 << 20  # bytes: a disk with less is full, however that is said
_LOCAL_VERSION = "LOCALVERSION=-virtme"  # as vng --build has it
_ERROR_MARKS = (" error: ", "error: ", "Error ", "*** ")


@dataclass(slots=True)
class Maker:
    """Runs the build of ``source`` in ``folder``; everything it says goes to ``log``.

    ``made`` is how many files it has made so far.
    """

    name: str
    source: Path
    folder: Path
    log: Path
    progress: Progress | None
    made: int = 0

    def configure(self, text: str) -> None:
        """Have the .config hold what ``text`` asks for; raises KernelBuildFailed when it cannot."""
        self.log.write_bytes(b"")
        _mend(self.folder)
        first = self.folder / "first.config"
        config = self.folder / ".config"
        if first.is_file():
            # Of another commit: its new symbols take their defaults. Always from the same, so
            # that what a commit's config is does not depend on which one was built before.
            if not config.is_file() or config.read_bytes() != first.read_bytes():
                shutil.copyfile(first, config)
            self.make("olddefconfig")
            if not differences(text, config.read_text(encoding="utf-8")):
                return
        # vng takes whatever .config is there for one that is complete.
        config.unlink(missing_ok=True)
        new = self.folder / "new.config"
        new.write_text(text, encoding="utf-8")
        self._run([str(find_vng()), "--verbose", "--kconfig", "--config", str(new)])
        wrong = differences(text, config.read_text(encoding="utf-8"))
        if wrong:
            first.unlink(missing_ok=True)
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise KernelBuildFailed(
                f"{self.name}: the config did not become what was asked for: {wrong[0]}{more}; "
                f"something that it depends on is missing; see {config}"
            )
        shutil.copyfile(config, first)

    def build(self) -> None:
        """Compile what has to be."""
        self._run([str(find_vng()), "--verbose", "--build"])

    def make(self, *arguments: str) -> None:
        """Run make for something that vng does not do."""
        make = require_tool("make", "make", "to build a kernel")
        self._run([make, _LOCAL_VERSION, *arguments])

    def _run(self, argv: list[str]) -> None:
        """Run ``argv`` in the source, ended with us; raises KernelBuildFailed."""
        temporary = plain_folder("vmtest-build-", short=False)
        command = ["sh", "-c", 'cd "$0" && exec "$@"', str(self.source), *argv]
        environment = _environment(temporary)
        begin = self.log.stat().st_size
        under_way = self.folder / _UNDER_WAY
        under_way.touch()
        process = Supervised.start([*command, f"O={self.folder}"], environment, temporary)
        last = b"\n"
        try:
            with self.log.open("ab") as log:
                while True:
                    if self.progress is not None:
                        self.progress(
                            self.made, 0
                        )  # how much is to come nobody knows; it may end us
                    if not select.select([process.descriptor], [], [], 0.5)[0]:
                        continue
                    data = os.read(process.descriptor, 1 << 16)
                    if not data:
                        break
                    log.write(data)
                    # As in "  CC      net/core/sock.o"; a line seldom comes with the one before.
                    self.made += (last + data).count(b"\n  ")
                    last = data[-2:]
            status = process.wait()
            under_way.unlink()
        finally:
            process.end()
            process.close()
            remove_tree(temporary)
        with self.log.open("rb") as log:
            log.seek(begin)
            text = log.read().decode("utf-8", "replace")
        if status == 0:
            return
        what = f"{self.name}: building the kernel"
        places = (self.folder, temporary.parent)  # a compiler's own files
        full = [place for place in places if shutil.disk_usage(place).free < _FULL]
        if full or "No space left" in text:
            raise disk_full([*full, self.folder][0], what)
        if "Killed signal terminated program" in text:
            raise InfrastructureError(
                f"{what}: the compiler was killed, as is done where memory runs out; end "
                f"something else, then try again; the whole log is {self.log}"
            )
        error = first_error(text).replace(f"{self.source}/", "")
        raise KernelBuildFailed(
            f"{self.name}: the build ended with status {status}: {error}; "
            f"the whole log is {self.log}"
        )


def _mend(folder: Path) -> None:
    """Have what a killed build was busy with made again: make would take it for finished.

    A compiler's output that objtool was still to change looks newer than its source.
    """
    if not (folder / _UNDER_WAY).exists():
        return
    kinds = ("*.o", "*.a", "*.ko", "vmlinux*", ".tmp_vmlinux*", "bzImage")
    made = {path: path.stat().st_mtime for kind in kinds for path in folder.rglob(kind)}
    last = max(made.values(), default=0.0)
    for path, changed in made.items():
        if changed > last - _IN_FLIGHT and path.is_file():
            path.unlink()


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
