"""Several versions of libbpf, each of which loads every object, in one report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_loader import Bench
from test_report_loads import kernel, load, matrix
from test_rootfs_libbpf import library, needs_linker

import vmtest
from vmtest.config.file import load as load_config
from vmtest.config.file import with_libbpf
from vmtest.errors import UsageError
from vmtest.model.loads import LoadResult, Verdict, name_of
from vmtest.report import markdown, terminal
from vmtest.report.merge import merge
from vmtest.verify.libraries import Way, across, digests, side_by_side, ways
from vmtest.verify.process import End, Order, Wanted

TWO = Order((Wanted("x", "objects/000.o"), Wanted("y", "objects/001.o")))
BOTH = ("1.1", "1.5")
EACH = ways(TWO, BOTH)
CILIUM = "cilium/ebpf 0.9.1"


def test_each_version_loads_each_object() -> None:
    rows = [wanted.row for wanted in across(TWO, EACH).objects]
    assert rows == ["x (libbpf 1.1)", "x (libbpf 1.5)", "y (libbpf 1.1)", "y (libbpf 1.5)"]
    assert [wanted.name for wanted in across(TWO, EACH).objects] == ["x", "x", "y", "y"]


@pytest.mark.parametrize("versions", [(), ("1.5",)])
def test_one_libbpf_changes_no_name(versions: tuple[str, ...]) -> None:
    assert across(TWO, ways(TWO, versions)) == TWO
    assert digests([("x", "0")], ways(TWO, versions)) == (("x", "0"),)


def test_another_loader_has_rows_of_its_own_and_libbpf_those_that_it_had() -> None:
    order = replace(TWO, loaders=(CILIUM,))
    rows = [wanted.row for wanted in across(order, ways(order, ("1.5",))).objects]
    assert rows == ["x", f"x ({CILIUM})", "y", f"y ({CILIUM})"]
    of = digests([("x", "0")], ways(order, BOTH))
    names = ["x (libbpf 1.1)", "x (libbpf 1.5)", f"x ({CILIUM})"]
    assert of == tuple((name, "0") for name in names)


def test_the_name_of_an_object_is_read_from_its_row() -> None:
    order = replace(TWO, loaders=(CILIUM,))
    for one in (*across(order, ways(order, BOTH)).objects, *across(order, ways(order, ())).objects):
        assert name_of(one.row) == one.name


def test_libbpf_loads_nothing_where_it_is_not_named() -> None:
    order = replace(TWO, loaders=(CILIUM,), by_libbpf=False)
    assert ways(order, BOTH) == (Way(loader=CILIUM),)


def test_digests_have_the_names_of_the_loads() -> None:
    assert digests([("x", "0")], EACH) == (("x (libbpf 1.1)", "0"), ("x (libbpf 1.5)", "0"))


def test_the_versions_of_an_object_stand_side_by_side() -> None:
    # As they are loaded: all objects by one libbpf, then all by the next one.
    rows = ["refused", "x (libbpf 1.1)", "y (libbpf 1.1)", "x (libbpf 1.5)", "y (libbpf 1.5)"]
    loads = [LoadResult(row, "", Verdict.ACCEPTED) for row in rows]
    shown = [one.object for one in side_by_side(loads, across(TWO, EACH))]
    assert shown == ["refused", *(wanted.row for wanted in across(TWO, EACH).objects)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, [], objects=across(TWO, EACH).objects)
    yield made
    made.session.close()
    made.record.__exit__()


def test_a_process_is_asked_for_the_objects_of_one_libbpf(bench: Bench) -> None:
    assert [entry["key"] for entry in bench.loader.plan()["objects"]] == ["0", "2"]
    assert bench.execute() is End.FINISHED
    assert [entry["key"] for entry in bench.loader.plan()["objects"]] == ["1", "3"]
    assert bench.execute() is End.FINISHED
    assert bench.loader.left == ()
    libbpf = {(one.object, one.libbpf) for one in bench.record.loads}
    assert libbpf == {(w.row, w.libbpf) for w in across(TWO, EACH).objects}
    assert len(bench.record.loads) == 4 * 3


def test_a_process_that_dies_costs_nothing_of_the_other_libbpf(bench: Bench) -> None:
    bench.fates["2/open"] = "die"
    assert bench.execute() is End.DIED
    assert bench.loader.blame(Verdict.LOADER_CRASHED, "gone")
    while bench.loader.left:
        assert bench.execute() is End.FINISHED
    bad = [one.object for one in bench.record.loads if one.verdict.bad]
    assert bad == ["y (libbpf 1.1)"]


def both(program: str, old: Verdict) -> list[LoadResult]:
    names = [(f"build/x.o (libbpf {version})", version) for version in BOTH]
    verdicts = (old, Verdict.ACCEPTED)
    return [
        load(program, verdict, object=name, libbpf=version)
        for (name, version), verdict in zip(names, verdicts, strict=True)
    ]


SHOWN = matrix(kernel("6.12", *both("tcx", Verdict.REFUSED), libbpf="1.1, 1.5"))


def test_the_terminal_has_a_column_for_the_loader() -> None:
    lines = [line.split() for line in terminal.render(SHOWN, width=100).splitlines()]
    assert ["loader", "6.12"] in lines
    assert ["build/x.o", "1.1", "1", "REFUSED"] in lines and ["tcx", "1.5", "ok"] in lines


BESIDE = matrix(
    kernel(
        "6.12",
        load("tcx", object="build/x.o", libbpf="1.5"),
        load("tcx", Verdict.REFUSED, object=f"build/x.o ({CILIUM})", loader=CILIUM),
        libbpf="1.5",
    )
)


def test_another_loader_stands_beside_libbpf_by_name() -> None:
    lines = [line.split() for line in terminal.render(BESIDE, width=100).splitlines()]
    assert ["tcx", "libbpf", "1.5", "ok"] in lines
    assert ["tcx", *CILIUM.split(), "REFUSED"] in lines
    assert f"| `tcx` | {CILIUM} | **REFUSED** |" in markdown.render(BESIDE)


def test_two_shards_of_another_loader_keep_their_rows() -> None:
    merged = merge([BESIDE, replace(BESIDE, run="b", kernels=(replace(BESIDE.kernels[0]),))])
    rows = {one.object for kernel in merged.kernels for one in kernel.loads}
    assert rows == {"build/x.o", f"build/x.o ({CILIUM})"}


def test_a_process_is_told_the_loader_of_its_objects(tmp_path: Path) -> None:
    order = replace(TWO, loaders=(CILIUM,))
    objects = across(order, ways(order, ())).objects
    made = Bench(tmp_path, [], objects=objects, loaders=order.loaders)
    assert made.loader.plan()["loader"] == ""
    assert made.execute() is End.FINISHED
    assert made.loader.plan()["loader"] == "loaders/0"
    assert [entry["key"] for entry in made.loader.plan()["objects"]] == ["1", "3"]
    assert made.execute() is End.FINISHED
    told = {(one.object, one.loader) for one in made.record.loads}
    assert told == {("x", ""), ("y", ""), (f"x ({CILIUM})", CILIUM), (f"y ({CILIUM})", CILIUM)}
    made.session.close()
    made.record.__exit__()


def test_a_narrow_terminal_names_the_loader_beside_the_object() -> None:
    narrow = matrix(
        *(kernel(f"6.{n}", *both("tcx", Verdict.REFUSED), libbpf="1.1, 1.5") for n in range(10, 40))
    )
    text = terminal.render(narrow, width=80)
    assert "build/x.o (1.1)" in text and "build/x.o (1.5)" in text


def test_markdown_has_a_column_for_the_loader() -> None:
    text = markdown.render(SHOWN)
    assert "|  | loader | 6.12 |\n|---|---|---|\n" in text
    assert "| `tcx` | 1.1 | **REFUSED** |" in text and "| `tcx` | 1.5 | ok |" in text


def test_one_libbpf_needs_no_column() -> None:
    one = matrix(kernel("6.12", load("tcx", libbpf="1.5"), libbpf="1.5"))
    assert "loader" not in terminal.render(one, width=100)
    assert "loader" not in markdown.render(one)
    assert "libbpf" in terminal.render(one, width=100)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    file = tmp_path / "kernels.toml"
    file.write_text(
        'schema = 1\n[guest]\nlibbpf = "1.1"\n[[kernel]]\nname = "k"\npath = "vmlinuz"\n'
    )
    return file


def test_an_option_takes_the_place_of_kernels_toml(project: Path, tmp_path: Path) -> None:
    given = with_libbpf(load_config(project), ["newest", "out/libbpf.so.1"], tmp_path / "here")
    assert given.guest.libbpf == ("newest", str(tmp_path / "here/out/libbpf.so.1"))


def test_an_option_that_is_no_libbpf_is_named(project: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"`libbpf` 1\.5\.0: '1\.5\.0' does not name a libbpf; write"
    ):
        with_libbpf(load_config(project), ["1.5.0"], tmp_path)


def test_rows_on_disk_name_the_libbpf(bench: Bench, tmp_path: Path) -> None:
    bench.execute()
    rows = [json.loads(line) for line in (tmp_path / "loads.jsonl").read_text().splitlines()]
    assert {row["libbpf"] for row in rows} == {"1.1"}


@needs_linker
def test_a_libbpf_that_cannot_be_used_is_the_loaders_last_word(tmp_path: Path) -> None:
    library(tmp_path / "libbpf.so.1", "1.9")
    script = Path(vmtest.__file__).parent / "guest" / "loader" / "main.py"
    chosen = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(script.parents[3])}
    done = subprocess.run(
        [sys.executable, script, "plan"], env=chosen, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("libbpf 1.x is needed in the guest: ") and "undefined symbol" in last
    assert last.endswith("; name another [guest] libbpf, or a newer [guest] suite")
