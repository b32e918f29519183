"""A matrix on workers that are processes of their own, over tasks that boot nothing."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
from cluster_tasks import Rows
from coordinator import NAMES, Coordinator, Loss, until
from dask_workers import KEY, Farm, environment, farm, knows_accelerator
from small_disk import mounted
from strangers import descendants, ports, told

from vmtest.cluster import crew
from vmtest.cluster import engine as engine_module
from vmtest.cluster.engine import on
from vmtest.cluster.place import parse_place
from vmtest.cluster.record import Rows as Arriving
from vmtest.cluster.record import unpack_folder
from vmtest.cluster.worker import FOLDERS, _remove_old
from vmtest.errors import InfrastructureError, UsageError
from vmtest.host.cache import sha256_file, write_json
from vmtest.host.seal import Entry, inspect, seal
from vmtest.matrix.bench import Cancellation
from vmtest.matrix.runner import Stop
from vmtest.model.events import Event, LoadFinished, Note, Preparing, SlotTaken, TestFinished
from vmtest.model.kernels import InstalledWheel, RootImage
from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.runs.rows import LOADS, OTHER_LOADS, RESULTS, read_loads, read_results

PASSED = Status.PASSED


def image_in(cache: Path, content: bytes) -> RootImage:
    """A guest image in ``cache`` that is too small to boot, always of the same key."""
    place = cache / "images" / "trixie-1"
    if not place.exists():
        place.mkdir(parents=True)
        (place / "root.sqfs").write_bytes(b"hsqs" + bytes(2000) + content)
        digest = sha256_file(place / "root.sqfs")
        size = (place / "root.sqfs").stat().st_size
        write_json(place / "image.json", {"schema": 1, "sha256": digest, "size": size})
        seal(place)
    image = place / "root.sqfs"
    return RootImage("disk", image, sha256_file(image), "/usr/bin/python3")


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Farm]:
    with farm(tmp_path / "farm") as found:
        yield found


def statuses(matrix: Matrix) -> list[Status]:
    return [kernel.status for kernel in matrix.kernels]


def rows_in(matrix: Matrix, name: str) -> list[str]:
    (kernel,) = (kernel for kernel in matrix.kernels if kernel.kernel == name)
    return [test.test for test in kernel.tests]


def plain(matrix: Matrix) -> list[KernelResult]:
    """Without what differs from run to run."""
    return [replace(kernel, duration=0.0, factor=1.0) for kernel in matrix.kernels]


def rows_of(folder: Path) -> list[str]:
    with (folder / RESULTS).open() as lines:
        return [test.test for test in read_results(lines)]


def console_at(pattern: str, note: str) -> str:
    """The console's log in the folder on a worker that ``note`` names."""
    named = re.search(pattern, note)
    assert named is not None, note
    return (Path(named[1]) / "console.log").read_text()


