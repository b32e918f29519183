"""Attempts over the network that failed and are made again: whoever asked is told at once.

A download that works the second time hides a mirror that is about to fail.  Who is told is a
matter of the context (contextvars), because an index or a package is asked for far below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from vmtest.model.secrets import without_secrets

Tell = Callable[[str], None]

_tell: ContextVar[Tell | None] = ContextVar("tell", default=None)


@contextmanager
def told(tell: Tell) -> Iterator[None]:
    """Have ``tell`` hear of the attempts that are made again in here, on this thread.

    A thread that starts in here hears nothing unless it runs in a copy of the context.
    """
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


@contextmanager
def kept() -> Iterator[list[str]]:
    """The lines about attempts that are made again in here; whoever is told of them still is."""
    lines: list[str] = []
    outer = _tell.get()

    def tell(line: str) -> None:
        lines.append(line)
        if outer is not None:
            outer(line)

    with told(tell):
        yield lines


def again(what: str, why: str, attempt: int, attempts: int) -> None:
    """Say that ``attempt`` of ``attempts`` failed and another is made; no password is said."""
    tell = _tell.get()
    if tell is not None:
        line = f"{what} failed: {why}; it is tried again (attempt {attempt + 1} of {attempts})"
        tell(without_secrets(line))
