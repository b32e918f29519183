"""A matrix run and recorded: run.json, matrix.json, report.html, a junit.xml for each kernel."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

from vmtest.api.expect import expected, with_expected
from vmtest.api.page import leave_page
from vmtest.host.git import checkout_of
from vmtest.host.write import Data, write_file
from vmtest.matrix.bench import Hold
from vmtest.matrix.engine import Engine
from vmtest.matrix.plan import Plan
from vmtest.matrix.runner import Stop, run_matrix
from vmtest.model.events import Event, Note
from vmtest.model.project import Config, ObjectFile
from vmtest.model.results import KernelResult, Matrix
from vmtest.model.secrets import words_without_secrets
from vmtest.model.versions import KernelVersion
from vmtest.objects import builds as objects
from vmtest.report import junit
from vmtest.runs import folder as runs
from vmtest.runs import matrix_json
from vmtest.runs.events import EVENTS, EventLog
from vmtest.runs.latest import Latest
from vmtest.vm.qemu import qemu_version

Write = Callable[[Path, Data], None]
"""Writes a file; what it raises ends the run."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What is written down of a run beside its plan.

    ``builds`` are those that the kernels' objects are chosen of; None for a plan without
    tests, else each kernel gets its junit.xml.  ``also`` has the sha256 of files that the plan's
    ``files`` did not read, by kind and place.  ``arguments`` are those of the command, ``again``
    what of them runs it again (``Matrix.again``); ``write`` writes the files.
    """

    builds: tuple[ObjectFile, ...] | None = None
    also: Mapping[str, Mapping[str, str]] | None = None
    arguments: Sequence[str] = ()
    write: Write = write_file
    again: tuple[tuple[str, ...], ...] = ()


def carry_out(
    plan: Plan,
    emit: Callable[[Event], None],
    recording: Recording,
    hold: Hold | None = None,
    stop: Stop | None = None,
    engine: Engine | None = None,
) -> Matrix:
    """Run ``plan``; ``emit`` hears its events, ``hold`` gets the session of a kernel that failed.

    ``stop`` ends it from another thread: then the matrix is interrupted.  ``engine`` says where
    the kernels run; None: on this machine.
    Raises UsageError and InfrastructureError for what concerns every kernel.
    """
    plan = replace(plan, again=recording.again)
    folder, settings, write = plan.folder, plan.config, recording.write
    facts = facts_of(plan, recording.arguments)
    if recording.builds is not None:
        facts |= _suite_facts(settings, recording.builds)
    folder.describe(facts)
    latest = Latest(folder)

    def save(matrix: Matrix) -> None:
        write(folder.path / "matrix.json", matrix_json.pieces(matrix))

    with EventLog(folder.path / EVENTS) as log:

        def heard(event: Event) -> None:
            log.add(event)
            latest.hear(event)
            emit(event)

        told = with_expected(expected(plan), heard)
        matrix = run_matrix(plan, told, save, hold=hold, stop=stop, engine=engine)
    if log.problem:
        emit(Note(log.problem))
    inputs = {"inputs": {**plan.files.digests(settings.directory), **(recording.also or {})}}
    ran = _what_ran(matrix, settings, recording.builds or ())
    write(folder.path / "run.json", runs.described({**facts, **inputs, **ran}))
    for result in matrix.kernels if recording.builds is not None else ():
        with suppress(OSError):  # the next line says what is wrong
            folder.kernel(result.kernel)  # a kernel that could not be had has none yet
        write(folder.path / result.kernel / "junit.xml", junit.render_kernel(result))
    leave_page(matrix, folder.path, emit)
    return matrix


def facts_of(plan: Plan, arguments: Sequence[str]) -> dict[str, object]:
    """What run.json says: enough to know what ran, and to run it again."""
    checkout = checkout_of(plan.config.directory)
    return {
        "arguments": words_without_secrets(arguments),
        "config": plan.config.file.name,
        "started": runs.utc_now(),
        "kernels": [kernel.name for kernel in plan.kernels],
        "suites": list(plan.suites),
        "narrowed": plan.narrowed,
        "project": None if checkout is None else asdict(checkout),
        "gates": {kernel.name: kernel.gate for kernel in plan.kernels},
        "versions": {
            "vmtest": metadata.version("vmtest"),
            "virtme-ng": metadata.version("virtme-ng"),
            "paramiko": metadata.version("paramiko"),
            "qemu": qemu_version(),
            "python": platform.python_version(),
            "host kernel": platform.release(),
        },
        "host": {"cpus": os.cpu_count(), "root": os.geteuid() == 0},
    }


def _suite_facts(settings: Config, builds: tuple[ObjectFile, ...]) -> dict[str, object]:
    return {
        "objects": [_build(settings, build) for build in builds],
        "known failures": [
            {
                "test": entry.test,
                "kernels": entry.kernels.text if entry.kernels else None,
                "reason": entry.reason,
                "until": str(entry.until) if entry.until else None,
            }
            for entry in settings.known_failures
        ],
    }


def _build(settings: Config, build: ObjectFile) -> dict[str, str | None]:
    return {
        "name": build.name,
        "path": os.path.relpath(build.path, settings.directory),
        "kernels": build.kernels.text if build.kernels else None,
    }


def builds_of(
    result: KernelResult, settings: Config, builds: tuple[ObjectFile, ...]
) -> dict[str, str]:
    """The path of each object that went to a kernel, by name, relative to the project's folder."""
    if not (result.objects and builds):
        return {}
    chosen = objects.choose(builds, KernelVersion.parse(result.version))
    return {name: os.path.relpath(chosen[name], settings.directory) for name, _ in result.objects}


def _what_ran(
    matrix: Matrix, settings: Config, builds: tuple[ObjectFile, ...]
) -> dict[str, object]:
    """The digests and the accelerator of what did run, by kernel."""
    return {
        "ran": {
            result.kernel: {
                "release": result.release,
                "accelerator": result.accelerator,
                "kernel sha256": result.digest,
                "guest": result.guest,
                "libbpf": result.libbpf,
                "objects": builds_of(result, settings, builds),
                "objects sha256": dict(result.objects),
            }
            for result in matrix.kernels
        }
    }