def notes(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def test_a_local_cluster_comes_to_what_threads_come_to(here: Coordinator) -> None:
    threads = here.run(None)
    files = {path.relative_to(here.folder): path.read_bytes() for path in here.files()}
    heard = {event for event in here.events if isinstance(event, TestFinished)}
    here.clear()
    with on(parse_place("local:2")) as engine:
        assert engine.slots == 2
        there = here.run(engine)
    assert statuses(there) == [PASSED] * 3
    assert plain(there) == plain(threads)
    assert {path.relative_to(here.folder): path.read_bytes() for path in here.files()} == files
    assert {event for event in here.events if isinstance(event, TestFinished)} == heard
    slots = [event.slot for event in here.events if isinstance(event, SlotTaken)]
    assert len(slots) == 3 and set(slots) == {1, 2}


def test_a_worker_gets_kernel_and_image_once_in_chunks(
    here: Coordinator, workers: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "CHUNK", 1000)
    cache = knows_accelerator(here.folder / "theirs")
    workers.start("one", cache)
    here.root = lambda: image_in(here.cache, b"ours")
    with on(parse_place(workers.address)) as engine:
        matrix = here.run(engine)
    assert statuses(matrix) == [PASSED] * 3, matrix
    told = [event.what for event in here.events if isinstance(event, Preparing)]
    assert told.count("getting the kernel") == 1
    assert told.count("getting the guest image") == 1
    for entry in (f"kernels/{KEY}", "images/trixie-1"):
        assert Entry.of(cache / entry) is not None
        assert inspect("", cache / entry, cast(Any, Entry.of(here.cache / entry)).files()) is None
    assert [path.name for path in here.run_folder.path.glob(".*")] == []


def test_a_worker_gets_each_wheel_once(
    here: Coordinator, workers: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "CHUNK", 1000)
    workers.start("one", here.cache, vms=2)
    trees = (b"a" * 2500, b"b" * 700)
    wheels = tuple(InstalledWheel(f"{tree[:1].decode()}.whl", "0" * 64, tree) for tree in trees)
    here.root = lambda: replace(image_in(here.cache, b"ours"), wheels=wheels)
    with on(parse_place(workers.address)) as engine:
        matrix = here.run(engine)
    assert statuses(matrix) == [PASSED] * 3, matrix
    told = [event.what for event in here.events if isinstance(event, Preparing)]
    assert (told.count("getting a.whl"), told.count("getting b.whl")) == (1, 1)
    for name in NAMES:
        laid_over = (here.run_folder.path / name / "wheels").read_text().split()
        assert laid_over == [hashlib.sha256(tree).hexdigest() for tree in trees]


def test_a_worker_that_built_another_image_of_the_same_key_gets_ours_beside_it(
    here: Coordinator, workers: Farm
) -> None:
    cache = knows_accelerator(here.folder / "theirs")
    theirs = image_in(cache, b"theirs")
    workers.start("one", cache)
    here.root = lambda: image_in(here.cache, b"ours")
    with on(parse_place(workers.address)) as engine:
        matrix = here.run(engine, ("a",))
    ours = here.root()
    assert statuses(matrix) == [PASSED]
    assert matrix.kernels[0].guest == ours.digest
    assert theirs.path is not None and theirs.path.read_bytes().endswith(b"theirs")
    beside = cache / "images" / f"trixie-1-{ours.digest[:12]}" / "root.sqfs"
    assert beside.read_bytes().endswith(b"ours")


def test_a_kernel_of_a_worker_that_was_killed_runs_elsewhere_and_says_so(
    here: Coordinator, workers: Farm
) -> None:
    for name in ("one", "two"):
        workers.start(name, here.cache)
    here.tasks["a"] = Rows(then="die", signs=here.folder)
    kept: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, TestFinished) and event.result.test == "t.py::1" and not kept:
            kept.extend(rows_of(here.run_folder.path / "a"))
            (here.folder / "a.heard").touch()

    with on(parse_place(workers.address)) as engine:
        matrix = here.run(engine, ("a",), emit)
    assert kept == ["t.py::0", "t.py::1"], "the rows were on disk before the worker died"
    (result,) = matrix.kernels
    assert result.status is PASSED
    assert "was lost while it ran this kernel" in result.note
    assert rows_of(here.run_folder.path / "a" / "lost-worker-1") == kept
    assert rows_of(here.run_folder.path / "a") == kept
    assert console_at(r"; the rest is there, in (\S+)\)$", result.note) == "the console of a\n"
    assert len([text for text in notes(here.events) if "was lost; it runs again on" in text]) == 1


