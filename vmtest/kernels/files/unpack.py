"""From packages (.deb, .rpm) to a store entry: image, config and modules out of them.

dpkg-deb and bsdtar turn a package into a tar stream; nothing of it is executed, and only
regular files in the places that are known are written.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import disk_full, require_tool
from vmtest.host.debian import DebianVersion, paragraphs
from vmtest.host.packed import unpack_limit
from vmtest.host.tarstream import TooLarge, open_stream, regular
from vmtest.kernels.store.entry import finish, wanted_in_modules
from vmtest.kernels.store.store import Manifest
from vmtest.model.releases import is_member, is_release
from vmtest.model.text import last_line
from vmtest.model.versions import KernelVersion

_DEB = b"!<arch>\n"
_RPM = b"\xed\xab\xee\xdb"
_LIKE_A_RELEASE = re.compile(r"[0-9]+\.[0-9]")
_LONGEST_COMPLAINT = 1 << 20
_LARGEST_CONTROL = 64 << 20  # with its scripts and lists of files


class _Refused(Exception):
    """A package holds what no kernel's package does."""


def fill_from(
    packages: Iterable[Path],
    entry: Path,
    *,
    name: str,
    digest: str,
    origin: str,
    release: str | None = None,
    version: str | None = None,
) -> Manifest:
    """Complete the store entry ``entry`` from ``packages``, each read when it comes.

    Without ``release`` they have to hold exactly one kernel; without ``version`` it is
    that of the Debian package that holds the image, else the release.  Raises
    KernelUnavailable for a file that is not a package, is damaged, or holds no whole kernel.
    """
    read = []
    for package in packages:
        before = _images(entry)
        extract(package, entry, release, name)
        read.append(package.name)
        if version is None and _images(entry) - before:
            version = _package_version(package)
    listed = ", ".join(read)
    release = _only_image(entry, release, name, listed)
    modules = entry / "lib" / "modules"
    if not (modules / release).is_dir() and modules.is_dir():
        others = ", ".join(sorted(place.name for place in modules.iterdir()))
        raise KernelUnavailable(
            f"{name}: the image in {listed} is {release} and the modules are for {others}; "
            f"name the packages of one kernel"
        )
    raw, config = entry / f"vmlinuz-{release}", entry / f"config-{release}"
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None

    def same(found: str) -> None:
        if found != release:
            raise KernelUnavailable(
                f"{name}: the image in {listed} is called {release} and says that it is {found}; "
                f"the package is damaged"
            )

    manifest = finish(
        entry,
        raw,
        name=f"{name}: {listed}",
        version=_fitting(version, release),
        digest=digest,
        origin=origin,
        config=text,
        check=same,
    )
    raw.unlink()
    config.unlink(missing_ok=True)
    return manifest


def extract(package: Path, entry: Path, release: str | None, name: str) -> None:
    """Write what a guest needs of ``package`` into ``entry``, of the kernel ``release`` or of all.

    The image goes to ``vmlinuz-RELEASE``, the config to ``config-RELEASE``, modules to
    ``lib/modules/RELEASE``.  Raises KernelUnavailable, and InfrastructureError for a
    full disk or a missing program.
    """
    limit = unpack_limit(package.stat().st_size)
    # To a file: an unpacker that fills a pipe which nobody reads yet would wait for ever.
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            _as_tar(package, name), stdout=subprocess.PIPE, stderr=said, stdin=subprocess.DEVNULL
        ) as process,
    ):
        assert process.stdout is not None
        problem = ""
        try:
            _write_members(process.stdout, limit, entry, release)
        except (tarfile.TarError, EOFError) as error:
            problem = str(error)
        except (_Refused, TooLarge) as error:
            process.kill()
            raise KernelUnavailable(
                f"{name}: {package.name} is refused: {error}; it is damaged or forged: "
                f"get it again from where kernels are made"
            ) from error
        except BaseException:
            process.kill()
            raise
        # Read the rest, so that the unpacker ends by itself.
        while process.stdout.read(1 << 20):
            pass
        process.wait()
        said.seek(0)
        complaint = said.read(_LONGEST_COMPLAINT).decode("utf-8", "replace").strip()
    if "No space left" in complaint:
        raise disk_full(entry, f"{name}: unpacking {package.name}")
    if process.returncode != 0 or problem:
        why = last_line(complaint) or problem
        raise KernelUnavailable(f"{name}: {package.name} cannot be unpacked: {why}")


def _write_members(stream: IO[bytes], limit: int, entry: Path, release: str | None) -> None:
    with open_stream(stream, limit) as tar:
        for member in tar:
            target = target_of(member.name, entry, release) if regular(member) else None
            content = tar.extractfile(member) if target is not None else None
            if target is None or content is None:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)


