"""What a guest sends is an event, or the end of its own kernel and of nothing else."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from vmtest.errors import BadLine
from vmtest.matrix.wire import Lines
from vmtest.model.project import Suite
from vmtest.model.results import Outcome, Status
from vmtest.model.text import printable
from vmtest.suites import events as suite_events
from vmtest.suites.payload import Payload
from vmtest.suites.process import Run, Sink
from vmtest.suites.task import SuitesWork
from vmtest.verify import events as loader_events
from vmtest.vm.machine import Machine
from vmtest.vm.session import Stream

KEY = "0123456789abcdef"
HELLO = {"event": "hello", "key": KEY, "pid": 7}
SCHEMAS: list[TypeAdapter[Any]] = [suite_events.EVENTS, loader_events.EVENTS]

VALID: list[dict[str, Any]] = [
    {"event": "collected", "tests": ["t.py::a", "t.py::b"], "deselected": []},
    {"event": "start", "test": "t.py::a", "uptime": 9.5, "seen": 0},
    {
        "event": "result",
        "test": "t.py::a",
        "outcome": "passed",
        "duration": 0.5,
        "message": "",
        "details": "",
        "output": "",
        "stderr": "",
        "kernel": "",
        "seen": 1,
        "phase": "",
        "file": "t.py",
        "line": 1,
    },
    {"event": "finish", "status": 0},
    {"event": "object", "object": "0", "programs": [{"name": "a"}], "maps": [["m", "hash"]]},
    {"event": "start", "object": "0", "programs": ["a"]},
    {
        "event": "load",
        "object": "0",
        "program": "a",
        "verdict": "accepted",
        "translated_size": 8,
        "jited_size": 9,
        "log": "",
        "log_cut": False,
    },
    {"event": "probe", "text": ""},
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def line(event: Any) -> bytes:
    return (json.dumps(event) + "\n").encode()


def harmless(text: str) -> bool:
    """Whether a terminal may have ``text``, as one line."""
    return text == printable(text) and len(text.splitlines()) == 1


def refusal(data: bytes, limit: int = 1000) -> str:
    """What is said of ``data`` after a hello."""
    lines = Lines(limit)
    with pytest.raises(BadLine) as error:
        list(lines.feed(line(HELLO) + data, suite_events.EVENTS))
    return str(error.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"not json\n", "is not JSON (expected ident"),
        (b"\n", "is not JSON (EOF while parsing a value at line 1 column 0): (empty)"),
        (b"[]\n", "is not an event (input should be"),
        (b"null\n", "is not an event"),
        (b"NaN\n", "is not an event"),
        (b'{"event": "start"', None),
        (b"\xff\xfe\n", "is not JSON"),
        (b'{"event": "\xff"}\n', "is not JSON (invalid unicode code point"),
        (b'{"event": "start", "test": "\\ud800"}\n', "is not JSON (unexpected end of hex escape"),
        (b"[" * 900 + b"\n", "is not JSON (recursion limit exceeded"),
        (b"x" * 2000 + b"\n", "has more than 1000 bytes: xxx"),
        (b"x" * 2000, "has more than 1000 bytes: xxx"),
        (line({"event": "panic", "key": KEY}), "input tag 'panic' found using 'event'"),
        (line({"key": KEY}), "unable to extract tag using discriminator 'event'"),
        (line({"event": "start", "key": KEY}), "start.test: field required"),
        (line({"event": "start", "key": KEY, "test": 5}), "start.test: input should be a valid"),
        (line({**VALID[1], "key": KEY, "x": 1}), "start.x: extra inputs"),
        (line({**VALID[1], "key": KEY, "seen": -1}), "start.seen: input should be greater"),
        (line({**VALID[2], "key": KEY, "phase": "boot"}), "result.phase: input should be"),
        (line({"event": "finish", "key": KEY, "status": True}), "finish.status: input should be"),
        (line({"event": "finish", "key": KEY, "status": 1 << 99}), "finish.status: "),
        (line({"event": "finish", "key": KEY, "status": 0.0}), "finish.status: "),
        (line({"event": "finish", "key": "f" * 16, "status": 0}), "has another key"),
        (line(HELLO), "is a second hello"),
        (line({**VALID[2], "key": KEY, "duration": float("nan")}), "result.duration: "),
        (line({**VALID[2], "key": KEY, "duration": float("inf")}), "result.duration: "),
        (line({**VALID[2], "key": KEY, "duration": -1.0}), "result.duration: "),
        (line({**VALID[2], "key": KEY, "duration": "1"}), "result.duration: "),
        (line({**VALID[2], "key": KEY, "outcome": "lost"}), "is the host's word"),
        (line({**VALID[2], "key": KEY, "outcome": "great"}), "result.outcome: input should be"),
        (line({**VALID[2], "key": KEY, "message": None}), "result.message: "),
        ("\x1b]0;title\x07 \u202e\n".encode(), "is not JSON (expected value"),
    ],
)
def test_a_line_that_is_no_event_says_which_and_why(data: bytes, said: str | None) -> None:
    if said is None:
        assert list(Lines(1000).feed(data, suite_events.EVENTS)) == []  # not ended yet
        return
    told = refusal(data)
    assert told.startswith("line 2 of what the guest sent ")
    assert said in told
    assert len(told) < 400
    assert harmless(told)


def test_nothing_is_believed_before_hello() -> None:
    with pytest.raises(BadLine, match="line 1 of what the guest sent comes before hello"):
        list(Lines(1000).feed(line({**VALID[1], "key": KEY}), suite_events.EVENTS))


@given(st.binary(max_size=300), st.sampled_from(SCHEMAS))
def test_no_bytes_raise_anything_else(data: bytes, schema: TypeAdapter[Any]) -> None:
    lines = Lines(200)
    try:
        list(lines.feed(data + b"\n", schema))
    except BadLine as error:
        assert harmless(str(error))


@given(json_values, st.sampled_from(SCHEMAS))
def test_no_json_raises_anything_else(value: Any, schema: TypeAdapter[Any]) -> None:
    try:
        list(Lines(1 << 20).feed(line(HELLO) + line(value), schema))
    except BadLine as error:
        assert harmless(str(error))


@given(st.sampled_from(VALID), st.data(), st.sampled_from(SCHEMAS))
def test_no_value_in_an_events_place_raises_anything_else(
    event: dict[str, Any], data: st.DataObject, schema: TypeAdapter[Any]
) -> None:
    spoilt = {
        **event,
        "key": KEY,
        data.draw(st.sampled_from(sorted(event))): data.draw(json_values),
    }
    try:
        list(Lines(1 << 20).feed(line(HELLO) + line(spoilt), schema))
    except BadLine as error:
        assert harmless(str(error))


@given(st.lists(st.integers(1, 40), min_size=1))
def test_where_the_pieces_end_does_not_matter(sizes: list[int]) -> None:
    whole = b"".join(line({**event, "key": KEY}) for event in (HELLO, *VALID[:4]))
    expected = list(Lines(1000).feed(whole, suite_events.EVENTS))
    lines, rest = Lines(1000), whole
    got: list[Any] = []
    while rest:
        for size in sizes:
            got += lines.feed(rest[:size], suite_events.EVENTS)
            rest = rest[size:]
    assert got == expected
    assert lines.number == 5


TESTS = ("t.py::a", "t.py::b")
names = st.sampled_from((*TESTS, "t.py::c", "t.py"))
told = st.one_of(
    st.just(HELLO),
    st.builds(
        lambda tests: {**VALID[0], "tests": tests},
        st.lists(names, max_size=3) | st.just(list(TESTS)),
    ),
    st.builds(lambda test: {**VALID[1], "test": test}, names),
    st.builds(
        lambda test, outcome: {**VALID[2], "test": test, "outcome": outcome},
        names,
        st.sampled_from([outcome.value for outcome in Outcome]),
    ),
    st.builds(lambda status: {"event": "finish", "status": status}, st.sampled_from((0, 1, 5))),
    *(
        # In the order of a real run, so that not every sequence ends at once.
        st.just([{**VALID[1], "test": test}, {**VALID[2], "test": test}])
        for test in TESTS
    ),
)


@given(st.lists(told, max_size=12), st.sampled_from((0, 1, None)))
def test_whatever_is_said_in_whatever_order_passed_means_a_result_of_every_test(
    said: list[Any], status: int | None
) -> None:
    payload = Payload(b"", (Suite("s", Path("/t.py")),), Path("/"))
    sink = Sink(
        io.BytesIO(),
        io.BytesIO(),
        Path("/dev/null"),
        lambda t: None,
        lambda t: None,
        lambda t: None,
    )
    run = Run(payload, sink)
    stream = cast(Stream, SimpleNamespace(send=lambda data: None))
    flat = [HELLO]
    for one in said:
        flat += one if isinstance(one, list) else [one]
    try:
        for event in flat:
            run._take((line({**event, "key": KEY}), b""), stream)
    except BadLine as error:
        run.bad_line = str(error)
    run.process_status = status
    machine = cast(Machine, SimpleNamespace(findings=lambda sign: []))
    judged, _ = SuitesWork(run, []).verdict(machine)
    if judged is Status.PASSED:
        assert run.tests
        results = run.results()
        assert Counter(test.test for test in results) >= Counter(run.tests)
        assert not {test.outcome for test in results} & {Outcome.LOST, Outcome.NOT_RUN}
    listed = Counter(run.tests)
    assert Counter(test.test for test in run.results()) >= listed, "a row is missing"
