"""What GitHub's runner understands: annotations, groups, and a comment for a pull request.  Pure.

A line that begins with ``::`` is a command to the runner, whoever wrote it.  So everything that
may hold a guest's words is printed between ``stop`` and ``resume``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmtest.model.results import Matrix, exit_status
from vmtest.model.text import one_line, printable
from vmtest.report import ids, loads, markdown
from vmtest.report.causes import Cause, causes
from vmtest.report.variants import Parametrized

_SHOWN = 10  # annotations of a step that GitHub shows
_LINES = 40
_LONGEST = 1000  # characters of a command


def stop(token: str) -> str:
    """The line after which the runner obeys nothing but ``resume(token)``."""
    return f"::stop-commands::{token}"


def resume(token: str) -> str:
    """The line from which on the runner obeys again."""
    return f"::{token}::"


def group(title: str) -> str:
    """The line that begins a part of the log that is folded, until ``::endgroup::``."""
    return f"::group::{_data(one_line(title))}"


def deciding(matrix: Matrix) -> tuple[Cause, ...]:
    """The causes of ``matrix`` that decide: what a run leaves on GitHub is about these."""
    return tuple(cause for cause in causes(ids.in_project(matrix)) if cause.decides)


def annotated(found: Sequence[Cause], folder: str = "") -> tuple[str, ...]:
    """A line for each cause, at its place in the project.

    ``folder`` is that of kernels.toml in the repository, "" for its top.
    """
    lines = [_annotation(cause, folder) for cause in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"::notice::and {len(found) - _SHOWN} more causes; the summary has all")
    return tuple(lines)


def _annotation(cause: Cause, folder: str) -> str:
    where = ", ".join(printable(kernel.kernel) for kernel in cause.kernels)
    test = next((test for _, test in cause.tests if test.file), None)
    at = {}
    raised = ""
    if test is not None:
        file, _, line = cause.origin.rpartition(":")
        raised = f" (raised in {cause.place})" if file else ""
        at["file"] = "/".join(part for part in (folder, file or test.file) if part)
        if file or test.line:
            at["line"] = line if file else str(test.line)
    label = cause.labels[0] if cause.labels else cause.mark.text
    at["title"] = f"{label} on {where}"
    pairs = ",".join(f"{name}={_property(one_line(text))}" for name, text in at.items())
    more = len(cause.labels) - 1
    message = cause.message + raised + (f" (and {more} more)" if more > 0 else "")
    return f"::error {pairs}::{_data(one_line(message, 1000))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def comment(matrix: Matrix, found: Sequence[Cause]) -> str:
    """A comment on ``matrix`` for a pull request; "" where everything passed, at the old cost.

    ``found`` are the causes that decide.
    """
    changes = loads.changed(matrix)
    if not changes and exit_status(matrix) == 0:
        return ""
    lines = [f"### {markdown.headline(matrix)}", ""]
    parametrized = Parametrized(ids.in_project(matrix))
    lines += _listed(f"- {markdown.cause_line(cause, parametrized)}" for cause in found)
    if changes:
        lines += ["", "| change | on |", "|---|---|"]
        lines += _listed(
            f"| {markdown.escaped(change.mark)} {markdown.code(change.text, table=True)} "
            f"| {markdown.escaped(', '.join(change.kernels))} |"
            for change in changes
        )
    return "\n".join([*lines, ""])


def _listed(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    if len(every) <= _LINES:
        return every
    return [*every[:_LINES], f"\n... and {len(every) - _LINES} more"]
