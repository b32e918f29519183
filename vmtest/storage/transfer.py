"""Entries of the cache in one file, for a host without apt or network.

A bundle is a tar.  Its first member, ``bundle.json``, lists every file with its size
and sha256; nothing else is taken from the tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from vmtest.errors import ImageError, InfrastructureError, UsageError
from vmtest.host.cache import (
    disk_errors,
    ensure,
    locked,
    megabytes,
    publish,
    read_json,
    require_space,
    safe_name,
    scratch,
    sha256_file,
    write_json,
)
from vmtest.host.seal import Entry, seal
from vmtest.host.tarstream import TooLarge, open_stream, regular
from vmtest.kernels.store.modules import index_modules
from vmtest.kernels.store.record import read_answer, read_entry
from vmtest.model.kernels import KernelImage, Progress, RootImage
from vmtest.model.releases import is_member
from vmtest.rootfs import libbpf

_SCHEMA = 1
_MANIFEST = "bundle.json"
_CHUNK = 1 << 20
_LARGEST_MANIFEST = 64 << 20
_LONGEST_NAME = 240
_KINDS = {"kernels": "kernel", "images": "image", libbpf.KIND: libbpf.KIND}


class _Image(BaseModel):
    """``image.json``: what is used of it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    size: NonNegativeInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    # Those for kernels without squashfs are made of it on each host.
    file: Literal["root.sqfs"] = "root.sqfs"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle holds: names of entries, bytes in all, and those already there."""

    kernels: tuple[str, ...]
    images: tuple[str, ...]
    libraries: tuple[str, ...]
    size: int
    already: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all entries."""
        return (*self.kernels, *self.images, *self.libraries)


