"""The page of a run, as a file: what is in it, and what never is."""

import base64
import hashlib
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pages
import pytest
from command import vmtest
from histories import run_of

from vmtest.api import page as api
from vmtest.model.events import Event, Note
from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.report.html import features, timeline
from vmtest.report.html import grid as grids
from vmtest.report.html.grid import grid
from vmtest.report.html.page import Memory, render
from vmtest.report.text import last_lines
from vmtest.runs import matrix_json
from vmtest.runs.events import Stamped

FACTS: dict[str, Any] = {
    "arguments": ["run", "--kernel", "6.12"],
    "project": {"commit": "0123abcd", "dirty": True},
    "known failures": [
        {"test": "t::x", "kernels": "<6", "reason": "issue 7", "until": "2027-01-01"}
    ],
    "versions": {"qemu": "7.2"},
    "inputs": {"objects": {"x.o": "ab" * 32}},
}


def between(text: str, start: str, end: str) -> str:
    found = re.search(f"{re.escape(start)}(.*?){re.escape(end)}", text, re.DOTALL)
    assert found, start
    return found[1]


@pytest.mark.parametrize("text", pages.HOSTILE, ids=range(len(pages.HOSTILE)))
def test_nothing_that_a_guest_names_is_anything_but_text(text: str) -> None:
    facts = {"arguments": [text], "project": {"commit": text}, "versions": {text: text}}
    event = Stamped(0.0, "booting", text)
    page = render(
        pages.hostile(text), Memory(facts, (event,), {text: f"{text} is available"}, True)
    )
    plain = render(pages.three(), Memory({}, (event,), {}, True))
    assert re.findall(r"<(?:script|style|img|svg|dialog)\b[^>]*>", page)[-2:] == [
        '<script type="application/json" id="data">',
        "<script>",
    ]
    for tag in ("<script", "</script", "<style", "<img", "<dialog", "<!--"):
        assert page.count(tag) == plain.count(tag), tag
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]", page
    )


@pytest.mark.parametrize("text", pages.HOSTILE, ids=range(len(pages.HOSTILE)))
def test_every_link_leads_below_the_page(text: str) -> None:
    page = render(pages.hostile(text), Memory(beside=True))
    links = [unescape(link) for link in re.findall(r'\b(?:href|src)="([^"]*)"', page)]
    assert any(link.startswith("./") for link in links)
    assert [link for link in links if not re.match(r"#[a-z]+$|\./[^/:]", link)] == []


def test_the_data_is_what_the_matrix_holds() -> None:
    page = render(pages.hostile("</script><b>&"))
    data = json.loads(between(page, 'id="data">', "</script>"))
    assert data["kernels"][0]["name"] == "</script><b>&"


def test_only_its_own_style_and_script_may_do_anything() -> None:
    page = render(pages.three())
    policy = unescape(between(page, 'Content-Security-Policy" content="', '"'))
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "script-src": digest(between(page, "<script>", "</script>")),
        "style-src": digest(between(page, "<style>", "</style>")),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_the_page_names_no_other_place() -> None:
    page = render(pages.three(), Memory(FACTS))
    assert re.findall(r"\b(?:https?|wss?|ftp):|@import|url\(|\bfetch\(|XMLHttp", page) == []


@pytest.mark.parametrize(("status", "there"), [(Status.BOOT_FAILED, 4), (Status.INFRA_ERROR, 0)])
def test_only_a_kernel_that_was_started_has_a_console(status: Status, there: int) -> None:
    matrix = pages.of(KernelResult("a", status, reason="it is", directory="a"))
    assert render(matrix, Memory(beside=True)).count("console.log") == there


def test_a_complaint_names_its_test_and_has_the_kernels_messages_of_it() -> None:
    kernel = KernelResult(
        "6.12",
        Status.SPLAT,
        tests=(
            TestResult("t.py::test_a", "s", Outcome.PASSED, kernel_log="[    1.0] of another"),
            TestResult("t.py::test_b", "s", Outcome.PASSED, kernel_log="[    2.0] Call <Trace>:"),
        ),
        splats=("BUG: a",),
        fingerprints=("a",),
        splat_tests=("t.py::test_b",),
    )
    page = render(pages.of(kernel))
    card = page[page.index('class="card"') : page.index("</article>")]
    assert "(fingerprint: a; while t.py::test_b ran)" in card
    assert "[    2.0] Call &lt;Trace&gt;:" in card
    assert "of another" not in card


