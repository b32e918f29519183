"""Builds the site's pages out of docs/ and its neighbours, as a hook of mkdocs.

The README and its neighbours become pages of the site as they are, so the first page is the README.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from vmtest.manual.generate import filled

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
_EXAMPLES = [str(page.relative_to(ROOT)) for page in sorted((ROOT / "examples").rglob("README.md"))]
_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    **{page: page for page in _EXAMPLES},
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie beside docs/ in the repository."""
    from mkdocs.structure.files import File  # only a build has mkdocs

    for name, page in _PAGES.items():
        text = with_site_links((ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated; raises KeyError for a name that no function has."""
    text = filled(markdown).replace("](../../examples/", "](../examples/")
    return text.replace("](../../README.md", "](../index.md")


def with_site_links(text: str) -> str:
    """``text`` of a file that is not below docs/, with links that hold in the site."""
    text = re.sub(r"\]\(((\.\./)*)docs/", r"](\1", text).replace("](../README.md", "](../index.md")
    for name, page in _PAGES.items():
        text = text.replace(f"]({name})", f"]({page})")
    text = text.replace("](LICENSE)", "](https://spdx.org/licenses/GPL-2.0-only.html)")
    return text.replace("](vmtest/guest/LICENSE)", "](https://spdx.org/licenses/MIT.html)")
