"""Another git revision of the project, checked out beside it for a while."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmtest.errors import UsageError
from vmtest.host.cache import require_tool
from vmtest.host.git import run_git
from vmtest.model.text import last_line


@contextmanager
def checked_out(project: Path, revision: str) -> Iterator[Path]:
    """The folder of ``project`` as it is in ``revision``, in a git worktree that ends behind.

    Raises UsageError outside of git and for a revision that git does not know.
    """
    top = Path(_git(project, revision, "rev-parse", "--show-toplevel"))
    commit = _git(
        project,
        revision,
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        f"{revision}^{{commit}}",
    )
    with tempfile.TemporaryDirectory(prefix="vmtest-") as folder:
        tree = Path(folder) / "tree"
        # A project's hooks are for its own work, not for ours.
        add = ("-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(tree), commit)
        _git(project, revision, *add)
        try:
            yield tree / project.resolve().relative_to(top)
        finally:
            _git(project, revision, "worktree", "remove", "--force", str(tree))


def _git(project: Path, revision: str, *arguments: str) -> str:
    tool = require_tool("git", "git", "to read another revision")
    done = run_git(tool, "-C", str(project), *arguments)
    if done.returncode != 0:
        said = last_line(done.stderr) or "there is no such revision"
        raise UsageError(
            f"`against` {revision}: is not a folder, and as a git revision of {project}: {said}"
        )
    return done.stdout.strip()
