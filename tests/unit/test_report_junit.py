"""JUnit XML, as its readers join and count it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from junitparser import JUnitXml
from junitparser import TestSuite as Suite

from vmtest.model.loads import Cost, LoadResult, Reason, Verdict
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report import junit, table
from vmtest.runs import matrix_json

DATA = Path(__file__).parent / "data" / "report"


def recorded() -> Matrix:
    return matrix_json.loads((DATA / "matrix.json").read_text(encoding="utf-8"))


def of(outcome: Outcome, **more: Any) -> TestResult:
    plain = TestResult("test_sendmsg.py::test_x[ipv4]", "sendmsg", outcome, 0.25)
    return replace(plain, **more)


def kernel(*tests: TestResult, status: Status = Status.PASSED, **more: Any) -> KernelResult:
    plain = KernelResult("6.12", status, tests=tests)
    return replace(plain, **more)


def parsed(result: KernelResult) -> ET.Element:
    return ET.fromstring(junit.render_kernel(result))


def only_case(result: KernelResult) -> ET.Element:
    (case,) = parsed(result).iter("testcase")
    return case


def test_each_kernel_is_a_suite_by_its_name() -> None:
    root = ET.fromstring(junit.render(recorded()))
    assert [suite.get("name") for suite in root] == ["5.10", "6.1", "6.12", "7.0"]


def test_a_suite_carries_the_facts_of_its_kernel() -> None:
    result = kernel(
        of(Outcome.PASSED),
        version="6.12.57",
        release="6.12.57-amd64",
        accelerator="tcg",
        exit_status=0,
    )
    facts = {p.get("name"): p.get("value") for p in parsed(result).iter("property")}
    wanted = {
        "version": "6.12.57",
        "release": "6.12.57-amd64",
        "accelerator": "tcg",
        "status": "PASSED",
        "exit_status": "0",
    }
    assert wanted.items() <= facts.items()


def test_the_kernel_is_in_the_class_name() -> None:
    assert only_case(kernel(of(Outcome.PASSED))).get("classname") == "vmtest.k6_12.test_sendmsg"


@pytest.mark.parametrize(
    ("name", "test", "wanted"),
    [
        ("6.12", "test_a.py::test_x", "vmtest.k6_12.test_a"),
        ("sid-arm64+x", "test_a.py::test_x", "vmtest.ksid_arm64_x.test_a"),
        ("6.1", "net/v4/test_a.py::test_x", "vmtest.k6_1.net.v4.test_a"),
        ("6.1", "test_a.py::TestC::test_x[::1]", "vmtest.k6_1.test_a.TestC"),
        ("6.1", "../../test_a.py::test_x", "vmtest.k6_1.test_a"),
    ],
)
def test_class_names(name: str, test: str, wanted: str) -> None:
    assert junit.class_name(name, test) == wanted


def test_a_name_keeps_its_parameters() -> None:
    test = of(Outcome.PASSED, test="test_a.py::TestC::test_x[fe80::1/64]")
    assert only_case(kernel(test)).get("name") == "test_x[fe80::1/64]"


@pytest.mark.parametrize(
    ("outcome", "tag"),
    [
        (Outcome.FAILED, "failure"),
        (Outcome.XPASSED, "failure"),
        (Outcome.ERROR, "error"),
        (Outcome.LOST, "error"),
        (Outcome.NOT_RUN, "error"),
        (Outcome.SKIPPED, "skipped"),
        (Outcome.NOT_APPLICABLE, "skipped"),
        (Outcome.XFAILED, "skipped"),
    ],
)
def test_an_outcome_is_the_right_element(outcome: Outcome, tag: str) -> None:
    case = only_case(kernel(of(outcome), status=Status.FAILED if outcome.bad else Status.PASSED))
    assert [child.tag for child in case] == [tag]


def test_a_test_that_was_only_listed_is_a_skipped_case() -> None:
    (skipped,) = only_case(kernel(of(Outcome.COLLECTED), status=Status.COLLECTED))
    assert (skipped.tag, skipped.get("type")) == ("skipped", "vmtest.collected")


def test_a_passed_case_is_empty() -> None:
    assert list(only_case(kernel(of(Outcome.PASSED)))) == []


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_is_a_case(outcome: Outcome) -> None:
    assert only_case(kernel(of(outcome))).get("name") == "test_x[ipv4]"


@pytest.mark.parametrize("status", [s for s in Status if s not in table.WELL])
def test_a_kernel_without_tests_that_did_not_pass_is_never_green(status: Status) -> None:
    counts = parsed(kernel(status=status)).attrib
    assert int(counts["failures"]) + int(counts["errors"]) == 1


def test_a_boot_failure_is_an_error_with_its_reason_and_console() -> None:
    result = kernel(status=Status.BOOT_FAILED, reason="no root", console_tail=("VFS: no root",))
    case = only_case(result)
    error, console = case
    assert (case.get("name"), error.get("type"), error.get("message"), console.text) == (
        "boot",
        "BOOT_FAILED",
        "no root",
        "VFS: no root",
    )


@pytest.mark.parametrize("status", [Status.PANICKED, Status.TIMED_OUT, Status.LOST, Status.SPLAT])
def test_a_kernel_that_broke_after_its_tests_passed_has_a_case_of_its_own(status: Status) -> None:
    root = parsed(kernel(of(Outcome.PASSED), status=status))
    assert [case.get("name") for case in root.iter("testcase")] == ["kernel", "test_x[ipv4]"]


def test_a_failed_kernel_whose_tests_say_why_has_no_case_of_its_own() -> None:
    root = parsed(kernel(of(Outcome.FAILED), status=Status.FAILED))
    assert len(list(root.iter("testcase"))) == 1


def test_a_not_run_test_says_why() -> None:
    result = kernel(of(Outcome.NOT_RUN), status=Status.PANICKED, reason="sysrq")
    message = next(parsed(result).iterfind(".//testcase[@name='test_x[ipv4]']/error"))
    assert message.get("message") == "not run; the kernel is PANICKED: sysrq"


def test_the_counts_are_those_of_the_cases() -> None:
    root = ET.fromstring(junit.render(recorded()))
    counted = [len(list(root.iter(tag))) for tag in ("testcase", "failure", "error")]
    assert [int(root.get(name, "")) for name in ("tests", "failures", "errors")] == (counted)


def test_another_parser_reads_the_same_counts() -> None:
    xml = JUnitXml.fromstring(junit.render(recorded()))
    suites = [suite for suite in xml if isinstance(suite, Suite)]
    assert [(s.name, s.tests, s.failures, s.errors, s.skipped) for s in suites] == [
        ("5.10", 24, 0, 0, 3),
        ("6.1", 24, 1, 0, 1),
        ("6.12", 25, 1, 6, 0),
        ("7.0", 1, 0, 1, 0),
    ]


def test_class_and_name_are_unique_over_all_kernels() -> None:
    root = ET.fromstring(junit.render(recorded()))
    keys = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("field", ["test", "message", "details", "output", "stderr", "kernel_log"])
def test_no_character_that_xml_forbids_is_written(field: str) -> None:
    every = "".join(map(chr, [*range(0x20), 0x7F, 0x9B, 0xD800, 0xDFFF, 0xFFFE, 0xFFFF]))
    result = kernel(of(Outcome.FAILED, **{field: f"test_a.py::test_x[{every}]"}))
    text = junit.render_kernel(result).decode("utf-8")
    assert (
        re.search("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text) is None
    )


@pytest.mark.parametrize("field", ["kernel", "version", "release", "reason", "note", "directory"])
def test_what_is_said_of_a_kernel_is_well_formed(field: str) -> None:
    assert parsed(kernel(status=Status.LOST, **{field: "<&\"'\x00\x1b\n]]>"})) is not None


def test_standard_error_and_the_kernels_messages_are_apart_from_the_output() -> None:
    case = only_case(kernel(of(Outcome.PASSED, output="o", stderr="e", kernel_log="[ 1.5] k\n")))
    texts = {element.tag: element.text for element in case}
    assert texts == {"system-out": "o", "system-err": "e\nthe kernel's messages:\n[ 1.5] k"}


def test_a_very_long_output_keeps_its_end_and_says_so() -> None:
    (output,) = only_case(kernel(of(Outcome.PASSED, output="a" * 500_000 + "end")))
    text = output.text or ""
    assert len(text) < 110_000
    assert text.startswith("... 400003 characters left out\n")
    assert text.endswith("end")


def test_the_file_of_a_kernel_has_the_shape_of_the_file_of_all() -> None:
    one = recorded().kernels[1]
    alone = ET.fromstring(junit.render_kernel(one))[0]
    among = ET.fromstring(junit.render(recorded()))[1]
    assert [case.attrib for case in alone.iter("testcase")] == [
        case.attrib for case in among.iter("testcase")
    ]


def test_a_matrix_without_kernels_is_an_empty_document() -> None:
    empty = Matrix(SCHEMA, "run", "", 0.0, (), ())
    assert list(ET.fromstring(junit.render(empty))) == []


REJECTED = LoadResult(
    "mine",
    "prog",
    Verdict.REJECTED,
    errno="EACCES",
    line="R1 invalid mem access",
    log="verify/mine/prog.log",
    reason=Reason("bad-access", "reads 8 bytes past the value", "check the size before"),
)


def test_a_load_that_the_kernel_took_is_an_empty_case_with_the_verifiers_time() -> None:
    load = LoadResult("mine", "prog", Verdict.ACCEPTED, cost=Cost(verification_us=1500))
    case = only_case(kernel(loads=(load,)))
    assert dict(case.attrib) == {
        "classname": "vmtest.k6_12.mine",
        "name": "prog",
        "time": "0.002",
    }
    assert len(case) == 0


def test_a_rejected_load_is_a_failure_with_reason_line_remedy_and_log() -> None:
    failed = kernel(loads=(REJECTED,), status=Status.FAILED, counts=(("rejected", 1),))
    failure = only_case(failed).find("failure")
    assert failure is not None
    assert failure.get("message") == "rejected: reads 8 bytes past the value"
    assert failure.text is not None
    for part in ("R1 invalid mem access", "check the size before", "verify/mine/prog.log"):
        assert part in failure.text


def test_a_rejected_load_that_was_not_asked_to_count_is_skipped() -> None:
    case = only_case(kernel(loads=(REJECTED,)))
    assert [part.tag for part in case] == ["skipped"]


def test_a_load_that_is_not_required_is_skipped_on_a_failed_kernel_too() -> None:
    others = (replace(REJECTED, program="other", required=False), REJECTED)
    failed = kernel(loads=others, status=Status.FAILED, counts=(("rejected", 1),))
    tags = {
        case.get("name"): [part.tag for part in case] for case in parsed(failed).iter("testcase")
    }
    assert tags == {"other": ["skipped"], "prog": ["failure"]}


def test_a_cost_that_grew_too_much_has_a_case_beside_the_loads() -> None:
    grown = kernel(
        loads=(REJECTED,),
        status=Status.FAILED,
        reason="1 rejected, 1 cost over 20% more",
        counts=(("rejected", 1), ("cost over 20% more", 1)),
    )
    cases = {
        case.get("name"): [part.tag for part in case] for case in parsed(grown).iter("testcase")
    }
    assert cases == {"kernel": ["failure"], "prog": ["failure"]}


def test_a_load_that_killed_the_kernel_is_a_failure() -> None:
    killed = replace(REJECTED, verdict=Verdict.KERNEL_CRASHED)
    cases = parsed(kernel(loads=(killed,), status=Status.PANICKED)).iter("testcase")
    assert [[part.tag for part in case] for case in cases] == [["error"], ["failure"]]


_CASE = {"name", "time", "classname", "group"}
# What Jenkins' junit-10.xsd takes: the attributes and the children of each element.
SHAPE: dict[str, tuple[set[str], set[str]]] = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp"}
        | {"hostname", "id", "package", "file", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": (
        # file and line are what GitLab, GitHub's actions and pytest itself have beside it.
        _CASE | {"file", "line"},
        {"skipped", "error", "failure", "rerunFailure", "rerunError", "flakyFailure", "flakyError"}
        | {"system-out", "system-err"},
    ),
    **{tag: ({"type", "message"}, set()) for tag in ("failure", "error", "skipped")},
    "flakyFailure": ({"type", "message"}, {"stackTrace", "system-out", "system-err"}),
    "system-out": (set(), set()),
}


def every_kind() -> KernelResult:
    tests = tuple(of(o, test=f"t.py::{o.name}", details="E", output="o") for o in Outcome)
    flaky = of(Outcome.PASSED, test="t.py::flaky", flaky=True, file="tests/t.py", line=7)
    loads = tuple(LoadResult("o", verdict.name, verdict) for verdict in Verdict)
    return kernel(*tests, flaky, status=Status.PANICKED, loads=loads, console_tail=("x",))


@pytest.mark.parametrize(
    "matrix", [recorded(), replace(recorded(), kernels=(every_kind(),))], ids=["recorded", "all"]
)
def test_the_file_has_the_shape_of_jenkins_schema(matrix: Matrix) -> None:
    elements = list(ET.fromstring(junit.render(matrix)).iter())
    assert len(elements) > 10
    for element in elements:
        attributes, children = SHAPE[element.tag]
        assert set(element.keys()) <= attributes
        assert {child.tag for child in element} <= children
        if (time := element.get("time")) is not None:
            assert re.fullmatch(r"[0-9]*(\.[0-9]*)?", time)
        assert element.tag != "flakyFailure" or element.get("type")


def test_a_case_has_its_place_in_the_project() -> None:
    failed = of(Outcome.FAILED, file="tests/test_sendmsg.py", line=25)
    case = only_case(kernel(failed, status=Status.FAILED))
    assert (case.get("file"), case.get("line")) == ("tests/test_sendmsg.py", "25")


def test_a_case_without_a_place_has_none() -> None:
    case = only_case(kernel(of(Outcome.FAILED), status=Status.FAILED))
    assert (case.get("file"), case.get("line")) == (None, None)


def test_a_flaky_test_passed_and_says_how_it_failed() -> None:
    case = only_case(kernel(of(Outcome.PASSED, flaky=True, message="no event", details="E  0")))
    (flaky,) = case
    assert (flaky.tag, flaky.get("type"), flaky.get("message")) == (
        "flakyFailure",
        "flaky",
        "no event",
    )
    assert flaky.text == "E  0"
    assert JUnitXml.fromstring(junit.render_kernel(kernel(of(Outcome.PASSED, flaky=True))))
