"""The running kernel's symbols, as the loader reads them in the guest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vmtest.guest import probing
from vmtest.guest.loader.kernel import RunningKernel

LISTED = """\
ffffffff81000000 T _stext
0000000000000000 A __per_cpu_start
ffffffff81000010 t f.isra.0
ffffffff81000020 t f.cold
ffffffffc0000000 t nf_conntrack_in\t[nf_conntrack]
ffffffffc0000010 t bpf_prog_6deef7357e7b4530\t[bpf]
"""


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A /proc/kallsyms, which has to be written."""
    monkeypatch.setattr(probing, "_KALLSYMS", tmp_path / "kallsyms")
    probing.symbols.cache_clear()
    yield tmp_path / "kallsyms"
    probing.symbols.cache_clear()


def test_a_symbol_is_the_third_word_with_or_without_a_module(listed: Path) -> None:
    listed.write_text(LISTED)
    assert probing.symbols() == {
        "_stext",
        "__per_cpu_start",
        "f.isra.0",
        "f.cold",
        "nf_conntrack_in",
        "bpf_prog_6deef7357e7b4530",
    }


def test_where_there_is_no_list_nothing_is_known(listed: Path) -> None:
    assert probing.symbols() == frozenset()
    kernel = RunningKernel()
    assert kernel.has_symbol("f") is None
    assert kernel.matching("f.*") is None


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("f.*", ["f.cold", "f.isra.0"]),
        ("*conntrack_in", ["nf_conntrack_in"]),
        ("f.[ci]*", ["f.cold", "f.isra.0"]),
        ("_?text", ["_stext"]),
        ("?text*", []),
        ("_stex?", ["_stext"]),
        ("f", []),
    ],
)
def test_a_pattern_finds_all_that_it_matches_and_nothing_else(
    pattern: str, found: list[str], listed: Path
) -> None:
    listed.write_text(LISTED)
    assert RunningKernel().matching(pattern) == found