def pack(
    file: Path, cache: Path, entries: Iterable[Path], progress: Progress | None = None
) -> Bundle:
    """Write ``entries``, folders relative to ``cache``, to ``file``.

    Raises InfrastructureError when it cannot be written; then ``file`` is as it was.
    """
    chosen = sorted({entry.as_posix() for entry in entries})
    names = {Path(entry).name for entry in chosen}
    paths = [p for entry in chosen for p in sorted((cache / entry).rglob("*")) if p.is_file()]
    for record in sorted((cache / "resolved").glob("*.json")):
        value = read_json(record)
        if isinstance(value, dict) and value.get("key") in names:
            paths.append(record)
    total = sum(path.stat().st_size for path in paths)
    manifest = {
        "schema": _SCHEMA,
        "entries": chosen,
        "files": {
            path.relative_to(cache).as_posix(): [path.stat().st_size, sha256_file(path)]
            for path in paths
        },
    }
    if not file.parent.is_dir():
        raise InfrastructureError(f"{file}: cannot write the bundle: {file.parent} is not a folder")
    part = file.with_name(f".{file.name}.part")
    try:
        with disk_errors(file.parent, f"{file}: writing the bundle"):
            require_space(file.parent, total, f"{file}: writing the bundle")
            with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
                text = json.dumps(manifest, sort_keys=True).encode()
                tar.addfile(_member(_MANIFEST, len(text)), io.BytesIO(text))
                done = 0
                for path in paths:
                    size = path.stat().st_size
                    with path.open("rb") as stream:
                        tar.addfile(_member(path.relative_to(cache).as_posix(), size), stream)
                    done += size
                    if progress is not None:
                        progress(done, total)
            part.rename(file)
    except OSError as error:
        raise InfrastructureError(f"{file}: cannot write the bundle: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return _summary(chosen, total)


def unpack(file: Path, cache: Path, progress: Progress | None = None) -> Bundle:
    """Bring the entries of ``file`` into ``cache``; those that are there already stay.

    Raises UsageError for a file that is not a bundle, InfrastructureError for one that is unsafe
    or incomplete;
    then nothing of it was published.
    """
    with ExitStack() as stack:
        try:
            tar = stack.enter_context(open_stream(stack.enter_context(file.open("rb"))))
            members = iter(tar)
            manifest = _manifest(file, tar, next(members, None))
        except (tarfile.TarError, TooLarge) as error:
            raise _no_bundle(file, str(error)) from error
        except FileNotFoundError as error:
            raise UsageError(f"{file}: {error.strerror}; name another file") from error
        except OSError as error:
            raise InfrastructureError(f"{file}: {error.strerror or error}") from error
        entries = [PurePosixPath(entry) for entry in manifest["entries"]]
        files: dict[str, tuple[int, str]] = {
            name: (int(size), str(digest)) for name, (size, digest) in manifest["files"].items()
        }
        total = sum(size for size, _ in files.values())
        what = f"{file}: importing the bundle"
        # In one order everywhere, so that two imports do not wait for each other.
        for entry in sorted(entries):
            stack.enter_context(locked(cache, f"{_KINDS[entry.parts[0]]}-{entry.name}"))
        stack.enter_context(locked(cache, "bundle"))
        folder = stack.enter_context(scratch(cache, "bundle"))
        with disk_errors(cache, what):
            require_space(cache, total, what)
            try:
                _extract(file, tar, members, files, folder, total, progress)
            except (tarfile.TarError, TooLarge, EOFError) as error:
                raise InfrastructureError(
                    f"{file}: the bundle is damaged: {error}; copy it here again"
                ) from error
            already = [entry for entry in entries if _whole(cache.joinpath(*entry.parts))]
            wanted = [entry for entry in entries if entry not in already]
            for entry in wanted:
                _check_entry(file, folder, entry)
                if entry.parts[0] != libbpf.KIND:  # which has its digest in its own record
                    seal(folder.joinpath(*entry.parts))
            answers = [name for name in files if name.startswith("resolved/")]
            for name in answers:
                _check_answer(file, folder / name)
            for entry in wanted:
                publish(folder.joinpath(*entry.parts), cache.joinpath(*entry.parts))
            for name in answers:
                write_json(cache / name, read_json(folder / name))
    summary = _summary([str(entry) for entry in entries], total)
    return replace(summary, already=tuple(e.name for e in already))


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


def _summary(entries: list[str], size: int) -> Bundle:
    def of(kind: str) -> tuple[str, ...]:
        return tuple(e.partition("/")[2] for e in entries if e.startswith(f"{kind}/"))

    return Bundle(of("kernels"), of("images"), of(libbpf.KIND), size)


def _no_bundle(file: Path, why: str) -> UsageError:
    return UsageError(
        f"{file}: is not a bundle of vmtest ({why}); make one with: vmtest image export FILE"
    )


def _manifest(file: Path, tar: tarfile.TarFile, first: tarfile.TarInfo | None) -> dict[str, Any]:
    """The list of what is in the bundle, checked for paths that leave the cache."""
    if first is None or first.name != _MANIFEST or not first.isreg():
        raise _no_bundle(file, f"its first member is not {_MANIFEST}")
    if first.size > _LARGEST_MANIFEST:
        raise _no_bundle(file, f"its {_MANIFEST} is over {megabytes(_LARGEST_MANIFEST)}")
    try:
        value = json.loads(cast(IO[bytes], tar.extractfile(first)).read())
        if value["schema"] != _SCHEMA:
            raise _no_bundle(file, f"its schema is {value['schema']}, this vmtest reads {_SCHEMA}")
        entries = [str(entry) for entry in value["entries"]]
        names = [str(name) for name in value["files"]]
        for size, digest in value["files"].values():
            if int(size) < 0 or len(digest) != 64:
                raise ValueError("a size or digest is impossible")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_bundle(file, f"its {_MANIFEST} cannot be read: {error}") from error
    for name in (*entries, *names):
        if not _safe(name):
            raise InfrastructureError(
                f"{file}: refused: the bundle names {name[:120]!r}, which is outside the cache or "
                f"no name of a file of vmtest's"
            )
    for entry in entries:
        kind, _, key = entry.partition("/")
        if kind not in _KINDS or key != safe_name(key) or len(key) > _LONGEST_NAME:
            raise _no_bundle(file, f"it holds {entry!r}, which is neither kernel, image nor libbpf")
    if len(set(entries)) != len(entries):
        raise _no_bundle(file, "it lists an entry twice")
    for name in names:
        parts = PurePosixPath(name).parts
        if "/".join(parts[:2]) not in entries and not (parts[0] == "resolved" and len(parts) == 2):
            raise _no_bundle(file, f"{name!r} belongs to none of its entries")
    return cast(dict[str, Any], value)


def _safe(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == name
        and is_member(name)
    )


def _extract(
    file: Path,
    tar: tarfile.TarFile,
    members: Iterator[tarfile.TarInfo],
    files: dict[str, tuple[int, str]],
    folder: Path,
    total: int,
    progress: Progress | None,
) -> None:
    left = dict(files)
    done = 0
    for member in members:
        if member.name not in left or not regular(member):
            raise InfrastructureError(
                f"{file}: refused: the bundle holds {member.name[:120]!r}, which its list does not"
            )
        size, digest = left.pop(member.name)
        if member.size != size:
            raise InfrastructureError(
                f"{file}: the bundle is damaged: {member.name} has {member.size} bytes there and "
                f"{size} in its list; copy it here again"
            )
        target = folder / member.name
        ensure(target.parent)
        seen = hashlib.sha256()
        stream = cast(IO[bytes], tar.extractfile(member))
        with target.open("xb") as out:
            while chunk := stream.read(_CHUNK):
                seen.update(chunk)
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        if seen.hexdigest() != digest:
            raise InfrastructureError(
                f"{file}: the bundle is damaged: {member.name} has not the digest it should have; "
                f"copy it here again"
            )
    if left:
        raise InfrastructureError(
            f"{file}: the bundle is damaged: {next(iter(left))} and {len(left) - 1} more files are "
            f"missing; copy it here again"
        )


def _check_entry(file: Path, folder: Path, entry: PurePosixPath) -> None:
    """Raise InfrastructureError for an entry below ``folder`` that vmtest did not make so.

    A kernel's index of modules is made anew, whatever came along.
    """
    place = folder.joinpath(*entry.parts)
    try:
        if entry.parts[0] == "images":
            _check_image(place)
            return
        if entry.parts[0] == libbpf.KIND:
            libbpf.check_entry(place)
            return
        record = read_entry(place)
        if safe_name(record.key) != entry.name:
            raise ValueError(f"entry.json: its key is {record.key[:120]!r}")
    except (OSError, ValueError) as error:
        raise InfrastructureError(
            f"{file}: refused: {entry} is not an entry of vmtest's cache: {error}; "
            "export it again where it comes from"
        ) from error
    if record.modules is not None:
        index_modules(place, record.release, f"{file}: {entry}")


def _check_answer(file: Path, answer: Path) -> None:
    try:
        read_answer(answer)
    except (OSError, ValueError) as error:
        raise InfrastructureError(
            f"{file}: refused: resolved/{answer.name} is not an answer that vmtest stored: {error}"
            "; export it again where it comes from"
        ) from error


def _check_image(place: Path) -> None:
    try:
        record = _Image.model_validate(read_json(place / "image.json"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"image.json: {where}: {first['msg']}") from None
    with (place / "root.sqfs").open("rb") as stream:
        if stream.read(4) != b"hsqs":
            raise ValueError("root.sqfs is not squashfs")
        size = stream.seek(0, os.SEEK_END)
    if size != record.size:
        raise ValueError(f"root.sqfs has {size} bytes and not {record.size}")


def _whole(place: Path) -> bool:
    """Whether an entry is in the cache already, and not damaged."""
    if place.parent.name == libbpf.KIND:
        try:
            libbpf.read_entry(place)
        except ValueError:
            return False
        return True
    if not ((place / "entry.json").is_file() or (place / "image.json").is_file()):
        return False
    entry = Entry.of(place)
    return entry is not None and entry.inspect() is None


def export_bundle(
    file: Path,
    cache: Path,
    kernels: Iterable[KernelImage] = (),
    image: RootImage | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Write kernels and a guest image to ``file``, a tar for a host without apt or network.

    With them go the answers that the sources gave, so that the other host resolves the same
    requests to them, and the versions of libbpf that the image has from packages.  Raises
    ImageError for an image that is not from the cache, and InfrastructureError when ``file``
    cannot be written.
    """
    entries = [Path(kernel.image).parents[1].relative_to(cache) for kernel in kernels]
    if image is not None:
        if image.path is None or cache not in image.path.parents:
            raise ImageError(
                f'guest image: root = "{image.path or image.kind}" is not vmtest\'s to export; '
                f'only an image built from root = "debian" is'
            )
        entries.append(image.path.parent.relative_to(cache))
        found = (libbpf.place_of(library, cache) for library in image.libraries)
        entries += [place.relative_to(cache) for place in found if place is not None]
    for name in entries:
        entry = Entry.of(cache / name)
        damage = None if entry is None else entry.take_away()
        if damage is not None:
            raise ImageError(f"{damage}: it was removed; export again, which makes it again")
    return pack(file, cache, entries, progress)


def import_bundle(file: Path, cache: Path, progress: Progress | None = None) -> Bundle:
    """Bring what :func:`export_bundle` wrote into ``cache``.

    Every file is checked against its digest before anything is published.  Raises
    UsageError for a file that is not a bundle, InfrastructureError for one that is damaged or
    unsafe.
    """
    return unpack(file, cache, progress)
