"""Ready entries for kernels.toml, written by the real command."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from command import Said
from typer.testing import CliRunner

from vmtest.cli.main import app
from vmtest.config import file as configuration
from vmtest.config import presets
from vmtest.host.debian import find_mirrors

BEFORE = """# What we support.
schema = 1

[apt.mine]   # our own
suites = ["stable"]

[[kernel]]
name = "ours"   # the oldest
apt = "mine"
version = "6.1.*"

[[suite]]
name = "s"
tests = "t.py"
"""


def add(project: Path, *arguments: str) -> Said:
    """Run ``vmtest kernels add`` here, where a test can replace what the host knows."""
    done = CliRunner().invoke(app, ["kernels", "add", *arguments])
    return Said(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("EL9", "UBUNTU", "DEBIAN"):
        monkeypatch.delenv(f"VMTEST_{name}_MIRROR", raising=False)
    monkeypatch.setattr("vmtest.host.debian.TEMPLATES", tmp_path / "no-templates")
    monkeypatch.setattr("vmtest.cli.kernels.presets._KEY_FOLDERS", (tmp_path / "keys",))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "kernels.toml").write_text(BEFORE)
    (folder / "key").write_text("a key\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", list(presets.presets()))
def test_every_preset_is_a_whole_configuration(name: str, tmp_path: Path) -> None:
    preset = presets.find(name)
    more = {} if preset.table == "mainline" else {"mirror": "https://example.org/x"}
    text = presets.added("", tmp_path / "kernels.toml", preset, more)
    config = configuration.parse(text, tmp_path / "kernels.toml")
    assert [kernel.name for kernel in config.kernels] == list(preset.kernels)
    assert "://" not in Path(presets.__file__).with_name("presets.toml").read_text()


def test_comments_and_everything_else_stay_as_they_were(project: Path) -> None:
    options = ("--mirror", "https://example.org/9", "--keyring", "key")
    assert add(project, "el9", *options).status == 0
    text = (project / "kernels.toml").read_text()
    kept = text.splitlines()
    assert all(line in kept for line in BEFORE.splitlines())
    data = tomllib.loads(text)
    assert data["dnf"]["el9"] == {
        "repositories": ["BaseOS/x86_64/os"],
        "signed": "packages",
        "mirror": "https://example.org/9",
        "keyring": str(project / "key"),
    }
    assert data["kernel"][-1] == {"name": "el9", "dnf": "el9", "version": "5.14.*"}


def test_a_project_without_kernels_toml_gets_one(project: Path) -> None:
    (project / "kernels.toml").unlink()
    assert add(project, "upstream-lts").status == 0
    config = configuration.load(project / "kernels.toml")
    assert "5.15" in [kernel.name for kernel in config.kernels]


def test_the_mirror_of_a_variable_and_the_key_of_a_package_are_enough(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = project.parent / "keys/rocky/RPM-GPG-KEY-Rocky-9"
    key.parent.mkdir(parents=True)
    key.touch()
    monkeypatch.setenv("VMTEST_EL9_MIRROR", "https://example.org/9")
    assert add(project, "el9").status == 0
    archive = tomllib.loads((project / "kernels.toml").read_text())["dnf"]["el9"]
    assert archive["keyring"] == str(key) and "mirror" not in archive


@pytest.mark.parametrize(
    "name", [p.name for p in presets.presets().values() if p.table != "mainline"]
)
def test_a_host_that_knows_nothing_gets_all_lines_to_paste(
    project: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.debian.host_is", lambda distribution, os_release: False)
    monkeypatch.setattr("vmtest.host.debian.KEYRINGS", project)
    said = add(project, name)
    end = "on standard output are for kernels.toml, once you have filled in HOST/PATH and FILE"
    said.refuses(2, f"nothing was written: the tables {end}", "--mirror URL", "--keyring FILE")
    assert (project / "kernels.toml").read_text() == BEFORE
    preset = presets.find(name)
    config = configuration.parse(f"schema = 1\n{said.out}", project / "kernels.toml")
    assert [kernel.name for kernel in config.kernels] == list(preset.kernels)
    (archive,) = tomllib.loads(said.out)[preset.table].values()
    places = {"mirror": "https://HOST/PATH", "keyring": "FILE"}
    if name.startswith("debian"):
        places["security_mirror"] = "https://HOST/PATH"
    assert archive == {**preset.archive, **places}


def test_what_the_host_knows_has_no_place_to_fill_in(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.debian.TEMPLATES", project)
    (project / "Ubuntu.info").write_text("Suite: devel\nBaseURI-amd64: http://u.example/ubuntu\n")
    monkeypatch.setattr("vmtest.host.debian.KEYRINGS", project)
    said = add(project, "ubuntu-24-04")
    cure = "install the package ubuntu-keyring or set keyring there, or add it again with --keyring"
    said.refuses(2, f"{cure} FILE; nothing was written", "once you have filled in FILE")
    assert 'keyring = "FILE"' in said.out and "HOST" not in said.out + said.err
    assert "schema" not in said.out


def test_where_there_is_no_kernels_toml_the_lines_to_paste_are_a_whole_one(project: Path) -> None:
    (project / "kernels.toml").unlink()
    said = add(project, "el9")
    said.refuses(2, "the tables on standard output are for kernels.toml, once you have filled in")
    config = configuration.parse(said.out, project / "kernels.toml")
    assert [kernel.name for kernel in config.kernels] == ["el9"]
    assert not (project / "kernels.toml").exists()


def test_what_is_there_already_is_not_overwritten(project: Path) -> None:
    assert add(project, "upstream-lts").status == 0
    said = 'has a kernel "5.4" already'
    add(project, "upstream-lts").refuses(2, said)


def test_an_unknown_preset_is_refused_with_the_nearest(project: Path) -> None:
    said = 'there is no such preset (did you mean "debian"?)'
    add(project, "debain").refuses(2, said)


def test_another_hosts_mirrors_come_from_what_a_package_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.debian.TEMPLATES", tmp_path)
    (tmp_path / "Debian.info").write_text(
        "ChangelogURI: http://no.example\n\nSuite: trixie\nBaseURI: http://ports.example/d\n"
        "BaseURI-amd64: http://m.example/debian\nComponent: main\nComponent: contrib\n\n"
        "Suite: trixie-security\nBaseURI: http://s.example/debian-security\n"
    )
    os_release = tmp_path / "os-release"
    os_release.write_text("ID=ubuntu\n")
    keyring = tmp_path / "keys.gpg"
    keyring.touch()
    found = find_mirrors(
        "debian", keyring=keyring, environment={}, etc=tmp_path, os_release=os_release
    )
    assert found.main is not None and found.main.uri == "http://m.example/debian"
    assert found.security is not None
    assert found.security.uri == "http://s.example/debian-security"
