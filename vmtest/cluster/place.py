"""Where a matrix is to run, in the words of ``--on``.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vmtest.errors import UsageError

FORMS = "local:N, ssh:HOST[:N],HOST[:N],..., tcp://SCHEDULER:PORT or tls://SCHEDULER:PORT"
SSH = "ssh:"
COMMAND = "ssh-worker"
"""The hidden command of vmtest that is run on a host by SSH."""
_LOCAL = re.compile(r"local:([1-9]\d{0,2})")
_ADDRESS = re.compile(r"(?:tcp|tls)://(?:[^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):([1-9]\d{0,4})")
# Nothing that ssh would take for an option.
_HOST = re.compile(
    r"((?:\w[\w.-]*@)?(?:\w[\w.-]*|\[[0-9a-fA-F:.]+(?:%\w+)?\]))(?::([1-9]\d{0,2}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class SshHost:
    """A host as ``ssh`` knows it; ``vms`` is how many it may run, 0 for what it has room for."""

    name: str
    vms: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster: the ``address`` of its scheduler, or workers to be started.

    ``workers`` is how many of this machine, ``hosts`` where else, by SSH.
    """

    text: str
    address: str = ""
    workers: int = 0
    hosts: tuple[SshHost, ...] = ()


def parse_place(text: str) -> Place:
    """The cluster that ``text`` means; raises UsageError."""
    if match := _LOCAL.fullmatch(text):
        return Place(text, workers=int(match[1]))
    if text.startswith(SSH):
        return Place(text, hosts=_hosts(text))
    match = _ADDRESS.fullmatch(text)
    if match and int(match[1]) < 1 << 16:
        return Place(text, address=text)
    raise UsageError(f"`on` {text}: write {FORMS}")


def _hosts(text: str) -> tuple[SshHost, ...]:
    found: dict[str, SshHost] = {}
    for word in text.removeprefix(SSH).split(","):
        match = _HOST.fullmatch(word)
        if match is None:
            raise UsageError(
                f"`on` {text}: {word!r} is no HOST or HOST:N, where N is how many VMs it may run; "
                "a port belongs into ~/.ssh/config"
            )
        if match[1] in found:
            raise UsageError(f"`on` {text}: names {match[1]} twice; write {match[1]}:N for N VMs")
        found[match[1]] = SshHost(match[1], int(match[2] or 0))
    return tuple(found.values())


def host_of(address: str, name: object) -> str:
    """The host of the worker with Dask's ``address`` and ``name``.

    Those by SSH are all reached through a port of this machine, and their names say the host.
    """
    known = str(name)
    if known.startswith(SSH):
        return known.removeprefix(SSH)
    return address.rpartition("://")[2].rpartition(":")[0]


def called(address: str, name: object) -> str:
    """What messages call such a worker."""
    known = str(name)
    return known.removeprefix(SSH) if known.startswith(SSH) else address
