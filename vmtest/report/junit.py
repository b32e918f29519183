"""JUnit XML as GitLab, GitHub's actions and Jenkins read it.

One ``<testsuite>`` a kernel.  The kernel is in the class name as well, because
readers join files and key on class and name.  Nothing is ever missing: what a
kernel did not get to is an ``<error>`` case.
"""

from __future__ import annotations

import re
from functools import lru_cache
from xml.etree import ElementTree as ET

from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.model.text import one_line, printable
from vmtest.report.assertions import said as told
from vmtest.report.table import WELL, split_node_id
from vmtest.report.written import KERNEL

_LONGEST = 100_000  # characters of one text; readers refuse files of some tens of megabytes
_SKIPPED = {
    Outcome.SKIPPED: "pytest.skip",
    Outcome.NOT_APPLICABLE: "vmtest.not_applicable",
    Outcome.XFAILED: "pytest.xfail",
    Outcome.COLLECTED: "vmtest.collected",
}
_ERRORS = {
    Outcome.ERROR: "error",
    Outcome.LOST: "lost",
    Outcome.NOT_RUN: "not run",
}
_FAILURES = {Outcome.FAILED: "failed", Outcome.XPASSED: "xpassed"}
_SAID_BY_TESTS = (*_ERRORS, *_FAILURES)
_KINDS = _ERRORS | _FAILURES


def render(matrix: Matrix) -> bytes:
    """All kernels in one file."""
    return _document([_suite(kernel, matrix.started) for kernel in matrix.kernels], matrix.duration)


def render_kernel(result: KernelResult) -> bytes:
    """The file of one kernel, of the same shape."""
    return _document([_suite(result, "")], result.duration)


def class_name(kernel: str, test: str = "") -> str:
    """``vmtest.k6_12.test_sendmsg`` of kernel ``6.12`` and pytest's node id."""
    file, classes, _ = split_node_id(test)
    return ".".join([_package(kernel), *_modules(file), *map(_text, classes)])


@lru_cache
def _package(kernel: str) -> str:
    name = re.sub(r"[^0-9A-Za-z]", "_", kernel)
    return f"vmtest.k{name}"


@lru_cache(maxsize=1024)
def _modules(file: str) -> tuple[str, ...]:
    parts = file.removesuffix(".py").split("/")
    return tuple(_text(part) for part in parts if part not in ("", ".", ".."))


def _document(suites: list[ET.Element], duration: float) -> bytes:
    root = ET.Element("testsuites", {"name": "vmtest"})
    for count in ("tests", "failures", "errors"):  # Jenkins' schema has no "skipped" here
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.set("time", f"{duration:.3f}")
    root.extend(suites)
    ET.indent(root)
    # As text: to bytes, it would encode each of millions of pieces for itself.
    document: str = ET.tostring(root, encoding="unicode")
    return f"<?xml version='1.0' encoding='utf-8'?>\n{document}\n".encode()


def _suite(kernel: KernelResult, started: str) -> ET.Element:
    cases = [_case(kernel, test) for test in kernel.tests]
    cases += [_load_case(kernel, load) for load in kernel.loads]
    own = _kernel_case(kernel)
    if own is not None:
        cases.insert(0, own)
    suite = ET.Element("testsuite", {"name": _text(kernel.kernel), "tests": str(len(cases))})
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("time", f"{kernel.duration:.3f}")
    if started:
        suite.set("timestamp", _text(started).removesuffix("Z").removesuffix("+00:00"))
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(kernel).items():
        ET.SubElement(properties, "property", {"name": name, "value": _text(value)})
    suite.extend(cases)
    return suite


def _properties(kernel: KernelResult) -> dict[str, str]:
    facts = {
        "version": kernel.version,
        "release": kernel.release,
        "accelerator": kernel.accelerator,
        "status": kernel.status.value,
        "reason": kernel.reason,
        "note": kernel.note,
        "boot_seconds": f"{kernel.boot_seconds:.3f}",
        "start": kernel.start,
        "deadline_factor": f"{kernel.factor:.2f}",
        "digest": kernel.digest,
        "gate": "true" if kernel.gate else "false",
        "directory": kernel.directory,
        "exit_status": "" if kernel.exit_status is None else str(kernel.exit_status),
    }
    facts.update({f"object.{name}": digest for name, digest in kernel.objects})
    return {_text(name): value for name, value in facts.items() if value}


