"""Authorization as older objects have it: told by what they do, never by a version or a name.

Until January 2026 (commit 3b352445) the ports in the tuples of km_auth_req and km_auth_res were in
network order, in all of Kmesh's releases up to 1.2.0. Since then they are in host order, which is
what the suites ask for. And of a v4-mapped connection those releases delete an answer under a key
that user space never wrote: behind its IPv4 part there is what the IPv6 tuple had there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from layouts import auth_request, ends_of, tuple_of
from traffic import Address

from vmtest.guest.plugin import not_applicable

HOST, NETWORK = "<", ">"


@dataclass(frozen=True)
class Key:
    """A way to write a connection's key of km_auth_res.

    `whole`: zeros behind an IPv4 tuple, as user space has it.
    """

    order: str
    whole: bool = True


@dataclass(frozen=True)
class Habit:
    """What an object did with one connection: the order in its request, the keys it deleted.

    None: the request was none that any object known here makes.
    """

    requested: str | None
    deleted: frozenset[Key]


IN_NETWORK_ORDER = (
    Habit(NETWORK, frozenset({Key(NETWORK)})),
    Habit(NETWORK, frozenset({Key(NETWORK, whole=False)})),
)


class Habits:
    """Those of an object, by the name of the connection's family; none for our own objects."""

    def __init__(self, seen: Mapping[str, Habit]) -> None:
        self._seen = seen

    def require_host_order(self) -> None:
        """Ends a test of an object that is right about everything but the byte order."""
        if self._seen and all(habit in IN_NETWORK_ORDER for habit in self._seen.values()):
            not_applicable(
                "the ports in km_auth_req and km_auth_res are in network order in this object, as"
                " in Kmesh up to v1.2.0; host order since January 2026 is what is asked here"
            )

    def require_whole_key(self, family: str) -> None:
        """Ends a test of connections of `family` whose answers stay because of their keys."""
        if family in self._seen and self._seen[family].deleted == {Key(HOST, whole=False)}:
            not_applicable(
                "this object deletes the answer of a v4-mapped connection under a key with bytes of"
                " IPv6 behind its IPv4 part, as Kmesh v1.2.0 does; user space writes zeros there"
            )


def requested_order(
    requests: list[bytes], kind: int, client: Address, server: Address
) -> str | None:
    """The order of the ports in the only request; None if it is not one for this connection."""
    for order in (HOST, NETWORK):
        expected = auth_request(kind, ends_of(client, server, order))
        if [request[: len(expected)] for request in requests] == [expected]:
            return order
    return None


def possible_keys(client: Address, server: Address, mapped: bool) -> dict[bytes, Key]:
    """All keys of 36 B that an object may delete; `mapped`: of a v4-mapped connection."""
    keys = {tuple_of(client, server, order): Key(order) for order in (HOST, NETWORK)}
    if not mapped:
        return keys
    sides = (f"::ffff:{client[0]}", client[1]), (f"::ffff:{server[0]}", server[1])
    for order in (HOST, NETWORK):
        front = ends_of(client, server, order)
        for behind in (HOST, NETWORK):
            keys[front + ends_of(*sides, behind)[len(front) :]] = Key(order, whole=False)
    return keys
