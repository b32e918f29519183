"""What verify found, shown: terminal, Markdown, JSON, and CSV for veristat."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmtest.model.loads import (
    Attachment,
    Change,
    ChangeKind,
    Cost,
    LoadResult,
    LoadSet,
    Reason,
    Verdict,
)
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.report import loads, markdown, terminal
from vmtest.report.html import page
from vmtest.runs import matrix_json
from vmtest.verify import veristat

A, R = Verdict.ACCEPTED, Verdict.REJECTED
REASON = Reason("helper", "helper bpf_x is not in this kernel", "probe for it", "unknown func 212")


def load(program: str, verdict: Verdict = A, instructions: int = 0, **more: Any) -> LoadResult:
    made = LoadResult("build/x.o", program, verdict, cost=Cost(instructions=instructions))
    return replace(made, **more)


def kernel(name: str, *found: LoadResult, **more: Any) -> KernelResult:
    status = Status.FAILED if any(one.verdict.bad for one in found) else Status.PASSED
    made = KernelResult(name, status, f"{name}.1", f"{name}.1-amd64", "tcg", directory=name)
    return replace(made, loads=found, **more)


def matrix(*kernels: KernelResult) -> Matrix:
    return Matrix(1, "r", "2026-01-01T00:00:00+00:00", 9.0, (), kernels)


REJECTED = load(
    "bad",
    R,
    33,
    errno="EACCES",
    type="xdp",
    line="R0 !read_ok",
    log="verifier/x/bad.log",
    reason=REASON,
)
TWO = matrix(
    kernel("5.10", load(""), load("good", A, 812), REJECTED),
    kernel("6.12", load(""), load("good", A, 790), load("bad", A, 40)),
)


def row(text: str, label: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.split()[:1] == [label])
    return line.split()


def test_programs_go_down_and_kernels_across_with_verdict_and_instructions() -> None:
    text = terminal.render(TWO, width=120, color=False)
    assert row(text, "good") == ["good", "ok", "812", "ok", "790"]
    assert row(text, "bad") == ["bad", "REJECTED", "33", "ok", "40"]
    assert "build/x.o" in text
    assert "ok: accepted; the number is the instructions" in text


def test_a_kernel_and_an_object_count_their_programs() -> None:
    text = terminal.render(TWO, width=120, color=False)
    assert row(text, "loads")[:6] == ["loads", "1", "ok", "2", "ok"]
    assert text.count("1 REJECTED") == 2  # of the kernel and of the object


def test_an_object_that_is_refused_as_a_whole_is_not_counted_as_a_program() -> None:
    other = [replace(load(p), object="build/y.o") for p in ("", "c")]
    of = matrix(kernel("6.12", load("", R), load("good"), load("bad", R), *other))
    words = "3 programs: 2 accepted, 1 rejected; 1 of 2 objects does not load as a whole"
    for text in (terminal.render(of), markdown.render(of), page.render(of)):
        assert words in text
    assert row(terminal.render(of), "loads")[1:] == ["2", "ok"]
    assert "1 REJECTED as a whole" in terminal.render(of)


def test_a_rejection_has_reason_evidence_remedy_line_and_log() -> None:
    text = terminal.render(TWO, width=120, color=False)
    for part in (
        "REJECTED 33 build/x.o: bad",
        "on 5.10: EACCES, xdp",
        "helper: helper bpf_x is not in this kernel",
        "evidence: unknown func 212",
        "remedy: probe for it",
        "last line: R0 !read_ok",
        "log: 5.10/verifier/x/bad.log",
    ):
        assert part in text


def test_kernels_that_reject_alike_are_told_once() -> None:
    both = matrix(kernel("5.10", REJECTED), kernel("6.12", REJECTED))
    (rejection,) = loads.rejections(both)
    assert rejection.kernels == ("5.10", "6.12")
    assert len(rejection.logs) == 2


def test_a_narrow_terminal_turns_the_table_round() -> None:
    text = terminal.render(TWO, width=40, color=False)
    assert "bad: REJECTED 33 5.10; ok 40 6.12" in text


def test_letters_carry_every_verdict() -> None:
    marks = {loads.mark_of(load("p", verdict)).text for verdict in Verdict}
    assert len(marks) == len(Verdict)


def test_a_log_that_was_cut_says_so() -> None:
    assert "the log was cut: raise --log-limit" in loads.why(replace(REJECTED, log_cut=True))


def test_an_attachment_is_in_the_cell() -> None:
    no = load("p", attachment=Attachment(False, "lo", "EOPNOTSUPP"))
    yes = load("q", attachment=Attachment(True, "lo"))
    text = terminal.render(matrix(kernel("6.12", no, yes)), width=120, color=False)
    cells = [line.split()[-3:] for line in text.splitlines() if "attached" in line]
    assert ["not", "attached", "EOPNOTSUPP"] in cells
    assert ["attached"] in cells


GONE = Reason("attach-target", "no function do_unlinkat", "name another", "no do_unlinkat")
DETACHED = load(
    "p",
    section="kprobe/do_unlinkat",
    attachment=Attachment(False, "where its section says", "ENOENT", GONE),
)


@pytest.mark.parametrize("render", [terminal.render, markdown.render])
def test_an_attachment_that_failed_has_its_reason_below_the_table(render: Any) -> None:
    text = render(matrix(kernel("6.12", DETACHED), kernel("7.3", DETACHED)))
    for part in (
        "build/x.o: p",
        "on 6.12, 7.3",
        "ENOENT, where its section says: kprobe/do_unlinkat",
        "attach-target: no function do_unlinkat",
        "evidence: no do_unlinkat",
        "remedy: name another",
    ):
        assert part in text


def test_attachments_that_failed_are_counted() -> None:
    other = replace(DETACHED, program="q")
    text = terminal.render(matrix(kernel("6.12", DETACHED, other)), width=120, color=False)
    assert "2 programs: 2 accepted, 2 not attached" in text


def test_a_program_that_is_attached_and_never_called_says_so_and_why() -> None:
    idle = Reason("lsm-inactive", "the BPF LSM is not active", "lsm=bpf", "no bpf in the list")
    found = load("p", attachment=Attachment(True, "where its section says", "", idle))
    text = terminal.render(matrix(kernel("5.10", found)), width=120, color=False)
    assert "attached, never called build/x.o: p" in text
    assert "lsm-inactive: the BPF LSM is not active" in text


def test_what_is_not_required_says_so() -> None:
    text = terminal.render(
        matrix(kernel("6.12", replace(REJECTED, required=False))), width=120, color=False
    )
    assert "not required" in text


def test_a_program_near_the_limit_is_marked_and_listed() -> None:
    text = terminal.render(matrix(kernel("6.12", load("p", A, 950_000))), width=120, color=False)
    assert row(text, "p") == ["p", "ok", "950000", "!"]
    assert "950000 instructions, 95% of the limit on 6.12" in text


def test_changes_come_verdicts_first_and_kernels_together() -> None:
    cost = Change("o", "p", ChangeKind.COST, A, A, "instructions", 100, 150, "v1")
    gone = Change("o", "q", ChangeKind.REGRESSED, A, R, since="v1")
    found = loads.changed(
        matrix(kernel("5.10", load("p"), changes=(cost,)), kernel("6.12", changes=(gone, cost)))
    )
    assert [(change.mark, change.kernels) for change in found] == [
        ("REGRESSED", ("6.12",)),
        ("cost", ("5.10", "6.12")),
    ]
    assert found[0].text == "o: q: accepted -> rejected (since v1)"
    assert found[1].text == "o: p: instructions 100 -> 150 (+50.0%) (since v1)"


def test_the_summary_counts_objects_programs_and_verdicts() -> None:
    assert "1 object, 2 programs: 3 accepted, 1 rejected" in terminal.render(TWO, width=120)


def test_markdown_has_table_rejection_changes_and_warning() -> None:
    change = Change("o", "p", ChangeKind.DRIFT, A, R, since="6.12.0")
    near = load("near", A, 950_000)
    text = markdown.render(matrix(TWO.kernels[0], kernel("6.12", near, changes=(change,))))
    for part in (
        "| `bad` | **REJECTED 33** | - |",
        "evidence: unknown func 212",
        "### Changes since the baseline",
        "- kernel drift `o: p: accepted -> rejected (since 6.12.0)` on 6.12",
        "### Close to the instruction limit",
    ):
        assert part in text


@pytest.mark.parametrize(("since", "verb"), [("6.12.1-amd64", "compared with"), ("v1", "since")])
def test_a_change_on_the_same_release_is_not_since_it(since: str, verb: str) -> None:
    change = Change("o", "p", ChangeKind.FIXED, R, A, since=since)
    of = matrix(kernel("6.12", load("p"), release="6.12.1-amd64", changes=(change,)))
    assert f"rejected -> accepted ({verb} {since})" in terminal.render(of, width=120)


def test_what_a_guest_wrote_is_no_markup() -> None:
    evil = replace(REJECTED, program="<b>`x`|y\x1b[31m", line="</details>")
    text = markdown.render(matrix(kernel("6.12", evil)))
    assert "<code>build/x.o: &lt;b&gt;`x`|y</code>" in text
    assert "\x1b" not in text + terminal.render(matrix(kernel("6.12", evil)), width=120)


def test_json_keeps_everything() -> None:
    change = Change("o", "p", ChangeKind.COST, A, A, "instructions", 100, 150, "v1")
    other = LoadSet("v1", (("o", "aa"),), (REJECTED,))
    whole = matrix(kernel("6.12", REJECTED, changes=(change,), against=other))
    assert matrix_json.loads(matrix_json.dumps(whole)) == whole


ODD = matrix(
    kernel(
        "6.12",
        load(""),
        load("b", A, 10),
        load("a,b c\n", R, 5),
        replace(load("", A), program="z" * 9000),
    )
)


def test_csv_has_veristats_columns_and_a_line_a_program() -> None:
    lines = veristat.render(TWO.kernels[0]).splitlines()
    assert lines[0] == "file_name,prog_name,verdict,duration,total_insns,total_states,peak_states"
    assert lines[1:] == ["build/x.o,bad,failure,0,33,0,0", "build/x.o,good,success,0,812,0,0"]


def test_csv_has_no_field_that_veristat_would_split_or_skip() -> None:
    lines = veristat.render(ODD.kernels[0]).splitlines()
    assert len(lines) > 2
    for line in lines:
        fields = line.split(",")
        assert len(fields) == len(veristat.COLUMNS)
        assert all(fields)
        assert len(line) < 4095


@pytest.mark.skipif(not shutil.which("veristat"), reason="veristat is not in PATH")
def test_veristat_itself_compares_two_of_them(tmp_path: Path) -> None:
    # Of the same programs: that of Linux 6.1 never ends where the second file has one more.
    odd = ODD.kernels[0]
    worse = replace(odd, loads=tuple(replace(one, verdict=R) for one in odd.loads))
    for n, one in enumerate((*TWO.kernels, odd, worse)):
        (tmp_path / f"{n}.csv").write_text(veristat.render(one))
    for pair, word in ((("0.csv", "1.csv"), "good"), (("2.csv", "3.csv"), "MISMATCH")):
        argv = ["veristat", "-C", *pair]
        done = subprocess.run(
            argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert word in done.stdout
