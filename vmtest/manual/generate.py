"""What the documentation takes from the code: options, tables of kernels.toml, reasons, schemas.

A line ``<!-- generated: NAME -->`` in a page stands for the Markdown of the function NAME below.
It is filled in when the page is shown or the site is built. Nothing generated is committed.
"""

from __future__ import annotations

import ast
import html
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import vmtest
from vmtest.config import schema
from vmtest.schemas.generate import text_of

_ONE_VALUE = re.compile(r"\{[^{}]*\}")
_PLACE = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)


def filled(markdown: str) -> str:
    """A page with what is generated; raises KeyError for a name that no function has."""
    return _PLACE.sub(lambda match: GENERATORS[match[1]](), markdown)


def cli() -> str:
    """Every command with its options, from typer."""
    argv = [sys.executable, "-m", "typer", "vmtest.cli.main", "utils", "docs", "--name", "vmtest"]
    made = subprocess.run(argv, capture_output=True, text=True, check=True)
    text = made.stdout.partition("\n## ")[2]  # the page has its own introduction
    bold = re.compile(r'Example: <span style="font-weight: bold">(.*?)</span>', re.DOTALL)
    text = html.unescape(bold.sub(lambda m: f"```sh\n{m[1]}\n```", text))
    return f"## {text}".replace("$ vmtest", "vmtest").replace("```console", "```text")


def kernels_toml() -> str:
    """A table for each table of kernels.toml, from its schema."""
    return "\n".join(_table_of(model) for name, model in vars(schema).items() if _is_table(name))


def _is_table(name: str) -> bool:
    return name.endswith("Table") and name != "Table"


def _table_of(model: type[Any]) -> str:
    lines = [f"### {_first_line(model)}", "", "| key | type | default |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = _kind_of(str(model.__annotations__[name]))
        default = "**required**" if field.is_required() else _shown(field.get_default(), kind)
        if model is schema.KernelTable and name in schema.DefaultsTable.model_fields:
            default = "as in `[defaults]`"
        lines.append(f"| `{field.alias or name}` | {kind} | {default} |")
    return "\n".join([*lines, ""])


def _first_line(thing: type[Any]) -> str:
    return (thing.__doc__ or thing.__name__).splitlines()[0].replace("``", "`")


def _shown(value: object, kind: str) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if kind == "duration":
        return f'`"{value:g}s"`'
    if kind == "size":
        return f'`"{value}M"`'
    return f"`{json.dumps(value if value != '' else False)}`"


_KINDS = {
    "Architectures": "list, each: text",
    "bool": "true or false",
    "Card": 'true, false or `"outbound"`',
    "Cause": "text",
    "Component": "text",
    "Count": "positive integer",
    "Day": "date",
    "Distribution": "text",
    "Duration": "duration",
    "Flavour": "text",
    "GitPattern": "pattern of files",
    "Image": "image without a tag",
    "InnerMapTable": "template",
    "Libbpf": "libbpf, or a list",
    "Memory": "size",
    "Name": "name",
    "Option": "option of the kernel",
    "PackageTable": "file",
    "Path": "path",
    "ProgramType": "program type",
    "Pytest": "version or range of pytest",
    "Range": "range of versions",
    "Regex": "regular expression",
    "Requirement": "requirement",
    "Retries": "integer, 0 to 10",
    "Sha256": "sha256",
    "Share": "number between 0 and 1",
    "Signed": '`"metadata"`, `"packages"` or `"both"`',
    "Size": "integer, 0 or more",
    "SplatPattern": "pattern of complaints",
    "str": "text",
    "StrictBool": "true or false",
    "StrictInt": "integer",
    "Tag": "tag",
    "TestPattern": "pattern of tests",
    "TreeTable": "table",
    "Url": "URL",
    "Version": "pattern of versions",
    "Why": "text",
}


def _kind_of(annotation: str) -> str:
    """The type of a key in words; it is written ``list[Name]``, ``Path | None`` and the like."""
    text = annotation.removesuffix(" | None")
    if match := re.fullmatch(r"Annotated\[(.*), Field\(.*\)\]", text):
        text = match[1]
    if match := re.fullmatch(r"list\[(.*)\]", text):
        return f"list, each: {_kind_of(match[1])}"
    if match := re.fullmatch(r"dict\[str, (.*)\]", text):
        return f"table, each: {_kind_of(match[1])}"
    if match := re.fullmatch(r"Literal\[(.*)\]", text):
        return f"`{match[1]}`".replace("'", '"')
    return " or ".join(
        _kind_of(part) if part.startswith("Literal") else _KINDS[part] for part in text.split(" | ")
    )


def reasons() -> str:
    """Every text and remedy that a code can have, from the calls in the guest's rules."""
    told: dict[str, list[tuple[str, str]]] = {}
    for code, text, remedy in sorted(rule_texts()):
        if not (_ONE_VALUE.fullmatch(text) and _ONE_VALUE.fullmatch(remedy or "{}")):
            told.setdefault(code, []).append((text, remedy))
    lines: list[str] = []
    for code, texts in told.items():
        lines += [f"### `{code}`", "", "| what the report says | remedy |", "|---|---|"]
        lines += [f"| {_cell(text)} | {_cell(remedy)} |" for text, remedy in texts] + [""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*") or "-"


def rule_texts() -> set[tuple[str, str, str]]:
    """Code, text and remedy of each reason in the guest's code; values as ``{name}``."""
    guest = Path(vmtest.__file__).parent / "guest"
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in guest.rglob("*.py"))
    return {found for tree in trees for node in ast.walk(tree) for found in _reason_in(node)}


def _reason_in(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return
    if node.func.id not in ("Reason", "said") or len(node.args) < 2:
        return
    code = node.args[0]
    if isinstance(code, ast.Constant) and isinstance(code.value, str):
        words = [_words(argument) for argument in node.args[1:3]]
        yield code.value, words[0], words[1] if len(words) > 1 else ""


def _words(node: ast.expr) -> str:
    """A string of the source; what is put into it when it is used stands in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value).replace("{{", "{").replace("}}", "}")
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_words, node.values))
    if isinstance(node, ast.BinOp):
        return _words(node.left) + _words(node.right)
    return "{" + _value_name(node) + "}"


def _value_name(node: ast.expr) -> str:
    """What a value is called: ``name`` of ``name``, ``found.name``, ``found["name"]``."""
    match node:
        case ast.FormattedValue(value=value) | ast.BoolOp(values=[value, *_]):
            return _value_name(value)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_").lower()
        case ast.Subscript(slice=ast.Constant(value=str() as key)):
            return key
        case ast.Subscript(value=value):
            return _value_name(value)
    return "..."


def matrix_schema() -> str:
    """The JSON Schema of matrix.json, folded."""
    text = text_of("matrix.json")
    indented = "\n".join(f"    {line}" for line in text.splitlines())
    return f'??? note "JSON Schema"\n\n    ```json\n{indented}\n    ```\n'


GENERATORS: dict[str, Callable[[], str]] = {
    "cli": cli,
    "kernels-toml": kernels_toml,
    "reasons": reasons,
    "matrix-schema": matrix_schema,
}
"""The names that a page may ask for."""
