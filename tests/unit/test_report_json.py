"""matrix.json: there and back, and what is said of a file that is none."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from vmtest.errors import UsageError
from vmtest.model.results import (
    SCHEMA,
    KernelResult,
    KnownComplaint,
    Matrix,
    Outcome,
    Status,
    TestResult,
)
from vmtest.runs import matrix_json

DATA = Path(__file__).parent / "data" / "report"
ALPHABET = 'aZ09 \t\n\r\x00\x07\x1b\x7f\x9b"\\/<&|`[]éж漢🐝\u2028\ufffe\uffff'


def recorded() -> str:
    return (DATA / "matrix.json").read_text(encoding="utf-8")


def invented(seed: int) -> Matrix:
    """A matrix of random values in every field."""
    dice = random.Random(seed)

    def text() -> str:
        return "".join(dice.choices(ALPHABET, k=dice.randrange(12)))

    def texts() -> tuple[str, ...]:
        return tuple(text() for _ in range(dice.randrange(4)))

    def number() -> float:
        return dice.choice([0.0, 1.0, 0.1, 1e-9, 1e12, dice.random()])

    def truth() -> bool:
        return dice.random() < 0.5

    def test() -> TestResult:
        outcome = dice.choice(list(Outcome))
        told = (text(), text(), outcome, number(), text(), text(), text(), truth())
        return TestResult(*told, text(), 7, text(), text(), text(), text(), number())

    def kernel() -> KernelResult:
        return KernelResult(
            kernel=text(),
            status=dice.choice(list(Status)),
            version=text(),
            release=text(),
            accelerator=text(),
            tests=tuple(test() for _ in range(dice.randrange(5))),
            reason=text(),
            note=text(),
            boot_seconds=number(),
            duration=number(),
            factor=number(),
            splats=texts(),
            console_tail=texts(),
            directory=text(),
            digest=text(),
            gate=truth(),
            objects=tuple((text(), text()) for _ in range(dice.randrange(3))),
            exit_status=dice.choice([None, 0, 42]),
            counts=tuple((text(), dice.randrange(9)) for _ in range(dice.randrange(3))),
            fingerprints=texts(),
            splat_tests=texts(),
            known_splats=(KnownComplaint(text(), text(), text(), text()),) * dice.randrange(3),
        )

    kernels = tuple(kernel() for _ in range(dice.randrange(4)))
    facts = (text(), text(), number(), texts(), kernels, truth(), texts(), texts())
    return Matrix(SCHEMA, *facts)


def complaint(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        matrix_json.loads(text, "runs/1/matrix.json")
    return str(caught.value)


def with_field(name: str, value: object) -> str:
    return json.dumps({**json.loads(recorded()), name: value})


@pytest.mark.parametrize("seed", range(200))
def test_a_matrix_comes_back_exactly(seed: int) -> None:
    matrix = invented(seed)
    assert matrix_json.loads(matrix_json.dumps(matrix)) == matrix


@pytest.mark.parametrize("seed", range(20))
def test_a_matrix_comes_back_exactly_from_bytes(seed: int) -> None:
    matrix = invented(seed)
    assert matrix_json.loads(matrix_json.dumps(matrix).encode()) == matrix


def test_a_file_comes_back_as_it_was() -> None:
    assert matrix_json.dumps(matrix_json.loads(recorded())) == recorded()


def test_a_lone_surrogate_does_not_stop_the_record() -> None:
    matrix = replace(invented(0), run="a\udc80b")
    assert matrix_json.loads(matrix_json.dumps(matrix)).run == "a?b"


def test_a_file_of_an_earlier_vmtest_without_the_later_fields_is_read() -> None:
    value = json.loads(recorded())
    for kernel in value["kernels"]:
        del kernel["objects"], kernel["exit_status"]
    del value["command"]
    assert matrix_json.loads(json.dumps(value)).kernels[0].objects == ()


def test_a_key_of_a_later_vmtest_is_ignored() -> None:
    text = with_field("later", 1)
    assert matrix_json.loads(text) == matrix_json.loads(recorded())


def test_a_truncated_file_is_named_with_a_cure() -> None:
    said = complaint(recorded()[:-10])
    assert said.startswith("runs/1/matrix.json: not JSON: ")
    assert "run the tests again" in said


def test_bytes_that_are_no_text_are_no_json() -> None:
    with pytest.raises(UsageError, match=r"^matrix\.json: not JSON: "):
        matrix_json.loads(b"\xff\xfe\xfa")


@pytest.mark.parametrize("text", ["[]", '"a"', "1", "null", "true"])
def test_json_of_another_kind_is_refused(text: str) -> None:
    assert "not a matrix" in complaint(text)


def test_a_newer_schema_asks_for_an_upgrade() -> None:
    assert complaint(with_field("schema", SCHEMA + 1)) == (
        f"runs/1/matrix.json: schema: {SCHEMA + 1}, but this vmtest reads {SCHEMA}; "
        "a newer vmtest wrote it: upgrade vmtest"
    )


def test_an_older_schema_says_what_to_do() -> None:
    assert "an older vmtest wrote it: run the tests again" in complaint(with_field("schema", 0))


@pytest.mark.parametrize("schema", ["1", None, True, 1.0])
def test_a_schema_that_is_no_number_is_refused(schema: object) -> None:
    assert "schema: missing or not a number" in complaint(with_field("schema", schema))


def test_a_missing_field_is_named() -> None:
    value = json.loads(recorded())
    del value["kernels"][2]["tests"][0]["outcome"]
    said = complaint(json.dumps(value))
    assert said.startswith("runs/1/matrix.json: kernels[2].tests[0].outcome: field required")


def test_a_wrong_value_is_named_and_shown() -> None:
    value = json.loads(recorded())
    value["kernels"][0]["status"] = "FINE"
    said = complaint(json.dumps(value))
    assert said.startswith("runs/1/matrix.json: kernels[0].status: should be 'PASSED'")
    assert '(is "FINE")' in said


@pytest.mark.parametrize("value", ["12", None, []])
def test_a_number_is_a_number(value: object) -> None:
    assert "runs/1/matrix.json: duration: " in complaint(with_field("duration", value))


def test_a_file_full_of_errors_is_told_in_a_few_lines() -> None:
    value = json.loads(recorded())
    for test in value["kernels"][0]["tests"]:
        test["outcome"] = "fine"
    lines = complaint(json.dumps(value)).splitlines()
    assert (len(lines), lines[-1].split(";")[0]) == (6, "runs/1/matrix.json: and 19 more")


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_the_standard_library_writes(seed: int) -> None:
    text = matrix_json.dumps(invented(seed))
    value = json.loads(text)
    assert text == json.dumps(value, ensure_ascii=False, indent=1) + "\n"


@pytest.mark.parametrize("number", [0.0, 1e-4, 9e-5, -1e-7, 1e15, 1e16, 1.5e300, 5e-324, 0.1 + 0.2])
def test_a_number_is_as_the_standard_library_writes_it(number: float) -> None:
    matrix = replace(invented(0), duration=number)
    assert f'\n "duration": {json.dumps(number)},\n' in matrix_json.dumps(matrix)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_in_json_is_not_written(number: float) -> None:
    with pytest.raises(ValueError):
        matrix_json.dumps(replace(invented(0), duration=number))
