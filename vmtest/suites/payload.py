"""A matrix's suites as one archive for the guests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from vmtest.errors import UsageError
from vmtest.host.files import FileContent, Files, size_of, tar
from vmtest.host.project import every_file, project_files, selected
from vmtest.matrix.payload import KNOWN_FAILURES, module_list
from vmtest.model.project import Suite
from vmtest.model.versions import unique
from vmtest.vm.guest_code import GUEST_ROOT, guest_code

PAYLOAD_LIMIT = 64 << 20
"""Bytes of the unpacked payload beyond which it is surely a mistake."""

_SKIPPED_FOLDERS = {"__pycache__", "node_modules"}


@dataclass(frozen=True, slots=True)
class Payload:
    """What goes into a guest: a tar archive, and where its parts lie once unpacked.

    ``suites`` are those of the configuration that were asked for; ``root`` is
    the folder that pytest's node ids are relative to, on the host; ``objects``
    has name and sha256 of each object; ``project`` is the folder that the places of tests are
    told from, ``files`` are the sha256 of those of the suites, by their paths relative to ``root``.
    """

    archive: bytes
    suites: tuple[Suite, ...]
    root: Path
    objects: tuple[tuple[str, str], ...] = ()
    project: Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def place_of(self, file: str) -> str:
        """The path in the project of ``file``, relative to the root; "" for none of the suites'.

        A guest names files as it likes.
        """
        if file not in self.files:
            return ""
        return os.path.relpath(self.root / file, self.project or self.root)

    def in_project(self, text: str) -> str:
        """``text`` with the guest's paths of the suites' files turned into the project's."""
        folder = os.path.relpath(self.root, self.project or self.root)
        own = "" if folder == "." else f"{folder}/"
        return text.replace(f"{GUEST_ROOT}/suites/", own)

    @property
    def whole(self) -> bool:
        """Whether the project went along, in which pytest then runs."""
        return _whole(self.suites)

    def guest_path(self, suite: Suite) -> str:
        """Where the tests of ``suite`` lie in the guest."""
        return _in_guest(suite.tests, self.root)

    @property
    def pythonpath(self) -> tuple[str, ...]:
        """The folders in the guest that Python is to import from, beside pytest's own."""
        return pythonpath(self.suites)

    def rewritten(self, files: Sequence[str] = ()) -> list[str]:
        """The ``files`` that pytest rewrites, as a rule, and every conftest.py.

        Without any ``files`` those of all suites.
        """
        read = files or [str(suite.tests.relative_to(self.root)) for suite in self.suites]
        return [name for name in self.files if _is_rewritten(PurePosixPath(name), read)]

    def suite_of(self, test: str) -> str:
        """The name of the suite that the node id ``test`` belongs to, "" for none."""
        # Asked three times a test: to compare Paths is a sixth of all that is done with one.
        path = str(self.root / test.split("::", 1)[0])
        for suite in self.suites:
            tests = str(suite.tests)
            if path == tests or path.startswith(f"{tests}/"):
                return suite.name
        return ""


def _is_rewritten(path: PurePosixPath, read: Sequence[str]) -> bool:
    """Whether pytest rewrites the module ``path`` where it reads these files and folders."""
    if path.name == "conftest.py" or str(path) in read:
        return path.suffix == ".py"
    named = fnmatch(path.name, "test_*.py") or fnmatch(path.name, "*_test.py")
    return named and any(path.is_relative_to(folder) for folder in read)


def suites_root(suites: Sequence[Suite]) -> Path:
    """The common folder of all suites: pytest's rootdir, whatever is selected of them.

    Without any suite it is /: nothing lies below it in a payload.
    """
    for suite in suites:
        if suite.root is not None:
            return suite.root
    folders = [suite.tests if suite.tests.is_dir() else suite.tests.parent for suite in suites]
    common = folders[0] if folders else Path("/")
    while not all(common == folder or common in folder.parents for folder in folders):
        common = common.parent
    return common


