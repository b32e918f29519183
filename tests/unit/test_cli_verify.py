"""``vmtest verify`` through the command line, as far as it gets without a VM."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from command import in_process, vmtest

from vmtest.api.loads import VerifyRequest, plan_verify
from vmtest.config.file import load
from vmtest.model.loads import Cost, LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.runs import matrix_json
from vmtest.verify.question import work_of_load

TEXT = "no object at all, and long enough to have a header"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that found one program of 812 instructions on one kernel."""
    folder = tmp_path / ".vmtest" / "runs" / "20260101T000000Z-abcdef"
    folder.mkdir(parents=True)
    load = LoadResult("x.o", "p", Verdict.ACCEPTED, cost=Cost(instructions=812))
    kernel = KernelResult(
        "6.12", Status.PASSED, release="6.12.1", loads=(load,), objects=(("x.o", "aa"),)
    )
    matrix = Matrix(1, folder.name, "2026-01-01T00:00:00+00:00", 1.0, (), (kernel,))
    (folder / "matrix.json").write_text(matrix_json.dumps(matrix))
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "kernels.toml does not exist"),
        (("none.o",), "none.o: does not exist"),
        (("text.o",), "text.o is not an ELF file"),
        (("empty.o",), "empty.o is not an ELF file"),
        (("text.o", "--kernel", "6.13"), "text.o is not an ELF file"),
        (("text.o", "--log-level", "3"), "write 1, 2 or 4"),
        (("text.o", "--log-limit", "1T"), "from 1K to 256M"),
        (("text.o", "--fail-on", "anything"), "is not one of rejected, regressed"),
        (("text.o", "--fail-on", "attach"), "nothing is attached; add --attach"),
        (("text.o", "--fail-on", "regressed"), "needs --baseline FILE or --against"),
        (("text.o", "--baseline", "b", "--against", "d"), "compare with one of them"),
        (("text.o", "--baseline", "b.json"), "b.json does not exist"),
        (("text.o", "--type", "xdp"), "write [OBJECT:]PROGRAM=TYPE"),
        (("text.o", "--type", "p=xpd"), 'no program type "xpd" (did you mean "xdp"?)'),
        (("text.o", "--loader", "aya"), "--loader aya: write libbpf, cilium, or cilium@VERSION"),
        (("text.o", "--loader", "cilium@x"), "--loader cilium@x: write libbpf"),
        (("text.o", "--loader", "cilium", "--attach"), "it attaches nothing; leave --attach out"),
        (("--from-run", "2020", "--loader", "cilium"), "--libbpf and --loader out"),
        (("text.o", "--accel", "hvf"), "write auto, kvm or tcg"),
        (("text.o", "--from-run", "x"), "leave OBJECT and --against out"),
        (("--from-run", "2020"), 'there is no run "2020"'),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "text.o").write_text(TEXT)
    (tmp_path / "empty.o").write_bytes(b"")
    in_process("verify", *arguments, cwd=tmp_path).refuses(2, said)


SOURCE = (
    '__attribute__((section("xdp"))) int pass(void *c) { return 2; }\n'
    'char words[] __attribute__((section("license"))) = "GPL";\n'
)


def compiled(folder: Path) -> None:
    """x.o in ``folder``, with one program."""
    (folder / "x.c").write_text(SOURCE)
    command = ["clang", "-O2", "--target=bpf", "-c", "x.c", "-o", "x.o"]
    subprocess.run(command, cwd=folder, check=True)


def test_guests_of_verify_get_no_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(tmp_path)
    monkeypatch.setattr("vmtest.api.loads.check_host", lambda *given, **options: None)
    (tmp_path / "kernels.toml").write_text(
        'schema = 1\n[[kernel]]\nname = "k"\npath = "vmlinuz"\n[[object]]\n'
        'name = "x"\npath = "x.o"\n'
    )
    (tmp_path / "vmlinuz").touch()
    settings = load(tmp_path / "kernels.toml")
    with ExitStack() as stack:
        plan = plan_verify(settings, VerifyRequest(kernels=("k",)), print, stack)
    assert not plan.wheels
    assert not work_of_load(settings, "x:pass", ()).wheels


def test_a_pattern_without_a_program_is_refused_before_anything_boots(tmp_path: Path) -> None:
    compiled(tmp_path)
    said = in_process("verify", "x.o", "--program", "zz*", cwd=tmp_path)
    said.refuses(2, "--program zz*: matches no program of x.o (there are: pass)")


def test_an_object_without_programs_is_refused_before_anything_boots(tmp_path: Path) -> None:
    (tmp_path / "x.o").write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\1\0\xf7\0" + bytes(44))
    said = in_process("verify", "x.o", cwd=tmp_path)
    said.refuses(2, "x.o: has no BPF program, so there is nothing to load")


def test_a_libbpf_that_is_not_there_is_named_as_it_was_given(tmp_path: Path) -> None:
    compiled(tmp_path)
    said = in_process("verify", "x.o", "--libbpf", "./nope.so", cwd=tmp_path)
    said.refuses(2, "error: --libbpf ./nope.so: does not exist")
    assert "kernels.toml" not in said.err


