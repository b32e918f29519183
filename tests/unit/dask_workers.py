"""A scheduler and workers of Dask's as processes, each worker with a cache of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fake_kernels import elf
from fake_machine import PROBE

from vmtest.host.cache import sha256_json, write_record
from vmtest.kernels import Store
from vmtest.kernels.store.entry import finish
from vmtest.model.kernels import KernelImage
from vmtest.vm import accel
from vmtest.vm.qemu import QEMU

ROOT = Path(__file__).parents[2]
RELEASE = "6.12.1"
KEY = f"{RELEASE}-fake"


def kernel_in(cache: Path, name: str) -> KernelImage:
    """A kernel in the store of ``cache``: too small to boot, else as any other."""

    def fill(entry: Path) -> object:
        raw = entry.parent / "raw"
        raw.write_bytes(elf(RELEASE))
        return finish(
            entry, raw, name=name, version=None, digest="0" * 64, origin="test", config=None
        )

    return Store(cache).add(KEY, fill, name=name)  # type: ignore[arg-type]


def knows_accelerator(cache: Path) -> Path:
    """Have ``cache`` remember a probe of this host, so that nothing is booted for it."""
    qemu = next(
        path for folder in os.environ["PATH"].split(":") if (path := Path(folder) / QEMU).exists()
    )
    place = cache / "accel" / f"{sha256_json(accel._host(str(qemu)))[:16]}.json"
    kvm = {**asdict(PROBE), "accelerator": "kvm", "why": "a test"}
    found = {"tcg": asdict(PROBE), "kvm": kvm, "when": time.time()}
    write_record(place, found)
    return cache


def environment(cache: Path, **more: str) -> dict[str, str]:
    """What a worker's process runs with."""
    paths = f"{ROOT / 'tests' / 'unit'}:{ROOT}"
    return {**os.environ, "VMTEST_CACHE": str(cache), "PYTHONPATH": paths, **more}


@dataclass
class Farm:
    """A scheduler at ``address``, and its workers by the names that they were started with."""

    address: str
    folder: Path
    scheduler: subprocess.Popen[bytes]
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(
        self, name: str, cache: Path, more: Mapping[str, str] | None = None, vms: int = 1
    ) -> None:
        """Start a worker with room for ``vms``."""
        log = (self.folder / f"{name}.log").open("wb")
        argv = [sys.executable, "-m", "distributed.cli.dask_worker", self.address]
        argv += ["--no-nanny", "--nthreads", str(vms), "--resources", f"vm={vms}"]
        argv += ["--no-dashboard", "--name", name, "--local-directory", str(self.folder / name)]
        self.workers[name] = subprocess.Popen(
            argv, env=environment(cache, **(more or {})), stdout=log, stderr=log
        )
        log.close()

    def at(self, address: str) -> str:
        """The name of the worker at ``address``."""
        names = [n for n in self.workers if address in (self.folder / f"{n}.log").read_text()]
        assert len(names) == 1, names
        return names[0]

    def end(self) -> None:
        """End all of it."""
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
        for process in (*self.workers.values(), self.scheduler):
            process.wait()


@contextmanager
def farm(folder: Path, **settings: str) -> Iterator[Farm]:
    """A scheduler without workers, which ends with this; ``settings`` are of its environment."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    argv = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
    argv += ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    with (folder / "scheduler.log").open("wb") as log:
        process = subprocess.Popen(argv, env=os.environ | settings, stdout=log, stderr=log)
    found = Farm("", folder, process)
    try:
        found.address = _address(file, process)
        yield found
    finally:
        found.end()


def _address(file: Path, process: subprocess.Popen[bytes]) -> str:
    import json

    while process.poll() is None:
        with suppress(OSError, ValueError, KeyError):
            return str(json.loads(file.read_text())["address"])
        time.sleep(0.05)
    raise AssertionError((file.parent / "scheduler.log").read_text())
