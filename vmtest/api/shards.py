"""Which part of the kernels a call is about, in the words of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmtest.errors import UsageError
from vmtest.kernels.resolve import check_patterns
from vmtest.matrix.shard import Shard
from vmtest.model.project import Config
from vmtest.runs.folder import RunFolder
from vmtest.runs.read import read_matrix


def check_choice(
    settings: Config, patterns: Sequence[str], shard: Shard | None, locked: bool = False
) -> None:
    """Raise UsageError for what is wrong with the choice of kernels, before anything is built."""
    most = check_patterns(settings, patterns, locked)
    if shard is not None:
        shard.check(most)


def shard_of(text: str | None, run: Path | None) -> Shard | None:
    """Part ``text``, such as ``2/4``, balanced by the durations in ``run``; None for the whole.

    ``run`` is a run's folder or its matrix.json.  Raises UsageError.
    """
    if text is None:
        if run is not None:
            raise UsageError("`balance` says how parts are made; name one with `shard` PART/PARTS")
        return None
    if run is None:
        return Shard.parse(text)
    folder = run.parent if run.name == "matrix.json" else run
    return Shard.parse(text, read_matrix(RunFolder(folder.absolute())))
