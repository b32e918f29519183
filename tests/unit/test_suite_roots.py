"""``root`` of a suite: what pytest finds at home, it finds in the guest."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched import WatchedSuite

from vmtest.config.file import parse
from vmtest.errors import ConfigError, UsageError
from vmtest.model.project import Suite
from vmtest.suites.payload import Payload, pack_suites

PROJECT = {
    "pyproject.toml": """
        [tool.pytest.ini_options]
        addopts = "--strict-markers"
        markers = ["slow: takes long"]
        filterwarnings = ["error"]
    """,
    "conftest.py": "import pytest\n\n\n@pytest.fixture\ndef top():\n    return 'top'\n",
    "src/mine/__init__.py": "ANSWER = 42\n",
    "tests/__init__.py": "",
    "tests/helpers.py": "def doubled(number):\n    return 2 * number\n",
    "tests/guest/__init__.py": "",
    "tests/guest/test_it.py": """
        from pathlib import Path

        import pytest

        from mine import ANSWER
        from tests.helpers import doubled


        @pytest.mark.slow
        def test_package_and_helper():
            assert doubled(ANSWER) == 84


        def test_conftest_above(top):
            assert top == "top"


        def test_folder():
            assert Path("data/input.txt").read_text() == "x"
    """,
    "data/input.txt": "x",
    ".gitignore": "build/\nvenv/\n",
    "build/made.o": "made",
    "build/other.o": "other",
}


def lay(root: Path) -> Path:
    for name, text in PROJECT.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.split("\n")
        indent = len(lines[1]) - len(lines[1].lstrip()) if len(lines) > 1 and not lines[0] else 0
        path.write_text("\n".join(line[indent:] for line in lines))
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as people have it, in a git repository."""
    root = lay(tmp_path / "project")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    return root


@pytest.fixture
def run(project: Path, tmp_path: Path) -> Iterator[WatchedSuite]:
    """The project's suite, and what became of running it."""
    watched = WatchedSuite(tmp_path, suite(project))
    yield watched
    watched.session.close()


def suite(root: Path, **given: object) -> Suite:
    where = root / "tests" / "guest" / "test_it.py"
    return Suite("it", where, root=root, pythonpath=(root / "src",), **given)  # type: ignore[arg-type]


def files(payload: Payload) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(payload.archive)) as archive:
        names = archive.getnames()
    return {name.removeprefix("suites/") for name in names if name.startswith("suites/")}


def packed(root: Path, **given: object) -> set[str]:
    one = suite(root, **given)
    return files(pack_suites([one], [one], {}))


def test_what_pytest_finds_at_home_it_finds_in_the_guest(run: WatchedSuite) -> None:
    run.execute()
    assert run.log.getvalue().decode().count("Error") == 0
    assert run.outcomes() == {
        "test_package_and_helper": "passed",
        "test_conftest_above": "passed",
        "test_folder": "passed",
    }


def test_an_id_is_the_one_that_pytest_has_at_home(run: WatchedSuite) -> None:
    run.execute()
    assert "tests/guest/test_it.py::test_folder" in {result.test for result in run.run.results()}


@pytest.fixture
def undeclared(project: Path) -> None:
    """The project's settings without the marker that a test uses."""
    settings = project / "pyproject.toml"
    kept = [line for line in settings.read_text().splitlines() if "markers = " not in line]
    settings.write_text("\n".join(kept))


def test_a_setting_of_the_project_holds(undeclared: None, run: WatchedSuite) -> None:
    run.execute()
    (result,) = run.run.results()
    assert "'slow' not found in `markers`" in result.details


def test_what_git_ignores_stays_behind(project: Path) -> None:
    there = packed(project)
    assert "build/made.o" not in there
    assert {"src/mine/__init__.py", "conftest.py", "data/input.txt", "tests/helpers.py"} <= there


def test_include_brings_what_git_ignores(project: Path) -> None:
    assert {"build/made.o"} == packed(project, include=("/build/made.*",)) - packed(project)


def test_exclude_leaves_a_folder_out(project: Path) -> None:
    assert packed(project) - packed(project, exclude=("data/",)) == {"data/input.txt"}


