"""A run that has ended or was ended, read back."""

from __future__ import annotations

from dataclasses import replace

from vmtest.errors import UsageError
from vmtest.model.results import Matrix, Status
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder
from vmtest.runs.rows import kept


def read_matrix(folder: RunFolder) -> Matrix:
    """The matrix of a run; what a killed runner left unsaid is read from its results files."""
    file = folder.path / "matrix.json"
    if not file.exists():
        raise UsageError(f"{folder.path} has no matrix.json, so it is not the folder of a run")
    matrix = matrix_json.loads(file.read_text(encoding="utf-8"), str(file))
    kernels = []
    for result in matrix.kernels:
        if result.status is Status.CANCELLED and not (result.tests or result.loads):
            found = kept(folder.path / result.kernel, result)
            if found != result:
                result = replace(found, reason="the runner ended before this kernel did")
        kernels.append(result)
    return replace(matrix, kernels=tuple(kernels))
