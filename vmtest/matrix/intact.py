"""Whether a guest ran on what was put into the cache, and not on damaged files.

Stamps are compared before a boot.  Everything is hashed while the guest works, and stamps
are compared again at the end: so neither PASSED nor FAILED comes from a damaged file, and no
boot waits for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread

from vmtest.errors import InfrastructureError
from vmtest.host.seal import Damage, Entry, Files, inspect, stamp
from vmtest.matrix.kept import Whole
from vmtest.model.kernels import KernelImage, RootImage
from vmtest.model.results import KernelResult, Status, with_complaints
from vmtest.model.text import printable

# The root is the disk vda; a suite may have broken an ext4 of its own.
_UNREADABLE = re.compile(
    rb"(?:SQUASHFS error: |EXT4-fs error \(device vda\)|erofs:? \(device vda\): "
    rb"[^\r\n]{0,80}(?:fail|corrupt|bogus|invalid))[^\r\n]{0,200}"
)


class CacheDamaged(InfrastructureError):
    """A kernel's guest ran on damaged files, which are out of the cache by now.

    ``result`` is what became of the kernel, without what its guest said.
    """

    def __init__(self, message: str, result: KernelResult) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[type[CacheDamaged], tuple[str, KernelResult]]:
        return CacheDamaged, (str(self), self.result)


@dataclass(frozen=True, slots=True)
class _Part:
    """Files that a guest runs on; ``entry`` is None for those that are not of the cache."""

    title: str
    place: Path
    files: Files
    entry: Entry | None

    def inspect(self) -> Damage | None:
        return inspect(self.title, self.place, self.files)

    @property
    def stamp(self) -> str | None:
        return stamp(self.place, self.files)


@dataclass(frozen=True, slots=True)
class _Found:
    """Damage, and the entry of the cache that has it, if it is one."""

    damage: Damage
    entry: Entry | None


class Intact:
    """Watches over the files that a guest of ``image`` on ``root`` runs on.

    What is in ``whole`` is not hashed again while its stamp stays.
    """

    def __init__(self, image: KernelImage, root: RootImage, whole: Whole | None = None) -> None:
        self._whole = whole
        self._image = image
        self._root = root
        self._parts: list[_Part] = []
        self._restored: list[_Part] = []
        self._stamps: list[str | None] = []
        self._found: _Found | None = None
        self._thread: Thread | None = None

    def before(self) -> None:
        """Compare stamps; what they tell is :meth:`verdict`'s to say."""
        for part in (self._kernel(), self._guest()):
            if part is None:
                continue
            self._parts.append(part)
            damage = None if part.entry is None else part.entry.glance()
            if damage is not None and self._found is None:
                self._found = _Found(damage, part.entry)

    def _kernel(self) -> _Part | None:
        entry = Entry.of(self._image.image.parent.parent)
        files = None if entry is None else entry.files()
        if entry is None or files is None:
            return None
        return _Part(entry.title, entry.place, {} if isinstance(files, Damage) else files, entry)

    def _guest(self) -> _Part | None:
        path = self._root.path
        if self._root.kind != "disk" or path is None:
            return None
        entry = Entry.of(path.parent)
        if entry is not None and entry.files() is None:
            entry = None  # a folder of the user's that happens to be named as one of ours
        title = f"guest image {path}" if entry is None else entry.title
        files = None if entry is None else entry.files()
        if isinstance(files, Mapping) and files.get(path.name, (0, ""))[1] != self._root.digest:
            again = Damage(title, path.name, "was replaced after this kernel was prepared")
            self._found = _Found(again, entry)
        # By what the kernel's result will name, and not by a seal made anew meanwhile.
        return _Part(title, path.parent, {path.name: (None, self._root.digest)}, entry)

    def watch(self, entries: Iterable[Entry]) -> None:
        """Watch over ``entries`` as well, and over no others: what guests were restored from."""
        known = {part.place: part for part in self._restored}
        self._restored = []
        for entry in entries:
            files = entry.files()
            if entry.place in known:
                self._restored.append(known[entry.place])  # though it may be gone by now
            elif isinstance(files, Mapping):
                self._restored.append(_Part(entry.title, entry.place, files, entry))

    @property
    def damaged(self) -> bool:
        """Whether damage is known already."""
        return self._found is not None

    def begin(self) -> None:
        """Begin to hash everything, once."""
        if self._thread is None:
            self._thread = Thread(target=self._hash, name="intact", daemon=True)
            self._thread.start()

    def _hash(self) -> None:
        parts = self._all()
        self._stamps = [part.stamp for part in parts]
        for part, before in zip(parts, self._stamps, strict=True):
            if self._whole is not None and (part.place, before) in self._whole:
                continue
            damage = part.inspect()
            if damage is not None and self._found is None:
                self._found = _Found(damage, part.entry)
            if damage is None and self._whole is not None and part.stamp == before:
                self._whole.add(part.place, before)

    def _all(self) -> list[_Part]:
        return [*self._parts, *self._restored]

    def _look(self) -> _Found | None:
        """What of it was damaged, from before until now."""
        if not self.damaged:
            self.begin()
            assert self._thread is not None
            self._thread.join()
        if not self.damaged and self._stamps != [part.stamp for part in self._all()]:
            self._hash()
        return self._found

    def verdict(self, result: KernelResult, logs: Path) -> KernelResult:
        """``result`` if all that its guest ran on was whole, from before it until now.

        Else what a kernel on damaged files comes to.  ``logs`` holds its consoles.  Raises
        CacheDamaged when the damage was in the cache: it is removed, and the kernel can be
        run on new files.
        """
        found = self._look() or self._unreadable(result, logs)
        if found is None:
            return result
        reason = f"{found.damage}; what this kernel's guest said does not count"
        spoilt = replace(
            result,
            status=Status.INFRA_ERROR,
            reason=reason if found.entry is not None else f"{reason}; make the image again",
            tests=(),
            loads=(),
            against=None,
            changes=(),
            exit_status=None,
        )
        spoilt = with_complaints(spoilt, ())
        if found.entry is None:
            return spoilt
        try:
            found.entry.take_away()
        except InfrastructureError as error:
            return replace(spoilt, reason=f"{reason}; {error}")
        raise CacheDamaged(str(found.damage), spoilt)

    def _unreadable(self, result: KernelResult, logs: Path) -> _Found | None:
        """Damage to an image of the user's own: no digest tells, but its kernel may."""
        own = self._root.kind == "disk" and self._parts and self._parts[-1].entry is None
        if not own or result.status is Status.PASSED:
            return None
        for log in sorted(logs.glob("console*.log")):
            if match := _UNREADABLE.search(log.read_bytes()):
                line = printable(match[0].decode(errors="replace"))
                problem = f'its kernel says: "{line}"'
                return _Found(Damage(self._parts[-1].title, "", problem), None)
        return None