def test_a_file_that_git_knows_and_that_is_gone_is_left_out(project: Path) -> None:
    subprocess.run(["git", "-C", str(project), "add", "."], check=True)
    (project / "data" / "input.txt").unlink()
    assert "data/input.txt" not in packed(project)


def test_the_files_of_a_submodule_go_along(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "part.py").write_text("")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    allowed = ["-c", "protocol.file.allow=always"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(other), *words], check=True)
    add = ["submodule", "--quiet", "add", str(other), "third"]
    subprocess.run(["git", "-C", str(project), *allowed, *add], check=True)
    assert "third/part.py" in packed(project)


def test_without_git_all_but_caches_and_environments_goes_along(tmp_path: Path) -> None:
    root = lay(tmp_path / "plain")
    for name in ("env/pyvenv.cfg", "env/lib/x.py", "node_modules/y.js", ".tox/z", ".vmtest/runs/w"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    there = packed(root)
    assert "build/made.o" in there
    assert not {name for name in there if name.startswith(("env/", "node", "."))}


def test_the_folder_that_makes_a_payload_too_large_is_named(project: Path) -> None:
    with (project / "data" / "big.img").open("wb") as big:
        big.truncate(65 << 20)
    with pytest.raises(UsageError, match=r'65 MiB are in "/data/"; leave out .* by `exclude`'):
        packed(project)


HEAD = """
schema = 1
[[kernel]]
name = "mine"
path = "vmlinuz"
"""


def problems(suites: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(HEAD + suites, Path("/project/kernels.toml"))
    return list(caught.value.problems)


def test_the_folders_of_a_suite_are_told_in_full() -> None:
    config = parse(
        HEAD
        + '[[suite]]\nname = "a"\ntests = "tests/guest"\nroot = "../project/."\n'
        + 'pythonpath = ["src", "."]\nexclude = ["*.bin"]\n',
        Path("/project/kernels.toml"),
    )
    assert config.suites == (
        Suite(
            "a",
            Path("/project/tests/guest"),
            root=Path("/project"),
            pythonpath=(Path("/project/src"), Path("/project")),
            exclude=("*.bin",),
        ),
    )


def test_a_suite_without_the_root_of_another_is_refused() -> None:
    assert problems(
        '[[suite]]\nname = "a"\ntests = "tests/a"\nroot = "."\n'
        '[[suite]]\nname = "b"\ntests = "tests/b"\n'
    ) == [
        'kernels.toml: suite "b": one pytest runs all suites, and suite "a" has root = "."; '
        "give this one the same"
    ]


def test_tests_outside_of_the_root_are_refused() -> None:
    assert problems('[[suite]]\nname = "a"\ntests = "../b/tests"\nroot = "."\n') == [
        'kernels.toml: suite "a": tests = "../b/tests" is not below root = "."'
    ]


def test_the_path_of_a_suite_has_no_step_back() -> None:
    """Its files would come to lie beside those of the suites, or nowhere, by the guest's tar."""
    both = '[[suite]]\nname = "a"\ntests = "a"\n[[suite]]\nname = "b"\ntests = "a/../b.py"\n'
    suites = parse(HEAD + both, Path("/p/kernels.toml")).suites
    assert [suite.tests for suite in suites] == [Path("/p/a"), Path("/p/b.py")]


def test_a_pythonpath_outside_of_the_root_is_refused() -> None:
    given = '[[suite]]\nname = "a"\ntests = "tests"\nroot = "."\npythonpath = ["../lib"]\n'
    assert problems(given) == [
        'kernels.toml: suite "a": pythonpath = "../lib" is not below root = "."'
    ]


@pytest.mark.parametrize("key", ["pythonpath", "include", "exclude"])
def test_a_key_about_the_root_needs_one(key: str) -> None:
    assert problems(f'[[suite]]\nname = "a"\ntests = "tests"\n{key} = ["src"]\n') == [
        f'kernels.toml: suite "a": {key} is about the files below root; add root = "."'
    ]


def test_a_pattern_that_git_would_not_take_is_refused() -> None:
    (said,) = problems('[[suite]]\nname = "a"\ntests = "t"\nroot = "."\nexclude = ["!"]\n')
    assert "is not a pattern as in a .gitignore" in said
