"""Kernels from a git tree: real git, the real vng --build and make, a tree as small as it gets."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_kernels import bzimage
from small_disk import mounted
from small_trees import BUILD, RELEASE, commit, everything, git, make_tree

from vmtest.errors import InfrastructureError, KernelBuildFailed, KernelUnavailable
from vmtest.host.cache import find_tool, locked
from vmtest.host.requirements import BUILD_TOOLS
from vmtest.kernels import source_for
from vmtest.kernels.store.store import Store
from vmtest.kernels.tree.kbuild import differences, first_error
from vmtest.model.kernels import Kernel, KernelImage, TreeSpec

pytestmark = pytest.mark.skipif(
    find_tool("git") is None or find_tool("make") is None or find_tool("depmod") is None,
    reason="git, make or depmod is not installed on this host",
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        "vmtest.host.requirements.BUILD_TOOLS", BUILD_TOOLS[:2]
    )  # the rest is for real trees
    return make_tree(tmp_path / "linux")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def kernel(tree: Path, rev: str | None = None, config: Path | None = None) -> Kernel:
    return Kernel("mine", TreeSpec(tree, rev, config))


def fetch(wanted: Kernel, store: Store) -> KernelImage:
    source = source_for(wanted, {})
    return source.fetch(source.resolve(wanted, store), store)


def state(image: KernelImage) -> str:
    """What the tree was when ``image`` was built."""
    assert image.modules is not None
    return (image.modules / "kernel" / "state").read_text()


def steps(store: Store) -> list[str]:
    (file,) = store.root.glob("trees/build-*/steps")
    return file.read_text().split()


def test_a_tree_becomes_a_kernel_with_modules_and_config(tree: Path, store: Store) -> None:
    image = fetch(kernel(tree), store)
    assert (image.release, str(image.version), state(image)) == (RELEASE, "6.1.9", "first")
    assert image.config is not None and "CONFIG_DEBUG_INFO_BTF=y" in image.config.read_text()
    assert image.origin == f"tree linux {git(tree, 'rev-parse', 'HEAD')}"


def test_a_kernel_without_modules_knows_what_is_built_in(
    tree: Path, store: Store, tmp_path: Path
) -> None:
    fragment = tmp_path / "my.config"
    fragment.write_text("# CONFIG_MODULE is not set\n")
    image = fetch(kernel(tree, config=fragment), store)
    assert image.release == RELEASE and image.modules is not None
    assert (image.modules / "modules.builtin").read_text() == "kernel/net/built-in.ko\n"
    assert list(image.modules.rglob("*.ko")) == [] and not (image.modules / "kernel").exists()


def test_the_users_checkout_is_not_changed_in_any_way(tree: Path, store: Store) -> None:
    commit(tree, "state", "second")
    (tree / "state").write_text("changed")
    (tree / "untracked").write_text("x")
    before = everything(tree)
    fetch(kernel(tree), store)
    fetch(kernel(tree, "HEAD~1"), store)
    assert everything(tree) == before


def test_a_revision_is_built_whatever_is_checked_out(tree: Path, store: Store) -> None:
    old = git(tree, "rev-parse", "HEAD")
    commit(tree, "state", "second")
    assert state(fetch(kernel(tree, old), store)) == "first"
    assert state(fetch(kernel(tree, "main"), store)) == "second"


def test_the_present_state_is_that_of_the_files_not_of_the_commit(tree: Path, store: Store) -> None:
    (tree / "state").write_text("changed")
    image = fetch(kernel(tree), store)
    assert state(image) == "changed"
    assert image.note == "with 1 changed files that are not committed"
    (tree / "state").write_text("changed again")
    assert state(fetch(kernel(tree), store)) == "changed again"


def test_the_same_present_state_is_built_once(tree: Path, store: Store) -> None:
    (tree / "state").write_text("changed")
    first = fetch(kernel(tree), store)
    os.utime(tree / "state", (1, 1))
    assert fetch(kernel(tree), store) == first
    assert steps(store).count("built") == 1


def test_a_commit_is_built_once(tree: Path, store: Store) -> None:
    first = fetch(kernel(tree), store)
    resolved = source_for(kernel(tree), {}).resolve(kernel(tree), store)
    assert resolved.cached and resolved.digest == first.digest
    assert fetch(kernel(tree, "main"), store) == first
    assert steps(store).count("built") == 1


def test_the_next_commit_is_built_in_the_same_folder(tree: Path, store: Store) -> None:
    fetch(kernel(tree), store)
    commit(tree, "state", "second")
    assert state(fetch(kernel(tree), store)) == "second"
    assert steps(store) == ["configured", "built", "configured", "built"]


def test_another_config_is_another_kernel(tree: Path, store: Store, tmp_path: Path) -> None:
    fragment = tmp_path / "my.config"
    fragment.write_text("CONFIG_MINE=y\n")
    first, second = fetch(kernel(tree), store), fetch(kernel(tree, config=fragment), store)
    assert first.image != second.image and first.digest != second.digest
    assert second.config is not None and "CONFIG_MINE=y" in second.config.read_text()


def test_a_symbol_that_vanished_is_told_before_anything_is_compiled(
    tree: Path, store: Store
) -> None:
    commit(tree, "unknown", "CONFIG_DEBUG_INFO_BTF\n")
    with pytest.raises(KernelBuildFailed, match=r"CONFIG_DEBUG_INFO_BTF=y was asked for and it is"):
        fetch(kernel(tree), store)
    assert "built" not in steps(store) and store.entries() == []


def test_a_revision_that_does_not_compile_names_error_and_log(tree: Path, store: Store) -> None:
    commit(tree, "broken")
    with pytest.raises(
        KernelBuildFailed, match=r"status \d+: net/core/sock\.c:7:1: error: expected ;.*log is "
    ) as e:
        fetch(kernel(tree), store)
    log = Path(str(e.value).rpartition("log is ")[2])
    assert "expected ;" in log.read_text()
    assert store.entries() == []
    git(tree, "rm", "--quiet", "broken")
    git(tree, "commit", "--quiet", "-m", "mended")
    assert fetch(kernel(tree), store).release == RELEASE


def test_a_build_without_a_compiler_names_the_package(
    tree: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.requirements.BUILD_TOOLS", BUILD_TOOLS)
    monkeypatch.setattr(
        "vmtest.host.cache.find_tool", lambda name: None if name == "gcc" else find_tool(name)
    )
    with pytest.raises(InfrastructureError, match=r"gcc is not installed .*apt-get install gcc"):
        fetch(kernel(tree), store)


def test_a_revision_that_is_not_there_is_named(tree: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable, match=r"has no revision v6\.66; fetch it there"):
        fetch(kernel(tree, "v6.66"), store)


def test_of_a_shallow_clone_that_is_said(tree: Path, store: Store, tmp_path: Path) -> None:
    old = git(tree, "rev-parse", "HEAD~2")
    shallow = tmp_path / "shallow"
    git(tree, "clone", "--quiet", "--depth", "1", f"file://{tree}", str(shallow))
    assert fetch(kernel(shallow), store).release == RELEASE
    with pytest.raises(KernelUnavailable, match="it is a shallow clone: git fetch --unshallow"):
        fetch(kernel(shallow, old), store)


def test_a_folder_without_git_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KernelUnavailable, match=r"is not a git repository; tree\.path in "):
        fetch(kernel(tmp_path), store)
    with pytest.raises(KernelUnavailable, match=r"no such folder; correct tree\.path"):
        fetch(kernel(tmp_path / "absent"), store)


def test_a_repository_of_something_else_is_named(tree: Path, store: Store) -> None:
    commit(tree, "Makefile", "all:\n")
    with pytest.raises(
        KernelUnavailable, match="is not a kernel tree: its Makefile has no VERSION"
    ):
        fetch(kernel(tree), store)


def test_a_fragment_that_is_not_there_is_named(tree: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(KernelUnavailable, match=r"absent: No such file.*correct tree\.config"):
        fetch(kernel(tree, config=tmp_path / "absent"), store)


def test_a_progress_that_raises_ends_the_build_and_leaves_nothing(tree: Path, store: Store) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    source = source_for(kernel(tree), {})
    with pytest.raises(KeyboardInterrupt):
        source.fetch(source.resolve(kernel(tree), store), store, stop)
    assert store.entries() == [] and list((store.root / "tmp").iterdir()) == []
    assert fetch(kernel(tree), store).release == RELEASE


def test_a_progress_is_told_how_many_files_were_made(tree: Path, store: Store) -> None:
    told: list[int] = []
    source = source_for(kernel(tree), {})
    fetched = source.resolve(kernel(tree), store)
    source.fetch(fetched, store, lambda done, total: told.append(done))
    assert told[-1] == 2  # also while modules are installed


def test_a_commit_without_a_symbol_does_not_cost_the_next_one_that_symbol(
    tree: Path, store: Store, tmp_path: Path
) -> None:
    fragment = tmp_path / "my.config"
    fragment.write_text("CONFIG_MINE=y\n")
    fetch(kernel(tree, config=fragment), store)
    commit(tree, "unknown", "CONFIG_MINE\n")
    with pytest.raises(KernelBuildFailed, match="CONFIG_MINE=y was asked for"):
        fetch(kernel(tree, config=fragment), store)
    git(tree, "rm", "--quiet", "unknown")
    git(tree, "commit", "--quiet", "-m", "known again")
    image = fetch(kernel(tree, config=fragment), store)
    assert image.config is not None and "CONFIG_MINE=y" in image.config.read_text()


def test_what_a_commits_config_is_does_not_depend_on_the_one_before(
    tree: Path, store: Store
) -> None:
    fetch(kernel(tree), store)
    commit(tree, "unknown", "CONFIG_MODULE\n")
    fetch(kernel(tree), store)
    commit(tree, "unknown", "CONFIG_OTHER\n")
    image = fetch(kernel(tree), store)
    assert image.config is not None and "CONFIG_MODULE=m" in image.config.read_text()


def build_folder(store: Store) -> Path:
    (folder,) = store.root.glob("trees/build-*")
    return folder


def half_made(store: Store) -> tuple[Path, Path]:
    """Objects as a killed build leaves them: one made long before, one it was busy with."""
    done, half = (build_folder(store) / name for name in ("done.o", "half.o"))
    for file, age in ((done, 3600), (half, 0)):
        file.write_text("x")
        os.utime(file, (time.time() - age, time.time() - age))
    return done, half


def test_what_a_killed_build_was_busy_with_is_made_again(tree: Path, store: Store) -> None:
    fetch(kernel(tree), store)
    done, half = half_made(store)
    (build_folder(store) / "under-way").touch()
    commit(tree, "state", "second")
    fetch(kernel(tree), store)
    assert done.exists() and not half.exists()


def test_nothing_is_made_again_after_a_build_that_ended_by_itself(tree: Path, store: Store) -> None:
    fetch(kernel(tree), store)
    done, half = half_made(store)
    commit(tree, "broken")
    with pytest.raises(KernelBuildFailed):
        fetch(kernel(tree), store)
    git(tree, "rm", "--quiet", "broken")
    git(tree, "commit", "--quiet", "-m", "mended")
    fetch(kernel(tree), store)
    assert done.exists() and half.exists()


def test_a_build_that_is_ended_is_known_as_such(tree: Path, store: Store) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    source = source_for(kernel(tree), {})
    with pytest.raises(KeyboardInterrupt):
        source.fetch(source.resolve(kernel(tree), store), store, stop)
    assert (build_folder(store) / "under-way").exists()


def test_after_a_killed_git_the_files_that_do_not_change_stay(tree: Path, store: Store) -> None:
    fetch(kernel(tree), store)
    (makefile,) = store.root.glob("trees/source-*/Makefile")
    (own,) = store.root.glob("trees/repository-*/worktrees/*")
    (own / "index.lock").touch()
    before = makefile.stat()
    commit(tree, "state", "second")
    assert state(fetch(kernel(tree), store)) == "second"
    after = makefile.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_whoever_waits_for_another_build_in_the_tree_can_be_ended(tree: Path, store: Store) -> None:
    fetch(kernel(tree), store)
    commit(tree, "state", "second")
    (name,) = (lock.stem for lock in store.root.glob("locks/tree-*.lock"))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    source = source_for(kernel(tree), {})
    resolved = source.resolve(kernel(tree), store)
    with locked(store.root, name), pytest.raises(KeyboardInterrupt):
        source.fetch(resolved, store, stop)
    assert steps(store).count("built") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 3 MiB."""
    with mounted(tmp_path / "small", "3m") as place:
        yield place


