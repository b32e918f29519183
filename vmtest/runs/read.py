"""A run that has ended or was ended, read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from vmtest.errors import UsageError
from vmtest.model.results import Matrix, Status
from vmtest.runs import matrix_json
from vmtest.runs.folder import PROBE, RunFolder
from vmtest.runs.rows import kept


def read_matrix(folder: RunFolder) -> Matrix:
    """The matrix of a run; what a killed runner left unsaid is read from its results files."""
    file = folder.path / "matrix.json"
    if not file.exists():
        raise UsageError(f"{folder.path} has no matrix.json, so it is not the folder of a run")
    matrix = matrix_json.read(file)
    kernels = []
    for result in matrix.kernels:
        if result.status is Status.CANCELLED and not (result.tests or result.loads):
            found = kept(folder.path / result.kernel, result)
            if found != result:
                result = replace(found, reason="the runner ended before this kernel did")
        kernels.append(result)
    return replace(matrix, kernels=tuple(kernels))


def read_facts(folder: Path) -> dict[str, Any]:
    """What run.json says of the run in ``folder``; nothing where it cannot be read."""
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def read_probes(folder: Path, matrix: Matrix) -> dict[str, str]:
    """What each kernel's probe said it can do, by kernel; those whose file can be read."""
    found = {}
    for kernel in matrix.kernels:
        try:
            text = (folder / kernel.kernel / PROBE).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):  # a name with a null character is no path
            continue
        found[kernel.kernel] = text
    return found
