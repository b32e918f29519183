"""Sizes that users write, and the last line of what a tool said."""

from __future__ import annotations

import pytest

from vmtest.model.text import last_line, size_of


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("2 GiB", 2 << 30),
        ("16MiB", 16 << 20),
        ("64K", 64 << 10),
        ("1024", 1024),
    ],
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert size_of(text, ("", "K", "M", "G")) == size


@pytest.mark.parametrize(
    "text",
    ["", "M", "-1M", "1.5G", "2T", "2GB", "2g", "1M\n", "٣M", "9" * 5000 + "M", "64K", "1024"],
)
def test_other_text_and_other_units_are_not_a_size(text: str) -> None:
    assert size_of(text, ("M", "G")) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [("", ""), (" \n\n", ""), ("one\n two \n \n", "two"), ("one\r\ntwo\r\n", "two")],
)
def test_the_last_line_is_the_last_that_is_not_blank(text: str, line: str) -> None:
    assert last_line(text) == line
