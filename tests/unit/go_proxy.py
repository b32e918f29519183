"""A folder that go takes for a module proxy (``GOPROXY=file://...``): Debian's cilium/ebpf.

The module is the source of the package, with what it needs of golang.org/x/sys.  Of the modules
that only its tests need there is a go.mod, which go reads to choose versions.
"""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

GOCODE = Path("/usr/share/gocode/src")
EBPF, SYS = "github.com/cilium/ebpf", "golang.org/x/sys"
_REQUIRED = re.compile(r"^\s*(?:require\s+)?(\S+\.\S+/\S+) (v\S+)", re.MULTILINE)


def _kept(module: Path) -> Iterator[Path]:
    """The files of a module that a program which uses it is built of."""
    for path in sorted(module.rglob("*")):
        name = path.relative_to(module)
        if path.is_file() and "testdata" not in name.parts and not name.match("*_test.go"):
            yield path


def _add(proxy: Path, module: str, version: str, requires: str | None) -> None:
    """Lay ``module`` down as ``version``: all of it, or (``requires``) a go.mod alone."""
    folder = proxy / module / "@v"
    folder.mkdir(parents=True)
    (folder / "list").write_text(f"{version}\n")
    told = {"Version": version, "Time": "2022-01-01T00:00:00Z"}
    (folder / f"{version}.info").write_text(json.dumps(told))
    if requires is not None:
        (folder / f"{version}.mod").write_text(requires)
        return
    source = GOCODE / module
    (folder / f"{version}.mod").write_bytes((source / "go.mod").read_bytes())
    with zipfile.ZipFile(folder / f"{version}.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in _kept(source):
            packed.write(path, f"{module}@{version}/{path.relative_to(source)}")


def packaged_release() -> str:
    """The release of cilium/ebpf that the package has."""
    words = ["dpkg-query", "-W", "-f", "${Version}", "golang-github-cilium-ebpf-dev"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return told.rpartition("-")[0]


def made(folder: Path, version: str) -> dict[str, str]:
    """A proxy in ``folder`` that has cilium/ebpf ``version``; the environment of go for it."""
    proxy = folder / "proxy"
    _add(proxy, EBPF, version, None)
    for module, wanted in _REQUIRED.findall((GOCODE / EBPF / "go.mod").read_text()):
        _add(proxy, module, wanted, None if module == SYS else f"module {module}\n")
    return {
        "GOPROXY": f"file://{proxy}",
        "GOSUMDB": "off",
        "GOMODCACHE": str(folder / "modules"),
    }