def test_a_baseline_of_another_schema_version_is_refused_before_anything(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"schema": 7, "kernels": {}}')
    said = in_process("verify", "x.o", "--baseline", "b.json", cwd=tmp_path)
    said.refuses(2, "b.json: schema 7, but this vmtest reads 1", "upgrade vmtest")


def test_a_revision_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.o").write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\1\0\xf7\0" + bytes(44))
    said = in_process("verify", "x.o", "--against", "v0", cwd=tmp_path)
    said.refuses(2, "--against v0: is not a folder, and as a git revision of")


def test_an_old_run_is_judged_without_booting(run: Path, tmp_path: Path) -> None:
    saved = vmtest("verify", "--from-run", str(run), "--save", "b.json", cwd=tmp_path)
    assert saved.status == 0, saved
    value = json.loads((tmp_path / "b.json").read_text())
    load = value["kernels"]["6.12.1"]["objects"]["x.o"]["programs"]["p"]
    load["costs"]["instructions"] = 400
    (tmp_path / "b.json").write_text(json.dumps(value))
    compared = ("verify", "--from-run", str(run), "--baseline", "b.json")
    assert vmtest(*compared, cwd=tmp_path).status == 0
    said = vmtest(*compared, "--fail-on", "+20%", cwd=tmp_path)
    assert said.status == 1, said
    assert "x.o: p: instructions 400 -> 812 (+103.0%)" in said.out


def test_an_old_run_is_told_with_the_options_that_judge_it_now(run: Path, tmp_path: Path) -> None:
    refused = LoadResult("x.o", "p", Verdict.REJECTED)
    kernel = KernelResult("6.12", Status.FAILED, release="6.12.1", loads=(refused,))
    again = (("verify",), ("--fail-on", "+20%"), ("--against", "HEAD~1"), ("--module", "m"))
    matrix = Matrix(1, run.name, "2026-01-01T00:00:00+00:00", 1.0, (), (kernel,), again=again)
    (run / "matrix.json").write_text(matrix_json.dumps(matrix))
    (run / "report.html").write_text("of the old judgement")
    (tmp_path / "b.json").write_text('{"schema": 1, "kernels": {}}')
    said = vmtest("verify", "--from-run", str(run), "--quiet", cwd=tmp_path)
    assert (
        "vmtest verify x.o --kernel 6.12 --against 'HEAD~1' --module m --program p\n" in said.out
    ), said
    assert "page:" not in said.out
    given = ("--baseline", "b.json", "--fail-on", "rejected")
    said = vmtest("verify", "--from-run", str(run), *given, cwd=tmp_path)
    assert "--module m --baseline b.json --fail-on rejected --program p\n" in said.out, said
    assert "--against" not in said.out


def test_a_run_without_loads_is_none_of_verify(run: Path, tmp_path: Path) -> None:
    empty = Matrix(1, "r", "2026-01-01T00:00:00+00:00", 1.0, (), ())
    (run / "matrix.json").write_text(matrix_json.dumps(empty))
    vmtest("verify", "--from-run", str(run), cwd=tmp_path).refuses(
        2, "is not a run of vmtest verify"
    )


def test_what_a_killed_runner_left_is_read(run: Path, tmp_path: Path) -> None:
    kernel = KernelResult("6.12", Status.CANCELLED, release="6.12.1")
    matrix = Matrix(1, "r", "2026-01-01T00:00:00+00:00", 1.0, (), (kernel,))
    (run / "matrix.json").write_text(matrix_json.dumps(matrix))
    (run / "6.12").mkdir()
    line = '{"object": "x.o", "program": "p", "verdict": "rejected"}\n'
    (run / "6.12" / "loads.jsonl").write_text(line + line[:20])
    said = vmtest("report", str(run), cwd=tmp_path)
    assert "REJECTED" in said.out
    assert "1 object, 1 program: 1 rejected" in said.out


def test_an_old_run_is_judged_by_the_programs_that_are_asked(run: Path, tmp_path: Path) -> None:
    loads = (LoadResult("x.o", "p", Verdict.ACCEPTED), LoadResult("x.o", "q", Verdict.REJECTED))
    kernel = KernelResult("6.12", Status.FAILED, release="6.12.1", loads=loads)
    other = KernelResult("6.1", Status.FAILED, version="6.1.9", loads=loads[1:])
    matrix = Matrix(1, run.name, "2026-01-01T00:00:00+00:00", 1.0, (), (kernel, other))
    (run / "matrix.json").write_text(matrix_json.dumps(matrix))
    asked = ("verify", "--from-run", str(run), "--kernel", "6.12")
    assert vmtest(*asked, "--program", "p", cwd=tmp_path).status == 0
    assert vmtest(*asked, "--program", "q", cwd=tmp_path).status == 1
    assert vmtest(*asked, "--program", "none", cwd=tmp_path).status == 5
    unknown = vmtest("verify", "--from-run", str(run), "--kernel", "7.0", cwd=tmp_path)
    unknown.refuses(2, "--kernel 7.0", "it has: 6.12, 6.1")


def test_csv_is_a_file_a_kernel(run: Path, tmp_path: Path) -> None:
    said = vmtest("verify", "--from-run", str(run), "--csv", "out/csv", cwd=tmp_path)
    assert said.status == 0, said
    text = (tmp_path / "out" / "csv" / "6.12.csv").read_text()
    assert text.splitlines()[1] == "x.o,p,success,0,812,0,0"
