"""A cluster as an engine: reached or started, and checked before anything is built."""

from __future__ import annotations

import logging
import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

from vmtest.cluster import worker
from vmtest.cluster.crew import Crew, Standing
from vmtest.cluster.order import TOPIC, Call, Said, code_digest
from vmtest.cluster.place import Place
from vmtest.errors import InfrastructureError, UsageError
from vmtest.host import interrupt
from vmtest.matrix.bench import Cancellation, Emit, Hold
from vmtest.matrix.plan import Plan

RESOURCE = "vm"
"""The resource of Dask's by which a worker says how many VMs it has room for."""
CONNECT = 15.0
"""Seconds for the scheduler to answer."""
JOIN = 60.0
"""Seconds for a first worker to be there."""
_DISTRIBUTION = "vmtest"
_CERTIFICATE = ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")


def _distributed() -> ModuleType:
    """Dask's part that runs on several machines; raises UsageError where it is not installed."""
    try:
        return import_module("distributed")
    except ImportError as error:
        raise UsageError(
            f"`on` takes Dask, which is not installed here ({error}); "
            "install it with: pip install 'vmtest[dask]'"
        ) from error


class DaskEngine:
    """An engine whose slots are the workers' of a Dask cluster."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self._client = client
        self._crews: list[Crew] = []
        client.subscribe_topic(TOPIC, self._heard)

    def begin(self, plan: Plan, post: Emit, cancellation: Cancellation, hold: Hold | None) -> Crew:
        """A crew; raises UsageError for what needs the guest to be on this machine."""
        if hold is not None:
            raise UsageError("a shell takes a guest of this machine; leave `on` out")
        if plan.kept is not None:
            raise UsageError("watch keeps guests of this machine; leave `on` out")
        crew = Crew(self, plan, post, self._crews.remove)
        self._crews.append(crew)
        return crew

    def _heard(self, event: tuple[float, object]) -> None:
        """On Dask's thread: a message of a worker."""
        for crew in tuple(self._crews):
            if (said := Said.unpack(event[1], crew.run)) is not None:
                crew.heard(said)

    @property
    def slots(self) -> int:
        """How many VMs run at once on the workers that are there."""
        standing = self.standing()
        return 1 if standing is None else max(1, standing.total)

    def standing(self) -> Standing | None:
        """What workers there are; None when the scheduler cannot be reached."""
        if self._client.status != "running":
            return None
        try:
            return _standing(self._client.scheduler_info()["workers"])
        except Exception:  # whatever Dask raises when its scheduler goes away
            return None

    def submit(self, call: Call, standing: Standing, not_on: frozenset[str]) -> Any:
        """A future of Dask's; ``not_on`` are workers that did not take it."""
        where: dict[str, Any] = {}
        if not_on:
            where["workers"] = [one for one in standing.slots if one not in not_on]
        if standing.declared:
            where["resources"] = {RESOURCE: 1}
        number = f"{len(not_on)}-{time.monotonic_ns()}"
        key = f"vmtest-{call.run}-{call.kernel}-{number}"
        return self._client.submit(worker.work, call, key=key, pure=False, **where)

    def cancel(self, futures: list[Any]) -> None:
        """Have Dask drop them: each worker sees that its task is not wanted."""
        if futures and self._client.status == "running":
            with suppress(Exception):
                self._client.cancel(futures, force=True)

    def run_on(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on a worker, beside its tasks; raises what it raises."""
        return self._client.run(function, *arguments, workers=[address])[address]

    def ignore_interrupts(self) -> None:
        """Have workers of this machine leave Ctrl-C to this process."""
        self._client.run(worker.ignore_interrupts)

    def check(self) -> None:
        """Raise UsageError for a worker that runs another vmtest or another Python."""
        run = self._client.run
        mine = metadata.version(_DISTRIBUTION)
        for address, found in run(metadata.version, _DISTRIBUTION, on_error="return").items():
            if found != mine:
                there = found if isinstance(found, str) else "none"
                raise _differs(address, f"vmtest {there}", f"vmtest {mine}")
        for address, found in run(platform.python_version, on_error="return").items():
            if _minor(str(found)) != _minor(platform.python_version()):
                raise _differs(address, f"Python {found}", f"Python {platform.python_version()}")
        own = code_digest()
        for address, found in run(code_digest, on_error="return").items():
            if found != own:
                there = found[:12] if isinstance(found, str) else f"unknown: {found}"
                theirs = f"vmtest {mine} with other files (sha256 {there})"
                raise _differs(address, theirs, f"vmtest {mine} (sha256 {own[:12]})")


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _differs(address: str, theirs: str, ours: str) -> UsageError:
    return UsageError(
        f"worker {address} has {theirs}, and here is {ours}; install the same there, and start the "
        "worker again"
    )


def _standing(workers: Mapping[str, Mapping[str, Any]]) -> Standing:
    """The VM slots of each worker: its resource, where any declares it, else its threads."""
    fit = {at: info for at, info in workers.items() if info.get("status", "running") == "running"}
    declared = any(RESOURCE in info.get("resources", {}) for info in fit.values())
    slots = {}
    for address, info in fit.items():
        threads = int(info["nthreads"])
        room = int(info.get("resources", {}).get(RESOURCE, 0)) if declared else threads
        if min(room, threads) > 0:
            slots[address] = min(room, threads)
    return Standing(slots, declared)


@contextmanager
def on(place: Place, say: Callable[[str], None] = lambda line: None) -> Iterator[DaskEngine]:
    """The engine of ``place``, whose workers run what this vmtest is.

    ``say`` is told what is waited for.  Raises UsageError, and InfrastructureError for a scheduler
    that cannot be reached or has no worker.
    """
    distributed = _distributed()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask's, about its own versions and this host's ports
        engine = DaskEngine(_client(distributed, place, stack), place.text)
        _await_worker(engine, place, say)
        engine.check()
        if place.workers:
            engine.ignore_interrupts()
        yield engine


def _client(distributed: ModuleType, place: Place, stack: ExitStack) -> Any:
    """A client of the cluster, which ends with ``stack``."""
    address: Any = place.address
    _check_certificate(distributed, place)
    if place.workers:
        address = distributed.LocalCluster(
            n_workers=place.workers,
            threads_per_worker=1,
            resources={RESOURCE: 1},
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
        stack.callback(_quietly, address.close)
    try:
        client = distributed.Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise InfrastructureError(
            f"{place.text}: no scheduler of Dask's answers there: {error}; start one with: "
            "dask scheduler"
        ) from error
    stack.callback(_quietly, client.close)
    return client


def _check_certificate(distributed: ModuleType, place: Place) -> None:
    """Raise UsageError for TLS without a certificate: Dask would wait for it, and not say so."""
    if not place.address.startswith("tls://"):
        return
    why = "Dask's configuration names no certificate"
    try:
        if distributed.Security().get_connection_args("client").get("ssl_context") is not None:
            return
    except (OSError, ValueError) as error:
        why = f"the certificate that Dask's configuration names cannot be read: {error}"
    names = ", ".join(f"DASK_DISTRIBUTED__COMM__TLS__{name}" for name in _CERTIFICATE)
    raise UsageError(f"`on` {place.text}: {why}; set {names} to files")


def _quietly(close: Callable[[], object]) -> None:
    """Close what may be gone already; a scheduler that does not answer is not waited for."""

    def attempt() -> None:
        with suppress(Exception):
            close()

    closing = threading.Thread(target=attempt, daemon=True)
    closing.start()
    closing.join(CONNECT)


def _await_worker(engine: DaskEngine, place: Place, say: Callable[[str], None]) -> None:
    end, told = time.monotonic() + JOIN, False
    while True:
        standing = engine.standing()
        if standing is not None and standing.slots:
            return
        if time.monotonic() > end:
            raise InfrastructureError(
                f"{place.text}: no worker joined within {JOIN:.0f} s; start one with: "
                f"dask worker {place.text}"
            )
        if not told:
            told = True
            say(f"waiting for a worker of {place.text}")
        interrupt.current().pause(0.2)
