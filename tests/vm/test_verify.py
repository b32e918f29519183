"""``vmtest verify`` against a real kernel: what goes wrong costs itself and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from any_guest import WARM, in_guest
from command import Said, vmtest
from little_objects import BAD, compiled
from real_kernels import KERNEL, PROJECT

from vmtest.errors import SessionLost
from vmtest.matrix.bench import Bench, Guest, Job
from vmtest.matrix.job import run_kernel
from vmtest.matrix.kept import Prepare
from vmtest.model.events import Event, LoadStarted
from vmtest.model.kernels import Kernel, KernelImage, Network, PathSpec, RootImage
from vmtest.model.loads import Verdict
from vmtest.model.project import ObjectFile
from vmtest.model.results import KernelResult, Status
from vmtest.verify import task as verify
from vmtest.verify.baseline import FailOn, Rules
from vmtest.verify.objects import Given, pack_objects
from vmtest.verify.process import LoaderProcess, Order
from vmtest.verify.task import VerifyTask
from vmtest.vm.accel import Probe

# The million instructions that the verifier looks at before it gives up: seconds, or a minute.
SLOW = (PROJECT / "tests" / "verify" / "instruction_limit.bpf.c").read_text()
SLOW = SLOW.replace("program.h", str(PROJECT / "tests" / "verify" / "include" / "program.h"))

Run = Callable[..., KernelResult]


@pytest.fixture
def run(
    tmp_path: Path,
    image: KernelImage,
    root: RootImage,
    probe: Probe,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Loads the objects at ``paths``; at the start of a load that ``fates`` names ("log of NAME"
    for a longer log of it), a command runs in the guest, before the loader may go on."""
    guests: list[Guest] = []
    boot = Bench.guest

    @contextmanager
    def watched(
        self: Bench, network: Network = Network.NONE, prepare: Prepare | None = None
    ) -> Iterator[Guest]:
        with boot(self, network, prepare) as guest:
            guests.append(guest)
            yield guest

    monkeypatch.setattr(Bench, "guest", watched)

    def made(*paths: Path, fates: dict[str, str], **order: object) -> KernelResult:
        def struck(fate: str | None) -> None:
            if fate is not None:
                with suppress(SessionLost):
                    guests[-1].session.run(["sh", "-c", fate])

        def heard(event: Event) -> None:
            if isinstance(event, LoadStarted):
                struck(fates.get(event.load.split(": ")[-1], fates.get("*")))

        def tracing(self: LoaderProcess, number: int, program: str) -> None:
            trace(self, number, program)
            struck(fates.get(f"log of {program}"))

        trace = LoaderProcess._trace
        monkeypatch.setattr(LoaderProcess, "_trace", tracing)

        given = [Given(ObjectFile(path.name, path), Path(path.name)) for path in paths]
        load = pack_objects(given, (), image.version, Order((), **order))  # type: ignore[arg-type]  # a test's own choice
        folder = tmp_path / "run"
        folder.mkdir()
        kernel = Kernel(KERNEL, PathSpec(image.image), memory_mib=512)
        task = VerifyTask(load, Rules(FailOn(rejected=True)))
        return run_kernel(Job(kernel, image, root, task, probe, folder, 1, snapshots=cache), heard)

    return made


PANIC = "echo c > /proc/sysrq-trigger"
# By its name: the shell that started it has the same arguments.
SIGNAL = """for p in /proc/[0-9]*; do
    grep -q '^python' $p/comm && [ -z "$(cat $p/task/*/children)" ] && kill -%s ${p#/proc/}
done; true"""
CRASH, STOP = SIGNAL % "SEGV", SIGNAL % "STOP"


def verdicts(result: KernelResult) -> dict[str, Verdict]:
    return {load.program: load.verdict for load in result.loads if load.object == "x.o"}


