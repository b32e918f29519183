"""Building with the real clang, and choosing builds."""

import os
import re
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vmtest.errors import BuildCommandFailed, InfrastructureError, Interrupted, UsageError
from vmtest.host import interrupt
from vmtest.model.project import ObjectFile
from vmtest.model.versions import KernelVersion, VersionRange
from vmtest.objects.builds import (
    check_builds,
    check_object,
    choose,
    depend_on_version,
    override,
    parse_given,
)
from vmtest.objects.compile import build_all, run_build

PROGRAM = '#include "n.h"\nint n = N;\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "bpf"
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "n.h").write_text("#define N 1\n")
    (folder / "one.bpf.c").write_text(PROGRAM)
    return folder


def test_what_is_built_is_a_bpf_object(source: Path, tmp_path: Path) -> None:
    (made,) = build_all(source, tmp_path / "build")
    assert made.name == "one.bpf.o"
    check_object("one", made)


def test_a_program_in_a_folder_is_built_into_that_folder_with_the_same_headers(
    source: Path, tmp_path: Path
) -> None:
    (source / "mocks").mkdir()
    (source / "mocks" / "one.bpf.c").write_text('#include "../one.bpf.c"\nint m = N + 1;\n')
    made = build_all(source, tmp_path / "build")
    built = [path.relative_to(tmp_path / "build").as_posix() for path in made]
    assert sorted(built) == ["mocks/one.bpf.o", "one.bpf.o"]
    assert all(path.is_file() for path in made)


