"""What the guest's pytest says of an assertion is whole, as far as there is room."""

import subprocess
import sys
import textwrap
from pathlib import Path

from vmtest.guest.plugin import LINE_LIMIT, OUTPUT_LIMIT, _end, _narrow

TEST = """\
    import dataclasses

    @dataclasses.dataclass
    class Inner:
        data: bytes

    @dataclasses.dataclass
    class Outer:
        inner: Inner

    def test_it():
        assert Outer(Inner(b"a" * 300)) == Outer(Inner(b"a" * 299 + b"b"))
"""
RUN = """\
    import sys
    import pytest
    from vmtest.guest.plugin import whole_assertions
    sys.exit(pytest.main([*whole_assertions(), "-q", "-p", "no:cacheprovider", "test_it.py"]))
"""


def test_all_of_how_two_values_differ_is_said(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TEST))
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUN)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
    )
    assert "At index 299 diff: b'a' != b'b'" in ran.stdout
    assert "Full output truncated" not in ran.stdout


def test_long_lines_make_room_for_what_is_said_below_them() -> None:
    text = f"E   assert {'x' * OUTPUT_LIMIT}\nE   At index 7 diff: 1 != 2\n{'y' * OUTPUT_LIMIT}"
    kept = _end(_narrow(text))
    assert "At index 7 diff: 1 != 2" in kept
    assert max(map(len, kept.split("\n"))) == LINE_LIMIT + 1


def test_lines_that_have_room_are_whole() -> None:
    text = f"E   assert {'x' * (OUTPUT_LIMIT - 20)}"
    assert _narrow(text) == text