def test_a_crash_of_the_kernel_or_of_the_loader_costs_one_program(run: Run, tmp_path: Path) -> None:
    paths = compiled(tmp_path / "x.o"), compiled(tmp_path / "y.o")
    result = run(*paths, fates={"first": PANIC, "third": CRASH})
    # Both objects have a "first", and the kernel dies twice of each: under the three programs that
    # were announced together, and under it alone: five boots. The loader's deaths cost none.
    assert verdicts(result) == {
        "": Verdict.ACCEPTED,
        "first": Verdict.KERNEL_CRASHED,
        "second": Verdict.ACCEPTED,
        "third": Verdict.LOADER_CRASHED,
    }
    assert len(result.loads) == 8
    assert "Kernel panic" in result.loads[1].line
    assert result.status is Status.PANICKED
    assert result.reason == "x.o: first, y.o: first crashed the kernel"
    assert (tmp_path / "run" / "console-5.log").exists()
    assert not (tmp_path / "run" / "console-6.log").exists()
    assert len((tmp_path / "run" / "loads.jsonl").read_text().splitlines()) == 8


def test_a_longer_log_that_is_not_had_leaves_the_verdicts(run: Run, tmp_path: Path) -> None:
    fates = {"log of first": STOP, "log of third": PANIC}
    result = run(compiled(tmp_path / "x.o", BAD), fates=fates, log_level=2, timeout=2.0)
    assert verdicts(result) == {
        "": Verdict.REJECTED,
        "first": Verdict.REJECTED,
        "second": Verdict.ACCEPTED,
        "third": Verdict.ACCEPTED,
    }
    assert "x.o: first: the log at level 2 was not had: over " in result.note
    assert "x.o: third: the log at level 2 was not had: " in result.note
    assert result.status is Status.PANICKED, result.reason
    assert "x.o: third crashed the kernel while its log at level 2 was taken" in result.reason
    logs = {load.program: (tmp_path / "run" / load.log).read_text() for load in result.loads}
    assert "R1=ctx" in logs["second"]
    assert "was not had" in logs["first"]


def test_a_kernel_that_crashes_at_every_program_ends(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "BARREN_BOOTS", 2)
    result = run(compiled(tmp_path / "x.o"), fates={"*": PANIC})
    assert list(verdicts(result).values()) == [
        Verdict.KERNEL_CRASHED,
        Verdict.KERNEL_CRASHED,
        Verdict.NOT_LOADED,
        Verdict.NOT_LOADED,
    ]
    assert result.status is Status.PANICKED
    assert "given up after 2 boots" in result.reason


def test_a_load_over_its_time_is_killed_and_the_rest_goes_on(run: Run, tmp_path: Path) -> None:
    result = run(compiled(tmp_path / "x.o"), fates={"second": STOP}, timeout=4.0)
    assert verdicts(result) == {
        "": Verdict.ACCEPTED,
        "first": Verdict.ACCEPTED,
        "second": Verdict.TIMED_OUT,
        "third": Verdict.ACCEPTED,
    }
    said = r"over (\d+) s(?: \(--timeout 4, stretched ([\d.]+) times\))?"
    told = re.fullmatch(said, result.loads[2].line)
    assert told, result.loads[2].line
    limit = 4 * float(told[2] or 1)
    assert limit - 2 < int(told[1]) < limit + 10  # it is looked at a few times a second
    assert not (tmp_path / "run" / "console-2.log").exists()


def test_the_loader_and_what_it_does_not_find_are_told_apart(run: Run, tmp_path: Path) -> None:
    truncated = compiled(tmp_path / "t.o")
    truncated.write_bytes(truncated.read_bytes()[:400])
    result = run(compiled(tmp_path / "x.o"), truncated, fates={})
    (opened,) = (load for load in result.loads if load.object == "t.o")
    assert opened.verdict is Verdict.OPEN_FAILED
    assert set(verdicts(result).values()) == {Verdict.ACCEPTED}


def ends(said: Said, status: int, *parts: str) -> None:
    assert said.status == status, said
    assert "Traceback" not in said.err, said.err
    for part in parts:
        assert part in said.out, f"{part!r} is not in:\n{said.out}"


