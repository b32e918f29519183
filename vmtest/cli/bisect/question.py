"""What each kernel of a bisect is asked, from the options that ask it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmtest.api.bisect import without_known
from vmtest.api.project import load_config, load_config_or_builtin
from vmtest.api.work import WorkRequest
from vmtest.errors import UsageError
from vmtest.model.project import Config
from vmtest.verify import types


def request_of(
    suite: Sequence[str] | None,
    expression: str | None,
    verify: str | None,
    command: str | None,
    copy: Sequence[str] | None,
    results: str | None,
    types: Sequence[str] | None,
    loader: str | None,
) -> WorkRequest:
    """The options as typer has them: None for a list that nobody gave.

    Raises UsageError when they are options of two questions.
    """
    suites, copies, told = (tuple(given or ()) for given in (suite, copy, types))
    by = loader or ""
    request = WorkRequest(suites, expression, verify, command, copies, results, told, by)
    _check(request)
    return request


def _check(request: WorkRequest) -> None:
    tests = bool(request.suites) or request.expression is not None
    if request.verify is not None and tests:
        raise UsageError("--verify: loads an object; leave --suite and -k out")
    if request.command is not None and (tests or request.verify is not None):
        raise UsageError("--exec: runs a command; leave --suite, -k and --verify out")
    if request.verify is None and request.types:
        raise UsageError("--type: is for an object; name it with --verify OBJECT[:PROGRAM]")
    if request.verify is None and request.loader:
        raise UsageError("--loader: is for an object; name it with --verify OBJECT[:PROGRAM]")
    types.parse(request.types)
    if request.command is None and (request.copy or request.results is not None):
        raise UsageError("--copy, --results: are for a command; name it with --exec CMD")


def settings_for(request: WorkRequest, config: Path | None) -> Config:
    """The configuration, which only suites cannot do without; raises UsageError."""
    return without_known((load_config if request.asks_suites else load_config_or_builtin)(config))
