"""``[[suite]]`` of kernels.toml: what is wrong with its folders, and the ``Suite`` it comes to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmtest.config.schema import SuiteTable
from vmtest.model.project import Suite


def suite_of(suite: SuiteTable, base: Path) -> Suite:
    """The suite of a table in a file in ``base``."""
    name, objects, network = suite.name, tuple(suite.objects), suite.network
    tests = _folder(base, suite.tests)
    if suite.root is None:
        return Suite(name, tests, objects, network)
    root = _folder(base, suite.root)
    return Suite(
        name,
        tests,
        objects,
        network,
        root,
        tuple(_folder(root, folder) for folder in suite.pythonpath),
        tuple(suite.include),
        tuple(suite.exclude),
    )


def wrong_roots(suites: Sequence[SuiteTable], file: Path) -> Iterator[str]:
    """What is wrong with ``root`` of the ``suites`` of ``file``, a line each.

    One pytest runs them all, so all of them need the same.
    """
    first = next((suite for suite in suites if suite.root is not None), None)
    for suite in suites:
        place = f'{file.name}: suite "{suite.name}"'
        if suite.root is None:
            for key in ("pythonpath", "include", "exclude"):
                if getattr(suite, key):
                    yield f'{place}: {key} is about the files below root; add root = "."'
        if first is None or first.root is None:
            continue
        root = _folder(file.parent, first.root)
        if suite.root is None or _folder(file.parent, suite.root) != root:
            yield (
                f'{place}: one pytest runs all suites, and suite "{first.name}" has '
                f'root = "{first.root}"; give this one the same'
            )
            continue
        if not _folder(file.parent, suite.tests).is_relative_to(root):
            yield f'{place}: tests = "{suite.tests}" is not below root = "{suite.root}"'
        for folder in suite.pythonpath:
            if not _folder(root, folder).is_relative_to(root):
                yield f'{place}: pythonpath = "{folder}" is not below root = "{suite.root}"'


def _folder(base: Path, path: Path) -> Path:
    # Without "..": these are compared part by part, to find what lies in what, and a payload has
    # them as the places of its files.
    return Path(os.path.normpath(base / path.expanduser()))