def test_without_a_folder_the_page_links_to_no_log() -> None:
    assert 'href="./' not in render(pages.three())


def test_fifty_kernels_with_two_thousand_tests_stay_below_five_megabytes() -> None:
    assert len(render(pages.big()).encode()) < 5_000_000


def test_texts_without_end_are_left_out_and_counted() -> None:
    tests = tuple(
        TestResult(f"t.py::t{n}", "s", Outcome.FAILED, message="m", details=f"{n}" * 30_000)
        for n in range(1000, 1400)
    )
    data = grid(pages.of(KernelResult("k", Status.FAILED, tests=tests)))
    assert data["leftOut"] == 0  # a line has 400 characters
    lines = "\n".join("x" * 390 for _ in range(80))
    tests = tuple(
        TestResult(f"t.py::t{n}", "s", Outcome.FAILED, message=f"m{n}", details=f"{n}\n{lines}")
        for n in range(400)
    )
    data = grid(pages.of(KernelResult("k", Status.FAILED, tests=tests)))
    assert sum(len("".join(text)) for text in data["texts"]) < 1_600_000
    assert data["leftOut"] > 0
    assert all(row[4] for row in data["tests"])


def test_rows_that_differ_come_first_then_those_that_are_bad_everywhere() -> None:
    rows = [(row[1], row[3]) for row in grid(pages.three())["tests"]]
    assert rows[:3] == [("test_some", "PFP"), ("test_all", "EEE"), ("test_fine[0]", "PPP")]


def test_a_row_that_was_not_run_somewhere_differs_too() -> None:
    letters = {"same": "PP", "everywhere": "FF", "missing": "P-", "skip": "Ps", "bad": "-F"}
    rows = grid(run_of(letters))["tests"]
    assert [row[1] for row in rows] == ["bad", "skip", "missing", "everywhere", "same"]


def test_a_test_that_a_kernel_does_not_have_is_a_blank() -> None:
    one = KernelResult("a", Status.PASSED, tests=(TestResult("t::x", "s", Outcome.PASSED),))
    assert grid(pages.of(one, KernelResult("b", Status.BOOT_FAILED)))["tests"][0][3] == "P "


def test_a_cell_of_a_program_has_its_cost_and_its_change() -> None:
    (dear,) = (row for row in grid(pages.three())["loads"] if row[1] == "dear")
    assert [cell[2:4] for cell in dear[2]] == [[1000, 25.0], [2000, None], [3000, None]]


FINE = TestResult("t::x", "s", Outcome.PASSED)
REFUSED = LoadResult("x", "p", Verdict.REJECTED)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (pages.of(KernelResult("a", Status.PASSED, tests=(FINE,))), "✓ 1 of 1 kernel passed"),
        (pages.three(), "✗ 3 of 3 kernels did not pass: 2 causes in 4 results"),
        (
            pages.of(KernelResult("a", Status.INFRA_ERROR, reason="no disk")),
            "✗ 1 of 1 kernel did not pass: 1 cause in 1 result",
        ),
        (
            pages.of(
                KernelResult("a", Status.PASSED, tests=(FINE,)),
                KernelResult("b", Status.BOOT_FAILED, gate=False),
            ),
            "✓ 1 of 2 kernels passed, not counting 1 without a gate",
        ),
        (pages.of(), "✗ No kernel ran"),
        (
            pages.of(KernelResult("a", Status.PASSED, loads=(REFUSED,))),
            "✓ 1 of 1 kernel passed, not counting 1 failure",
        ),
    ],
    ids=["passed", "failed", "infrastructure", "no gate", "nothing", "does not decide"],
)
def test_the_title_is_the_verdict(matrix: Any, said: str) -> None:
    assert between(render(matrix), "<title>", ": vmtest</title>") == said


