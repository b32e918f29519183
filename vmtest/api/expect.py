"""What a run will take, by the runs before it that did the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vmtest.matrix.plan import Plan
from vmtest.model.events import Event, Expected, KernelQueued
from vmtest.model.loads import name_of
from vmtest.runs.past import SCHEMA, Past, earlier, usual


def expected(plan: Plan) -> Iterator[Expected]:
    """The usual time of each kernel of ``plan``, where earlier runs tell it.

    They tell none of a plan that leaves out tests or programs.
    """
    if plan.narrowed:
        return
    kernels = tuple((kernel.name, "") for kernel in plan.kernels)
    now = Past(SCHEMA, "", "", "", "", False, 0, plan.command, plan.suites, kernels)
    took = usual(past for past in earlier(plan.folder, now) if _alike(past, plan))
    for name, _ in kernels:
        if name in took:
            yield Expected(name, took[name])


def _alike(past: Past, plan: Plan) -> bool:
    loaded = {name_of(row) for row, *_ in past.loads}
    return past.suites == plan.suites and loaded == set(plan.objects)


def with_expected(
    times: Iterable[Expected], hear: Callable[[Event], None]
) -> Callable[[Event], None]:
    """Hears what ``hear`` is to hear, which gets the time of each kernel once that is queued.

    Kernels are queued in the order of the table, in which they are then shown.
    """
    usual = {one.kernel: one for one in times}

    def heard(event: Event) -> None:
        hear(event)
        if isinstance(event, KernelQueued) and event.kernel in usual:
            hear(usual.pop(event.kernel))

    return heard
