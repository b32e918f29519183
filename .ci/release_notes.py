#!/usr/bin/env python3
"""Print the notes of a release: ``release_notes.py v0.1.0``. Standard library only.

The tag has to be ``v`` and the version of pyproject.toml, and CHANGELOG.md has to have
a dated section ``## VERSION (YYYY-MM-DD)``. Otherwise the exit status is 1, with the reason.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_HEADING = re.compile(r"^## (\S+)(?: \((.*)\))?$", re.MULTILINE)


def notes(tag: str, version: str, changelog: str) -> str:
    """The section of ``version``, without its heading; raises ValueError that says what to mend."""
    if tag != f"v{version}":
        raise ValueError(
            f"the tag {tag} is not v{version}, the version in pyproject.toml: "
            "correct the version and commit, or name the tag after it"
        )
    headings = list(_HEADING.finditer(changelog))
    for number, heading in enumerate(headings):
        if heading[1] != version:
            continue
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", heading[2] or ""):
            raise ValueError(
                f'CHANGELOG.md: write the date into "{heading[0]}", '
                f'as in "## {version} (2026-01-31)"'
            )
        end = headings[number + 1].start() if number + 1 < len(headings) else len(changelog)
        if not (text := changelog[heading.end() : end].strip()):
            raise ValueError(f'CHANGELOG.md: nothing stands below "{heading[0]}"')
        return text + "\n"
    raise ValueError(f'CHANGELOG.md has no section "## {version} (DATE)"')


def main(arguments: list[str]) -> int:
    """Print the notes of the tag; the exit status."""
    if len(arguments) != 1:
        print("usage: release_notes.py TAG", file=sys.stderr)
        return 2
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    try:
        print(notes(arguments[0], project["version"], changelog), end="")
    except ValueError as error:
        print(f"release_notes.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
