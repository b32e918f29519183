"""Upstream kernels as Ubuntu builds them, by virtme-ng's own download.

virtme-ng counts whatever it finds in its folder as complete, so it is given an empty one
each time, and what it brought is compared with the archive's list of checksums.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import disk_full, require_tool, sha256_file, sha256_json
from vmtest.kernels.files.download import download
from vmtest.kernels.files.unpack import fill_from
from vmtest.kernels.source import spec_of
from vmtest.kernels.store.store import Manifest, Store
from vmtest.model.kernels import Kernel, KernelImage, MainlineSpec, Progress, Resolved
from vmtest.model.versions import KernelVersion

MIRROR_VARIABLE = "VMTEST_MAINLINE_MIRROR"
"""The environment variable that names another place than virtme-ng's."""

_SPACE = 3 << 30
_POLL = 0.1
_FETCH = """
import sys
from virtme_ng import mainline
mainline.BASE_URL = sys.argv[2]
mainline.KernelDownloader(sys.argv[1])
"""
_CHECKSUM = re.compile(r"^([0-9a-f]{64}) [ *](\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MainlineSource:
    """Builds of upstream's tags."""

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """What is asked for is exact: nobody is asked before it is fetched."""
        version = spec_of(kernel, MainlineSpec).version
        key = f"mainline-{version}"
        image = store.get(key)
        return Resolved(
            kernel=kernel,
            version=KernelVersion.parse(version) if image is None else image.version,
            key=key,
            origin=f"mainline {version}",
            cached=image is not None,
            digest="" if image is None else image.digest,
        )

    def fetch(
        self, resolved: Resolved, store: Store, progress: Progress | None = None
    ) -> KernelImage:
        """Download and unpack what ``resolved`` names; see :class:`Source`."""
        kernel = resolved.kernel
        found = store.take(resolved.key, kernel.name)
        if found is not None:
            return found
        return store.add(
            resolved.key,
            lambda entry: _fill(entry, resolved, progress),
            name=kernel.name,
            need=_SPACE,
        )


def _fill(entry: Path, resolved: Resolved, progress: Progress | None) -> Manifest:
    from virtme_ng.mainline import BASE_URL  # 0.2 s of imports that no other command needs

    name, version = resolved.kernel.name, spec_of(resolved.kernel, MainlineSpec).version
    base = os.environ.get(MIRROR_VARIABLE, BASE_URL).rstrip("/")
    require_tool("dpkg", "dpkg", "to unpack mainline kernels")
    home = entry.parent / "home"
    home.mkdir()
    _run_virtme_ng(home, name, version, base, progress)
    files = sorted(home.rglob("*.deb"))
    digests = {file.name: sha256_file(file) for file in files}
    note = _check(home, name, f"{base}/{version}", digests)
    # Beside "generic" older builds hold a kernel for low latency, which virtme-ng passes over.
    chosen = [file for file in files if "lowlatency" not in file.name]
    manifest = fill_from(
        chosen,
        entry,
        name=name,
        digest=sha256_json(sorted(digests[file.name] for file in chosen)),
        origin=resolved.origin,
    )
    return replace(manifest, note="; ".join(filter(None, (manifest.note, note))))


def _run_virtme_ng(
    home: Path, name: str, version: str, base: str, progress: Progress | None
) -> None:
    """Have virtme-ng download into ``home``, where it takes its cache to be."""
    log = home / "virtme-ng.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _FETCH, version, base],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(home)},
        )
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL)
                if progress is not None:
                    done = sum(file.stat().st_size for file in home.rglob("*.deb"))
                    progress(done, done)  # virtme-ng does not say how much is to come
        except BaseException:
            process.terminate()
            process.wait()
            raise
    text = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode == 0:
        return
    if "No space left" in text:
        raise disk_full(home, f"{name}: downloading {version}")
    raise KernelUnavailable(
        f"{name}: virtme-ng could not download {version} from {base}: {_reason(text)}; nothing was "
        f"stored: check the version, the network and the proxy settings, or name a mirror "
        f"in {MIRROR_VARIABLE}"
    )


def _reason(text: str) -> str:
    """Why a Python program ended, in a line of bearable length."""
    lines = [line for line in text.splitlines() if line.strip()] or ["it says nothing"]
    last = re.sub(r"^[\w.]+(Error|Exception|Timeout): ", "", lines[-1])
    cause = re.search(r"Caused by \w+\((?:.*?: )?[\"']?(.*?)[\"']?\)\)?$", last)
    return (cause.group(1) if cause else last)[:200].strip()


def _check(home: Path, name: str, url: str, digests: Mapping[str, str]) -> str:
    """Compare with the archive's CHECKSUMS; returns a note for the user when it has none.

    Raises KernelUnavailable for a file that is not as it says.
    """
    listing = home / "CHECKSUMS"
    for place in (f"{url}/amd64", url):  # in the order in which virtme-ng looks
        try:
            download(f"{place}/CHECKSUMS", listing, name)
        except KernelUnavailable:
            continue
        known = {n: digest for digest, n in _CHECKSUM.findall(listing.read_text(errors="replace"))}
        for file, digest in digests.items():
            wanted = known.get(Path(file).name)
            if wanted != digest:
                raise KernelUnavailable(
                    f"{name}: {place}/{file} is damaged: its sha256 is {digest} and CHECKSUMS says "
                    f"{wanted or 'nothing of it'}; nothing was stored: try again"
                )
        return ""
    return "its archive has no CHECKSUMS: only checked by unpacking"
