"""What a host that is reached by SSH says first, and what it is told then: a line each."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from typing import Any, Self

from vmtest.cluster.order import code_digest
from vmtest.cluster.secret import Secret

SILENCE = 60.0
"""Seconds without a word of the coordinator, after which its host ends all of the run."""
_SIGN = "vmtest-worker "  # a shell's start-up files may print what they like before
_DISTRIBUTION = "vmtest"


@dataclass(frozen=True, slots=True)
class Install:
    """What is installed on one side: ``dask`` is "" where it is not, and ``why`` says so."""

    vmtest: str
    python: str
    code: str
    dask: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Hello:
    """A host's first line; its worker will listen on ``port``, which nobody else can take."""

    install: Install
    cpus: int
    memory_mib: int
    port: int

    def line(self) -> str:
        """As it travels."""
        return _SIGN + json.dumps(asdict(self))

    @classmethod
    def read(cls, line: str) -> Self | None:
        """What ``line`` made; None for any other line."""
        if not line.startswith(_SIGN):
            return None
        try:
            found: dict[str, Any] = json.loads(line.removeprefix(_SIGN))
            return cls(**{**found, "install": Install(**found["install"])})
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True, slots=True)
class Begin:
    """What a host is told: how many VMs it may run, and the run's secret.

    ``scheduler`` is a port of its own loopback address, ``contact`` one of the coordinator's.
    """

    scheduler: int
    contact: int
    vms: int
    name: str
    secret: Secret

    def line(self) -> str:
        """As it travels."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, line: str) -> Self:
        """What ``line`` made; raises ValueError."""
        try:
            found: dict[str, Any] = json.loads(line)
            return cls(**{**found, "secret": Secret(**found["secret"])})
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from error


def installed() -> Install:
    """What is installed here."""
    dask, why = "", ""
    try:
        dask = str(import_module("distributed").__version__)
    except Exception as error:  # whatever an installation that is half there raises
        why = f"{type(error).__name__}: {error}"
    version = metadata.version(_DISTRIBUTION)
    return Install(version, platform.python_version(), code_digest(), dask, why)


def differences(there: Install, here: Install) -> Iterator[str]:
    """Why a worker with ``there`` cannot work for a coordinator with ``here``, and the cure."""
    minors = [one.python.split(".")[:2] for one in (there, here)]
    both = "it has {} and here is {}; install the same vmtest there".format
    if there.vmtest != here.vmtest:
        yield both(f"vmtest {there.vmtest}", f"vmtest {here.vmtest}")
    elif there.code != here.code:
        mine = f"vmtest {here.vmtest} (sha256 {here.code[:12]})"
        yield both(f"vmtest {there.vmtest} with other files (sha256 {there.code[:12]})", mine)
    if minors[0] != minors[1]:
        yield f"it has Python {there.python} and here is {here.python}; use the same one there"
    if not there.dask:
        yield (
            f"it has no Dask ({there.why}); install the extra where its vmtest is: "
            "pip install '/path/to/vmtest[dask]'"
        )