def test_what_a_run_remembers_is_on_the_page() -> None:
    page = unescape(render(pages.three(), Memory(FACTS)))
    for part in ("vmtest run --kernel 6.12", "0123abcd", "issue 7", "2027-01-01", "ab" * 32):
        assert part in page


@pytest.mark.parametrize(
    "facts",
    [
        {"arguments": 3, "project": [], "known failures": {}, "versions": "x", "inputs": []},
        {"arguments": [{}], "project": {}, "known failures": [3], "inputs": {"a": 3}},
    ],
)
def test_a_run_json_of_another_shape_costs_its_facts_only(facts: dict[str, Any]) -> None:
    assert "<h2" in render(pages.three(), Memory(facts))


HISTORY = (
    Stamped(0.0, "queued", "a"),
    Stamped(0.0, "queued", "b"),
    Stamped(1.0, "preparing", "a", what="reading the index"),
    Stamped(2.0, "preparing", "a", what="waiting for a VM"),
    Stamped(3.0, "slot", "a", slot=1),
    Stamped(3.5, "booting", "a", count=1),
    Stamped(9.0, "booted", "a", seconds=5.5),
    Stamped(9.5, "preparing", "a", what="copying the payload"),
    Stamped(10.0, "preparing", "a", what="starting pytest"),
    Stamped(12.0, "collected", "a", count=2),
    Stamped(12.0, "test started", "a", test="t"),
    Stamped(13.0, "test finished", "a", what="failed", test="t"),
    Stamped(13.5, "test started", "a", test="u"),
    Stamped(14.0, "test finished", "a", what="passed", test="u"),
    Stamped(15.0, "finished", "a", what="FAILED"),
    Stamped(16.0, "note", what="a word"),
)


def test_events_become_phases_without_gaps() -> None:
    of_a = [bar for bar in timeline.bars(HISTORY) if bar.kernel == "a"]
    assert [(bar.phase, bar.start, bar.end, bar.slot) for bar in of_a] == [
        ("wait", 0.0, 1.0, 0),
        ("index", 1.0, 2.0, 0),
        ("wait", 2.0, 3.0, 0),
        ("prepare", 3.0, 3.5, 1),
        ("boot", 3.5, 9.0, 1),
        ("copy", 9.0, 10.0, 1),
        ("collect", 10.0, 12.0, 1),
        ("tests", 12.0, 14.0, 1),
        ("end", 14.0, 15.0, 1),
    ]


def test_a_kernel_that_had_not_finished_lasts_until_the_last_event() -> None:
    (bar,) = (bar for bar in timeline.bars(HISTORY) if bar.kernel == "b")
    assert (bar.phase, bar.start, bar.end) == ("wait", 0.0, 16.0)


def test_a_test_that_went_wrong_is_marked_in_its_slot() -> None:
    assert timeline.marks(HISTORY, ["failed"]) == (timeline.Mark("a", 13.0, "t: failed", 1),)


def test_the_end_of_a_kernel_that_panicked_is_marked_with_the_test_that_ran() -> None:
    events = (
        *HISTORY[:11],
        Stamped(13.0, "finished", "a", what="PANICKED"),
    )
    mark = timeline.Mark("a", 13.0, "a: PANICKED while t ran", 1, "PANICKED")
    assert timeline.marks(events, ["failed"]) == (mark,)
    drawn = render(pages.of(KernelResult("a", Status.PANICKED)), Memory(events=events))
    assert drawn.count("<title>a: PANICKED while t ran</title>") == 2
    assert re.findall(r'<text class="end"[^>]*>(.*?)</text>', drawn) == ["PANICKED"]


def test_a_test_that_was_lost_with_its_guest_is_marked_where_the_next_one_boots() -> None:
    events = (
        *HISTORY[:11],
        Stamped(13.0, "booting", "a", count=1),
        Stamped(15.0, "finished", "a", what="FAILED"),
    )
    assert timeline.marks(events, ["failed"]) == (timeline.Mark("a", 13.0, "t: lost", 1),)


