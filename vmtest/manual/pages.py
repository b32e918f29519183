"""The pages of the documentation, each by its topic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmtest.config.suggest import suggestion
from vmtest.errors import UsageError
from vmtest.manual.generate import filled

_PACKAGED = Path(__file__).parent / "pages"
_REPOSITORY = Path(__file__).parents[2] / "docs"
_KINDS = ("tutorial", "how-to", "reference", "explanation")


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its topic (the file's name), its title, and what kind of page it is."""

    topic: str
    title: str
    kind: str
    path: Path

    def text(self) -> str:
        """Its Markdown, with what is taken from the code."""
        return filled(self.path.read_text(encoding="utf-8"))


def pages() -> tuple[Page, ...]:
    """All pages: the tutorial first, then tasks, reference, explanation."""
    folder = _PACKAGED if _PACKAGED.is_dir() else _REPOSITORY
    found = [(kind, path) for kind in _KINDS for path in sorted((folder / kind).glob("*.md"))]
    # "explanation" and "reference" have a page beside the folders, too.
    found += [("reference", folder / "api.md"), ("explanation", folder / "architecture.md")]
    kept = [(kind, path) for kind, path in found if path.name != "index.md" and path.is_file()]
    order = sorted(kept, key=lambda one: _KINDS.index(one[0]))
    return tuple(Page(path.stem, _title(path), kind, path) for kind, path in order)


def page(topic: str) -> Page:
    """The page ``topic``; raises UsageError, with the nearest, when there is none."""
    known = {one.topic: one for one in pages()}
    if topic not in known:
        raise UsageError(f"there is no page {topic!r}{suggestion(topic, known)}")
    return known[topic]


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next(lines, "").strip("# \n")
