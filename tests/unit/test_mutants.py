"""Mutants: each operator on a snippet, the judge of results, the list of survivors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import survivors, table
from tests.mutants.operators import OPERATORS, Mutant, mutants
from tests.mutants.record import Record
from tests.mutants.source import read_vocabulary
from tests.mutants.verdicts import (
    Judged,
    Killers,
    Survivor,
    Tally,
    Verdict,
    compare,
    good,
    judge,
)
from vmtest.errors import InfrastructureError, UsageError
from vmtest.model.results import Outcome, TestResult

HEADER = b"""
#ifndef FAULTS_H
#define FAULTS_H
#define SIZE_IS(type, size) _Static_assert(sizeof(type) == (size), "size")
#define PACKED __attribute__((packed))
enum policy { RANDOM = 0, STRICT = 1 };
enum route { LEAVE, GO };
struct place { __u32 ip4; __u16 port; } PACKED;
SIZE_IS(struct place, 6);
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __type(key, struct place);
} frontend SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
} backend SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
} events SEC(".maps");
#endif
"""


def mutant(name: str, function: str = "f", file: str = "x.h") -> Mutant:
    return Mutant(file, 1, 1, "gate", "if (a) return;", ";", function, 0, 14, name)


ONE, TWO = mutant("1"), mutant("2")
SURVIVES, DIES = Judged(Verdict.SURVIVED), Judged(Verdict.KILLED, "t.py::a")


def changes(text: str, operator: str | None = None) -> list[tuple[str, str]]:
    """(before, after) of the mutants of ``text``, of one operator when it is named."""
    data = text.encode()
    found = mutants("x.bpf.c", data, read_vocabulary([HEADER, data]))
    return [(m.before, m.after) for m in found if operator in (None, m.operator)]


def body(statements: str) -> str:
    return f"static __always_inline int f(struct ctx *ctx)\n{{\n{statements}\n}}\n"


@pytest.mark.parametrize(
    ("operator", "statements", "expected"),
    [
        ("byte-order", "x = bpf_htons(port);", [("bpf_htons(port)", "(port)")]),
        ("byte-order", "to.port = ctx->port;", [("ctx->port", "bpf_htons(ctx->port)")]),
        ("byte-order", "f(to->addr.ip4);", [("to->addr.ip4", "bpf_htonl(to->addr.ip4)")]),
        ("off-by-one", "x = word[i];", [("i", "(i + 1)"), ("i", "(i - 1)")]),
        ("off-by-one", "f(prio);", [("prio", "(prio + 1)"), ("prio", "(prio - 1)")]),
        ("off-by-one", "f(sizeof x);", [("sizeof x", f"(sizeof x {sign} 1)") for sign in "+-"]),
        ("gate", "if (!sk) return 0;", [("if (!sk) return 0;", ";")]),
        ("gate", "if (!sk) { log(); return 0; }", [("if (!sk) { log(); return 0; }", ";")]),
        ("condition", "if (sk) f();", [("(sk)", "(!(sk))"), ("(sk)", "(1)"), ("(sk)", "(0)")]),
        ("condition", "x = sk ? a : b;", [("sk", "(!(sk))"), ("sk", "(1)"), ("sk", "(0)")]),
        ("clause", "x = a && !b;", [("a && !b", "a"), ("a && !b", "!b")]),
        ("relation", "x = a < b;", [("<", "<="), ("<", ">=")]),
        ("relation", "x = a == b;", [("==", "!=")]),
        ("logic", "x = a || b;", [("||", "&&")]),
        ("logic", "x = !a;", [("!", "")]),
        ("arithmetic", "x = a % b;", [("%", "/")]),
        ("direction", "x = sk->src_port;", [("src_port", "dst_port")]),
        ("direction", "x = DIRECTION_INBOUND;", [("DIRECTION_INBOUND", "DIRECTION_OUTBOUND")]),
        ("counterpart", "x = AF_INET6;", [("AF_INET6", "AF_INET")]),
        ("counterpart", "x = tlv_of_v4(y);", [("tlv_of_v4", "tlv_of_v6")]),
        ("statement", "x = 1;", [("x = 1;", ";")]),
        ("statement", "f(x);", [("f(x);", ";")]),
        ("initializer", "struct p p = {.a = 1, .b = 2};", [(".a = 1,", ""), (".b = 2", "")]),
        ("constant", "x = 5ULL;", [("5ULL", "4ULL"), ("5ULL", "6ULL")]),
        ("constant", "x = 0;", [("0", "1")]),
        ("constant", "x = 0x10;", [("0x10", "15"), ("0x10", "17")]),
        ("constant", "x = true;", [("true", "false")]),
        ("constant", "return SK_PASS;", [("SK_PASS", "0")]),
        ("constant", "f(SK_PASS);", [("SK_PASS", "(SK_PASS + 1)")]),
        ("enumerator", "return LEAVE;", [("LEAVE", "GO")]),
        ("map", "f(&frontend, &x);", [("frontend", "backend")]),
        ("map", "f(&events, &x);", []),
        (
            "policy",
            "switch (p) { case RANDOM: break; case STRICT: break; }",
            [
                ("(p)", "((p) == RANDOM ? STRICT : (p))"),
                ("(p)", "((p) == RANDOM ? -1 : (p))"),
                ("(p)", "((p) == STRICT ? RANDOM : (p))"),
                ("(p)", "((p) == STRICT ? -1 : (p))"),
            ],
        ),
    ],
)  # fmt: skip
def test_operator_makes(operator: str, statements: str, expected: list[tuple[str, str]]) -> None:
    assert changes(body(statements), operator) == expected


def test_every_operator_is_tried_above() -> None:
    marks = test_operator_makes.pytestmark  # type: ignore[attr-defined]  # pytest puts it there
    assert {case[0] for case in marks[0].args[1]} == set(OPERATORS)


def test_gate_with_an_alternative_is_none() -> None:
    assert changes(body("if (a) return 1; else f();"), "gate") == []


def test_break_of_a_case_is_a_statement_and_of_a_loop_is_a_gate() -> None:
    assert changes(body("switch (p) { case 1: break; }"), "statement") == [("break;", ";")]
    loop = body("for (;;) { if (a) break; }")
    assert changes(loop, "statement") == []
    assert changes(loop, "gate") == [("if (a) break;", ";")]


def test_end_of_a_loop_is_off_by_one() -> None:
    loop = body("for (int i = 0; i < MANY; i++) f();")
    assert ("MANY", "(MANY + 1)") in changes(loop, "off-by-one")


def test_attributes_of_maps_are_constants() -> None:
    found = changes(HEADER.decode(), "constant")
    assert [c for c in found if c[0] == "64"] == [("64", "63"), ("64", "65")]
    assert ("BPF_MAP_TYPE_RINGBUF", "(BPF_MAP_TYPE_RINGBUF + 1)") in found


def test_values_of_enumerators_are_constants() -> None:
    assert ("1", "2") in changes("enum policy { RANDOM = 0, STRICT = 1 };\n", "constant")


def test_section_has_a_direction() -> None:
    text = 'SEC("cgroup_skb/ingress")\n' + body("return 1;")
    assert changes(text, "direction") == [('"cgroup_skb/ingress"', '"cgroup_skb/egress"')]


def test_macro_of_statements_is_mutated_in_its_body() -> None:
    text = (
        "#define PUSH(m) \\\n    do { \\\n        if (!m) \\\n            break; \\\n"
        "        push(m, 0); \\\n    } while (0)\n"
    )
    assert ("push(m, 0);", ";") in changes(text, "statement")
    assert [before for before, _ in changes(text, "gate")] == [
        "if (!m) \\\n            break;",
    ]
    # The last 0 ends the macro's loop: 1 would never end.
    assert changes(text, "constant") == [("0", "1")]


def test_macro_that_is_a_number_is_a_constant() -> None:
    assert changes("#define PORT 53 /* of DNS */\n") == [("53", "52"), ("53", "54")]


def test_assertions_comments_and_types_are_left_alone() -> None:
    text = (
        '/* x = 1;\n#define TWO 2\nSEC("cgroup_skb/ingress") */\nSIZE_IS(struct place, 6);\n'
        '_Static_assert(sizeof(int) == 4, "int");\nstruct q { __u32 a; } PACKED;\n'
    )
    assert changes(text) == []


def test_every_mutant_changes_the_text_where_it_says() -> None:
    data = body("if (a == 1) x = bpf_htons(port[i]);").encode()
    made = mutants("x.bpf.c", data, read_vocabulary([data]))
    assert made
    for mutant in made:
        lines = data.decode().splitlines()
        assert lines[mutant.line - 1][mutant.column - 1 :].startswith(mutant.before)
        changed = mutant.apply(data).decode()
        assert changed == data.decode()[: mutant.start] + mutant.after + data.decode()[mutant.end :]
        assert mutant.function == "f"


def test_id_stays_when_lines_move_and_twins_differ() -> None:
    data = body("f(1);\nf(1);").encode()
    moved = b"\n/* more */\n" + data
    vocabulary = read_vocabulary([data])
    ids = [mutant.id for mutant in mutants("x.bpf.c", data, vocabulary)]
    assert ids == [mutant.id for mutant in mutants("x.bpf.c", moved, vocabulary)]
    assert len(set(ids)) == len(ids)


def test_the_programs_have_every_kind_of_mutant() -> None:
    programs = Path(__file__).parents[2] / "bpf"
    texts = [path.read_bytes() for path in sorted(programs.rglob("*.[ch]"))]
    vocabulary = read_vocabulary(texts)
    made = [mutant for text in texts for mutant in mutants("x", text, vocabulary)]
    assert {mutant.operator for mutant in made} == set(OPERATORS)


# The judge.


def result(outcome: Outcome, test: str = "t.py::test") -> TestResult:
    return TestResult(test, "suite", outcome, message="why")


def test_a_failed_test_kills() -> None:
    tests = [result(Outcome.PASSED), result(Outcome.FAILED, "t.py::test_two")]
    assert judge(tests, 1, "") == Judged(Verdict.KILLED, "t.py::test_two", "why")


def test_a_mutant_survives_when_all_pass() -> None:
    tests = [result(Outcome.PASSED), result(Outcome.NOT_APPLICABLE)]
    assert judge(tests, 0, "").verdict is Verdict.SURVIVED


def test_a_refused_object_is_not_killed() -> None:
    log = "0: (b7) r0 = 2\nAt program exit the register R0 has value\nprocessed 9 insns\nlibbpf: no"
    judged = judge([], None, log)
    assert judged == Judged(Verdict.REFUSED, message="At program exit the register R0 has value")


def test_an_object_that_only_a_test_loads_is_refused_there() -> None:
    failed = replace(result(Outcome.ERROR), details="LoadError: x.o: cannot load")
    assert judge([failed], 1, "", unloaded=["x"]).verdict is Verdict.REFUSED
    assert judge([failed], 1, "", unloaded=["y"]).verdict is Verdict.KILLED


def test_a_pytest_that_dies_is_no_kill() -> None:
    assert judge([result(Outcome.PASSED)], None, "").verdict is Verdict.CRASHED


@pytest.mark.parametrize("tests", [[], [result(Outcome.SKIPPED)]])
def test_a_run_without_a_test_proves_nothing(tests: list[TestResult]) -> None:
    with pytest.raises(InfrastructureError):
        judge(tests, 0, "")


def test_a_pytest_that_cannot_run_proves_nothing() -> None:
    with pytest.raises(InfrastructureError, match="status 4"):
        judge([result(Outcome.PASSED)], 4, "")


# What was known.


def test_record_gives_back_what_still_holds(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    record = Record(file, "ground")
    record.add(ONE, DIES, "one")
    record.add(TWO, SURVIVES, "two")
    record.withdraw(TWO, "two")
    record.add(TWO, Judged(Verdict.CRASHED), "three")
    with file.open("a") as stream:
        stream.write('{"half a')
    assert Record(file, "ground").known() == {"one": DIES}
    assert Record(file, "another ground").known() == {}


def test_a_new_record_keeps_the_killers_and_no_verdict(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    old = Record(file, "ground")
    old.add(ONE, DIES, "one")
    old.add(TWO, SURVIVES, "two")
    Record(file, "ground").begin()
    new, killers = Record(file, "ground"), Killers()
    new.teach(killers)
    assert (new.known(), killers.first(TWO)) == ({}, [DIES.test])


def test_a_survivor_that_is_not_listed_is_reported() -> None:
    found = compare([ONE, TWO], {"1": SURVIVES, "2": SURVIVES}, [Survivor("1", "", "same")], True)
    assert found.unlisted == (TWO,)
    assert not good(Tally.of([]), found)


@pytest.mark.parametrize("verdict", [Verdict.TIMED_OUT, Verdict.CRASHED])
def test_a_mutant_that_no_assertion_killed_has_to_be_listed(verdict: Verdict) -> None:
    assert compare([ONE], {"1": Judged(verdict)}, [], True).unlisted == (ONE,)


def test_an_entry_of_the_twin_is_enough() -> None:
    judged = {"1": SURVIVES, "2": Judged(Verdict.DUPLICATE, same_as="1")}
    found = compare([ONE, TWO], judged, [Survivor("2", "", "same")], True)
    assert (found.unlisted, found.killed, found.absent) == ((), (), ())


def test_an_entry_that_is_killed_or_gone_is_reported() -> None:
    known = [Survivor("1", "", "same"), Survivor("9", "", "same")]
    found = compare([ONE], {"1": DIES}, known, True)
    assert (found.killed, found.absent) == ((known[0],), (known[1],))


def test_a_mutant_that_was_not_asked_for_is_not_gone() -> None:
    assert compare([ONE], {"1": DIES}, [Survivor("9", "", "same")], False).absent == ()


def test_score_counts_what_ran_and_nothing_else() -> None:
    verdicts = [Verdict.KILLED] * 3 + list(Verdict)
    tally = Tally.of(Judged(verdict) for verdict in verdicts)
    assert (tally.made, tally.counted, tally.score) == (11, 7, 4 / 7)


def test_suites_below_the_aim_are_not_good_even_when_all_is_listed() -> None:
    tally = Tally.of([SURVIVES, *[DIES] * 18])
    listed = compare([ONE], {"1": SURVIVES}, [Survivor("1", "", "same")], True)
    assert not good(tally, listed)
    assert good(Tally.of([SURVIVES, *[DIES] * 19]), listed)


def test_killers_of_the_function_come_first_and_a_module_stays_together() -> None:
    killers = Killers()
    for test in ("a.py::1", "b.py::1", "b.py::1", "a.py::2"):
        killers.record(mutant("1", "f"), test)
    killers.record(mutant("1", "other"), "c.py::1")
    assert killers.first(mutant("2", "f")) == ["b.py::1", "a.py::1", "a.py::2", "c.py::1"]
    assert killers.first(mutant("2", "f"), most=1) == ["b.py::1"]
    assert killers.first(mutant("2", "f", "y.h")) == []


def test_entries_are_read(tmp_path: Path) -> None:
    file = tmp_path / "survivors.toml"
    file.write_text('[[survivor]]\nid = "1"\nmutant = "x"\nowed = "a test of x"\n')
    assert survivors.read(file) == (Survivor("1", "x", owed="a test of x"),)


@pytest.mark.parametrize(
    "text",
    [
        'id = "1"\nmutant = "x"\n',
        'id = "1"\nmutant = "x"\nowed = ""\n',
        'id = "1"\nmutant = "x"\nowed = "a"\nequivalent = "b"\n',
        'id = "1"\nowed = "a"\n',
        'id = "1"\nmutant = "x"\nowned = "a"\n',
    ],
)
def test_entry_without_exactly_one_reason_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "survivors.toml"
    file.write_text(f"[[survivor]]\n{text}")
    with pytest.raises(UsageError, match=r"survivors.toml: survivor"):
        survivors.read(file)


def test_entry_listed_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "survivors.toml"
    file.write_text('[[survivor]]\nid = "1"\nmutant = "x"\nowed = "a"\n' * 2)
    with pytest.raises(UsageError, match="twice"):
        survivors.read(file)


def test_entry_that_is_offered_is_valid_but_for_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "survivors.toml"
    strange = Mutant("x.h", 1, 1, "constant", 'f("\\n")', ";", "", 0, 7, "1")
    file.write_text(survivors.entry(strange).replace('owed = ""', 'owed = "a"'))
    (read,) = survivors.read(file)
    assert read.mutant in str(strange)


def test_the_list_of_this_project_is_valid() -> None:
    survivors.read()


def test_table_counts_by_operator_and_file() -> None:
    text = table.render([ONE, TWO], {"1": DIES, "2": SURVIVES})
    rows = [line.split() for line in text.splitlines() if line]
    assert rows[1] == ["gate", "2", "1", "1", "50.0%"]
    assert rows[2][0] == "x.h"
    assert rows[3][:2] == ["all", "2"]
