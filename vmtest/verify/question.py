"""What a bisect asks when it loads a BPF object."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vmtest.bisect import ways
from vmtest.bisect.observe import Observation, failing, observation, short
from vmtest.bisect.question import Work
from vmtest.bisect.search import Verdict
from vmtest.config.suggest import suggestion
from vmtest.errors import UsageError
from vmtest.host.files import Files
from vmtest.model.loads import LoadResult, Reason, row_of
from vmtest.model.loads import Verdict as LoadVerdict
from vmtest.model.project import Config
from vmtest.model.results import KernelResult
from vmtest.objects import inspect as objectfile
from vmtest.rootfs.cilium import OtherLoader
from vmtest.verify import objects as loadables
from vmtest.verify import types
from vmtest.verify.baseline import FailOn, Rules
from vmtest.verify.objects import Given
from vmtest.verify.process import Order
from vmtest.verify.task import verify_tasks


def work_of_load(
    settings: Config,
    wanted: str,
    told: Sequence[str],
    by: tuple[str, OtherLoader] | None = None,
) -> Work:
    """Whether ``wanted``, ``OBJECT[:PROGRAM]``, loads; ``told`` as for ``--type``.

    ``by`` is a loader in libbpf's place, behind the word of ``--loader`` that asks for it.  Raises
    UsageError for what is not there, and for several objects.
    """
    found, program = _given(settings, wanted)
    given = types.told_to(found, types.parse(told), Path.cwd())
    name = given[0].build.name
    files = Files()
    order = Order(objects=(), programs=(program or "*",), by_libbpf=by is None)
    word, loaders = ("", ()) if by is None else (by[0], (by[1],))
    asked = {
        "object": name,
        "program": program,
        "types": list(told),
        "sha256": sorted(files.read(one.build.path, "objects").sha256 for one in given),
    }
    if by is not None:
        asked["loader"] = by[1].name
    words_of = [part for text in told for part in ("--type", text)]
    words_of += ["--loader", word] if word else []
    row = row_of(name, by[1].name) if by else name
    rules = Rules(FailOn(rejected=True))
    return Work(
        asked,
        verify_tasks(given, (), order, rules, files=files, loaders=loaders),
        partial(of_load, object_=row, program=program),
        ("verify", name, *(("--program", program) if program else ()), *words_of),
        ("--verify", wanted, *words_of),
        files,
        wheels=False,
    )


def _split(wanted: str) -> tuple[str, str]:
    """The object, and the program or ""; the path itself may have a colon."""
    path, _, program = (wanted, "", "") if Path(wanted).exists() else wanted.rpartition(":")
    return (path, program) if path else (program, "")


def is_configured(settings: Config, wanted: str) -> bool:
    """Whether the object is named as an ``[[object]]`` of kernels.toml."""
    return bool(loadables.named(_split(wanted)[0], settings.objects, Path.cwd()))


def _given(settings: Config, wanted: str) -> tuple[tuple[Given, ...], str]:
    """The builds of the object, and the program or ""."""
    path, program = _split(wanted)
    found = loadables.expand([path], settings.objects, Path.cwd())
    if len({one.build.name for one in found}) != 1:
        raise UsageError(f"`verify` {wanted}: means {len(found)} objects; name one")
    if program:
        names = {info.name for one in found for info in objectfile.inspect(one.build.path).programs}
        if program not in names:
            raise UsageError(
                f'`verify` {wanted}: {path} has no program "{program}"{suggestion(program, names)}'
            )
    return found, program


def of_load(result: KernelResult, folder: str, object_: str, program: str) -> Observation:
    """GOOD when the load of ``program`` ("": of ``object_`` as a whole) was accepted."""
    facts = tuple((load.label, _words(load)) for load in result.loads)
    found = [one for one in result.loads if (one.object, one.program) == (object_, program)]
    if not found or found[0].verdict is LoadVerdict.NOT_LOADED:
        why = f"{result.status}: {result.reason or 'it was not loaded'}"
        return observation(result, folder, Verdict.SKIP, why, facts)
    if found[0].verdict is LoadVerdict.TIMED_OUT:
        # The verifier did not answer: a busy machine does that to any program.
        one = observation(result, folder, Verdict.SKIP, _words(found[0]), facts)
        return replace(one, faulty=True)
    verdict = Verdict.BAD if found[0].verdict.bad else Verdict.GOOD
    why = _words(found[0])
    if result.splats:
        why = f'{why}; the kernel complained: "{result.splats[0]}"'
        facts = (*facts, ("the kernel's complaint", result.splats[0]))
    one = observation(result, folder, verdict, why, facts)
    one = replace(one, gone=gone(found[0].reason))
    return failing(one, ways.of_load(result, found[0])) if verdict is Verdict.BAD else one


# The codes whose reason names something that stands in the kernel's source.
_OF_THE_KERNEL = {
    "attach-target",
    "attach-type",
    "core-relocation",
    "core-type",
    "helper",
    "kconfig",
    "kfunc",
    "kfunc-prototype",
    "ksym",
    "ksym-type",
    "map-flag",
    "map-type",
    "module-not-loaded",
    "program-type",
    "sleepable",
    "struct-ops-type",
}
# What macros make of a name of the source: __x64_sys_openat, and the event sys_enter_openat.
_SYSCALL = re.compile(r"^(?:__[a-z0-9]+_(?:compat_)?sys_|sys_(?:enter|exit)_)")
_FLAVOUR = re.compile(r"(?<=\w)___\w+$")


def gone(reason: Reason | None) -> str:
    """What ``reason`` says that a kernel lacks, as its source writes it; "" for nothing.

    Without what a compiler appends (``.isra.0``), an offset, and the flavour that a program
    declares (``___2``).  A helper is there as the name by which the kernel gives it to programs.
    """
    if reason is None or reason.code not in _OF_THE_KERNEL:
        return ""
    name = _FLAVOUR.sub("", _SYSCALL.sub("sys_", ways.name_of(reason)))
    if not re.fullmatch(r"\w+", name):
        return ""  # a pattern, or a number
    if reason.code in ("helper", "sleepable") and name.startswith("bpf_"):
        return f"BPF_FUNC_{name.removeprefix('bpf_')}"
    return name


def _words(load: LoadResult) -> str:
    cost = load.cost
    if load.verdict is LoadVerdict.ACCEPTED:
        counts = ((cost.instructions, "instructions"), (cost.total_states, "states"))
        return ", ".join([load.verdict.value, *(f"{n} {word}" for n, word in counts if n)])
    words = load.verdict.value
    if load.reason is not None and not (load.reason.code == ways.UNKNOWN and load.line):
        words += f" ({load.reason.code}): {load.reason.text}"
        if load.reason.evidence:
            words += f"; {load.reason.evidence}"
    elif load.line:
        words += f": {load.line}"
    if cost.instructions:
        words += f"; after {cost.instructions} instructions"
    return short(words)
