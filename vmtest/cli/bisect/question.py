"""What each kernel of a bisect is asked, from the options that ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.bisect.question import Work
from vmtest.cli import common
from vmtest.cli.common import say
from vmtest.cli.inputs import build_first
from vmtest.command.question import work_of_command
from vmtest.errors import UsageError
from vmtest.model.project import Config
from vmtest.suites.question import work_of_suites
from vmtest.verify import types
from vmtest.verify.question import is_configured, work_of_load


@dataclass(frozen=True, slots=True)
class Written:
    """What each kernel is to be asked, as the options have it."""

    suite: tuple[str, ...]
    expression: str | None
    verify: str | None
    command: str | None
    copy: tuple[str, ...]
    results: str | None
    types: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        suite: Sequence[str] | None,
        expression: str | None,
        verify: str | None,
        command: str | None,
        copy: Sequence[str] | None,
        results: str | None,
        types: Sequence[str] | None,
    ) -> Written:
        """The options as typer has them: None for a list that nobody gave."""
        suites, copies, told = (tuple(given or ()) for given in (suite, copy, types))
        return cls(suites, expression, verify, command, copies, results, told)

    @property
    def suites_asked(self) -> bool:
        """Whether it is the suites of kernels.toml."""
        return self.verify is None and self.command is None

    def check(self) -> None:
        """Raise UsageError when they are options of two questions."""
        tests = bool(self.suite) or self.expression is not None
        if self.verify is not None and tests:
            raise UsageError("--verify: loads an object; leave --suite and -k out")
        if self.command is not None and (tests or self.verify is not None):
            raise UsageError("--exec: runs a command; leave --suite, -k and --verify out")
        if self.verify is None and self.types:
            raise UsageError("--type: is for an object; name it with --verify OBJECT[:PROGRAM]")
        types.parse(self.types)
        if self.command is None and (self.copy or self.results is not None):
            raise UsageError("--copy, --results: are for a command; name it with --exec CMD")


def settings_for(written: Written, config: Path | None) -> Config:
    """The configuration, which only suites cannot do without; raises UsageError."""
    written.check()
    read = common.load_config if written.suites_asked else common.load_config_or_builtin
    # What is expected to fail somewhere is what a bisect is about: only outcomes count.
    return replace(read(config), known_failures=())


def work_of(settings: Config, written: Written) -> Work:
    """What each kernel is asked; raises UsageError."""
    # Once, not in every round.  A file that is named is the one that lies there.
    file = written.verify is not None and not is_configured(settings, written.verify)
    build_first(settings, say, () if file else None)
    if written.verify is not None:
        return work_of_load(settings, written.verify, written.types)
    if written.command is not None:
        return work_of_command(settings, written.command, written.copy, written.results)
    return work_of_suites(settings, written.suite, written.expression)
