"""A picture of a run, as the terminal shows it.

    python docs/picture.py .vmtest/latest docs/images/run.svg

The text comes from the product's own renderer, over the run's matrix.json. The picture refers to
no other host: it names the reader's monospaced fonts only.
"""

import argparse
import io
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from vmtest.report import terminal
from vmtest.runs import matrix_json

_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def picture(run: Path, width: int) -> str:
    """The SVG of the run's report in `width` columns; raises OSError, UsageError."""
    file = run / "matrix.json"
    matrix = matrix_json.loads(file.read_bytes(), str(file))
    text = Text.from_ansi(terminal.render(matrix, width=width, color=True).rstrip())
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ vmtest run"))
    console.print(text)
    svg = console.export_svg(title="vmtest run", unique_id="vmtest")
    return _FONT_FACE.sub("", svg).replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")


def main() -> None:
    """Draw a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("svg", type=Path, help="the file to write")
    parser.add_argument("--width", type=int, default=104, help="columns")
    arguments = parser.parse_args()
    svg = picture(arguments.run, arguments.width)
    arguments.svg.write_text(svg, encoding="utf-8")
    print(f"{arguments.svg}: {len(svg.encode())} bytes")


if __name__ == "__main__":
    main()
