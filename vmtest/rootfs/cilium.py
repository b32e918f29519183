"""The loader that uses github.com/cilium/ebpf: our Go program, built on the host once and kept.

Which release it has is what the project's go.mod says, else Debian's package, else what is named.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.errors import UsageError
from vmtest.host import interrupt
from vmtest.host.cache import read_recorded, require_tool, safe_name, sha256_json, write_record
from vmtest.rootfs.kept import kept

KIND = "loaders"
"""The folder of the cache for loaders that were built, and the kind of its entries."""

WORD = "cilium"
NAME = "cilium/ebpf"
MODULE = "github.com/cilium/ebpf"
_PACKAGE = "golang-github-cilium-ebpf-dev"
_GOCODE = Path("/usr/share/gocode")
_SOURCE = Path(__file__).parents[1] / "guest/golang/cilium.go"
_PROGRAM = "loader"
_RECORD = "loader.json"
_REQUIRED = re.compile(rf"^\s*(?:require\s+)?{re.escape(MODULE)}\s+v(\S+)", re.MULTILINE)
_REPLACED = re.compile(rf"^\s*(?:replace\s+)?{re.escape(MODULE)}(?:\s+v\S+)?\s+=>", re.MULTILINE)
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+[0-9A-Za-z.+-]*)")
_MOST = 12  # lines of what go says


@dataclass(frozen=True, slots=True)
class OtherLoader:
    """A program that loads in a guest: ``name`` is ``cilium/ebpf 0.16.0``, for the reports.

    ``origin`` says where its library is from; ``data`` is the program.
    """

    name: str
    origin: str
    data: bytes


def check_word(wanted: str) -> None:
    """Raise UsageError unless ``wanted`` is ``cilium`` or ``cilium@VERSION``."""
    word, at, version = wanted.partition("@")
    if word != WORD or (at and not _VERSION.fullmatch(version)):
        raise UsageError(
            f"`loader` {wanted}: write libbpf, cilium, or cilium@VERSION, for example cilium@0.16.0"
        )


def take(wanted: str, directory: Path, cache: Path, log: Callable[[str], None]) -> OtherLoader:
    """The loader that ``wanted`` means for a project in ``directory``, built if ``cache`` lacks it.

    ``log`` is told of a build.  Raises UsageError where no release is known or it does not build,
    InfrastructureError without go.
    """
    check_word(wanted)
    named = _VERSION.fullmatch(wanted.partition("@")[2])
    required = None if named else _required(directory)
    packaged = None if named or required else _packaged()
    if named:
        version, origin = named[1], f"{MODULE} v{named[1]}"
    elif required:
        version, origin = required[0], f"{MODULE} v{required[0]}, as {required[1]} requires"
    elif packaged:
        version, origin = packaged.rpartition("-")[0] or packaged, f"{_PACKAGE} {packaged}"
    else:
        raise UsageError(
            f"`loader` {wanted}: which release? No go.mod in {directory} or above it requires "
            f"{MODULE}, and {_PACKAGE} is not installed; name one, for example cilium@0.16.0, or "
            f"install that package"
        )
    source = _SOURCE.read_bytes()
    recipe = [hashlib.sha256(source).hexdigest(), version, packaged or ""]
    entry = f"{WORD}-{safe_name(version)}-{sha256_json(recipe)[:16]}"

    def make(folder: Path) -> None:
        go = require_tool("go", "golang-go", f"to build the loader with {NAME}")
        log(f"building the loader with {NAME} {version}")
        (folder / "main.go").write_bytes(source)
        made = folder / "entry" / _PROGRAM
        said = _build(go, folder, made, "" if packaged else version)
        if said is not None:
            raise _not_built(version, said)
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        record = {"name": f"{NAME} {version}", "origin": origin, "loader": digest}
        write_record(folder / "entry" / _RECORD, record)

    # One that another project built is the same but for where its release was read.
    return replace(kept(cache, KIND, entry, read_entry, make), origin=origin)


def _required(directory: Path) -> tuple[str, Path] | None:
    """The release that the nearest go.mod requires, and that file; raises UsageError."""
    for folder in (directory, *directory.parents):
        file = folder / "go.mod"
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found = _REQUIRED.search(text)
        if found is None:
            return None
        if _REPLACED.search(text):
            raise UsageError(
                f"`loader` {WORD}: {file} replaces {MODULE}, which vmtest cannot follow; name a "
                f"release, for example {WORD}@{found[1]}"
            )
        if not _VERSION.fullmatch(found[1]):
            return None
        return found[1], file
    return None


def _packaged() -> str | None:
    """The version of Debian's package where it is installed."""
    if not (_GOCODE / "src" / MODULE).is_dir() or shutil.which("dpkg-query") is None:
        return None
    done = interrupt.run(["dpkg-query", "-W", "-f", "${Version}", _PACKAGE])
    return done.stdout.strip() or None if done.returncode == 0 else None


def _build(go: str, folder: Path, made: Path, version: str) -> str | None:
    """Build main.go in ``folder`` to ``made``, by that release or ("") by Debian's package.

    What go says when it fails.
    """
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOARCH": "amd64",
        "GOFLAGS": "",
        "GOWORK": "off",
        "GO111MODULE": "on" if version else "off",
    }
    words = ["build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", str(made)]
    if version:
        (folder / "go.mod").write_text(f"module loader\n\nrequire {MODULE} v{version}\n")
        words += ["-mod=mod"]
    else:
        environment["GOPATH"] = str(_GOCODE)
    done = interrupt.run([go, *words, "main.go"], merged=True, cwd=folder, env=environment)
    return done.stdout if done.returncode else None


def _not_built(version: str, said: str) -> UsageError:
    lines = [line for line in said.splitlines() if line.strip()][-_MOST:]
    told = "".join(f"\n  {line}" for line in lines)
    return UsageError(
        f"`loader` {WORD}: the loader with {NAME} {version} does not build; name another release "
        f"(`loader` {WORD}@VERSION), or mend what go says:{told}"
    )


def places(cache: Path) -> list[Path]:
    """The folders of all loaders in ``cache``, damaged ones too."""
    return sorted(path for path in (cache / KIND).glob("*") if path.is_dir())


def read_entry(place: Path) -> OtherLoader:
    """The loader in the folder ``place`` of the cache.

    Raises ValueError with the file and what is wrong with it.
    """
    record, data = read_recorded(place, _RECORD, _PROGRAM, "loader")
    return OtherLoader(str(record.get("name")), str(record.get("origin")), data)