def test_an_object_is_the_same_wherever_it_is_built(source: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another clone" / "bpf"
    shutil.copytree(source, elsewhere)
    (made,) = build_all(source, tmp_path / "build")
    (again,) = build_all(elsewhere, elsewhere.parent / "build")
    assert again.read_bytes() == made.read_bytes()


def test_an_object_has_the_lines_of_its_source_for_the_verifiers_log(
    source: Path, tmp_path: Path
) -> None:
    (source / "one.bpf.c").write_text(f"{PROGRAM}int f(void) {{ return n; /* in the log */ }}\n")
    (made,) = build_all(source, tmp_path / "build")
    assert b"/* in the log */" in made.read_bytes()


def test_nothing_is_built_twice(source: Path, tmp_path: Path) -> None:
    for path in source.rglob("*"):
        os.utime(path, (1, 1))  # saved well before: of the same moment means built again
    (made,) = build_all(source, tmp_path / "build")
    before = made.stat().st_mtime_ns
    assert build_all(source, tmp_path / "build")[0].stat().st_mtime_ns == before


@pytest.mark.parametrize("changed", ["one.bpf.c", "include/n.h"])
def test_a_changed_source_or_header_is_built_again(
    changed: str, source: Path, tmp_path: Path
) -> None:
    (made,) = build_all(source, tmp_path / "build")
    before = made.stat()
    later = before.st_mtime_ns + 1_000_000
    os.utime(source / changed, ns=(later, later))
    assert build_all(source, tmp_path / "build")[0].stat().st_ino != before.st_ino


def own_clang(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a clang on PATH that is ``script``; $real is the real one."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "clang"
    program.write_text(f"#!/bin/sh\nreal={shutil.which('clang')}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def test_four_builds_at_once_in_one_clone_all_succeed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "began")
    os.mkfifo(tmp_path / "go")
    wait = f'echo >{tmp_path}/began && "$real" "$@" && read -r _ <{tmp_path}/go'
    own_clang(tmp_path, monkeypatch, wait)
    with (
        (tmp_path / "began").open("r+b", buffering=0) as began,
        (tmp_path / "go").open("r+b", buffering=0) as go,
        ThreadPoolExecutor(4) as pool,
    ):
        builds = [pool.submit(build_all, source, tmp_path / "build") for _ in range(4)]
        for _ in builds:
            began.readline()
        go.write(b"\n" * len(builds))
        made = {path for build in builds for path in build.result()}
    check_object("one", made.pop())
    names = {path.name for path in (tmp_path / "build").iterdir()}
    assert names == {"one.bpf.o", "one.bpf.o.d"}


def test_a_source_that_is_saved_while_it_is_compiled_is_compiled_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = f"echo '#define N 2' >{source}/include/n.h"
    write_late = 'for made; do :; done; touch -d "+1 minute" "$made"'
    own_clang(tmp_path, monkeypatch, f'"$real" "$@"; {save}; {write_late}')
    (made,) = build_all(source, tmp_path / "build")
    first = made.read_bytes()
    assert build_all(source, tmp_path / "build")[0].read_bytes() != first


def test_a_build_that_fails_leaves_no_file_of_its_own(source: Path, tmp_path: Path) -> None:
    (source / "one.bpf.c").write_text("junk")
    with pytest.raises(BuildCommandFailed):
        build_all(source, tmp_path / "build")
    assert list((tmp_path / "build").iterdir()) == []


def test_clangs_error_is_shown_with_its_place_and_bounded(source: Path, tmp_path: Path) -> None:
    (source / "one.bpf.c").write_text("int f(void) { return nothing; }\n" * 30)
    with pytest.raises(BuildCommandFailed) as caught:
        build_all(source, tmp_path / "build")
    said = str(caught.value).splitlines()
    assert "one.bpf.c:1" in said[1]
    assert "undeclared identifier 'nothing'" in said[1]
    assert len(said) <= 12


def test_a_program_need_not_look_at_its_context(source: Path, tmp_path: Path) -> None:
    (source / "one.bpf.c").write_text("int f(void *ctx) { return 0; }\n")
    (made,) = build_all(source, tmp_path / "build")
    assert made.exists()


def test_a_warning_is_an_error(source: Path, tmp_path: Path) -> None:
    (source / "one.bpf.c").write_text("int f(void) { int unused; return 0; }\n")
    with pytest.raises(BuildCommandFailed, match="unused variable"):
        build_all(source, tmp_path / "build")


def test_a_failed_build_leaves_the_last_object(source: Path, tmp_path: Path) -> None:
    (made,) = build_all(source, tmp_path / "build")
    good = made.read_bytes()
    (source / "one.bpf.c").write_text("junk")
    with pytest.raises(BuildCommandFailed):
        build_all(source, tmp_path / "build")
    assert made.read_bytes() == good


def test_a_folder_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no \*\.bpf\.c in"):
        build_all(tmp_path, tmp_path / "build")


def test_a_build_command_runs_in_the_projects_folder(tmp_path: Path) -> None:
    run_build(["sh", "-c", "echo made >here"], tmp_path, tmp_path / "log")
    assert (tmp_path / "here").read_text() == "made\n"


def test_a_build_command_that_fails_is_quoted_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(BuildCommandFailed, match=r"sh -c .* ended with status 4:\nno luck"):
        run_build(["sh", "-c", "echo no luck; exit 4"], tmp_path, tmp_path / "log")


def test_the_end_of_a_long_failure_is_shown_and_all_of_it_kept(tmp_path: Path) -> None:
    log = tmp_path / ".vmtest" / "build.log"
    with pytest.raises(BuildCommandFailed) as caught:
        run_build(["sh", "-c", "seq 30; echo ld: no such symbol; exit 1"], tmp_path, log)
    told = str(caught.value).splitlines()
    assert told[1] == f"... 21 lines before; all of it: {log}"
    assert told[-1] == "ld: no such symbol"
    assert log.read_text().split()[:2] == ["1", "2"]


def test_a_build_command_finds_the_users_tools_before_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho the user\n")
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{python.parent}:/usr/bin:/bin")
    run_build(["sh", "-c", "python3 >who"], tmp_path, tmp_path / "log")
    assert (tmp_path / "who").read_text() == "the user\n"


@pytest.mark.parametrize(
    ("options", "made"),
    [([], "build/one.bpf.o"), (["--target", "out"], "out/one.bpf.o")],
    ids=["plain", "another folder"],
)
def test_vmtest_build_starts_no_other_python(
    options: list[str], made: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    assert source == tmp_path / "bpf"
    found = run_build(["vmtest", "build", *options], tmp_path, tmp_path / "log")
    assert found == [tmp_path / made]
    assert (tmp_path / made).exists()


@pytest.mark.parametrize("folder", ["bpf", "src/bpf", "."])
def test_a_vmtest_build_that_fails_names_command_and_file(folder: str, tmp_path: Path) -> None:
    source = tmp_path / folder
    source.mkdir(parents=True, exist_ok=True)
    (source / "one.bpf.c").write_text("junk")
    name = re.escape(os.path.normpath(f"{folder}/one.bpf.c"))
    command = ["vmtest", "build", "--source", folder]
    told = rf"\[build\]: vmtest build --source {folder}: {name}: clang failed:\n"
    with pytest.raises(BuildCommandFailed, match=told):
        run_build(command, tmp_path, tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_all_that_clang_said_is_kept_where_it_is_much(source: Path, tmp_path: Path) -> None:
    (source / "one.bpf.c").write_text("".join(f"int f{n} = nothing;\n" for n in range(9)))
    log = tmp_path / ".vmtest" / "build.log"
    with pytest.raises(BuildCommandFailed, match=rf"clang failed; all of it: {log}:\n") as caught:
        run_build(["vmtest", "build"], tmp_path, log)
    assert "one.bpf.c:9" not in str(caught.value)
    assert "one.bpf.c:9" in log.read_text()


def test_a_vmtest_build_finds_a_clang_beside_vmtest(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clang = shutil.which("clang")
    assert clang is not None
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "clang").symlink_to(clang)
    monkeypatch.setattr("sys.executable", str(tmp_path / "own" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_build(["vmtest", "build"], tmp_path, tmp_path / "log")


def test_a_vmtest_build_that_cannot_write_says_what_it_was(source: Path, tmp_path: Path) -> None:
    (tmp_path / "build").touch()
    told = r"\[build\]: vmtest build: .*File exists"
    with pytest.raises(InfrastructureError, match=told):
        run_build(["vmtest", "build"], tmp_path, tmp_path / "log")


def test_a_build_goes_on_beside_what_is_ended(source: Path, tmp_path: Path) -> None:
    """A watch builds while a save ends the stage that runs."""
    with interrupt.interruptible() as stage, interrupt.apart() as own:
        stage.end()
        assert run_build(["vmtest", "build"], tmp_path, tmp_path / "log")
        own.end()
        (source / "one.bpf.c").write_text(PROGRAM + "int g;\n")
        with pytest.raises(Interrupted):
            run_build(["vmtest", "build"], tmp_path, tmp_path / "log")


def test_a_vmtest_build_with_a_wrong_option_says_so(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildCommandFailed, match="No such option: --sources"):
        run_build(["vmtest", "build", "--sources", str(source)], tmp_path, tmp_path / "log")


def test_a_build_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildCommandFailed, match=r"\[build\]: cannot run no-such-command"):
        run_build(["no-such-command"], tmp_path, tmp_path / "log")


BUILDS = [
    ObjectFile("a", Path("compat.o"), VersionRange.parse("<5.13")),
    ObjectFile("a", Path("plain.o")),
    ObjectFile("b", Path("b.o"), VersionRange.parse(">=6.1")),
]


@pytest.mark.parametrize(
    ("version", "chosen"),
    [
        ("5.10.262", {"a": Path("compat.o")}),
        ("6.1.192", {"a": Path("plain.o"), "b": Path("b.o")}),
    ],
)
def test_the_first_build_whose_range_holds_goes_to_a_kernel(
    version: str, chosen: dict[str, Path]
) -> None:
    assert choose(BUILDS, KernelVersion.parse(version)) == chosen


def test_a_given_object_replaces_all_builds_of_its_name() -> None:
    mine = override(BUILDS, [ObjectFile("a", Path("mine.o"))])
    assert choose(mine, KernelVersion.parse("5.10.1")) == {"a": Path("mine.o")}


def test_an_object_given_for_a_range_leaves_no_configured_build_beside_it() -> None:
    mine = override(BUILDS, [parse_given("a=mine.o@>=6.1")])
    assert "a" not in choose(mine, KernelVersion.parse("5.10.1"))


def test_of_several_given_builds_the_first_whose_range_holds_goes_to_a_kernel() -> None:
    given = [parse_given("a=/compat.o@<5.13"), parse_given("a=/plain.o")]
    mine = override(BUILDS, given)
    assert [choose(mine, KernelVersion.parse(v))["a"].name for v in ("5.10.1", "5.13.0")] == [
        "compat.o",
        "plain.o",
    ]


@pytest.mark.parametrize(
    ("item", "path", "kernels"),
    [
        ("a=/x.o", "/x.o", None),
        ("a=/x.o@<5.13", "/x.o", "<5.13"),
        ("a=/x.o@>=5.10,<6.1", "/x.o", ">=5.10,<6.1"),
        ("a=/me@home/x.o", "/me@home/x.o", None),
        ("a=/me@home/x.o@==6.1", "/me@home/x.o", "==6.1"),
        ("a=/x.o@", "/x.o@", None),
        ("a=/x=y@6.1.o", "/x=y@6.1.o", None),
    ],
)
def test_only_what_looks_like_a_range_is_taken_off_the_path(
    item: str, path: str, kernels: str | None
) -> None:
    build = parse_given(item)
    assert (str(build.path), build.kernels and build.kernels.text) == (path, kernels)


@pytest.mark.parametrize("item", ["a", "a=", "=x.o", "", "a=@<5.13"])
def test_an_object_without_name_or_path_is_refused(item: str) -> None:
    with pytest.raises(UsageError, match="write NAME=PATH"):
        parse_given(item)


def test_a_range_with_a_typo_is_not_taken_for_a_path() -> None:
    with pytest.raises(
        UsageError, match=r"`objects` a=x.o@<5,13x: '13x' is not a version constraint"
    ):
        parse_given("a=x.o@<5,13x")


def test_kernels_that_no_build_is_for_are_named_all_at_once() -> None:
    versions = {
        name: KernelVersion.parse(name) for name in ("5.10.262", "5.15.1", "6.1.2", "6.12.3")
    }
    with pytest.raises(UsageError) as caught:
        check_builds(BUILDS, ["a", "b"], versions)
    *problems, cure = str(caught.value).splitlines()
    assert problems == [
        'object "b": kernel 5.10.262 (5.10.262) is in the range of no build of it (>=6.1)',
        'object "b": kernel 5.15.1 (5.15.1) is in the range of no build of it (>=6.1)',
    ]
    assert "`kernels`" in cure


@pytest.mark.parametrize(("needed", "depends"), [(["a"], False), (["a", "b"], True), ([], False)])
def test_versions_matter_where_no_build_is_for_every_kernel(
    needed: list[str], depends: bool
) -> None:
    assert depend_on_version(BUILDS, needed) is depends


def test_giving_an_object_that_nobody_uses_is_refused() -> None:
    with pytest.raises(UsageError, match=r'`objects` c: there is no \[\[object\]\] "c"'):
        override(BUILDS, [ObjectFile("c", Path("c.o"))])


def elf(machine: int, data: int = 1) -> bytes:
    order = "<" if data == 1 else ">"
    return b"\x7fELF\x02" + bytes([data]) + b"\0" * 10 + struct.pack(order + "HH", 1, machine)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not an ELF file"),
        (b"#!/bin/sh\n" * 9, "is not an ELF file"),
        (elf(62), r"is not a BPF object \(ELF machine 62\)"),
        (elf(247, data=2), "has the other byte order; build it for bpfel"),
    ],
)
def test_a_file_that_is_no_object_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.o").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        check_object("x", tmp_path / "x.o")


def test_an_object_that_is_not_there_asks_for_the_build() -> None:
    with pytest.raises(
        UsageError, match=r'object "x": /no/x\.o does not exist; does the \[build\]'
    ):
        check_object("x", Path("/no/x.o"))
