"""Where a call's kernels run, in the words of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmtest.model.kernels import Kernel

if TYPE_CHECKING:
    from vmtest.cluster.engine import DaskEngine


@contextmanager
def engine_on(
    text: str | None, say: Callable[[str], None], kernels: Sequence[Kernel] = ()
) -> Iterator[DaskEngine | None]:
    """The engine that ``text`` means (``ssh:HOST``, ``tcp://HOST:8786``); None for this machine.

    ``say`` is told what is waited for; with ``ssh:`` each host runs as many VMs as it has room
    for, as large as the largest of ``kernels``.  Raises UsageError where Dask is not installed,
    for words that mean nothing, for a host that cannot be used and for workers that run another
    vmtest; InfrastructureError for a cluster that does not answer.
    """
    if text is None:
        yield None
        return
    # Not before somebody asks for it: most do without, and it takes its time.
    from vmtest.cluster.engine import on
    from vmtest.cluster.place import parse_place

    with on(parse_place(text), say, kernels) as engine:
        yield engine


def vms_here(text: str | None) -> bool:
    """Whether kernels run on this machine where ``text`` says where they run."""
    return text is None or text.startswith("local:")