def kernel_of(folder: Path) -> dict[str, object]:
    matrix = json.loads((folder / ".vmtest" / "latest" / "matrix.json").read_text())
    (only,) = matrix["kernels"]
    return dict(only)


def test_without_a_configuration_and_with_odd_names(tmp_path: Path) -> None:
    """The built-in matrix; two objects of one name, and names that a shell would read."""
    compiled(tmp_path / "x.o")
    for name in ("a b;$(reboot).o", "d/x.o"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / "x.o").read_bytes())
    (tmp_path / "text.o").write_text("no object")
    files = ("--csv", "out", "--json", "out/m.json", "--markdown", "out/m.md")
    said = in_guest("verify", ".", "--kernel", KERNEL, "--save", "b.json", *files, cwd=tmp_path)
    ends(
        said,
        1,
        "a b;$(reboot).o",
        "d/x.o",
        "OPEN FAILED",
        "9 accepted; 1 of 4 objects does not load",
    )
    assert len((tmp_path / "out" / f"{KERNEL}.csv").read_text().splitlines()) == 10
    release = str(kernel_of(tmp_path)["release"])
    assert release in json.loads((tmp_path / "b.json").read_text())["kernels"]
    again = vmtest("verify", "--from-run", ".vmtest/latest", "--fail-on", "nothing", cwd=tmp_path)
    ends(again, 0, "9 accepted")


def test_a_program_is_not_judged_by_what_it_is_beside(project: Callable[..., Path]) -> None:
    folder = project("")
    compiled(folder / "x.o", BAD)
    asked = ("verify", "x.o", "--program")
    ends(in_guest(*asked, "second", cwd=folder), 0, "1 object, 1 program: 1 accepted")
    ends(in_guest(*asked, "first", cwd=folder), 1, "REJECTED")


def test_other_builds_are_loaded_in_the_same_boot(project: Callable[..., Path]) -> None:
    folder = project("")
    compiled(folder / "new" / "x.o", BAD)
    compiled(folder / "old" / "x.o")
    said = in_guest("verify", "new", "--against", "old", "--fail-on", "regressed", cwd=folder)
    ends(said, 1, "REGRESSED new/x.o: first: accepted -> rejected (since old)")
    assert not (folder / ".vmtest" / "latest" / KERNEL / "console-2.log").exists()


def test_120_objects_and_ctrl_c_keeps_what_had_finished(project: Callable[..., Path]) -> None:
    folder = project("")
    data = compiled(folder / "x.o").read_bytes()
    for n in range(120):
        (folder / "many").mkdir(exist_ok=True)
        (folder / "many" / f"{n:03d}.o").write_bytes(data)
    said = in_guest("verify", "many", cwd=folder, timeout=1200)
    ends(said, 0, "120 objects, 360 programs: 360 accepted")
    # What comes last takes the verifier so long that nobody is late to interrupt it.
    slow = [compiled(folder / "slow" / f"{n}.o", SLOW) for n in range(8)]
    with (folder / "said.txt").open("w") as said_by_runner:
        runner = subprocess.Popen(
            [sys.executable, "-m", "vmtest", "verify", WARM, "many", "slow"],
            cwd=folder,
            env=os.environ,
            stdout=said_by_runner,
            stderr=subprocess.STDOUT,
        )
        log = folder / ".vmtest" / "latest" / KERNEL / "loads.jsonl"
        before = log.resolve()
        # Not for a time: a runner that cannot go on ends by its own deadlines.
        while runner.poll() is None:
            if log.resolve() != before and log.exists() and log.read_bytes().count(b"\n") > 20:
                runner.send_signal(signal.SIGINT)
                break
            time.sleep(0.1)
        status = runner.wait()
    assert status == 130, (folder / "said.txt").read_text()
    loads = kernel_of(folder)["loads"]
    assert isinstance(loads, list)
    verdicts = Counter(load["verdict"] for load in loads)
    assert verdicts["accepted"] > 20
    assert verdicts["not loaded"] > 0
    # Each object has its line, whether it was opened or not.
    assert {load["object"] for load in loads} >= {str(path.relative_to(folder)) for path in slow}