@pytest.mark.parametrize("silently", [False, True])
def test_a_disk_that_fills_up_in_a_build_is_no_fault_of_the_commit(
    tree: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, silently: bool
) -> None:
    monkeypatch.setattr("vmtest.kernels.tree.source._SPACE", 0)
    if silently:
        commit(tree, "build.sh", "exec 2> /dev/null\n" + BUILD)
    commit(tree, "image", bzimage(RELEASE) + b"x" * (2 << 20))
    with pytest.raises(InfrastructureError, match="building the kernel: no space left in") as e:
        fetch(kernel(tree), Store(small_disk / "cache"))
    assert not isinstance(e.value, KernelBuildFailed)


def test_a_full_disk_that_only_the_compiler_met_is_no_fault_of_the_commit(
    tree: Path, store: Store
) -> None:
    words = "as: /tmp/cc1.o: No space left on device"
    commit(tree, "build.sh", BUILD.replace("[ ! -e broken ]", f"echo '{words}'; exit 2;\n    true"))
    with pytest.raises(InfrastructureError, match="building the kernel: no space left in"):
        fetch(kernel(tree), store)


def test_too_little_space_is_told_before_anything_is_built(tree: Path, small_disk: Path) -> None:
    with pytest.raises(InfrastructureError, match="8590 MB are needed; make room there"):
        fetch(kernel(tree), Store(small_disk / "cache"))