def test_a_page_with_events_has_a_row_a_slot_and_a_row_a_kernel() -> None:
    matrix = pages.of(KernelResult("a", Status.FAILED), KernelResult("b", Status.CANCELLED))
    drawn = render(matrix, Memory(events=HISTORY))
    rows = re.findall(r'<text x="0" y="[\d.]+">(.*?)</text>', drawn)
    assert rows == ["slot 1", "a", "b"]


def test_features_that_differ_come_first() -> None:
    old = "eBPF map_type hash is available\neBPF map_type arena is NOT available\n"
    new = "eBPF map_type hash is available\neBPF map_type arena is available\n\t- bpf_x\n"
    rows = features.rows({"a": old, "c": new}, ("a", "b", "c"))
    assert [(row.name, row.cells) for row in rows] == [
        ("map_type arena", ("no", "", "yes")),
        ("bpf_x", ("no", "", "yes")),
        ("map_type hash", ("yes", "", "yes")),
    ]


def test_a_config_symbol_keeps_its_value() -> None:
    assert features.parse("CONFIG_BPF is set to y\nCONFIG_X is not set\n") == {
        "CONFIG_BPF": "y",
        "CONFIG_X": "no",
    }


def test_a_page_that_cannot_be_written_loses_no_run(tmp_path: Path) -> None:
    said: list[Event] = []
    api.leave_page(pages.three(), tmp_path / "none", said.append)
    (note,) = said
    assert isinstance(note, Note)
    assert re.fullmatch(
        r"cannot write .*report\.html: .*; the run is complete without it", note.text
    )


def test_a_page_that_cannot_be_made_loses_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> str:
        raise RuntimeError("boom")

    monkeypatch.setattr(api, "render", broken)
    said: list[Event] = []
    api.leave_page(pages.three(), tmp_path, said.append)
    assert "report.html could not be made" in str(said)
    assert list(tmp_path.iterdir()) == []


def test_vmtest_report_writes_the_page_of_an_old_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "matrix.json").write_text(matrix_json.dumps(pages.three()))
    (run / "run.json").write_text(json.dumps(FACTS))
    said = vmtest("report", str(run), "--html", "page.html", cwd=tmp_path)
    assert said.status == 1, said
    assert (tmp_path / "page.html").read_text() == api.page_of(pages.three(), run)


def test_a_page_elsewhere_links_to_logs_that_are_there(tmp_path: Path) -> None:
    run, page = tmp_path / "runs" / "a run", tmp_path / "public" / "page.html"
    (run / "5.10").mkdir(parents=True)
    page.parent.mkdir()
    (run / "matrix.json").write_text(matrix_json.dumps(pages.three()))
    vmtest("report", str(run), "--html", str(page), cwd=tmp_path)
    links = re.findall(r'href="(\.[^"]*)"', page.read_text())
    assert "../runs/a%20run/5.10/pytest.log" in links
    (run / "5.10").rmdir()
    vmtest("report", str(run), "--html", str(page), cwd=tmp_path)
    assert re.findall(r'href="(\.[^"]*)"', page.read_text()) == []


def test_a_page_that_was_asked_for_and_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    well = pages.of(KernelResult("a", Status.PASSED, tests=(TestResult("t", "s", Outcome.PASSED),)))
    (run / "matrix.json").write_text(matrix_json.dumps(well))
    said = vmtest("report", str(run), "--html", "none/page.html", "--json", "it.json", cwd=tmp_path)
    said.refuses(3, "cannot write none/page.html")
    assert (tmp_path / "it.json").exists()


def test_nothing_is_cut_for_a_page_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = []

    def counted(text: str, *rest: int) -> tuple[list[str], int]:
        cut.append(text)
        return last_lines(text, *rest)

    monkeypatch.setattr(grids, "last_lines", counted)
    texts = grids.Texts(room=10_000)
    numbers = [texts.number("m", written=(f"output {n}\n" * 10,)) for n in range(2000)]
    assert len(cut) < 200
    assert texts.left_out == 2000 - len(set(numbers)) + 1 > 1800
