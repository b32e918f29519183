"""Passwords and tokens do not get into what a run leaves behind."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from http_files import Served, serving

from vmtest.api import command
from vmtest.command.files import Command
from vmtest.errors import UsageError
from vmtest.host.debian import Mirror, find_mirrors
from vmtest.kernels.debian.suite import SuiteState
from vmtest.kernels.files.download import DownloadFailed, download
from vmtest.kernels.lock.file import request_of
from vmtest.model.kernels import PackageFile, PackageSpec
from vmtest.model.secrets import split_user, without_secrets, words_without_secrets

SECRET = "hunter2hunter2hunter2"


@pytest.mark.parametrize(
    "words",
    [
        ["--token", SECRET],
        ["--token=" + SECRET],
        ["--api-key", SECRET],
        ["--registryPassword", SECRET],
        ["-password", SECRET],
        ["GH_TOKEN=" + SECRET, "make"],
        ["sh", "-c", f"export DB_PASSWORD='{SECRET} x'; run"],
        ["sh", "-c", f'AWS_SECRET_ACCESS_KEY="{SECRET}" run'],
        ["curl", "-H", f"Authorization: Bearer {SECRET}"],
        ["curl", "-H", f"PRIVATE-TOKEN=a X-Auth-Token: {SECRET}"],
        ["git", "clone", f"https://me:{SECRET}@example.org/x"],
        ["git", "clone", f"https://{SECRET}@example.org/x"],
        ["git", "clone", f"https://me:p@{SECRET}@example.org/x"],
        ["--password=correct horse " + SECRET],
        ["--password=a&b;" + SECRET],
        ["--token=ab'" + SECRET],
        ['--token=ab"' + SECRET],
        ["--token=\n" + SECRET],
        ["--env=GH_TOKEN=" + SECRET],
        ["-eGH_TOKEN=a b " + SECRET],
        ["--token", "-" + SECRET],
        ["--token", "--" + SECRET],
        ["--password", "--token", SECRET],
        ["sh", "-c", f"run --password=a'b c'{SECRET}; x"],
        ["sh", "-c", f"run '--password=a b {SECRET}' x"],
        ["sh", "-c", f'run "--env=TOKEN=a \\" {SECRET}" x'],
        ["sh", "-c", f"run --password=a\\ {SECRET} x"],
        ["curl", "-H", f"PRIVATE-TOKEN: {SECRET}"],
        ["curl", "-H", f'Authorization: Digest a="x", response="{SECRET}"'],
        ["git", "clone", f"https://me:p/{SECRET}@example.org/x"],
        ["git", "clone", f"https://me:p'{SECRET}@example.org/x"],
        ["git", "clone", f"https://me:p {SECRET}@example.org/x"],
        ["git", "clone", f"https://me:1?/{SECRET}@example.org/x"],
        ["git", "clone", f"--url=https://me:p/'{SECRET}@example.org/x"],
        ["sh", "-c", f"git clone 'https://me:p/{SECRET}@example.org/x' y"],
        ["run", "ghp_" + SECRET],
        ["run", "glpat-" + SECRET],
        ["run", f"eyJhbGciOi.eyJ{SECRET}.{SECRET}"],
    ],
)
def test_a_secret_of_a_command_is_hidden(words: list[str]) -> None:
    said = " ".join(words_without_secrets(words))
    assert SECRET not in said and "***" in said


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--kernel", "6.12", "-k", "token and password"],
        ["--author", "somebody"],
        ["--tokens-per-line=3", "PATH=/bin", "monkey=1", "KEYS=2"][2:],
        ["--verbose", "--password-file-is"],
        ["https://example.org/a@b", "user@example.org", "a::b@c"],
        ["https://example.org:8080/a@b", "http://[::1]:80/a@b"],
        ["sh", "-c", "curl 'https://example.org:80/a@b' x"],
        ["--url=https://example.org/a b@c", "note: x", "--env=A=b"],
        ["--copy", "bypass=x", "--compass", "north"],
    ],
)
def test_everything_else_stays(words: list[str]) -> None:
    assert words_without_secrets(words) == words


def test_the_word_behind_a_secrets_option_is_hidden_whatever_it_begins_with() -> None:
    words = ["--password", "-x", "--verbose", "y"]
    assert words_without_secrets(words) == ["--password", "***", "--verbose", "y"]


def test_what_stands_beside_a_secret_stays() -> None:
    said = without_secrets("docker -e 'TOKEN=a b' -e 'B=c' --x=https://u:p/w@host/y z")
    assert said == "docker -e 'TOKEN=***' -e 'B=c' --x=https://***@host/y z"


def test_a_commands_row_has_no_secret() -> None:
    command = Command(("curl", "--token", SECRET, "x y"), b"")
    assert command.row == "curl --token *** 'x y'"
    assert command.argv[2] == SECRET


def test_an_address_is_taken_apart() -> None:
    assert split_user("https://me:p%40ss@host:1/x") == ("https://host:1/x", "me", "p@ss")
    assert split_user("file:///x@y") == ("file:///x@y", "", "")


def test_a_download_says_who_asks_and_keeps_it_to_the_host(tmp_path: Path) -> None:
    with serving(Served({"/file": b"x"})) as served:
        url = served.url.replace("://", f"://me:{SECRET}@")
        download(f"{url}/file", tmp_path / "file", "k")
        with pytest.raises(DownloadFailed) as caught:
            download(f"{url}/other", tmp_path / "other", "k")
    assert served.authorization[0] == "Basic bWU6aHVudGVyMmh1bnRlcjJodW50ZXIy"
    assert SECRET not in str(caught.value) and "***@127.0.0.1" in str(caught.value)


def test_the_list_of_sources_is_for_its_owner_alone(tmp_path: Path) -> None:
    state = SuiteState(tmp_path, "good", Mirror(f"https://me:{SECRET}@host/x", "", "here"))
    state._prepare()
    holding = [
        file for file in tmp_path.rglob("*") if file.is_file() and SECRET in file.read_text()
    ]
    assert holding and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in holding)


def test_a_wrong_address_of_a_mirror_is_shown_without_its_password(tmp_path: Path) -> None:
    keyring = tmp_path / "keys"
    keyring.touch()
    with pytest.raises(UsageError) as caught:
        find_mirrors("debian", f"https://me:{SECRET}@host /x", keyring=keyring, environment={})
    assert SECRET not in str(caught.value)


def test_a_lock_file_has_no_password(tmp_path: Path) -> None:
    file = PackageFile(f"https://me:{SECRET}@host/x.deb", "0" * 64)
    assert SECRET not in json.dumps(request_of(PackageSpec((file,)), tmp_path))


def test_a_text_without_a_secret_is_the_same_text() -> None:
    text = "make -j4 CC=clang && ./run --list tests/a.py::test_token"
    assert without_secrets(text) == text


def test_the_plan_of_a_command_has_no_secret_and_its_task_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("./t.sh", "--token", "s3cret")
    given: list[tuple[str, ...]] = []
    for name in ("check_choice", "check_host", "build_first", "check_program", "check_files"):
        monkeypatch.setattr(command, name, lambda *args, **more: None)
    monkeypatch.setattr(command, "choose_kernels", lambda *args: ((), ()))
    monkeypatch.setattr(command, "command_tasks", lambda argv, *args, **more: given.append(argv))
    settings: Any = SimpleNamespace(objects=(), directory=tmp_path)
    planned = command.plan_command(settings, command.CommandRequest(words), print)
    assert planned.plan.command == ("./t.sh", "--token", "***")
    assert given == [words]
