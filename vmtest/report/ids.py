"""Node ids as paths of the project, so that a report names each file in one way.  Pure.

pytest's node ids are relative to the folder of the suites, and places to that of kernels.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vmtest.model.results import SCHEMA, KernelResult, Matrix, TestResult
from vmtest.report.table import split_node_id
from vmtest.report.tracebacks import own_place


def in_project(matrix: Matrix) -> Matrix:
    """``matrix`` with the folder of its suite in front of every node id.

    Reasons that name a test are told so as well.  It is the same where no result says in which
    file of the project its test is, as of a command.
    """
    folders = _folders(matrix)
    if not any(folders.values()):
        return matrix
    return replace(matrix, kernels=tuple(_placed(kernel, folders) for kernel in matrix.kernels))


def of_kernel(kernel: KernelResult) -> KernelResult:
    """``kernel`` likewise, while the others of its matrix are not known yet."""
    return in_project(Matrix(SCHEMA, "", "", 0.0, (), (kernel,))).kernels[0]


def of_test(test: TestResult) -> str:
    """The node id of ``test`` likewise, where its traceback or its place tells its file."""
    file, _, rest = test.test.partition("::")
    for path in (own_place(test).rpartition(":")[0], test.file):
        if path.endswith(f"/{file}"):
            return f"{path}::{rest}" if rest else path
    return test.test


def _folders(matrix: Matrix) -> dict[str, str]:
    """``tests/suites/``, in which the node ids of a suite begin; "" where it is not known."""
    folders: dict[str, str] = {}
    for kernel in matrix.kernels:
        for test in kernel.tests:
            if folders.get(test.suite):
                continue
            file = split_node_id(test.test)[0]
            known = file and test.file.endswith(f"/{file}")
            folders[test.suite] = test.file.removesuffix(file) if known else ""
    distinct = {folder for folder in folders.values() if folder}
    if len(distinct) == 1:  # all are relative to one folder
        return dict.fromkeys(folders, distinct.pop())
    return folders


def _placed(kernel: KernelResult, folders: Mapping[str, str]) -> KernelResult:
    paths = {test.test: folders[test.suite] + test.test for test in kernel.tests}
    reason, note = kernel.reason, kernel.note
    for name in sorted((n for n in paths if n in reason or n in note), key=len, reverse=True):
        reason, note = _named(reason, name, paths[name]), _named(note, name, paths[name])
    return replace(
        kernel,
        reason=reason,
        note=note,
        tests=tuple(replace(test, test=folders[test.suite] + test.test) for test in kernel.tests),
        splat_tests=tuple(paths.get(name, name) for name in kernel.splat_tests),
        known_splats=tuple(
            replace(one, test=paths.get(one.test, one.test)) for one in kernel.known_splats
        ),
        repeated=tuple(replace(one, test=paths.get(one.test, one.test)) for one in kernel.repeated),
    )


def _named(text: str, name: str, path: str) -> str:
    """``text`` with ``path`` for ``name``, but where another path ends with that."""
    first, *parts = text.split(name)
    for part in parts:
        first += (name if first.endswith("/") else path) + part
    return first
