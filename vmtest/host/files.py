"""The user's files that a run takes along: each is read once, so that its digest tells what ran.

An editor, a build or a git checkout may change a file while a run starts.  All kernels
of the run get the same bytes all the same.  They travel as a tar.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileContent:
    """What was in a file when it was read, and whether its owner may execute it."""

    data: bytes
    executable: bool
    sha256: str


class Files:
    """Reads each file and lists each folder once, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contents: dict[Path, FileContent] = {}
        self._lists: dict[tuple[Path, object], tuple[Path, ...]] = {}
        self._kinds: dict[str, set[Path]] = {}

    def read(self, path: Path, kind: str = "") -> FileContent:
        """The file at ``path``, reported under ``kind`` by ``digests``; raises OSError."""
        with self._lock:
            if path not in self._contents:
                with path.open("rb") as stream:
                    data = stream.read()
                    mode = os.fstat(stream.fileno()).st_mode
                digest = hashlib.sha256(data).hexdigest()
                self._contents[path] = FileContent(data, bool(mode & 0o100), digest)
            if kind:
                self._kinds.setdefault(kind, set()).add(path)
            return self._contents[path]

    def below(self, folder: Path, walk: Callable[[Path], Iterable[Path]]) -> tuple[Path, ...]:
        """What ``walk`` found in ``folder`` the first time that somebody asked."""
        with self._lock:
            asked = folder, walk
            if asked not in self._lists:
                self._lists[asked] = tuple(walk(folder))
            return self._lists[asked]

    def digests(self, directory: Path) -> dict[str, dict[str, str]]:
        """By kind, the sha256 of each file, by its path relative to ``directory``."""
        with self._lock:
            return {
                kind: {
                    os.path.relpath(path, directory): self._contents[path].sha256
                    for path in sorted(paths)
                }
                for kind, paths in sorted(self._kinds.items())
            }


def size_of(content: FileContent | bytes) -> int:
    """Bytes of what is to be a file."""
    return len(content if isinstance(content, bytes) else content.data)


def tar(members: Mapping[str, FileContent | bytes]) -> bytes:
    """An archive of files, or of what is to be in them, by their place in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, members)
    return buffer.getvalue()


def with_member(archive: bytes, name: str, data: bytes) -> bytes:
    """The tar ``archive`` with a file of ``data`` at ``name`` as well."""
    buffer = io.BytesIO(archive)
    with tarfile.open(fileobj=buffer, mode="a") as out:
        _add(out, {name: data})
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, members: Mapping[str, FileContent | bytes]) -> None:
    for name, content in members.items():
        info = tarfile.TarInfo(name)
        data = content if isinstance(content, bytes) else content.data
        executable = isinstance(content, FileContent) and content.executable
        info.mode = 0o755 if executable else 0o644
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
