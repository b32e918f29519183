"""The JSON Schemas: those that are shipped, and what they say of real files and of broken ones."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pages
import pytest
from command import vmtest
from many import many

from vmtest.runs import matrix_json
from vmtest.schemas.generate import MAKERS, place_of, text_of

ROOT = Path(__file__).parents[2]
CONFIG = """
schema = 1
[defaults]
memory = "2G"
silence_timeout = "1.5m"
[guest]
libbpf = ["1.1", "newest"]
[apt.debian]
suites = ["bookworm"]
[[kernel]]
name = "6.1"
apt = "debian"
version = "6.1.*"
tags = ["default"]
[[suite]]
name = "s"
tests = "tests"
network = "outbound"
[[object]]
name = "o"
path = "o.o"
kernels = ">=5.10,<6.2"
max_entries = { a = "cpus", b = 4 }
[[known_failure]]
test = "t.py::test_a"
kernels = "<6.1"
reason = "issue 7"
until = 2026-12-31
"""


def problems(name: str, value: object) -> list[str]:
    """Where ``value`` is not as the schema of ``name`` says."""
    schema = json.loads(place_of(name).read_text(encoding="utf-8"))
    return [str(error) for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]


def valid(name: str, value: object) -> None:
    """Assert that ``value`` is as the schema of ``name`` says."""
    assert problems(name, value) == []


def toml(text: str) -> Any:
    """As an editor sees it, which hands JSON's types to the schema."""
    return json.loads(json.dumps(tomllib.loads(text), default=str))


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_shipped_comes_from_the_types(name: str) -> None:
    """To write them again: python -m vmtest.schemas.generate."""
    assert place_of(name).read_text(encoding="utf-8") == text_of(name)


@pytest.mark.parametrize("name", MAKERS)
def test_a_schema_is_one(name: str) -> None:
    of_schemas = jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA)
    assert list(of_schemas.iter_errors(json.loads(text_of(name)))) == []


@pytest.mark.parametrize("name", MAKERS)
def test_the_command_prints_it(name: str, tmp_path: Path) -> None:
    assert vmtest("schema", name, cwd=tmp_path).out == text_of(name)


def test_without_a_name_the_files_are_listed(tmp_path: Path) -> None:
    lines = vmtest("schema", cwd=tmp_path).out.splitlines()
    assert [line.split()[0] for line in lines] == list(MAKERS)
    assert all(Path(line.split()[1]).is_file() for line in lines)


def test_another_name_is_refused(tmp_path: Path) -> None:
    vmtest("schema", "x.json", cwd=tmp_path).refuses(2, "there is no schema of that", "run.json")


FILES = ["kernels.toml", "vmtest/default_kernels.toml"]


@pytest.mark.parametrize("file", FILES)
def test_our_own_kernels_toml_is_valid(file: str) -> None:
    valid("kernels.toml", toml((ROOT / file).read_text(encoding="utf-8")))


def test_values_are_as_a_user_writes_them() -> None:
    valid("kernels.toml", toml(CONFIG))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('memory = "2G"', "memory = 2048"),
        ('memory = "2G"', 'memori = "2G"'),
        ('"1.5m"', '"90"'),
        ("schema = 1", "schema = 2"),
        ('network = "outbound"', 'network = "open"'),
        ('apt = "debian"', 'apt = "debian"\nmainline = "v6.1"'),
        ('apt = "debian"\n', ""),
        ('suites = ["bookworm"]', "suites = []"),
        ('"cpus"', '"cpu"'),
        ('reason = "issue 7"\n', ""),
    ],
)
def test_a_mistake_in_kernels_toml_is_found(old: str, new: str) -> None:
    assert old in CONFIG
    assert problems("kernels.toml", toml(CONFIG.replace(old, new)))


@pytest.mark.parametrize(
    "text",
    [
        (Path(__file__).parent / "data" / "report" / "matrix.json").read_text(encoding="utf-8"),
        matrix_json.dumps(many()),
        matrix_json.dumps(pages.three()),
        matrix_json.dumps(pages.hostile("x")),
    ],
    ids=["recorded", "97 failures", "loads", "everything"],
)
def test_a_matrix_is_valid(text: str) -> None:
    assert problems("matrix.json", json.loads(text)) == []


@pytest.mark.parametrize("place", [("status",), ("tests", 0, "outcome"), ("tests", 0, "line")])
def test_a_value_that_no_matrix_has_is_found(place: tuple[str | int, ...]) -> None:
    value = json.loads(matrix_json.dumps(many()))
    node = value["kernels"][0]
    *way, last = place
    for part in way:
        node = node[part]
    node[last] = "odd"
    assert problems("matrix.json", value)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, whose kernel could not be had."""
    project = tmp_path_factory.mktemp("project")
    (project / "tests").mkdir()
    (project / "tests" / "test_a.py").write_text("def test_a(): pass\n")
    (project / "o.o").write_bytes(b"\x7fELF")
    text = CONFIG.replace('path = "o.o"', 'path = "o.o"\nrequired = false')
    (project / "kernels.toml").write_text(text)
    empty = tmp_path_factory.mktemp("mirror").as_uri()
    mirrors = {"VMTEST_DEBIAN_MIRROR": empty, "VMTEST_DEBIAN_SECURITY_MIRROR": empty}
    cache = str(tmp_path_factory.mktemp("cache"))
    said = vmtest("run", cwd=project, environment={**mirrors, "VMTEST_CACHE": cache})
    assert said.status == 3, said
    (folder,) = (project / ".vmtest" / "runs").iterdir()
    return folder


@pytest.mark.parametrize("name", ["run.json", "matrix.json"])
def test_what_a_run_leaves_is_valid(ran: Path, name: str) -> None:
    assert problems(name, json.loads((ran / name).read_text())) == []


def test_every_key_of_run_json_is_in_its_schema(ran: Path) -> None:
    known = json.loads(text_of("run.json"))["properties"]
    assert set(json.loads((ran / "run.json").read_text())) <= set(known)


def test_every_event_of_a_run_is_valid(ran: Path) -> None:
    lines = (ran / "events.jsonl").read_text().splitlines()
    assert lines
    for line in lines:
        valid("events.jsonl", json.loads(line))


@pytest.mark.parametrize("event", [{"event": "queued"}, {"at": "1", "event": "queued"}, []])
def test_a_line_that_is_no_event_is_found(event: object) -> None:
    assert problems("events.jsonl", event)
