"""Parts of a matrix for several machines: every kernel in exactly one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import vmtest
from hypothesis import given
from hypothesis import strategies as st
from packaged import PACKAGED

from vmtest.errors import UsageError
from vmtest.matrix.shard import Shard, absent
from vmtest.model.kernels import AptSpec, Kernel
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.runs import matrix_json


def kernels(*names: str) -> tuple[Kernel, ...]:
    return tuple(Kernel(name, AptSpec("debian", "*")) for name in names)


def names(chosen: tuple[Kernel, ...]) -> list[str]:
    return [one.name for one in chosen]


def took(**seconds: float) -> Matrix:
    results = tuple(
        KernelResult(name, Status.PASSED, duration=value) for name, value in seconds.items()
    )
    return Matrix(schema=1, run="r", started="", duration=0.0, suites=(), kernels=results)


def test_without_durations_parts_are_equally_many() -> None:
    four = kernels("a", "b", "c", "d")
    assert [names(Shard.parse(f"{n}/2").part(four)) for n in (1, 2)] == [["a", "c"], ["b", "d"]]


def test_the_longest_kernel_gets_a_part_of_its_own() -> None:
    before = took(a=10, b=10, c=50, d=10)
    four = kernels("a", "b", "c", "d")
    parts = [names(Shard.parse(f"{n}/2", before).part(four)) for n in (1, 2)]
    assert parts == [["c"], ["a", "b", "d"]]


def test_a_kernel_without_a_duration_counts_as_the_average() -> None:
    parts = [
        names(Shard.parse(f"{n}/2", took(a=10, b=30)).part(kernels("a", "b", "new")))
        for n in (1, 2)
    ]
    assert parts == [["b"], ["a", "new"]]


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=40),
    st.integers(1, 8),
)
def test_every_kernel_is_in_exactly_one_part(durations: list[float], count: int) -> None:
    count = min(count, len(durations))
    every = kernels(*(f"k{n}" for n in range(len(durations))))
    before = took(**{f"k{n}": seconds for n, seconds in enumerate(durations)})
    parts = [names(Shard.parse(f"{n}/{count}", before).part(every)) for n in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == sorted(names(every))
    assert all(parts)


@pytest.mark.parametrize("text", ["", "2", "0/2", "1/0", "a/b", "1/2/3", "-1/2", "1 / 2"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write PART/PARTS, as in 2/4"):
        Shard.parse(text)


def test_a_part_beyond_the_last_does_not_exist() -> None:
    with pytest.raises(UsageError, match="`shard` 3/2: part 3 of 2 does not exist"):
        Shard.parse("3/2")


def test_more_parts_than_kernels_are_refused_on_every_machine() -> None:
    for number in (1, 3):
        with pytest.raises(UsageError, match="there are 2 kernels, so at most 2 parts"):
            Shard.parse(f"{number}/3").part(kernels("a", "b"))


@pytest.mark.parametrize("command", [["run"], ["verify", "x.bpf.o"], ["exec", "--shard", "5/4"]])
def test_the_commands_name_the_option(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "kernels.toml").write_text(f"schema = 1\n{PACKAGED}")
    asked = [*command, "--", "true"] if command[0] == "exec" else [*command, "--shard", "5/4"]
    vmtest(*asked, cwd=tmp_path).refuses(2, "--shard 5/4: part 5 of 4 does not exist")


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--shard", "1/9"], "--shard 1/9: there "), (["--locked"], "kernels.lock does not exist")],
)
def test_what_needs_no_build_is_refused_before_it(
    options: list[str], said: str, tmp_path: Path
) -> None:
    build = '[build]\ncommand = ["touch", "built"]\n'
    suite = '[[suite]]\nname = "s"\ntests = "test_s.py"\n'
    (tmp_path / "kernels.toml").write_text(f"schema = 1\n{PACKAGED}{build}{suite}")
    (tmp_path / "test_s.py").write_text("def test_it(): pass\n")
    vmtest("run", *options, cwd=tmp_path).refuses(2, said)
    assert not (tmp_path / "built").exists()


def test_a_balance_without_a_part_is_refused(tmp_path: Path) -> None:
    said = vmtest("exec", "--balance", ".", "--", "true", cwd=tmp_path)
    said.refuses(2, "--balance says how parts are made; name one with --shard PART/PARTS")


# --- merged again ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commands", "missing"),
    [
        ([], ()),
        ([["run"], ["run", "--kernel", "6.12"]], ()),
        ([["run", "--shard", "1/2"], ["run", "--shard=2/2"]], ()),
        ([["run", "--shard", "1/2"]], ("2/2",)),
        ([["run", "--shard", "2/4", "-k", "x"], ["run", "--shard", "4/4"]], ("1/4", "3/4")),
        ([["exec", "--shard", "1/2", "--", "x", "--shard", "2/2"]], ("2/2",)),
        ([["exec", "--", "x", "--shard", "1/2"]], ()),
        ([["run", "--shard"]], ()),
    ],
)
def test_the_part_that_no_command_asked_for_is_known(
    commands: list[list[str]], missing: tuple[str, ...]
) -> None:
    assert absent(commands) == missing


def test_a_number_of_parts_that_nobody_has_takes_no_memory() -> None:
    assert len(absent([["run", "--shard", "1/999999999"]])) < 10_000


def shard_run(project: Path, kernel: str, arguments: Sequence[str] | None) -> str:
    """The name of a run of ``project`` in which ``kernel`` passed."""
    folder = project / ".vmtest" / "runs" / kernel
    folder.mkdir(parents=True)
    test = TestResult("t.py::test_x", "s", Outcome.PASSED)
    one = KernelResult(kernel, Status.PASSED, tests=(test,))
    matrix = Matrix(SCHEMA, kernel, "2026-11-30T09:00:00Z", 1.0, ("s",), (one,))
    (folder / "matrix.json").write_text(matrix_json.dumps(matrix), encoding="utf-8")
    if arguments is not None:
        (folder / "run.json").write_text(json.dumps({"arguments": arguments}), encoding="utf-8")
    return str(folder)


def test_a_merge_without_one_of_the_shards_does_not_pass(tmp_path: Path) -> None:
    """As where a machine of the CI was lost, and left nothing to merge."""
    one = shard_run(tmp_path, "6.1", ["run", "--shard", "1/3"])
    two = shard_run(tmp_path, "6.12", ["run", "--shard=3/3"])
    said = vmtest("merge", one, f"{two}/matrix.json", "--json", "all.json", cwd=tmp_path)
    words = "no run of shard 2/3: its kernels are missing here; run it, and merge all of them"
    said.refuses(3, words)
    assert json.loads((tmp_path / "all.json").read_text())["notes"] == [words]


def test_a_merge_of_all_shards_passes(tmp_path: Path) -> None:
    one = shard_run(tmp_path, "6.1", ["run", "--shard", "1/2"])
    two = shard_run(tmp_path, "6.12", ["run", "--shard", "2/2"])
    assert vmtest("merge", one, two, cwd=tmp_path).status == 0


def test_what_a_merged_run_holds_nobody_knows(tmp_path: Path) -> None:
    merged = shard_run(tmp_path, "6.1", None)
    late = shard_run(tmp_path, "6.12", ["run", "--shard", "2/2"])
    assert vmtest("merge", merged, late, cwd=tmp_path).status == 0
