"""bpf/include/log.h: what clang has to refuse."""

from pathlib import Path

import pytest

from vmtest.errors import BuildCommandFailed
from vmtest.objects.compile import build_all

INCLUDE = Path(__file__).parents[2] / "bpf" / "include"


def compile_message(tmp_path: Path, macro: str, text: str, values: int) -> list[Path]:
    """Compiles a message of `values` values, which the record shows as " v=" and 20 digits."""
    folder = tmp_path / "bpf"
    folder.mkdir()
    (folder / "include").symlink_to(INCLUDE)
    arguments = ", ".join([f'"{text}"', *["v"] * values])
    (folder / "one.bpf.c").write_text(
        f'#include "log.h"\nlong long v;\nvoid f(void) {{ {macro}(LOG_INFO, {arguments}); }}\n'
    )
    return build_all(folder, tmp_path / "build")


@pytest.mark.parametrize(("length", "values"), [(255, 0), (232, 1), (2, 11)])
def test_a_message_that_fits_into_a_record_compiles(
    length: int, values: int, tmp_path: Path
) -> None:
    assert compile_message(tmp_path, "LOG", "x" * length, values)


@pytest.mark.parametrize(("length", "values"), [(256, 0), (233, 1), (3, 11)])
def test_a_message_that_could_be_cut_does_not_compile(
    length: int, values: int, tmp_path: Path
) -> None:
    with pytest.raises(BuildCommandFailed, match="log message too long"):
        compile_message(tmp_path, "LOG", "x" * length, values)


def test_a_traced_message_may_have_any_number_of_values(tmp_path: Path) -> None:
    assert compile_message(tmp_path, "TRACE", "x", 50)
