"""How often the verifier read each line of the source: the log of level 2, and the reports."""

from __future__ import annotations

from collections import Counter

import pages
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtest.model.loads import LoadResult, SourceLine, Verdict, Visits
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.report import terminal
from vmtest.report.html.page import render
from vmtest.report.visited import CELLS, ROWS, programs, shown, worst
from vmtest.verify.visits import LINES, visits

# Of Linux 6.12, shortened.
LOG = """\
func#0 @0
0: R1=ctx() R10=fp0
; int prog(struct sk_msg_md *msg) @ own.bpf.c:34
0: (bf) r6 = r1                       ; R1=ctx() R6_w=ctx()
; for (int i = 0; i < 2; i++) @ own.bpf.c:39
1: (61) r1 = *(u32 *)(r6 +16)         ; R1_w=scalar()
2: (47) r1 |= 8
mark_precise: frame0: regs=r1 stack= before 1: (61) r1 = *(u32 *)(r6 +16)
from 2 to 1: R1=10 R6=ctx() R10=fp0
1: R1=10 R6=ctx() R10=fp0
1: (61) r1 = *(u32 *)(r6 +16)         ; R1_w=scalar()
2: (47) r1 |= 8
;  @ own.bpf.c:0
3: (95) exit
from 0 to 3: safe
Live regs before insn:
   0: .1........ (bf) r6 = r1
processed 6 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 1
"""
LOOP = SourceLine("own.bpf.c:39", "for (int i = 0; i < 2; i++)", 4, 2)
WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="@"), max_size=9)


def load(*lines: SourceLine, **more: object) -> LoadResult:
    read = Visits(sum(line.visits for line in lines), lines)
    return LoadResult("own", "prog", Verdict.ACCEPTED, visits=read, **more)  # type: ignore[arg-type]


def matrix(*loads: LoadResult) -> Matrix:
    return pages.of(
        *(KernelResult(f"6.{n}", Status.PASSED, loads=(one,)) for n, one in enumerate(loads, 1))
    )


def test_each_instruction_counts_as_often_as_the_verifier_came_by() -> None:
    assert visits(LOG) == Visits(
        6,
        (
            LOOP,
            SourceLine("own.bpf.c:0", "", 1, 1),
            SourceLine("own.bpf.c:34", "int prog(struct sk_msg_md *msg)", 1, 1),
        ),
    )


def test_a_kernel_before_6_8_tells_lines_without_their_place() -> None:
    log = "; a = b[1];\n0: (b7) r0 = 0\n1: (b7) r0 = 0\n"
    assert visits(log).lines == (SourceLine("", "a = b[1];", 2, 2),)


def test_a_log_without_instructions_has_no_lines() -> None:
    assert visits("processed 6 insns (limit 1000000)\n") == Visits()


def test_no_more_than_so_many_lines_are_kept() -> None:
    log = "".join(f"; line @ a.c:{n}\n{n}: (b7) r0 = 0\n" for n in range(LINES + 7))
    read = visits(log)
    assert (len(read.lines), read.left_out, read.total) == (LINES, 7, LINES + 7)


@given(st.lists(st.tuples(WORDS, st.integers(1, 99), st.lists(st.integers(0, 99), max_size=5))))
def test_whatever_was_read_is_counted_for_the_line_that_stands_above_it(
    told: list[tuple[str, int, list[int]]],
) -> None:
    log, count = "", Counter[tuple[str, str]]()
    for text, line, instructions in told:
        log += f"; {text} @ f.c:{line}\n"
        log += "".join(f"{number}: (b7) r0 = 0\n" for number in instructions)
        if instructions:
            count[f"f.c:{line}", text.strip()] += len(instructions)
    read = Counter[tuple[str, str]]()
    for one in visits(log).lines:
        read[one.place, one.text] += one.visits
    assert read == count


@given(st.text(max_size=300))
def test_no_text_raises_and_each_visit_is_counted_once(text: str) -> None:
    read = visits(text)
    assert read.total == sum(line.visits for line in read.lines)


def test_the_line_that_took_the_largest_share_comes_first() -> None:
    few, many = SourceLine("a.c:1", "a", 10, 1), SourceLine("a.c:2", "b", 90, 1)
    (program,) = programs(matrix(load(few, many)))
    assert [(row.place, row.visits, row.shares) for row in program.rows] == [
        ("a.c:2", (90,), (90.0,)),
        ("a.c:1", (10,), (10.0,)),
    ]


def test_a_line_without_its_place_is_that_of_a_newer_kernel() -> None:
    (program,) = programs(
        matrix(load(SourceLine("", "a", 4, 1)), load(SourceLine("a.c:1", "a", 5, 1)))
    )
    assert [(row.place, row.visits) for row in program.rows] == [("a.c:1", (4, 5))]


def test_a_program_shows_its_worst_lines_and_says_how_many_others_there_are() -> None:
    lines = (SourceLine(f"a.c:{n}", "a", 1, 1) for n in range(ROWS + 3))
    (program,) = programs(matrix(load(*lines)))
    assert (len(program.rows), program.left_out) == (ROWS, 3)


def test_a_page_has_room_for_so_many_cells() -> None:
    (program,) = programs(matrix(load(*(SourceLine(f"a.c:{n}", "a", 1, 1) for n in range(ROWS)))))
    assert len(shown([program] * 1000)) == CELLS // ROWS


def test_the_page_has_the_lines_as_text_whatever_they_are() -> None:
    line = SourceLine("a.c:1", "if (a < b) <script>alert(1)</script>", 1234, 2)
    page = render(matrix(load(line, SourceLine("", "", 3, 1), log_cut=True)))
    assert "(made by the compiler)" in page
    assert '<h2 id="h-lines">' in page
    assert "if (a &lt; b) &lt;script&gt;" in page
    assert '1,234 <span class="change">100%</span>' in page
    assert "The log was cut on 6.1" in page


def test_a_page_without_such_logs_has_no_such_section() -> None:
    assert "h-lines" not in render(matrix(LoadResult("own", "prog", Verdict.ACCEPTED)))


def test_the_terminal_has_the_worst_lines_where_everything_is_asked_for() -> None:
    of = matrix(load(LOOP))
    words = "4 (100%) own.bpf.c:39: for (int i = 0; i < 2; i++) (own: prog on 6.1)"
    assert worst(programs(of), 5) == [words]
    assert words in terminal.render(of, amount=terminal.Amount.WHOLE)
    assert words not in terminal.render(of)


def test_what_a_hostile_log_makes_up_takes_no_memory_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vmtest.verify.visits.DIFFERENT", 3)
    lines = [f"; line {number}\n{number}: (b7) r0 = 0\n" for number in range(9)]
    found = visits("".join(lines) + "; line 0\n" + "".join(f"{n}: (b7) r0\n" for n in range(9)))
    assert [(line.text, line.visits, line.instructions) for line in found.lines] == [
        ("line 0", 10, 1),
        ("line 1", 1, 1),
        ("line 2", 1, 1),
    ]
