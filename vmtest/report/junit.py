"""JUnit XML as GitLab, GitHub's actions and Jenkins read it.

One ``<testsuite>`` a kernel.  The kernel is in the class name as well, because
readers join files and key on class and name.  Nothing is ever missing: what a
kernel did not get to is an ``<error>`` case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.model.text import one_line, printable
from vmtest.report import elements
from vmtest.report.assertions import Said
from vmtest.report.elements import leaf
from vmtest.report.table import WELL, split_node_id
from vmtest.report.written import KERNEL

_MESSAGE = 500  # characters of one
_LONGEST = 100_000  # characters of one text; readers refuse files of some tens of megabytes
# Jenkins' schema has no "skipped" on top.
_COUNTS = (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
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


def pieces(matrix: Matrix) -> Iterator[bytes]:
    """All kernels in one file, in pieces: of a large run it is hundreds of megabytes."""
    return _document(matrix.kernels, matrix.started, matrix.duration)


def render(matrix: Matrix) -> bytes:
    """All kernels in one file, as a whole."""
    return b"".join(pieces(matrix))


def render_kernel(result: KernelResult) -> bytes:
    """The file of one kernel, of the same shape."""
    return b"".join(_document((result,), "", result.duration))


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


def _document(kernels: Sequence[KernelResult], started: str, duration: float) -> Iterator[bytes]:
    tags = [_tags(kernel) for kernel in kernels]
    every = sum(tags, Counter())
    attributes = {"name": "vmtest", **_counts(every, _COUNTS[:-1]), "time": f"{duration:.3f}"}
    told = Said(_MESSAGE)
    suites = (
        "".join(_suite(kernel, _counts(of, _COUNTS), started, told))
        for kernel, of in zip(kernels, tags, strict=True)
    )
    yield elements.DECLARATION.encode()
    for piece in elements.branch("testsuites", attributes, suites, 0):
        yield piece.encode()
    yield b"\n"


def _tags(kernel: KernelResult) -> Counter[str]:
    """How many cases of ``kernel`` hold each element that says how it went; "" for none."""
    tags = Counter(_tag(test) for test in kernel.tests)
    tags.update(_load_tag(kernel, load) for load in kernel.loads)
    if _has_case(kernel):
        tags[_kernel_tag(kernel)] += 1
    return tags


def _counts(tags: Counter[str], names: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {"tests": str(tags.total()), **{name: str(tags[tag]) for name, tag in names}}


def _suite(
    kernel: KernelResult, counts: Mapping[str, str], started: str, told: Said
) -> Iterator[str]:
    attributes = {"name": _text(kernel.kernel), **counts, "time": f"{kernel.duration:.3f}"}
    if started:
        attributes["timestamp"] = _text(started).removesuffix("Z").removesuffix("+00:00")
    return elements.branch("testsuite", attributes, _inside(kernel, told), 1)


def _inside(kernel: KernelResult, told: Said) -> Iterator[str]:
    facts = _properties(kernel).items()
    properties = (leaf("property", {"name": name, "value": _text(text)}) for name, text in facts)
    yield "".join(elements.branch("properties", {}, properties, 2))
    if _has_case(kernel):
        yield _kernel_case(kernel)
    for test in kernel.tests:
        yield _case(kernel, test, told)
    for load in kernel.loads:
        yield _load_case(kernel, load)


def _case_of(attributes: Mapping[str, str], inside: Iterable[str]) -> str:
    return "".join(elements.branch("testcase", attributes, inside, 2))


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


def _has_case(kernel: KernelResult) -> bool:
    """Whether it has a case that says what no test says: that it did not boot, or complained."""
    if kernel.status in WELL:
        return False
    said = kernel.count(*_SAID_BY_TESTS) or _said_by_loads(kernel)
    return kernel.status is not Status.FAILED or not said


def _kernel_tag(kernel: KernelResult) -> str:
    return "failure" if kernel.status in (Status.FAILED, Status.SPLAT) else "error"


def _kernel_case(kernel: KernelResult) -> str:
    attributes = {
        "classname": class_name(kernel.kernel),
        "name": "boot" if kernel.status is Status.BOOT_FAILED else "kernel",
        "time": f"{kernel.boot_seconds:.3f}",
    }
    message = one_line(kernel.reason or kernel.status.value, _MESSAGE)
    said = {"type": kernel.status.value, "message": message}
    splats = (one.told for one in kernel.complaints)
    text = _bounded("\n".join((kernel.reason, *splats)))
    inside = [leaf(_kernel_tag(kernel), said, text)]
    if kernel.console_tail:
        inside.append(leaf("system-out", {}, _bounded("\n".join(kernel.console_tail))))
    return _case_of(attributes, inside)


def _tag(test: TestResult) -> str:
    """The element that says how ``test`` went; "" where it passed."""
    if test.outcome in _SKIPPED:
        return "skipped"
    if test.outcome is Outcome.PASSED:
        return ""
    return "failure" if test.outcome in _FAILURES else "error"


def _case(kernel: KernelResult, test: TestResult, told: Said) -> str:
    attributes = {
        "classname": class_name(kernel.kernel, test.test),
        "name": _text(split_node_id(test.test)[2]),
        "time": f"{test.duration:.3f}",
    }
    if test.file:
        attributes["file"] = _text(test.file)
        if test.line:
            attributes["line"] = str(test.line)
    inside = []
    tag = _tag(test)
    if tag == "skipped":
        said = {"type": _SKIPPED[test.outcome], "message": one_line(test.message, _MESSAGE)}
        inside.append(leaf(tag, said, _bounded(test.details)))
    elif tag:
        said = {"type": _KINDS[test.outcome], "message": told.of(test) or _why(kernel, test)}
        text = _bounded(test.details or test.message or _why(kernel, test))
        inside.append(leaf(tag, said, text))
    elif test.flaky:
        message = one_line(test.message, _MESSAGE) or "it passed only when it was repeated"
        said = {"type": "flaky", "message": message}
        inside.append(leaf("flakyFailure", said, _bounded(test.details)))
    if test.output:
        inside.append(leaf("system-out", {}, _bounded(test.output)))
    beside = [test.stderr] if test.stderr else []
    if test.kernel_log:
        beside += [f"{KERNEL}:", test.kernel_log]
    if beside:
        inside.append(leaf("system-err", {}, _bounded("\n".join(beside))))
    return _case_of(attributes, inside)


def _load_tag(kernel: KernelResult, load: LoadResult) -> str:
    if load.verdict is Verdict.ACCEPTED:
        return ""
    return "failure" if _counts_against(kernel, load) else "skipped"


def _load_case(kernel: KernelResult, load: LoadResult) -> str:
    """One program, or an object as a whole, as the verifier of this kernel judged it."""
    attributes = {
        "classname": f"{class_name(kernel.kernel)}.{_text(load.object)}",
        "name": _text(load.program) or "(as a whole)",
        "time": f"{load.cost.verification_us / 1e6:.3f}",
    }
    tag = _load_tag(kernel, load)
    if not tag:
        return _case_of(attributes, ())
    reason = load.reason
    said = [load.verdict.value, reason.text if reason else load.line or load.errno]
    message = one_line(": ".join(filter(None, said)), _MESSAGE)
    if tag == "skipped":
        told = {"type": "vmtest.not_counted", "message": message}
        return _case_of(attributes, [leaf(tag, told)])
    details = [message, load.line, reason.remedy if reason else ""]
    if load.log:
        details.append(f"the verifier's log: {kernel.directory}/{load.log}")
    told = {"type": load.verdict.value, "message": message}
    return _case_of(attributes, [leaf(tag, told, _bounded("\n".join(filter(None, details))))])


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