def _kernel_case(kernel: KernelResult) -> ET.Element | None:
    """The case that says what no test says: the kernel did not boot, panicked, complained."""
    if kernel.status in WELL:
        return None
    if kernel.status is Status.FAILED and (kernel.count(*_SAID_BY_TESTS) or _said_by_loads(kernel)):
        return None
    name = "boot" if kernel.status is Status.BOOT_FAILED else "kernel"
    case = ET.Element(
        "testcase",
        {
            "classname": class_name(kernel.kernel),
            "name": name,
            "time": f"{kernel.boot_seconds:.3f}",
        },
    )
    blamed = kernel.status in (Status.FAILED, Status.SPLAT)
    problem = ET.SubElement(case, "failure" if blamed else "error")
    problem.set("type", kernel.status.value)
    problem.set("message", one_line(kernel.reason or kernel.status.value, 500))
    splats = (one.told for one in kernel.complaints)
    problem.text = _bounded("\n".join((kernel.reason, *splats)))
    if kernel.console_tail:
        ET.SubElement(case, "system-out").text = _bounded("\n".join(kernel.console_tail))
    return case


def _case(kernel: KernelResult, test: TestResult) -> ET.Element:
    case = ET.Element(
        "testcase",
        {
            "classname": class_name(kernel.kernel, test.test),
            "name": _text(split_node_id(test.test)[2]),
            "time": f"{test.duration:.3f}",
        },
    )
    if test.file:
        case.set("file", _text(test.file))
        if test.line:
            case.set("line", str(test.line))
    message = one_line(test.message, 500)
    if test.flaky and test.outcome is Outcome.PASSED:
        said = {"type": "flaky", "message": message or "it passed only when it was repeated"}
        ET.SubElement(case, "flakyFailure", said).text = _bounded(test.details) or None
    if test.outcome in _SKIPPED:
        attributes = {"type": _SKIPPED[test.outcome], "message": message}
        ET.SubElement(case, "skipped", attributes).text = _bounded(test.details) or None
    elif test.outcome is not Outcome.PASSED:
        tag = "failure" if test.outcome in _FAILURES else "error"
        message = told(test, 500) or _why(kernel, test)
        said = {"type": _KINDS[test.outcome], "message": message}
        problem = ET.SubElement(case, tag, said)
        problem.text = _bounded(test.details or test.message or _why(kernel, test))
    if test.output:
        ET.SubElement(case, "system-out").text = _bounded(test.output)
    beside = [test.stderr] if test.stderr else []
    if test.kernel_log:
        beside += [f"{KERNEL}:", test.kernel_log]
    if beside:
        ET.SubElement(case, "system-err").text = _bounded("\n".join(beside))
    return case


def _load_case(kernel: KernelResult, load: LoadResult) -> ET.Element:
    """One program, or an object as a whole, as the verifier of this kernel judged it."""
    case = ET.Element(
        "testcase",
        {
            "classname": f"{class_name(kernel.kernel)}.{_text(load.object)}",
            "name": _text(load.program) or "(as a whole)",
            "time": f"{load.cost.verification_us / 1e6:.3f}",
        },
    )
    if load.verdict is Verdict.ACCEPTED:
        return case
    reason = load.reason
    said = [load.verdict.value, reason.text if reason else load.line or load.errno]
    message = one_line(": ".join(filter(None, said)), 500)
    if _counts_against(kernel, load):
        problem = ET.SubElement(case, "failure", {"type": load.verdict.value, "message": message})
        details = [message, load.line, reason.remedy if reason else ""]
        if load.log:
            details.append(f"the verifier's log: {kernel.directory}/{load.log}")
        problem.text = _bounded("\n".join(filter(None, details)))
    else:
        ET.SubElement(case, "skipped", {"type": "vmtest.not_counted", "message": message})
    return case


def _counts_against(kernel: KernelResult, load: LoadResult) -> bool:
    """Whether ``load`` is among what the kernel failed of; ``--fail-on`` decides that."""
    if not (load.required and load.verdict.bad):
        return False
    return kernel.status not in WELL and (
        kernel.status is not Status.FAILED or load.verdict.value in dict(kernel.counts)
    )


def _said_by_loads(kernel: KernelResult) -> bool:
    """Whether the cases of the loads say all that ``kernel`` failed of."""
    verdicts = {load.verdict.value for load in kernel.loads if _counts_against(kernel, load)}
    return bool(verdicts) and {what for what, _ in kernel.counts} <= verdicts


def _why(kernel: KernelResult, test: TestResult) -> str:
    if test.outcome is Outcome.XPASSED:
        return "passed, though known to fail"
    if test.outcome in (Outcome.LOST, Outcome.NOT_RUN):
        reason = f": {one_line(kernel.reason, 400)}" if kernel.reason else ""
        return f"{test.outcome.value}; the kernel is {kernel.status.value}{reason}"
    return test.outcome.value


def _text(text: str) -> str:
    return printable(text).replace("\n", " ")


def _bounded(text: str) -> str:
    """``text`` without what XML forbids, and its last part where it is too long."""
    shown = printable(text).strip("\n")
    if len(shown) <= _LONGEST:
        return shown
    return f"... {len(shown) - _LONGEST} characters left out\n{shown[-_LONGEST:]}"