def _as_tar(package: Path, name: str) -> list[str]:
    """The command that writes the files of ``package`` as a tar stream."""
    with package.open("rb") as stream:
        magic = stream.read(8)
    if magic == _DEB:
        tool = require_tool("dpkg-deb", "dpkg", "to unpack Debian's packages")
        return [tool, "--fsys-tarfile", str(package)]
    if magic.startswith(_RPM):
        tool = require_tool("bsdtar", "libarchive-tools", "to unpack .rpm packages")
        return [tool, "--create", "--format", "pax", "--file", "-", f"@{package}"]
    begins = f"begins with {magic.hex(' ')}" if magic else "is empty"
    raise KernelUnavailable(f"{name}: {package.name} is neither a .deb nor a .rpm: it {begins}")


def target_of(member: str, entry: Path, release: str | None) -> Path | None:
    """Where a file of a package goes in an entry, None for what is not kept.

    Raises _Refused for one that would be kept and has a name that no kernel's file has.
    """
    parts = [part for part in member.split("/") if part not in ("", ".")]
    if ".." in parts:
        return None
    if parts[:1] == ["usr"]:
        parts = parts[1:]
    if len(parts) == 2 and parts[0] == "boot":
        kind, _, found = parts[1].partition("-")
        kept = kind in ("vmlinuz", "config") and _wanted(found, release)
        return entry / parts[1] if kept else None
    if parts[:2] != ["lib", "modules"] or len(parts) < 4 or not _wanted(parts[2], release):
        return None
    below = "/".join(parts[3:])
    if below in ("vmlinuz", "config"):
        return entry / f"{below}-{parts[2]}"
    if not wanted_in_modules(below):
        return None
    if not is_member(below):
        raise _Refused(f"it holds {member[:120]!r}, a name that no kernel's file has")
    return entry.joinpath(*parts)


def _wanted(found: str, release: str | None) -> bool:
    """Whether files of the kernel ``found`` are kept; raises _Refused for a forged name."""
    if release is not None:
        return found == release
    if not _LIKE_A_RELEASE.match(found):
        return False
    if not is_release(found):
        raise _Refused(f"it holds a kernel called {found[:80]!r}, which no kernel is called")
    return True


def _images(entry: Path) -> set[str]:
    return {path.name.removeprefix("vmlinuz-") for path in entry.glob("vmlinuz-*")}


def _only_image(entry: Path, release: str | None, name: str, listed: str) -> str:
    images = _images(entry)
    if len(images) == 1:
        return images.pop()
    if images:
        raise KernelUnavailable(
            f"{name}: {listed} hold {len(images)} kernels: {', '.join(sorted(images))}; "
            f"name the packages of one"
        )
    wanted = f"no kernel image of {release}" if release else "no kernel image"
    raise KernelUnavailable(
        f"{name}: {listed} hold {wanted} (boot/vmlinuz-RELEASE or lib/modules/RELEASE/vmlinuz)"
    )


@contextmanager
def deb_part(package: Path, part: str) -> Iterator[IO[bytes]]:
    """The tar of a .deb's ``part``, ``fsys`` or ``ctrl``, as far as it is read.

    Raises InfrastructureError without dpkg-deb.
    """
    tool = require_tool("dpkg-deb", "dpkg", "to unpack Debian's packages")
    with subprocess.Popen(
        [tool, f"--{part}-tarfile", str(package)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.kill()


def _package_version(package: Path) -> str | None:
    """The version of a .deb, None for any other; the index of a .rpm is in its release."""
    with package.open("rb") as stream:
        if stream.read(8) != _DEB:
            return None
    control = ""
    # Not "dpkg-deb --field", which unpacks all of it to a folder first.
    with suppress(tarfile.TarError, EOFError, TooLarge), deb_part(package, "ctrl") as stream:
        control = _control(stream)
    text = next((fields.get("version", "") for fields in paragraphs(control)), "")
    # An epoch is not part of a kernel's version.
    return text.removeprefix(f"{DebianVersion(text).epoch}:") or None


def _control(stream: IO[bytes]) -> str:
    """The file ``control`` of a .deb, from the tar that it is in; "" when there is none."""
    with open_stream(stream, _LARGEST_CONTROL) as tar:
        for member in tar:
            content = tar.extractfile(member) if regular(member) else None
            if content is not None and member.name in ("control", "./control"):
                return content.read().decode("utf-8", "replace")
    return ""


def _fitting(version: str | None, release: str) -> str:
    """``version`` when it is of the series that ``release`` is of, else ``release``.

    Debian's 6.1.192 calls itself 6.1.0-56; elsewhere a package may count in its own way.
    """
    try:
        found = KernelVersion.parse(version or "")
    except ValueError:
        return release
    return found.text if found.numbers[:2] == KernelVersion.parse(release).numbers[:2] else release
