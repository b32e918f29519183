"""A kernel's git tree of the user's, which is only ever read: revisions, state, own worktrees.

Our repository borrows the user's objects (gitrepository-layout(5), objects/info/alternates)
and has worktrees of its own: nothing is registered, written or locked in the user's.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import ensure, remove_tree, require_tool, sha256_json, write_text
from vmtest.host.git import run_git
from vmtest.model.versions import KernelVersion

# The same state gives the same commit, whenever and by whomever.
_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (
        ("NAME", "vmtest"),
        ("EMAIL", "vmtest@localhost"),
        ("DATE", "2000-01-01T00:00:00+0000"),
    )
}

_NUMBERS = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GitTree:
    """The tree at ``path``; ``name`` is what errors call the kernel.

    ``path_from`` and ``rev_from`` say where the user wrote path and revision.
    """

    path: Path
    name: str
    path_from: str = "tree.path in kernels.toml"
    rev_from: str = "tree.rev in kernels.toml"

    def commit(self, rev: str | None) -> tuple[str, str]:
        """The commit that ``rev`` means, HEAD without one, and a note when HEAD is not all.

        Raises KernelUnavailable for a folder that is not a repository or lacks the revision.
        """
        self._check()
        if rev is not None:
            return self._resolve(rev), ""
        head = self._resolve("HEAD")
        changed = self.changed()
        return head, f"with {changed} changed files that are not committed" if changed else ""

    def changed(self) -> int:
        """How many files that git tracks differ from HEAD; a bare repository has none."""
        arguments = ("status", "--porcelain", "--untracked-files=no")
        return len(self._git(*arguments, missing="").splitlines())

    def top(self) -> GitTree:
        """The whole tree, where ``path`` is a folder in it."""
        self._check()
        top = self._git("rev-parse", "--show-toplevel", missing="").strip()
        return replace(self, path=Path(top) if top else self.path)

    def snapshot(self, repository: Path) -> str:
        """The present state as a commit in our ``repository``; the user's index is not touched.

        It is HEAD with the changes to files that git tracks; other files are not in it.
        """
        index = self._place("index")
        with tempfile.TemporaryDirectory(prefix="vmtest-index-") as folder:
            own = Path(folder) / "index"
            shutil.copyfile(index, own)
            environment = {
                **_IDENTITY,
                "GIT_INDEX_FILE": str(own),
                "GIT_OBJECT_DIRECTORY": str(repository / "objects"),
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self._objects()),
            }
            self._git("add", "--update", ":/", environment=environment)
            tree = self._git("write-tree", environment=environment).strip()
            head = self._resolve("HEAD")
            message = "the present state of the tree"
            arguments = ("commit-tree", tree, "-p", head, "-m", message)
            return self._git(*arguments, environment=environment).strip()

    def version(self, commit: str, repository: Path) -> KernelVersion:
        """The version in the Makefile of ``commit``; raises KernelUnavailable for no kernel."""
        text = self.run("--git-dir", str(repository), "show", f"{commit}:Makefile", missing="")
        found = dict(_NUMBERS.findall(text))
        try:
            number = f"{found['VERSION']}.{found['PATCHLEVEL']}.{found['SUBLEVEL'] or 0}"
            return KernelVersion.parse(number + found["EXTRAVERSION"].strip())
        except (KeyError, ValueError):
            raise KernelUnavailable(
                f"{self.name}: {self.path} at {commit[:12]} is not a kernel tree: its Makefile has "
                f"no VERSION, PATCHLEVEL and SUBLEVEL"
            ) from None

    def repository(self, folder: Path) -> Path:
        """Our repository in ``folder``, made when it is not there."""
        repository = folder / f"repository-{sha256_json(str(self.path.resolve()))[:16]}.git"
        if not (repository / "HEAD").is_file():
            ensure(folder)
            self.run("init", "--quiet", "--bare", str(repository))
        _have(repository / "objects" / "info" / "alternates", f"{self._objects()}\n")
        # Where the history of a shallow clone ends is not told by its objects.
        shallow = self._place("shallow")
        _have(repository / "shallow", shallow.read_text() if shallow.is_file() else "")
        return repository

    def check_out(self, repository: Path, commit: str, worktree: Path) -> None:
        """Have our ``worktree`` hold ``commit``; files that do not change keep their time."""
        link = worktree / ".git"
        if link.is_file():
            # Nobody else is in it: a lock is that of a git that was killed. What it had
            # written already git sees; all files anew would be the whole build anew.
            own = Path(link.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
            for lock in own.glob("*.lock"):
                lock.unlink()
            try:
                self.run("-C", str(worktree), "reset", "--quiet", "--hard", commit)
                return
            except KernelUnavailable:
                remove_tree(worktree)
        self.run("--git-dir", str(repository), "worktree", "prune")
        arguments = ("worktree", "add", "--quiet", "--detach", str(worktree), commit)
        self.run("--git-dir", str(repository), *arguments)

    def _check(self) -> None:
        if not self.path.is_dir():
            raise KernelUnavailable(
                f"{self.name}: {self.path}: no such folder; correct {self.path_from}"
            )
        if not self._git("rev-parse", "--git-dir", missing="").strip():
            raise KernelUnavailable(
                f"{self.name}: {self.path} is not a git repository; {self.path_from} has to be a "
                f"clone of a kernel's (for a kernel that is built already see path)"
            )

    def _resolve(self, rev: str) -> str:
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}")
        found = self._git(*arguments, missing="").strip()
        if not found:
            raise KernelUnavailable(
                f"{self.name}: {self.path} has no revision {rev}{self.shallow()}; fetch it there, "
                f"or correct {self.rev_from}"
            )
        return found

    def shallow(self) -> str:
        """What to say of history that is missing: "" of a whole clone."""
        place = self._place("shallow")
        return " (it is a shallow clone: git fetch --unshallow)" if place.is_file() else ""

    def _objects(self) -> Path:
        return self._place("objects")

    def _place(self, name: str) -> Path:
        """Where the user's git has ``name``."""
        arguments = ("rev-parse", "--path-format=absolute", "--git-path", name)
        return Path(self._git(*arguments).strip())

    def _git(
        self, *arguments: str, environment: dict[str, str] | None = None, missing: str | None = None
    ) -> str:
        return self.run("-C", str(self.path), *arguments, environment=environment, missing=missing)

    def run(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        missing: str | None = None,
        accepted: Sequence[int] = (0,),
    ) -> str:
        """What git writes; when it fails ``missing``, and without that KernelUnavailable.

        It fails when it ends with none of the statuses ``accepted``.
        """
        tool = require_tool("git", "git", "to read a kernel's tree")
        done = run_git(tool, *arguments, environment=environment)
        if done.returncode in accepted:
            return done.stdout
        if missing is not None:
            return missing
        words = done.stderr.strip().splitlines() or [f"git ended with status {done.returncode}"]
        raise KernelUnavailable(f"{self.name}: {self.path}: {words[-1]}")


def _have(file: Path, text: str) -> None:
    """Have ``file`` hold ``text``, "" being no file; whoever reads it meanwhile sees all of it."""
    if not text:
        file.unlink(missing_ok=True)
    elif not file.is_file() or file.read_text(encoding="utf-8") != text:
        write_text(file, text)