def test_a_kernel_that_costs_every_worker_is_an_infrastructure_error_with_its_rows(
    here: Coordinator, workers: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.start("one", here.cache)
    here.tasks["a"] = Rows(then="die", signs=here.folder)

    def emit(event: Event) -> None:
        if isinstance(event, TestFinished) and event.result.test == "t.py::1":
            monkeypatch.setattr(crew, "PATIENCE", 1.0)  # not while its first worker comes
            (here.folder / "a.heard").touch()

    with on(parse_place(workers.address)) as engine:
        (result,) = here.run(engine, ("a",), emit).kernels
    assert result.status is Status.INFRA_ERROR
    assert "had no worker for 1 s; start one with: dask worker" in result.reason
    assert [test.test for test in result.tests] == ["t.py::0", "t.py::1"]


def test_a_kernel_that_kills_worker_after_worker_is_given_up_with_their_names(
    here: Coordinator, tmp_path: Path
) -> None:
    here.tasks["a"] = Rows(then="die", signs=here.folder)

    def emit(event: Event) -> None:
        if isinstance(event, TestFinished) and event.result.test == "t.py::1":
            (here.folder / "a.heard").touch()

    with farm(tmp_path / "farm", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as workers:
        workers.start("one", here.cache)
        with on(parse_place(workers.address)) as engine:
            (result,) = here.run(engine, ("a",), emit).kernels
    assert result.status is Status.INFRA_ERROR
    assert re.fullmatch(r"the workers that ran it were lost: tcp://127.0.0.1:\d+", result.reason)
    assert [test.test for test in result.tests] == ["t.py::0", "t.py::1"]


def test_a_worker_without_room_leaves_the_kernel_to_another_and_says_so(
    here: Coordinator, workers: Farm
) -> None:
    with mounted(here.folder / "small", "1m") as small:
        knows_accelerator(small)
        workers.start("small", small)
        with on(parse_place(workers.address)) as engine:
            (full,) = here.run(engine, ("a",)).kernels
            workers.start("large", knows_accelerator(here.folder / "large"))
            while engine.slots < 2:
                time.sleep(0.05)
            here.clear()
            both = here.run(engine, ("a", "b"))
        workers.workers["small"].kill()
        workers.workers["small"].wait()
    assert full.status is Status.INFRA_ERROR
    assert re.search(r"no worker takes it: worker tcp://\S+: .*small has .* make room", full.reason)
    assert statuses(both) == [PASSED] * 2, both
    told = [text for text in notes(here.events) if "make room" in text]
    noted = [kernel for kernel in both.kernels if "did not take it" in kernel.note]
    assert len(told) == len(noted) >= 1


def test_a_run_that_is_stopped_ends_what_workers_run(here: Coordinator, workers: Farm) -> None:
    workers.start("one", here.cache)
    for name in ("a", "b"):
        here.tasks[name] = Rows(then="wait", signs=here.folder)
    stop = Stop()
    running: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, TestFinished) and event.result.test == "t.py::1":
            running.append(event.kernel)
            stop.request()

    with on(parse_place(workers.address)) as engine:
        matrix = here.run(engine, ("a", "b"), emit, stop)
        until((here.folder / f"{running[0]}.cancelled").exists)
    assert matrix.interrupted
    assert statuses(matrix) == [Status.CANCELLED] * 2
    assert rows_in(matrix, running[0]) == ["t.py::0", "t.py::1"]
    assert len(running) == 1, "the other one never began"
    console = here.run_folder.path / running[0] / "console.log"
    assert console.read_text() == f"the console of {running[0]}\n"
    assert list((here.cache / FOLDERS).iterdir()) == [], "and the worker has no more of it"


def test_files_of_a_stopped_kernel_that_do_not_come_in_time_are_named(
    here: Coordinator, workers: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "GATHER", 1.0)
    cache = knows_accelerator(here.folder / "theirs")
    workers.start("one", cache)
    here.tasks["a"] = Rows(then="stick", signs=here.folder)
    stop = Stop()

    def emit(event: Event) -> None:
        if isinstance(event, TestFinished) and event.result.test == "t.py::1":
            stop.request()

    with on(parse_place(workers.address)) as engine:
        (result,) = here.run(engine, ("a",), emit, stop).kernels
    assert result.status is Status.CANCELLED
    assert [test.test for test in result.tests] == ["t.py::0", "t.py::1"]
    said = r"^worker tcp://\S+ did not send its files: they are there, in (\S+)$"
    assert console_at(said, result.note) == "the console of a\n"
    (here.folder / "a.release").touch()


def test_a_worker_that_its_user_stops_leaves_the_kernel_to_another_one(
    here: Coordinator, workers: Farm
) -> None:
    for name in ("one", "two"):
        workers.start(name, here.cache)
    here.tasks["a"] = Rows(then="wait", signs=here.folder)
    loss = Loss(lambda place: workers.workers[workers.at(place)].send_signal(signal.SIGINT))
    with on(parse_place(workers.address)) as engine:
        (result,) = here.run(engine, ("a",), loss, loss.stop).kernels
    assert len(set(loss.places)) == 2
    assert f"worker {loss.places[0]} was lost while it ran this kernel" in result.note
    assert console_at(r"; the rest is there, in (\S+)\)$", result.note) == "the console of a\n"


def test_a_stranger_gets_nothing_from_a_local_cluster(here: Coordinator) -> None:
    with on(parse_place("local:2")) as engine:
        assert here.run(engine, ("a",)).kernels[0].status is PASSED
        listening = ports(descendants(os.getpid()))
        found = told(listening)
    assert len(listening) >= 5, "of the scheduler, two workers and what watches each"
    assert found == {}


def test_folders_that_nobody_fetched_are_removed_after_a_week(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        (folder / "a").mkdir(parents=True)
    days = 86400
    os.utime(old, (time.time() - 8 * days,) * 2)
    os.utime(new, (time.time() - 6 * days,) * 2)
    _remove_old(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


COORDINATOR = """
from pathlib import Path
import cluster_tasks, coordinator, pytest, sys
from vmtest.cluster.engine import on
from vmtest.cluster.place import parse_place
folder, address = Path(sys.argv[1]), sys.argv[2]
here = coordinator.Coordinator(folder, pytest.MonkeyPatch())
here.tasks["a"] = cluster_tasks.Rows(then="wait", signs=folder)
with on(parse_place(address)) as engine:
    here.run(engine, ("a",))
"""


def test_what_workers_run_ends_with_a_coordinator_that_is_killed(
    tmp_path: Path, workers: Farm
) -> None:
    cache = tmp_path / "cache"
    knows_accelerator(cache)
    workers.start("one", cache)
    argv = [sys.executable, "-c", COORDINATOR, str(tmp_path), workers.address]
    with subprocess.Popen(argv, env=environment(cache)) as coordinator:
        until((tmp_path / "a.wait").exists, lambda: coordinator.poll() is None)
        assert not (tmp_path / "a.cancelled").exists()
        coordinator.kill()
    until((tmp_path / "a.cancelled").exists)
    assert workers.workers["one"].poll() is None, "and the worker is there for others"


def test_a_scheduler_that_goes_away_ends_the_run_with_the_rows_so_far(
    here: Coordinator, workers: Farm
) -> None:
    workers.start("one", here.cache)
    for name in ("a", "b"):
        here.tasks[name] = Rows(then="wait", signs=here.folder)
    running: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, TestFinished) and event.result.test == "t.py::1":
            running.append(event.kernel)
            workers.scheduler.kill()

    with on(parse_place(workers.address)) as engine:
        matrix = here.run(engine, ("a", "b"), emit)
    assert statuses(matrix) == [Status.INFRA_ERROR] * 2
    for kernel in matrix.kernels:
        assert f"the scheduler {workers.address} went away" in kernel.reason
    assert rows_in(matrix, running[0]) == ["t.py::0", "t.py::1"]
    until((here.folder / f"{running[0]}.cancelled").exists)


def test_dask_logs_nothing_below_critical(workers: Farm, here: Coordinator) -> None:
    workers.start("one", here.cache)
    with on(parse_place(workers.address)):
        known = logging.root.manager.loggerDict.items()
        loggers = [one for name, one in known if name.split(".")[0] in ("distributed", "tornado")]
        levels = {one.name: one.level for one in loggers if isinstance(one, logging.Logger)}
    assert levels["distributed"] == logging.CRITICAL
    assert {name for name, level in levels.items() if 0 < level < logging.CRITICAL} == set()


def test_a_bug_in_a_task_costs_its_kernel_and_the_folder_comes_back(
    here: Coordinator, workers: Farm
) -> None:
    workers.start("one", here.cache)
    here.tasks["a"] = Rows(then="break", signs=here.folder)
    with on(parse_place(workers.address)) as engine:
        matrix = here.run(engine, ("a", "b"))
    assert statuses(matrix) == [Status.INFRA_ERROR, PASSED]
    place = here.run_folder.path / "a"
    assert f"KeyError: 'a bug'; please report it to its maintainers with {place}" in (
        matrix.kernels[0].reason
    )
    assert "KeyError" in (place / "traceback.txt").read_text()


def test_a_worker_with_another_vmtest_is_refused_with_both_versions(
    here: Coordinator, workers: Farm
) -> None:
    other = here.folder / "other" / "vmtest-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: vmtest\nVersion: 9.9\n")
    path = f"{other.parent}:{environment(here.cache)['PYTHONPATH']}"
    workers.start("one", here.cache, {"PYTHONPATH": path})
    said = r"worker tcp://\S+ has vmtest 9\.9, and here is vmtest 0"
    with pytest.raises(UsageError, match=said), on(parse_place(workers.address)):
        pytest.fail("it was taken")


def test_a_worker_with_other_files_of_the_same_version_is_refused(
    here: Coordinator, workers: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.start("one", here.cache)
    monkeypatch.setattr(engine_module, "code_digest", Digest())
    said = r"has vmtest .* with other files \(sha256 "
    with pytest.raises(UsageError, match=said), on(parse_place(workers.address)):
        pytest.fail("it was taken")


class Digest:
    """``code_digest`` of the coordinator's, which differs; a worker has its own."""

    def __call__(self) -> str:
        return "0" * 64

    def __reduce__(self) -> str | tuple[Any, ...]:
        return getattr, (import_module("vmtest.cluster.order"), "code_digest")


def test_a_worker_that_joins_with_another_vmtest_is_given_nothing(
    here: Coordinator, workers: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.start("one", here.cache)
    with on(parse_place(workers.address)) as engine:
        monkeypatch.setattr(crew, "code_digest", lambda: "0" * 64)
        (result,) = here.run(engine, ("a",)).kernels
    assert result.status is Status.INFRA_ERROR
    assert "its vmtest is not the coordinator's; install the same" in result.reason


def test_a_root_that_is_a_folder_of_the_coordinators_is_refused(
    here: Coordinator, workers: Farm
) -> None:
    workers.start("one", here.cache)
    here.root = lambda: RootImage("directory", here.folder, "0" * 64, "python3")
    with on(parse_place(workers.address)) as engine:
        (result,) = here.run(engine, ("a",)).kernels
    assert result.status is Status.INFRA_ERROR
    assert f"{here.folder} is not in the cache" in result.reason


def test_what_needs_the_guest_here_is_refused(here: Coordinator, workers: Farm) -> None:
    workers.start("one", here.cache)
    said = r"a shell takes .* leave `on` out"
    with on(parse_place(workers.address)) as engine, pytest.raises(UsageError, match=said):
        engine.begin(cast(Any, None), lambda event: None, Cancellation(), lambda *given: None)


def test_a_scheduler_that_is_not_there_is_named_with_the_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, "CONNECT", 1.0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        said = f"{address}: .* dask scheduler"
        with pytest.raises(InfrastructureError, match=said), on(parse_place(address)):
            pytest.fail("it was reached")


def test_tls_without_a_certificate_names_what_to_set() -> None:
    said = r"`on` tls://127.0.0.1:1: .* set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
    with pytest.raises(UsageError, match=said), on(parse_place("tls://127.0.0.1:1")):
        pytest.fail("it was reached")


def test_without_dask_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = r"pip install '/path/to/vmtest\[dask\]'"
    with pytest.raises(UsageError, match=said), on(parse_place("local:1")):
        pytest.fail("it was imported")


def test_dask_is_not_imported_before_it_is_asked_for() -> None:
    script = "import sys, vmtest.cli.main, vmtest.api.run; print('distributed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"False\n"


@pytest.mark.parametrize(
    "text",
    ["", "local", "local:0", "local:-1", "tcp://", "tcp://host", "tcp://host:0", "tcp://h:99999",
     "http://host:1", "tcp://a b:1"],
)  # fmt: skip
def test_a_place_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"`on` .*: write local:N, .*tcp://SCHEDULER:PORT"):
        parse_place(text)


@pytest.mark.parametrize("text", ["tcp://10.0.0.1:8786", "tls://build.example:1", "tcp://[::1]:9"])
def test_an_address_is_a_place(text: str) -> None:
    assert parse_place(text).address == text


def test_loads_to_compare_with_are_not_taken_for_those_of_the_objects(tmp_path: Path) -> None:
    rows = Arriving(tmp_path)
    for verdict in (Verdict.ACCEPTED, Verdict.REJECTED):
        assert rows.add(LoadFinished("a", LoadResult("x.o", "one", verdict))) == ""
    rows.close()
    for name, verdict in ((LOADS, Verdict.ACCEPTED), (OTHER_LOADS, Verdict.REJECTED)):
        with (tmp_path / name).open() as lines:
            assert [load.verdict for load in read_loads(lines)] == [verdict]


def test_a_row_that_the_disk_does_not_take_is_told_once(tmp_path: Path) -> None:
    rows = Arriving(tmp_path / "gone")
    event = TestFinished("a", TestResult("t.py::0", "s", Outcome.PASSED))
    told = [rows.add(event), rows.add(event)]
    assert told[0].startswith(f"{tmp_path / 'gone' / RESULTS}: No such file") and told[1] == ""


@pytest.mark.parametrize("name", ["../out", "/out"])
def test_a_folder_of_a_worker_stays_in_its_place(name: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    buffer.seek(0)
    with pytest.raises(InfrastructureError, match="does not belong into a kernel's folder"):
        unpack_folder(buffer, tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_a_worker_has_no_links(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    buffer.seek(0)
    with pytest.raises(InfrastructureError, match="'a' does not belong"):
        unpack_folder(buffer, tmp_path)
