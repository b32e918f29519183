"""The documentation: short lines, links that hold, and nothing of the code left out."""

import importlib.util
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from vmtest.cli.main import app
from vmtest.config import file as configuration
from vmtest.config import schema
from vmtest.manual import generate
from vmtest.model.loads import Change, LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.objects.compile import build_all

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    ]
)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def of_root(path: Path) -> str:
    """A file's name in the project."""
    return str(path.relative_to(ROOT))


def reference(name: str) -> str:
    """A page of the reference."""
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


def script(name: str) -> Any:
    """A Python file of the documentation, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def too_long(text: str) -> list[int]:
    """The numbers of lines with 120 characters and more; tables and lines with a link may."""
    return [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) >= 120 and not line.lstrip().startswith("|") and not _LINK.search(line)
    ]


def test_a_long_line_is_noticed_and_a_long_table_is_not() -> None:
    assert too_long(f"{'a ' * 59}b\n{'a ' * 60}b\n| {'a ' * 80}|\n[x](y.md) {'a ' * 80}\n") == [2]


@pytest.mark.parametrize("page", PAGES, ids=of_root)
def test_lines_have_fewer_than_120_characters(page: Path) -> None:
    assert too_long(page.read_text(encoding="utf-8")) == []


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as the site and GitHub make them."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", _LINK.sub("", title).lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


def broken_links(page: Path) -> list[str]:
    """The links of a page to a file or a heading that is not there."""
    broken = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        if "://" in link:
            continue
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One: `two`\n[a](a.md#one-two) [b](b.md) [c](#three) [d](https://d/e)\n")
    assert broken_links(page) == ["b.md", "#three"]


@pytest.mark.parametrize("page", PAGES, ids=of_root)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_pages_that_the_code_names_are_there() -> None:
    folders = ("vmtest", "tests", "bpf", "benchmarks", ".github", ".ci")
    files = [f for folder in folders for f in (ROOT / folder).rglob("*") if f.is_file()]
    files += [ROOT / "kernels.toml", ROOT / "tox.ini", ROOT / "CHANGELOG.md"]
    named = {
        page
        for file in files
        if file.suffix in (".py", ".c", ".h", ".toml", ".ini", ".md", ".sh", ".yml")
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text(encoding="utf-8"))
    }
    assert named
    assert [page for page in sorted(named) if not (ROOT / page).is_file()] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert [page for page in pages if f" {page}\n" not in navigation] == []


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return fence.findall(page.read_text(encoding="utf-8"))


WHOLE_FILES = [
    pytest.param(text, id=f"{of_root(page)}-{number}")
    for page in PAGES
    for number, text in enumerate(blocks(page, "toml"))
    if text.startswith("schema = 1\n")
]


@pytest.mark.parametrize("text", WHOLE_FILES)
def test_whole_kernels_toml_of_a_page_is_valid(text: str, tmp_path: Path) -> None:
    file = tmp_path / "kernels.toml"
    file.write_text(text)
    assert configuration.load(file).kernels


def test_program_of_the_tutorial_compiles(tmp_path: Path) -> None:
    source = tmp_path / "bpf"
    source.mkdir()
    (program,) = blocks(DOCS / "tutorial/five-minutes.md", "c")
    (source / "count.bpf.c").write_text(program)
    build_all(source, tmp_path / "build")
    assert (tmp_path / "build/count.bpf.o").is_file()


TABLES = [model for name, model in vars(schema).items() if name.endswith("Table")]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_every_key_of_kernels_toml_is_explained(table: Any) -> None:
    page = reference("kernels-toml.md")
    keys = [field.alias or name for name, field in table.model_fields.items()]
    assert [key for key in keys if not re.search(rf"\b{key}\b", page)] == []


def test_every_reason_code_is_in_the_reference() -> None:
    codes = {code for code, _text, _remedy in generate.rule_texts()}
    assert "helper" in codes
    page = reference("reason-codes.md")
    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []


@pytest.mark.parametrize("words", [Status, Outcome], ids=lambda words: words.__name__)
def test_every_status_and_outcome_is_in_the_reference(words: Any) -> None:
    page = reference("statuses.md")
    assert [word.value for word in words if f"`{word.value}`" not in page] == []


def test_every_verdict_is_in_the_reference() -> None:
    page = reference("verify.md")
    assert [verdict.value for verdict in Verdict if f"`{verdict.value}`" not in page] == []


@pytest.mark.parametrize(
    "record", [Matrix, KernelResult, TestResult, LoadResult, Change], ids=lambda r: r.__name__
)
def test_every_field_of_matrix_json_is_in_the_reference(record: Any) -> None:
    page = reference("matrix-json.md")
    names = [field.name for field in fields(record)]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_command_is_in_the_reference() -> None:
    page = reference("cli.md")
    names = list(getattr(typer.main.get_command(app), "commands", {}))
    assert "run" in names
    assert [name for name in names if f"`vmtest {name}" not in page] == []


def test_every_place_for_generated_text_has_a_generator() -> None:
    places = [
        name
        for page in PAGES
        for name in re.findall(r"<!-- generated: (.*) -->", page.read_text(encoding="utf-8"))
    ]
    assert sorted(places) == sorted(generate.GENERATORS)


@pytest.mark.parametrize("name", ["kernels-toml", "reasons", "matrix-schema"])
def test_generated_text_has_no_words_of_python(name: str) -> None:
    text = generate.GENERATORS[name]()
    assert len(text) > 1000
    assert not re.search(r"Annotated|Optional|NoneType|<class", text)


@pytest.mark.parametrize("name", ["cli", "kernels-toml", "reasons"])
def test_generated_text_needs_no_html(name: str) -> None:
    text = generate.GENERATORS[name]()
    assert not re.search(r"&(amp|lt|gt|quot);", text)
    outside_of_code = re.sub(r"`[^`\n]*`", "", _FENCED.sub("", text))
    assert not re.search(r"<[a-z/]", outside_of_code)


def test_generated_tables_name_the_type_and_default_of_a_key() -> None:
    lines = generate.kernels_toml().splitlines()
    tables = [
        line.split("`")[1] for line in lines if re.search(r"\| (list, each: )?table \|", line)
    ]
    assert tables == ["tree"]
    assert '| `distribution` | text | `"debian"` |' in lines
    assert "| `limit` | number between 0 and 1 | none |" in lines
    assert '| `memory` | size | `"1024M"` |' in lines
    assert "| `memory` | size | as in `[defaults]` |" in lines


def test_generated_reasons_name_values_and_show_no_expressions() -> None:
    text = generate.reasons()
    assert "the helper {name} does not take maps" in text
    assert [
        value for value in re.findall(r"\{([^{}]*)\}", text) if re.search(r"['(\[.]\w", value)
    ] == []
    assert not re.search(r"^\| \{\w+\} \| (\{\w+\}|-) \|$", text, re.MULTILINE)


def test_generated_commands_have_their_examples() -> None:
    text = generate.cli()
    assert text.startswith("## `vmtest run`\n")
    assert "```sh\nvmtest run --kernel '>=6.1,<6.13' --suite sendmsg -k ipv4 -x\n```" in text
    assert "<span" not in text


def test_picture_of_a_run_has_its_words_and_needs_no_other_host() -> None:
    svg = script("picture").picture(ROOT / "tests/unit/data/report", 104)
    assert "PANICKED" in svg
    assert "font-face" not in svg
    assert not re.search(r"""url\(["']?http""", svg)


def test_picture_of_the_readme_is_small() -> None:
    assert (DOCS / "images/run.svg").stat().st_size < 150_000
