"""Which objects are loaded, and what goes into the guest."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from vmtest.errors import UsageError
from vmtest.model.loads import Verdict
from vmtest.model.project import Loading, ObjectFile
from vmtest.model.versions import KernelVersion, VersionRange
from vmtest.verify import objects as loadables
from vmtest.verify.process import Order
from vmtest.verify.revision import checked_out

ORDER = Order(())
V6 = KernelVersion.parse("6.12.1")


def elf(machine: int = 247, big: bool = False, more: bytes = b"") -> bytes:
    order = ">" if big else "<"
    head = b"\x7fELF" + bytes([2, 2 if big else 1, 1]) + bytes(9)
    return head + struct.pack(f"{order}HH", 1, machine) + bytes(44) + more


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(elf() if data is None else data)
    return path


def names(given: tuple[loadables.Given, ...]) -> list[str]:
    return [one.build.name for one in given]


def test_a_file_a_folder_and_a_pattern(tmp_path: Path) -> None:
    for name in ("a.o", "d/b.o", "d/deep/c.o", "e/f.bpf.o", "e/g.txt"):
        put(tmp_path / name)
    assert names(loadables.expand(["a.o", "d", "e/*.o"], (), tmp_path)) == [
        "a.o",
        "d/b.o",
        "d/deep/c.o",
        "e/f.bpf.o",
    ]


def test_a_folder_leaves_out_what_is_for_another_machine(tmp_path: Path) -> None:
    put(tmp_path / "d/host.o", elf(machine=62))
    put(tmp_path / "d/bpf.o")
    assert names(loadables.expand(["d"], (), tmp_path)) == ["d/bpf.o"]


def test_an_object_that_is_named_twice_is_loaded_once(tmp_path: Path) -> None:
    put(tmp_path / "d/a.o")
    (tmp_path / "link.o").symlink_to("d/a.o")
    assert names(loadables.expand(["d/a.o", "d", "*.o"], (), tmp_path)) == ["d/a.o"]


def test_two_objects_of_one_name_are_two(tmp_path: Path) -> None:
    put(tmp_path / "x/a.o")
    put(tmp_path / "y/a.o", elf(more=b"other"))
    given = loadables.expand(["x/a.o", "y/a.o"], (), tmp_path)
    load = loadables.pack_objects(given, (), V6, ORDER)
    assert [wanted.name for wanted in load.order.objects] == ["x/a.o", "y/a.o"]
    assert len(dict(load.objects)) == len(set(dict(load.objects).values())) == 2


@pytest.mark.parametrize("name", ["a b.o", "$(reboot).o", "a;b.o", "[x].o", "'q'.o", "-r.o", "ü.o"])
def test_a_name_that_a_shell_would_read_is_a_name(tmp_path: Path, name: str) -> None:
    put(tmp_path / name)
    given = loadables.expand([name], (), tmp_path)
    load = loadables.pack_objects(given, (), V6, ORDER)
    with tarfile.open(fileobj=io.BytesIO(load.archive)) as archive:
        members = [member for member in archive.getnames() if member.endswith(".o")]
    assert names(given) == [name]
    assert members == ["objects/000.o"]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("none.o", "none.o: does not exist"),
        ("none/*.o", "none/*.o: matches no file"),
        ("empty", "empty: has no BPF object"),
        ("**x", "write for example 'build/**/*.o'"),
    ],
)
def test_an_argument_that_means_nothing_is_refused(
    tmp_path: Path, argument: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        loadables.expand([argument], (), tmp_path)
    assert said in str(caught.value)


BAD = {
    "text": (b"int main() {}" * 9, "not an ELF file"),
    "empty": (b"", "not an ELF file"),
    "short": (elf()[:12], "not an ELF file"),
    "host": (elf(machine=62), "not a BPF object (ELF machine 62)"),
    "big": (elf(big=True), "other byte order"),
}


@pytest.mark.parametrize("kind", BAD)
def test_nothing_but_bad_input_is_an_error_before_any_boot(tmp_path: Path, kind: str) -> None:
    data, said = BAD[kind]
    put(tmp_path / "bad.o", data)
    with pytest.raises(UsageError) as caught:
        loadables.expand(["bad.o"], (), tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_beside_good_is_a_verdict_of_its_own(tmp_path: Path, kind: str) -> None:
    data, said = BAD[kind]
    put(tmp_path / "bad.o", data)
    put(tmp_path / "good.o")
    given = loadables.expand(["bad.o", "good.o"], (), tmp_path)
    load = loadables.pack_objects(given, (), V6, ORDER)
    (refused,) = load.refused
    assert (refused.object, refused.verdict) == ("bad.o", Verdict.OPEN_FAILED)
    assert refused.reason is not None and said in refused.reason.text
    assert [wanted.name for wanted in load.order.objects] == ["good.o"]


def test_an_object_of_200_mb_is_refused_without_being_read(tmp_path: Path) -> None:
    put(tmp_path / "good.o")
    with put(tmp_path / "huge.o").open("r+b") as stream:
        stream.truncate(200 << 20)
    given = loadables.expand(["huge.o", "good.o"], (), tmp_path)
    (refused,) = loadables.pack_objects(given, (), V6, ORDER).refused
    assert refused.line.endswith("200 MiB, more than 64")
    assert refused.reason is not None and "llvm-strip -g" in refused.reason.remedy


def test_an_unreadable_object_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "folder.o").mkdir()
    put(tmp_path / "good.o")
    given = (
        loadables.Given(ObjectFile("folder.o", tmp_path / "folder.o"), Path("folder.o")),
        *loadables.expand(["good.o"], (), tmp_path),
    )
    (refused,) = loadables.pack_objects(given, (), V6, ORDER).refused
    assert "cannot read" in refused.line


def test_a_configured_object_that_was_not_built_ends_the_run(tmp_path: Path) -> None:
    given = loadables.configured((ObjectFile("x", tmp_path / "x.o"),), tmp_path)
    with pytest.raises(UsageError, match="does not exist; does the \\[build\\] command make it"):
        loadables.pack_objects(given, (), V6, ORDER)


def test_the_build_for_a_kernel_is_the_one_whose_range_holds(tmp_path: Path) -> None:
    old = ObjectFile("x", put(tmp_path / "old.o"), VersionRange.parse("<6"))
    new = ObjectFile("x", put(tmp_path / "new.o", elf(more=b"n")), VersionRange.parse(">=6"))
    given = loadables.configured((old, new), tmp_path)
    digests = {
        dict(loadables.pack_objects(given, (), KernelVersion.parse(v), ORDER).objects)["x"]
        for v in ("5.10.1", "6.1.1")
    }
    assert len(digests) == 2


def test_a_named_object_keeps_what_kernels_toml_says_of_it(tmp_path: Path) -> None:
    loading = Loading(skip=("p",))
    put(tmp_path / "x.o")
    known = ObjectFile("x", tmp_path / "x.o", None, required=False, loading=loading)
    (given,) = loadables.expand(["x.o"], (known,), tmp_path)
    assert (given.build.name, given.build.required) == ("x.o", False)
    (wanted,) = loadables.pack_objects((given,), (), V6, ORDER).order.objects
    assert wanted.loading == loading


def test_the_name_of_an_object_of_kernels_toml_means_its_builds(tmp_path: Path) -> None:
    old = ObjectFile("mesh", put(tmp_path / "old.o"), VersionRange.parse("<6"))
    new = ObjectFile("mesh", put(tmp_path / "new.o"), VersionRange.parse(">=6"))
    (tmp_path / "mesh").mkdir()
    given = loadables.expand(["mesh"], (old, new), tmp_path)
    assert [one.build for one in given] == [old, new]


def test_a_file_comes_before_an_object_of_that_name(tmp_path: Path) -> None:
    put(tmp_path / "mesh")
    (given,) = loadables.expand(["mesh"], (ObjectFile("mesh", tmp_path / "m.o"),), tmp_path)
    assert given.build.path == tmp_path / "mesh"


def test_what_kernels_toml_has_is_named_where_nothing_is_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"an \[\[object\]\] of kernels.toml \(mesh\)"):
        loadables.expand(["mehs"], (ObjectFile("mesh", tmp_path / "m.o"),), tmp_path)


def test_other_builds_are_found_by_place_then_by_name(tmp_path: Path) -> None:
    for name in ("new/a.o", "new/d/b.o", "new/c.o", "old/a.o", "old/b.o"):
        put(tmp_path / name)
    given = loadables.expand(["new"], (), tmp_path)
    found = loadables.in_folder(given, tmp_path / "old")
    assert [(one.build.name, one.build.path.name) for one in found] == [
        ("new/a.o", "a.o"),
        ("new/d/b.o", "b.o"),
    ]


def test_a_folder_without_any_of_the_objects_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.o")
    (tmp_path / "old").mkdir()
    with pytest.raises(UsageError, match=r"has none of these objects \(not a.o, for one\)"):
        loadables.in_folder(loadables.expand(["a.o"], (), tmp_path), tmp_path / "old")


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo" / "sub"
    put(folder / "a.txt", b"old")
    git(tmp_path / "repo", "init", "-q", "-b", "trunk")
    git(tmp_path / "repo", "add", "-A")
    git(tmp_path / "repo", "commit", "-q", "-m", "one")
    (folder / "a.txt").write_text("new")
    return folder


def test_a_revision_is_there_for_a_while_and_gone_behind(repository: Path) -> None:
    with checked_out(repository, "trunk") as folder:
        assert (folder / "a.txt").read_text() == "old"
    assert not folder.exists()
    listed = subprocess.run(
        ["git", "-C", str(repository), "worktree", "list"], capture_output=True, check=True
    )
    assert len(listed.stdout.splitlines()) == 1
    assert (repository / "a.txt").read_text() == "new"


@pytest.mark.parametrize("revision", ["none", "--all", ""])
def test_a_revision_that_is_none_is_refused(repository: Path, revision: str) -> None:
    refused = pytest.raises(UsageError, match="is not a folder, and as a git revision")
    with refused, checked_out(repository, revision):
        pass


def test_outside_of_git_there_is_no_revision(tmp_path: Path) -> None:
    refused = pytest.raises(UsageError, match="is not a folder, and as a git revision")
    with refused, checked_out(tmp_path, "main"):
        pass
