"""Requirements that pip resolves for the guest's Python, from a folder of wheels."""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path

import pytest
from http_files import Served, serving
from small_wheels import small_index, small_wheel

from vmtest.api.inputs import parts_of_guest
from vmtest.config.file import load
from vmtest.errors import ConfigError, ImageError, UsageError
from vmtest.host import attempts
from vmtest.host.cache import write_record
from vmtest.host.files import Files
from vmtest.model.kernels import GuestSpec, RootImage
from vmtest.rootfs.guestpython import GuestPython
from vmtest.rootfs.prepare import wheels_asked
from vmtest.rootfs.pytests import check_pytest
from vmtest.rootfs.requirements import places, read_entry, resolve
from vmtest.storage.prune import items
from vmtest.storage.verify import verify

PYTHON = GuestPython(Path("root.sqfs"), "3.13", "8.3.5")


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip finds: two versions of pytest, one of a plugin for each, and a helper."""
    folder = small_index(tmp_path / "index", monkeypatch)
    small_wheel(folder, "plugin", "2.0", "pytest>=8.4")
    return folder


def names(folder: Path, *wanted: str, choice: str = "") -> list[str]:
    found = resolve(wanted, choice, PYTHON, folder / "cache", lambda line: None)
    return [path.name.removesuffix("-py3-none-any.whl") for path in found]


def test_what_is_required_comes_along_and_the_images_pytest_stays(tmp_path: Path) -> None:
    assert names(tmp_path, "plugin") == ["helper-0.1", "plugin-1.0"]


def test_another_pytest_is_chosen(tmp_path: Path) -> None:
    assert names(tmp_path, choice="pytest==8.4.*") == ["pytest-8.4.2"]
    assert names(tmp_path, "plugin", choice="pytest>=8.4") == ["plugin-2.0", "pytest-8.4.2"]


def test_the_same_requirements_are_the_same_wheels_later(tmp_path: Path, index: Path) -> None:
    first = names(tmp_path, "helper", "plugin")
    shutil.rmtree(index)
    assert names(tmp_path, "plugin", "helper") == first
    with pytest.raises(ImageError, match="pip has no wheels of plugin for Python 3"):
        names(tmp_path, "plugin")


@pytest.mark.parametrize(
    ("marker", "holds"), [('python_version >= "3.13"', True), ('python_version < "3.13"', False)]
)
def test_markers_are_those_of_the_guests_python(tmp_path: Path, marker: str, holds: bool) -> None:
    assert names(tmp_path, f"helper; {marker}") == ["helper-0.1"] * holds


def test_what_only_the_guests_python_needs_comes_along(tmp_path: Path, index: Path) -> None:
    small_wheel(index, "upper", "1.0", f'middle; python_version == "{PYTHON.version}"')
    small_wheel(index, "middle", "1.0", f'helper[more]; python_version == "{PYTHON.version}"')
    small_wheel(index, "helper", "0.2", 'plugin; extra == "more"', 'absent; extra == "other"')
    small_wheel(index, "older", "1.0", f'helper<0.2; python_version == "{PYTHON.version}"')
    assert names(tmp_path, "upper") == ["helper-0.2", "middle-1.0", "plugin-1.0", "upper-1.0"]
    assert names(tmp_path, "helper", "older") == ["helper-0.1", "older-1.0"]


def test_what_only_the_hosts_python_needs_stays_away(tmp_path: Path, index: Path) -> None:
    small_wheel(index, "upper", "1.0", f'helper; python_version != "{PYTHON.version}"')
    assert names(tmp_path, "upper") == ["upper-1.0"]


def test_a_wheel_may_be_named_by_its_address(tmp_path: Path) -> None:
    address = small_wheel(tmp_path, "own", "1.0", "helper").as_uri()
    text = f'requirements = ["own @ {address}#egg=own"]'
    assert names(tmp_path, *guest(tmp_path, text).requirements) == ["helper-0.1", "own-1.0"]


def test_what_pip_asks_again_is_told(tmp_path: Path) -> None:
    wheel = small_wheel(tmp_path, "own", "1.0")
    served = Served({f"/{wheel.name}": wheel.read_bytes()}, statuses=[0, 0])
    with serving(served), attempts.kept() as lines:
        assert names(tmp_path, f"own @ {served.url}/{wheel.name}") == ["own-1.0"]
    assert [line.partition(" failed: ")[0] for line in lines] == [f"pip: /{wheel.name}"] * 2
    assert "closed connection without response" in lines[0]
    assert [line.rpartition("(")[2] for line in lines] == ["attempt 2 of 6)", "attempt 3 of 6)"]


def test_what_pip_asks_again_after_a_503_is_told(tmp_path: Path) -> None:
    """Of that pip says nothing, whether it comes to the wheel or not."""
    wheel = small_wheel(tmp_path, "own", "1.0")
    served = Served({f"/{wheel.name}": wheel.read_bytes()}, statuses=[503, 0])
    with serving(served), attempts.kept() as lines:
        assert names(tmp_path, f"own @ {served.url}/{wheel.name}") == ["own-1.0"]
    assert lines[0] == (
        f"pip: /{wheel.name} failed: HTTP status 503; it is tried again (attempt 2 of 6)"
    )
    assert [line.rpartition("(")[2] for line in lines] == ["attempt 2 of 6)", "attempt 3 of 6)"]


def test_a_503_that_goes_on_is_told_with_its_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_RETRIES", "2")
    served = Served({}, statuses=[503] * 3)
    with serving(served), attempts.kept() as lines, pytest.raises(ImageError) as caught:
        names(tmp_path, f"own @ {served.url}/own-1.0-py3-none-any.whl")
    assert [line.rpartition("(")[2] for line in lines] == ["attempt 2 of 3)", "attempt 3 of 3)"]
    assert "too many 503 error responses" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_what_pip_brings_beside_wheels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def brings(argv: list[str], **options: bool) -> subprocess.CompletedProcess[str]:
        (into := Path(argv[argv.index("--dest") + 1])).mkdir()
        small_wheel(into, "helper", "0.1")
        (into / "evil-1.tar.gz").touch()
        return subprocess.CompletedProcess(argv, 0, "")

    monkeypatch.setattr("vmtest.host.interrupt.run", brings)
    with pytest.raises(UsageError, match=r"evil-1\.tar\.gz is not a wheel"):
        names(tmp_path, "helper")
    assert places(tmp_path / "cache") == []


def test_a_requirement_without_a_wheel_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def brings(argv: list[str], **options: bool) -> subprocess.CompletedProcess[str]:
        Path(argv[argv.index("--dest") + 1]).mkdir()
        return subprocess.CompletedProcess(argv, 0, "")

    monkeypatch.setattr("vmtest.host.interrupt.run", brings)
    with pytest.raises(ImageError, match="pip brought no wheel of helper; name one in"):
        names(tmp_path, "helper")


def test_a_plugin_for_a_newer_pytest_is_told_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        names(tmp_path, "plugin>=2")
    said = str(caught.value)
    assert "they need another pytest than the guest's 8.3.5; choose one with pytest = " in said
    assert "plugin 2.0 depends on pytest>=8.4" in said
    assert list((tmp_path / "cache/tmp").iterdir()) == []


@pytest.mark.parametrize("choice", ["==8.3.*", "<8.4,>=8", "==8.3.5"])
def test_a_pytest_that_was_chosen_and_does_not_fit_is_named(tmp_path: Path, choice: str) -> None:
    with pytest.raises(UsageError) as caught:
        names(tmp_path, "plugin>=2", choice=f"pytest{choice}")
    said = str(caught.value)
    assert f'than pytest = "{choice}", which is chosen there; choose another. pip says:' in said
    assert "8.3.5;" not in said


def test_what_there_is_not_is_told_in_pips_words(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"pip has no wheels of absent (.|\n)*No matching dist"):
        names(tmp_path, "absent")


def test_an_environment_without_pip_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    monkeypatch.setattr("sys.executable", str(tmp_path / "venv/bin/python"))
    with pytest.raises(ImageError, match="has no pip to resolve them; install pip there"):
        names(tmp_path, "plugin")


@pytest.mark.parametrize("damage", ["plugin-1.0-py3-none-any.whl", "requirements.json"])
def test_damaged_wheels_are_told_and_fetched_again(tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    whole = names(tmp_path, "plugin")
    (entry,) = places(cache)
    (entry / damage).write_bytes(b"rot")
    assert [item.broken for item in items(cache)] == [True]
    assert [damage in str(one.damage) for one in verify(cache)] == [True]
    assert names(tmp_path, "plugin") == whole
    assert [one.damage for one in verify(cache)] == [None]


def test_a_wheel_for_a_newer_pytest_is_told_with_the_cure(tmp_path: Path) -> None:
    plugin = small_wheel(tmp_path, "other", "1.0", "pytest<9,>=8.4")
    with pytest.raises(UsageError) as caught:
        check_pytest([plugin], PYTHON, Files())
    assert str(caught.value) == (
        "[guest] wheels: other-1.0-py3-none-any.whl requires pytest<9,>=8.4, and the guest has "
        'pytest 8.3.5; choose another in kernels.toml: [guest] pytest = "<9,>=8.4"'
    )
    check_pytest([small_wheel(tmp_path, "pytest", "8.4.2"), plugin], PYTHON, Files())


@pytest.mark.parametrize(
    "requires",
    ["pytest", "pytest>=8", 'pytest>=9; extra == "new"', 'pytest>=9; python_version < "3.13"'],
)
def test_a_wheel_that_the_guests_pytest_suits_is_taken(tmp_path: Path, requires: str) -> None:
    files = Files()
    check_pytest([small_wheel(tmp_path, "other", "1.0", requires)], PYTHON, files)
    assert files.digests(tmp_path) == {}  # those that are reported are the user's own


CONFIG = """
schema = 1
[guest]
{guest}
[[kernel]]
name = "k"
path = "vmlinuz"
"""
WRONG = r"pyproject\.toml: test is not a list of strings; write for example test = "
PROJECT = """
[project]
name = "Own.Project"
optional-dependencies.test = ["attrs", "own_project[more]"]
optional-dependencies.more = ["pyyaml>=6", "own-project[test]"]
"""


def guest(folder: Path, text: str, project: str = PROJECT) -> GuestSpec:
    (folder / "pyproject.toml").write_text(project)
    (folder / "kernels.toml").write_text(CONFIG.format(guest=text))
    return load(folder / "kernels.toml").guest


@pytest.mark.parametrize(
    ("value", "means"),
    [("8.*", "pytest==8.*"), ("8.4.2", "pytest==8.4.2"), (">=8.3", "pytest>=8.3")],
)
def test_pytest_is_a_version_a_pattern_or_a_specifier(
    tmp_path: Path, value: str, means: str
) -> None:
    assert guest(tmp_path, f'pytest = "{value}"').pytest == means


def test_extras_are_those_of_the_project(tmp_path: Path) -> None:
    text = 'requirements = ["hypothesis>=6", "attrs"]\nextras = ["test"]'
    assert guest(tmp_path, text).requirements == ("hypothesis>=6", "attrs", "pyyaml>=6")


def test_what_extras_name_is_an_input_of_the_guest(tmp_path: Path) -> None:
    for extras, found in (('["test"]', [tmp_path / "pyproject.toml"]), ("[]", [])):
        guest(tmp_path, f"extras = {extras}")
        assert list(parts_of_guest(load(tmp_path / "kernels.toml"))) == found


def test_the_marker_of_an_extra_that_is_followed_is_kept(tmp_path: Path) -> None:
    project = """
    [project]
    name = "own"
    [project.optional-dependencies]
    test = ["own[old]; python_version < '3.11'", "own[old]; os_name == 'posix'"]
    old = ["tomli", "six; os_name == 'nt' or os_name == 'posix'", "own[test]; os_name == 'nt'"]
    """
    assert guest(tmp_path, 'extras = ["test"]', project).requirements == (
        'tomli; python_version < "3.11"',
        'six; (os_name == "nt" or os_name == "posix") and (python_version < "3.11")',
        'tomli; os_name == "posix"',
        'six; (os_name == "nt" or os_name == "posix") and (os_name == "posix")',
    )


@pytest.mark.parametrize(
    ("text", "project", "said"),
    [
        ('extras = ["tset"]', PROJECT, r"has no extra 'tset' \(did you mean \"test\"\?\)"),
        ('extras = ["test"]', "", r"has no \[project.optional-dependencies\] to read"),
        ('extras = ["test"]', "][", r"has no \[project.optional-dependencies\] to read"),
        (
            'extras = ["test"]',
            "[project.optional-dependencies]\ntest = ['a b']",
            r"test.*'a b'.*is not a requirement",
        ),
        (
            'extras = ["test"]',
            "[project.optional-dependencies]\ntest = ['evil @ file:///x.tar.gz']",
            r"test.*is not the address of a wheel",
        ),
        *(
            ('extras = ["test"]', f"[project.optional-dependencies]\ntest = {value}", WRONG)
            for value in ('"abc"', "3", "[3]", "{ a = 1 }")
        ),
        ('extras = ["test"]', "project = 3", r"has no \[project.optional-dependencies\] to read"),
        ('extras = ["test"]', "project = [1]", r"has no \[project.optional-dependencies\] to read"),
    ],
)
def test_extras_that_cannot_be_read_are_told(
    tmp_path: Path, text: str, project: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        guest(tmp_path, text, project)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('pytest = "new"', 'is not a version; write "8.*", "8.4.2" or'),
        ('requirements = ["a b"]', "is not a requirement; write one as pip takes it"),
        ('requirements = ["evil @ file:///x.tar.gz"]', "is not the address of a wheel"),
        ('requirements = ["evil @ git+https://x/y"]', "is not the address of a wheel"),
        ('requirements = ["-r file"]', "is not a requirement; write one as pip takes it"),
    ],
)
def test_what_pip_would_not_take_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guest(tmp_path, text)
    assert said in str(caught.value)


def test_other_wheels_of_the_same_requirements_are_another_question_of_a_bisect(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(wanted: str, cache: str) -> list[str]:
        guest(tmp_path, f'requirements = ["{wanted}"]')
        config = load(tmp_path / "kernels.toml")
        return wheels_asked(config, tmp_path / cache, lambda line: None, Files())

    built = RootImage("disk", PYTHON.image, "0" * 64, "python3")
    monkeypatch.setattr("vmtest.rootfs.prepare.prepare", lambda *given, **options: built)
    monkeypatch.setattr("vmtest.rootfs.prepare.python_of", lambda image: PYTHON)
    before = asked("helper", "cache")
    small_wheel(index, "helper", "0.2")
    assert asked("helper", "cache") == before == asked("helper<0.2", "other")
    assert asked("helper", "third") != before


def test_wheels_that_are_named_are_a_question_without_an_image(tmp_path: Path) -> None:
    path = small_wheel(tmp_path, "own", "1.0")
    guest(tmp_path, f'wheels = ["{path}"]')
    config, files = load(tmp_path / "kernels.toml"), Files()
    digests = wheels_asked(config, tmp_path / "cache", print, files)
    assert digests == [files.read(path).sha256]


def test_an_entry_that_names_no_wheels_is_made_again(tmp_path: Path) -> None:
    """Another vmtest may have written it."""
    write_record(tmp_path / "requirements.json", {"asked": []})
    with pytest.raises(ValueError, match="names no wheels"):
        read_entry(tmp_path)