def pythonpath(suites: Sequence[Suite]) -> tuple[str, ...]:
    """The folders in the guest that the ``pythonpath`` of ``suites`` names, each once."""
    root = suites_root(suites)
    return unique(_in_guest(folder, root) for suite in suites for folder in suite.pythonpath)


def pack_suites(
    suites: Sequence[Suite],
    chosen: Sequence[Suite],
    objects: Mapping[str, Path],
    known_failures: str = "",
    files: Files | None = None,
    modules: Sequence[str] = (),
) -> Payload:
    """The payload for ``chosen`` out of the configured ``suites``, with ``objects`` by name.

    Every file beside a suite's tests goes along (conftest.py, helpers, data), the project's where
    the suite has a ``root``, and ``known_failures``, JSON for
    ``vmtest.guest.plugins.known_failures``.
    ``files`` reads them all, for every kernel of a run; ``modules`` are loaded in the guest.
    Raises UsageError for a missing object or a payload over 64 MiB.
    """
    files = files or Files()
    for suite in chosen:
        if not suite.tests.exists():
            raise UsageError(
                f'kernels.toml: suite "{suite.name}": tests = "{suite.tests}" does not exist'
            )
    root = suites_root(suites)
    members: dict[str, FileContent | bytes] = {}
    known: dict[str, str] = {}
    for suite in suites:
        for path in files_of(suite, files):
            content = files.read(path, "suites")
            name = str(path.relative_to(root))
            members[f"suites/{name}"], known[name] = content, content.sha256
    digests: dict[str, str] = {}
    for suite in chosen:
        for name in suite.objects:
            if name not in objects:
                raise UsageError(
                    f'suite "{suite.name}": there is no object "{name}" for this kernel; '
                    f'add [[object]] name = "{name}" to kernels.toml or give `objects` {name}=PATH'
                )
            content = files.read(objects[name], "objects")
            members[f"objects/{name}.o"], digests[name] = content, content.sha256
    members |= guest_code(files)
    size = sum(map(size_of, members.values()))
    if size > PAYLOAD_LIMIT:
        raise UsageError(_too_large(root, size, members, whole=_whole(suites)))
    if known_failures:
        members[KNOWN_FAILURES] = known_failures.encode()
    members |= module_list(modules)
    return Payload(tar(members), tuple(chosen), root, tuple(sorted(digests.items())), files=known)


def _whole(suites: Iterable[Suite]) -> bool:
    return any(suite.root is not None for suite in suites)


def files_of(suite: Suite, files: Files) -> Iterable[Path]:
    """The files that go along with ``suite``."""
    folder = suite.tests if suite.tests.is_dir() else suite.tests.parent
    own = files.below(folder, _files)
    root = suite.root
    if root is None:
        return own
    found = {*own, *files.below(root, project_files)}
    if suite.include:
        found |= set(selected(files.below(root, every_file), root, suite.include))
    return sorted(found - set(selected(found, root, suite.exclude)))


def _too_large(
    root: Path, size: int, members: Mapping[str, FileContent | bytes], *, whole: bool
) -> str:
    said = f"the payload below {root} has {size >> 20} MiB, more than {PAYLOAD_LIMIT >> 20}: "
    if not whole:
        return f"{said}keep a suite's tests in a folder of their own"
    parts: Counter[str] = Counter()
    for name, content in members.items():
        top, *rest = name.removeprefix("suites/").split("/", 1)
        if name.startswith("suites/"):
            parts[f"/{top}/" if rest else f"/{top}"] += size_of(content)
    part, its_size = parts.most_common(1)[0]
    return f'{said}{its_size >> 20} MiB are in "{part}"; leave out what no test needs by `exclude`'


def _in_guest(path: Path, root: Path) -> str:
    return str(PurePosixPath(GUEST_ROOT, "suites", path.relative_to(root)))


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(map(_skipped, path.relative_to(folder).parts))
    ]


def _skipped(part: str) -> bool:
    """Caches, environments, git's and our own state: nothing of it is a test's."""
    return part in _SKIPPED_FOLDERS or part.startswith(".")
