"""One suite of one mirror, read by an apt of its own.

Every suite has its own apt state, so that one which is gone, expired or badly
signed fails alone.  apt checks the chain from the signed InRelease to the package;
the host's sources, lists, hooks and installed packages take no part.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from vmtest.errors import InfrastructureError, KernelUnavailable
from vmtest.host import attempts, interrupt
from vmtest.host.cache import (
    check_room,
    disk_full,
    ensure,
    require_space,
    require_tool,
    safe_name,
    sha256_file,
    sha256_json,
    write_text,
)
from vmtest.host.debian import Mirror, clean_environment, host_options, sources_text
from vmtest.host.tarstream import TooLarge
from vmtest.kernels.archive.candidates import Package
from vmtest.kernels.archive.kept import Index, PackageIndex
from vmtest.kernels.debian.index import (
    find_candidates,
    flavours,
    packages_named,
    read_packages,
)
from vmtest.kernels.files import growing
from vmtest.model.kernels import Progress

_ATTEMPTS = 3
_UPDATE_ATTEMPTS = 2
_PAUSE = 1.0
_TIMEOUT = "20"
_UPDATE_LIMIT = 600.0
_INDEX_SPACE = 100 << 20
_LOOP = "Redirection loop encountered"
_ENDLESS = "the mirror redirects without end"

_TRANSIENT = re.compile(
    r"Could not resolve|Temporary failure|Could not connect|Cannot initiate the connection|"
    r"[Cc]onnection (?:timed out|failed|refused|reset)|[Nn]etwork is unreachable|"
    r"No route to host|Unable to connect|Connection closed|Error reading from server|"
    r"Operation too slow|(?:408|425|429|5\d\d)  ?[A-Z]|Hash Sum mismatch|unexpected size|"
    r"Undetermined Error|Data socket|timed out"
)


@dataclass(frozen=True, slots=True)
class SuiteState(PackageIndex):
    """The apt state of one suite; making one does no I/O.

    ``flavour`` is that of the kernels in its index.
    """

    cache: Path
    suite: str
    mirror: Mirror
    check_valid_until: bool = True
    components: tuple[str, ...] = ("main",)
    flavour: str = "generic"

    @property
    def directory(self) -> Path:
        """Where it keeps its state."""
        of: list[object] = [self.mirror.uri, self.mirror.signed_by, self.check_valid_until]
        if self.components != ("main",):
            of.append(list(self.components))
        made_of = sha256_json(of)
        return self.cache / "apt" / f"{safe_name(self.suite)}-{made_of[:12]}"

    def packages(self, name: str) -> list[Package]:
        """The packages called ``name`` in the index that is here, the newest last."""
        texts = (file.read_text(encoding="utf-8", errors="replace") for file in self._lists())
        return [package for text in texts for package in packages_named(text, name)]

    def download(
        self,
        packages: tuple[Package, ...],
        into: Path,
        name: str,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Download ``packages`` into the empty folder ``into``, checked against the index.

        Raises KernelUnavailable, and InfrastructureError for a full disk.
        """
        total = sum(package.size for package in packages)
        for attempt in range(1, _ATTEMPTS + 1):
            done, errors = self._download_once(packages, into, total, progress)
            files = [self._downloaded(package, into) for package in packages]
            if done and all(file is not None for file in files):
                return [file for file in files if file is not None]
            # A disk that is full may have kept apt from saying so.
            if "No space left" in errors or "enough free space" in errors or _full(into):
                raise disk_full(into, f"{name}: downloading {packages[0].name}")
            if attempt == _ATTEMPTS or not _TRANSIENT.search(errors):
                break
            what = f"{name}: downloading {packages[0].name} from {self._where}"
            attempts.again(what, _reason(errors), attempt, _ATTEMPTS)
            interrupt.current().pause(_PAUSE * attempt)
        broken = ", ".join(
            f"{package.name} {package.version}"
            for package, file in zip(packages, files, strict=True)
            if file is None
        )
        why = _reason(errors) or "it arrived incomplete"
        raise KernelUnavailable(
            f"{name}: downloading {broken} from {self.suite} failed: {why}; "
            f"nothing was stored: check the network and the mirror "
            f"({self.mirror.source}) and try again"
        )

    # --- apt ---

    def _apt(self, *arguments: str) -> list[str]:
        tool = require_tool("apt-get", "apt", "to read Debian's archive")
        return [tool, *arguments]

    def _environment(self) -> dict[str, str]:
        return clean_environment({"APT_CONFIG": str(self.directory / "apt.conf")})

    def _prepare(self) -> None:
        root = ensure(self.directory)
        if '"' in str(root) or "\n" in str(root):
            raise InfrastructureError(
                f"{self.suite}: apt cannot keep its state in {str(root)!r}: its configuration "
                f"takes neither double quotes nor line breaks; set VMTEST_CACHE to another folder"
            )
        for folder in ("etc/apt.conf.d", "etc/preferences.d", "lists/partial", "cache/archives"):
            ensure(root / folder)
        (root / "status").touch()
        # For the owner alone, as apt.conf: an address may have a password.
        text = sources_text(self.mirror, self.suite, self.components)
        write_text(root / "suite.sources", text, 0o600)
        options = {
            "Dir": str(root),
            "Dir::Etc": str(root / "etc"),
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": str(root / "etc/apt.conf.d"),
            "Dir::Etc::sourcelist": str(root / "suite.sources"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": str(root / "etc/preferences.d"),
            "Dir::Etc::trusted": "/dev/null",
            "Dir::Etc::trustedparts": "/dev/null",
            "Dir::Etc::netrc": "/etc/apt/auth.conf",
            "Dir::Etc::netrcparts": "/etc/apt/auth.conf.d",
            "Dir::State": str(root),
            "Dir::State::status": str(root / "status"),
            "Dir::State::lists": str(root / "lists"),
            "Dir::Cache": str(root / "cache"),
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "0",  # apt says nothing of them: they are ours
            "Acquire::http::Timeout": _TIMEOUT,
            "Acquire::https::Timeout": _TIMEOUT,
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::Check-Valid-Until": "true" if self.check_valid_until else "false",
        }
        read_by_apt = [root, *(Path(p) for p in self.mirror.signed_by.split() if p[0] == "/")]
        if os.geteuid() == 0 and not all(_open_to_all(path) for path in read_by_apt):
            options["APT::Sandbox::User"] = "root"  # the user _apt could not reach them
        lines = [*host_options(), *(f'{key} "{value}";' for key, value in options.items())]
        # By rename: an apt that read half of it would work on the host's own state.
        # For the owner alone: a proxy may carry a password.
        write_text(root / "apt.conf", "\n".join(lines) + "\n", 0o600)

    def _update(self) -> None:
        self._prepare()
        require_space(self.cache, _INDEX_SPACE, f"{self.suite}: reading the index")
        for attempt in range(1, _UPDATE_ATTEMPTS + 1):
            done = self._update_once()
            if done.returncode == 0 and self._lists():
                self._refreshed()
                return
            if attempt < _UPDATE_ATTEMPTS and _is_transient(done.stderr):
                what = f"reading the index of {self._where}"
                attempts.again(what, _reason(done.stderr), attempt, _UPDATE_ATTEMPTS)
                interrupt.current().pause(_PAUSE)
            else:
                break
        self._refused(done)

    @property
    def _where(self) -> str:
        return f"{self.suite} at {self.mirror.uri}"

    def _update_once(self) -> subprocess.CompletedProcess[str]:
        try:
            return interrupt.run(
                self._apt("-q=1", "update"),
                env=self._environment(),
                cwd=self.directory,
                timeout=_UPDATE_LIMIT,
            )
        except subprocess.TimeoutExpired:
            reason = f"reading its index took over {_UPDATE_LIMIT / 60:.0f} min"
            raise self._failure(reason, transient=True) from None

    def _refused(self, done: subprocess.CompletedProcess[str]) -> NoReturn:
        """Raise what an update that failed says."""
        output = done.stderr
        if "No space left" in output + done.stdout:
            raise disk_full(self.directory, f"{self.suite}: reading the index")
        if _LOOP in done.stdout:  # which apt then calls a suite without a Release file
            raise self._failure(_ENDLESS, transient=False)
        # gpgv and apt keep files there, and say "not signed" when they cannot.
        check_room(Path(os.environ.get("TMPDIR") or "/tmp"), f"{self.suite}: reading the index")
        reason = _reason(output) or f"apt-get update ended with status {done.returncode}"
        raise self._failure(reason, _is_transient(output))

    def _download_once(
        self, packages: tuple[Package, ...], into: Path, total: int, progress: Progress | None
    ) -> tuple[bool, str]:
        self._prepare()
        wanted = [f"{package.name}={package.version}" for package in packages]
        log = into / "apt.log"

        def report() -> None:
            if progress is not None:
                progress(min(_bytes_in(into), total), total)

        argv, environment = self._apt("-q=2", "download", *wanted), self._environment()
        try:
            status = growing.run(argv, into, log, cwd=into, env=environment, seen=report)
        except (growing.Stalled, TooLarge) as stalled:
            return False, f"E: {stalled}"
        text = log.read_text(encoding="utf-8", errors="replace")
        log.unlink()
        return status == 0, text

    @staticmethod
    def _downloaded(package: Package, into: Path) -> Path | None:
        """The file of ``package``, None when it is missing or not what the index promises."""
        for file in into.glob(f"{package.name}_*.deb"):
            whole = file.stat().st_size == package.size
            if whole and package.sha256 in ("", sha256_file(file)):
                return file
            file.unlink()
        return None

    # --- what apt left ---

    def _lists(self) -> list[Path]:
        return sorted((self.directory / "lists").glob("*_Packages"))

    def _read(self, note: str) -> Index:
        packages: list[Package] = []
        for file in self._lists():
            status = file.stat()
            packages += _kernels_in(file, status.st_mtime_ns, status.st_size)
        found = find_candidates(packages, self.suite, self.flavour)
        return Index(self.suite, tuple(found), note, frozenset(flavours(packages)))


@lru_cache(maxsize=32)
def _kernels_in(file: Path, mtime: int, size: int) -> tuple[Package, ...]:
    return tuple(read_packages(file.read_text(encoding="utf-8", errors="replace")))


def _open_to_all(path: Path) -> bool:
    if not path.exists():
        return True
    readable = path.stat().st_mode & (stat.S_IXOTH if path.is_dir() else stat.S_IROTH)
    return bool(readable) and all(one.stat().st_mode & stat.S_IXOTH for one in path.parents)


def _full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < 1 << 20


def _bytes_in(folder: Path) -> int:
    total = 0
    for entry in folder.rglob("*"):
        try:
            if entry.name != "apt.log" and entry.is_file():
                total += entry.stat().st_size
        except OSError:
            continue  # renamed while we looked
    return total


_EXPIRED = re.compile(r"Release file for \S+ is expired \(invalid since ([^)]*)\)")
_STATUS = re.compile(r"Failed to fetch \S+\s+([345]\d\d)\s+([A-Z][^\[\n]*)")
_NO_RELEASE = re.compile(r"Clearsigned file isn't valid, got '(\w+)'")
_SIGNATURE = re.compile(r"(NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG)[^\n]*|is not signed")
_SAYS_NOTHING = re.compile(r"Some index files failed|Download is performed unsandboxed")
_FETCH = re.compile(r"^Failed to fetch \S+\s+")


def _is_transient(output: str) -> bool:
    return _TRANSIENT.search(output) is not None and not _EXPIRED.search(output)


def _reason(output: str) -> str:
    """What went wrong, from apt's output, in a line."""
    if expired := _EXPIRED.search(output):
        return f"its Release file expired {expired.group(1)} ago"
    if (status := _STATUS.search(output)) and status[1] not in ("404", "410"):
        return f"the mirror answers with HTTP status {status[1]} {status[2].strip()}"
    if status:
        return "the mirror does not have it"
    if clearsigned := _NO_RELEASE.search(output):
        return (
            f"what the mirror has as its InRelease is something else ({clearsigned[1]}); "
            "perhaps the network wants a login in a browser"
        )
    if signature := _SIGNATURE.search(output):
        return f"its signature cannot be trusted: {signature.group().strip()}"
    errors = [
        _FETCH.sub("", line.partition(":")[2].strip())
        for line in output.splitlines()
        if line.startswith(("E:", "W:"))
    ]
    telling = [line for line in errors if not _SAYS_NOTHING.match(line)]
    first = (telling or errors or [""])[0]
    if "have a Release file" in first:
        return "the mirror does not have it"
    if first.startswith(_LOOP):
        return _ENDLESS
    return first
