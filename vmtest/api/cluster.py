"""Where a call's kernels run, in the words of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmtest.cluster.engine import DaskEngine


@contextmanager
def engine_on(text: str | None, say: Callable[[str], None]) -> Iterator[DaskEngine | None]:
    """The engine that ``text`` means (``local:2``, ``tcp://HOST:8786``); None for this machine.

    ``say`` is told what is waited for.  Raises UsageError where Dask is not installed, for words
    that mean nothing and for workers that run another vmtest; InfrastructureError for a cluster
    that does not answer.
    """
    if text is None:
        yield None
        return
    # Not before somebody asks for it: most do without, and it takes its time.
    from vmtest.cluster.engine import on
    from vmtest.cluster.place import parse_place

    with on(parse_place(text), say) as engine:
        yield engine


def vms_here(text: str | None) -> bool:
    """Whether kernels run on this machine where ``text`` says where they run."""
    return text is None or text.startswith("local:")
