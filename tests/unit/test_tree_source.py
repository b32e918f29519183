"""Kernels from a git tree: real git, the real vng --build and make, a tree as small as it gets.

Its Makefile knows the targets that a kernel's has: a config that drops what it does not know,
an image that is committed, modules that are no modules.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from fake_kernels import bzimage

from vmtest.cache import find_tool
from vmtest.errors import BuildFailed, InfrastructureError, KernelUnavailable
from vmtest.host import BUILD_TOOLS
from vmtest.kernels import source_for
from vmtest.kernels.store import Store
from vmtest.kernels.tree import differences, first_error
from vmtest.model import Kernel, KernelImage, TreeSpec

pytestmark = pytest.mark.skipif(
    find_tool("git") is None or find_tool("make") is None or find_tool("depmod") is None,
    reason="git, make or depmod is not installed on this host",
)

RELEASE = "6.1.9-virtme"
MAKEFILE = """
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 9
EXTRAVERSION =
all:
%:
\tsh build.sh $@ "$(O)" "$(INSTALL_MOD_PATH)"
all:
\tsh build.sh all "$(O)"
Makefile: ;
"""
# olddefconfig: of a symbol that stands more than once the last holds, as in a kernel's.
BUILD = """
set -e
case $1 in
*olddefconfig)
    { echo NONE; cat unknown || true; } > "$2/dropped" 2> /dev/null
    grep -o "CONFIG_[A-Z0-9_]*.*" "$2/.config" | sed "s/ is not set/=n/" |
    awk -F= 'NR==FNR { drop[$1]; next } !($1 in drop) { v[$1]=$2 }
        END { for (k in v) if (v[k] != "n") print k "=" v[k] }' "$2/dropped" - > "$2/new"
    mv "$2/new" "$2/.config"
    echo configured >> "$2/steps" ;;
*defconfig)
    mkdir -p "$2"
    echo CONFIG_X86_64=y > "$2/.config" ;;
all)
    [ ! -e broken ] || { echo "net/core/sock.c:7:1: error: expected ;"; exit 2; }
    mkdir -p "$2/arch/x86/boot"
    cp image "$2/arch/x86/boot/bzImage"
    echo built >> "$2/steps" ;;
modules_install)
    mkdir -p "$3/lib/modules/RELEASE/kernel"
    cp state "$3/lib/modules/RELEASE/kernel/"
    touch "$3/lib/modules/RELEASE/modules.order" "$3/lib/modules/RELEASE/modules.builtin" ;;
esac
""".replace("RELEASE", RELEASE)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, name: str, content: str | bytes = "") -> str:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "-m", name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("vmtest.host.BUILD_TOOLS", BUILD_TOOLS[:2])  # the rest is for real trees
    folder = tmp_path / "linux"
    folder.mkdir()
    git(folder, "init", "--quiet", "-b", "main")
    commit(folder, "Makefile", MAKEFILE)
    commit(folder, "build.sh", BUILD)
    commit(folder, "image", bzimage(RELEASE))
    commit(folder, "state", "first")
    return folder


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


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder with its time and content, git's own included.

    Not the time of objects: git, when it would write one that is there, notes its use by that.
    """
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            place = str(path.relative_to(folder))
            time = 0 if place.startswith(".git/objects/") else path.stat().st_mtime_ns
            found[place] = (time, path.read_bytes())
    return found


def test_a_tree_becomes_a_kernel_with_modules_and_config(tree: Path, store: Store) -> None:
    image = fetch(kernel(tree), store)
    assert (image.release, str(image.version), state(image)) == (RELEASE, "6.1.9", "first")
    assert image.config is not None and "CONFIG_DEBUG_INFO_BTF=y" in image.config.read_text()
    assert image.origin == f"tree linux {git(tree, 'rev-parse', 'HEAD')}"


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
    with pytest.raises(BuildFailed, match=r"CONFIG_DEBUG_INFO_BTF=y was asked for and it is"):
        fetch(kernel(tree), store)
    assert "built" not in steps(store) and store.entries() == []


def test_a_revision_that_does_not_compile_names_error_and_log(tree: Path, store: Store) -> None:
    commit(tree, "broken")
    with pytest.raises(BuildFailed, match=r"net/core/sock\.c:7:1: error: expected ;.*log is ") as e:
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
    monkeypatch.setattr("vmtest.host.BUILD_TOOLS", BUILD_TOOLS)
    monkeypatch.setattr(
        "vmtest.cache.find_tool", lambda name: None if name == "gcc" else find_tool(name)
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
    with pytest.raises(KernelUnavailable, match=r"is no git repository; tree\.path has to be"):
        fetch(kernel(tmp_path), store)
    with pytest.raises(KernelUnavailable, match=r"no such folder; correct tree\.path"):
        fetch(kernel(tmp_path / "absent"), store)


def test_a_repository_of_something_else_is_named(tree: Path, store: Store) -> None:
    commit(tree, "Makefile", "all:\n")
    with pytest.raises(KernelUnavailable, match="is no kernel's tree: its Makefile has no VERSION"):
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