def test_a_compiler_that_was_killed_is_no_fault_of_the_commit(tree: Path, store: Store) -> None:
    words = "gcc: fatal error: Killed signal terminated program cc1"
    commit(tree, "build.sh", BUILD.replace("[ ! -e broken ]", f"echo '{words}'; exit 2;\n    true"))
    with pytest.raises(InfrastructureError, match=r"the compiler was killed, .* memory runs out"):
        fetch(kernel(tree), store)


@pytest.mark.parametrize(
    ("requested", "final", "wrong"),
    [
        ("CONFIG_A=y\n", "CONFIG_A=y\n", []),
        ("CONFIG_A=y\n", "CONFIG_A=m\n", ["CONFIG_A=y was asked for and it is m"]),
        ("CONFIG_A=y\n", "", ["CONFIG_A=y was asked for and it is not set"]),
        ("# CONFIG_A is not set\n", "", []),
        ("# CONFIG_A is not set\n", "CONFIG_A=y\n", ["CONFIG_A=n was asked for and it is y"]),
        ("CONFIG_A=y\n# CONFIG_A is not set\n", "", []),
        ("# about CONFIG_A\n\n", "", []),
    ],
)
def test_every_symbol_asked_for_is_compared(requested: str, final: str, wrong: list[str]) -> None:
    assert differences(requested, final) == wrong


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CC a.o\na.c:1:2: error: no\nmake: *** [a.o] Error 1\n", "a.c:1:2: error: no"),
        ("make: *** No rule to make target\nend\n", "make: *** No rule to make target"),
        ("something\nlast words\n", "last words"),
        ("", "it says nothing"),
    ],
)
def test_the_first_error_of_a_build_is_the_one_that_tells(text: str, line: str) -> None:
    assert first_error(text) == line


@pytest.mark.parametrize("name", ["a b", "a;touch ran;", "$(touch ran)", "a'b", "a\nb"])
def test_in_a_folder_whose_path_make_would_read_nothing_is_built(
    name: str, tree: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / name)
    with pytest.raises(KernelUnavailable, match=r"cannot be built in .*set VMTEST_CACHE"):
        fetch(kernel(tree), store)
    assert not list(tmp_path.rglob("ran")) and store.entries() == []


def test_a_tmpdir_with_an_odd_name_does_not_matter(
    tree: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a; exit 7; b"
    odd.mkdir()
    monkeypatch.setenv("TMPDIR", str(odd))
    assert fetch(kernel(tree), store).release == RELEASE
    assert list(odd.iterdir()) == []
