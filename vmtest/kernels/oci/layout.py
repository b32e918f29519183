"""From an OCI image in a folder to a store entry: image, config and modules out of its layers."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import FULL
from vmtest.host.packed import DAMAGED, opened, unpack_limit
from vmtest.host.tarstream import TooLarge, open_stream, regular
from vmtest.kernels.store.entry import finish, wanted_in_modules
from vmtest.kernels.store.store import Manifest
from vmtest.model.releases import is_member, is_release

IMAGE_LIMIT = 8 << 30
"""What the layers of an image may unpack to together, in bytes."""
# Images have them in the root (boot/vmlinuz) or in a folder of their own (data/kernels/6.6).
_BOOT = re.compile(r"(?:^|/)boot/(vmlinuz|config)(?:-([^/]+))?$")
_MODULES = re.compile(r"(?:^|/)lib/modules/([^/]+)/(.+)$")


def fill(image: Path, entry: Path, *, name: str, digest: str, origin: str) -> Manifest:
    """Complete the store entry ``entry`` from the OCI layout in the folder ``image``.

    ``digest`` is the sha256 of its manifest, in hex.  Raises KernelUnavailable for an image that
    is damaged, or does not hold exactly one kernel.
    """
    found = entry.parent / "found"
    found.mkdir()
    try:
        left = IMAGE_LIMIT
        for layer in _layers(image):
            left -= _unpack(layer, found, entry, left)
    except (*DAMAGED, tarfile.TarError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise  # the store's to say
        raise KernelUnavailable(f"{name}: {origin} cannot be unpacked: {error}") from error
    except (ValueError, KeyError, TypeError, TooLarge) as error:
        raise KernelUnavailable(f"{name}: {origin} is refused: {error}") from error
    kernels = sorted(found.glob("vmlinuz*"))
    if len(kernels) != 1:
        names = ", ".join(kernel.name for kernel in kernels) or "none"
        raise KernelUnavailable(
            f"{name}: {origin} has to hold one kernel (boot/vmlinuz or boot/vmlinuz-RELEASE), and "
            f"has {names}"
        )
    config = next(iter(sorted(found.glob("config*"))), None)
    modules = entry / "lib" / "modules"

    def same(release: str) -> None:
        others = [place.name for place in modules.glob("*") if place.name != release]
        if others:
            raise KernelUnavailable(
                f"{name}: the kernel in {origin} is {release} and its modules are for {others[0]}"
            )

    return finish(
        entry,
        kernels[0],
        name=f"{name}: {origin}",
        version=None,
        digest=digest,
        origin=origin,
        config=None if config is None else config.read_text(encoding="utf-8", errors="replace"),
        check=same,
    )


def _layers(image: Path) -> Iterator[Path]:
    index = json.loads((image / "index.json").read_text(encoding="utf-8"))
    (described,) = index["manifests"]
    manifest = json.loads(_blob(image, described["digest"]).read_text(encoding="utf-8"))
    for layer in manifest["layers"]:
        yield _blob(image, layer["digest"])


def _blob(image: Path, digest: str) -> Path:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f"it names a part {digest[:80]!r}, which is not a sha256")
    return image / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _unpack(layer: Path, found: Path, entry: Path, most: int) -> int:
    """Write what is kept of a layer, which may unpack to ``most`` bytes; what it unpacked to."""
    limit = min(most, unpack_limit(layer.stat().st_size))
    with opened(layer) as stream, open_stream(stream, limit) as tar:
        for member in tar:
            target = _target(member.name, found, entry) if regular(member) else None
            content = tar.extractfile(member) if target is not None else None
            if target is None or content is None:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
        return tar.offset


def _target(member: str, found: Path, entry: Path) -> Path | None:
    """Where a file of a layer goes, None for what is not kept; ValueError for a forged name."""
    if ".." in member.split("/"):
        return None
    if match := _BOOT.search(member):
        kind, release = match.groups()
        if release is not None and not is_release(release):
            return None  # vmlinuz-RELEASE.old, for one
        return found / (f"{kind}-{release}" if release else kind)
    match = _MODULES.search(member)
    if match is None or not wanted_in_modules(match[2]):
        return None
    if not is_release(match[1]) or not is_member(match[2]):
        raise ValueError(f"it holds {member[:120]!r}, a name that no kernel's file has")
    return entry / "lib" / "modules" / match[1] / match[2]
