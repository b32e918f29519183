"""One order for several loaders, each of which loads every object: pure.

They are versions of libbpf, and other libraries.  A load is told by its object's name; that name
says which loader it was, where it is another library, or one of several versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vmtest.model.loads import LoadResult
from vmtest.verify.process import Order, Wanted


@dataclass(frozen=True, slots=True)
class Way:
    """By which loader an object is loaded: as in a `Wanted`."""

    libbpf: str = ""
    loader: str = ""


def ways(order: Order, versions: Sequence[str]) -> tuple[Way, ...]:
    """The loaders of each object, where the guest has these ``versions`` of libbpf."""
    own = [Way(libbpf=v) for v in versions] if len(versions) > 1 else [Way()]
    return (*(own if order.by_libbpf else ()), *(Way(loader=name) for name in order.loaders))


def across(order: Order, ways: Sequence[Way]) -> Order:
    """``order`` with each object once for each of ``ways``."""
    objects = (
        replace(wanted, libbpf=way.libbpf, loader=way.loader)
        for wanted in order.objects
        for way in ways
    )
    return replace(order, objects=tuple(objects))


def digests(objects: Iterable[tuple[str, str]], ways: Sequence[Way]) -> tuple[tuple[str, str], ...]:
    """Name and sha256 of each object, by the names that the loads of :func:`across` have."""
    return tuple(
        (Wanted(name, "", libbpf=way.libbpf, loader=way.loader).row, sha256)
        for name, sha256 in objects
        for way in ways
    )


def side_by_side(loads: Iterable[LoadResult], order: Order) -> tuple[LoadResult, ...]:
    """``loads`` in the order of the objects; what is of none of them stays in front."""
    place = {wanted.row: number for number, wanted in reversed([*enumerate(order.objects)])}
    return tuple(sorted(loads, key=lambda load: place.get(load.object, -1)))
