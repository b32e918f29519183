"""git, as every part of vmtest runs it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vmtest.host.cache import find_tool


def run_git(
    tool: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What ``tool``, git's path, ends with and says, in English; it asks nobody anything.

    Variables such as GIT_DIR, which git gives its hooks, would mean another repository: they are
    left out.  ``environment`` is added.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        [tool, "--no-optional-locks", *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**clean, "LC_ALL": "C", **(environment or {})},
        stdin=subprocess.DEVNULL,
    )


@dataclass(frozen=True, slots=True)
class Checkout:
    """The commit that a folder's repository has checked out.

    ``dirty`` says whether a file that git knows differs from it; ``branch`` is "" where no branch
    is checked out.
    """

    commit: str
    dirty: bool
    branch: str = ""


def checkout_of(folder: Path) -> Checkout | None:
    """What is checked out in ``folder``; None outside of git, without git, without a commit."""
    tool = find_tool("git")
    if tool is None:
        return None
    head = run_git(tool, "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD")
    if head.returncode != 0:
        return None
    told = ("status", "--porcelain", "--untracked-files=no")
    changes = run_git(tool, "-C", str(folder), *told)
    branch = run_git(tool, "-C", str(folder), "symbolic-ref", "--quiet", "--short", "HEAD")
    dirty = changes.returncode != 0 or bool(changes.stdout.strip())
    return Checkout(head.stdout.strip(), dirty, branch.stdout.strip() or _branch_in_ci())


def _branch_in_ci() -> str:
    """The branch that a CI system has a commit of checked out; "" where it does not say."""
    names = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BRANCH_NAME")
    return next(filter(None, map(os.environ.get, names)), "") if os.environ.get("CI") else ""
