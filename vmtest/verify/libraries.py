"""One order for several versions of libbpf, each of which loads every object: pure.

A load is told by its object's name; with several versions that name says by which one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from vmtest.model.loads import LoadResult, row_of
from vmtest.verify.process import Order


def across(order: Order, versions: Sequence[str]) -> Order:
    """``order`` with each object once for each version; as it is for one, or for none."""
    if len(versions) < 2:
        return order
    objects = (replace(wanted, libbpf=v) for wanted in order.objects for v in versions)
    return replace(order, objects=tuple(objects))


def digests(
    objects: Iterable[tuple[str, str]], versions: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Name and sha256 of each object, by the names that the loads of :func:`across` have."""
    if len(versions) < 2:
        return tuple(objects)
    return tuple((row_of(name, v), sha256) for name, sha256 in objects for v in versions)


def side_by_side(loads: Iterable[LoadResult], order: Order) -> tuple[LoadResult, ...]:
    """``loads`` in the order of the objects; what is of none of them stays in front."""
    place = {wanted.row: number for number, wanted in reversed([*enumerate(order.objects)])}
    return tuple(sorted(loads, key=lambda load: place.get(load.object, -1)))
