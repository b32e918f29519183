"""A matrix, shown: pure functions of a ``Matrix``, so that old runs render again offline.

A new way to show one is a module with a ``render`` and one line in ``REPORTERS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vmtest.model import Matrix
from vmtest.report import junit, markdown, matrix_json, terminal


class Reporter(Protocol):
    """Something that shows a matrix; the modules of this package are such."""

    def render(self, matrix: Matrix) -> str | bytes:
        """All of ``matrix``, to be written to a file as it is (text as UTF-8)."""


REPORTERS: Mapping[str, Reporter] = {
    "terminal": terminal,
    "markdown": markdown,
    "junit": junit,
    "json": matrix_json,
}
"""The reporters by the names that the command line uses."""

__all__ = ["REPORTERS", "Reporter"]
