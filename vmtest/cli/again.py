"""The command line as a matrix remembers it: what decides what runs and how it is judged."""

from __future__ import annotations

from enum import Enum
from typing import Any

import typer

from vmtest.model.secrets import without_shapes, words_without_secrets
from vmtest.report.again import as_argument

_NOT_NEEDED = (
    # The kernel is named each time.
    "kernel", "shard", "balance",
    # What is shown, written and judged later, and how many at once.
    "jobs", "durations", "junit_file", "markdown_file", "json_file", "html_file", "csv", "save",
    "from_run", "color", "quiet", "verbose", "github", "shell_on_failure",
    # What an exec ran is in the matrix, and so is what a watch did.
    "command", "what", "bell", "notify",
)  # fmt: skip


def again(context: typer.Context) -> tuple[tuple[str, ...], ...]:
    """The command, then each option that was given with its value, as ``Matrix.again`` has it."""
    groups: list[tuple[str, ...]] = [(str(context.info_name),)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in _NOT_NEEDED or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if parameter.param_type_name == "argument":
            given = [str(word) for word in value or ()]
            groups += (
                [("--", *given)]
                if name == "pytest_options"
                else [(as_argument(word),) for word in given]
            )
        elif isinstance(value, bool):
            of = parameter.opts if value else parameter.secondary_opts
            groups += [(max(of, key=len),)] if of else []
        else:
            every = value if isinstance(value, list | tuple) else [value]
            option = max(parameter.opts, key=len)
            groups += [(option, _word(one)) for one in every]
    return tuple(_without_secrets(group) for group in groups if group != ("--",))


def _without_secrets(group: tuple[str, ...]) -> tuple[str, ...]:
    """No option of vmtest's own is named after a secret: ``--object auth=a.o`` has none."""
    if group[0] == "--":
        return tuple(words_without_secrets(group))
    return tuple(map(without_shapes, group))


def _word(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)
