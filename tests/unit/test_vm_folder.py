"""What virtme-ng is given: names of our own making, whatever the files are really called."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from fake_kernels import elf

from vmtest.errors import InfrastructureError
from vmtest.host.cache import find_tool
from vmtest.host.plain import is_plain, plain_folder
from vmtest.host.virtme import find_vng, vng_environment
from vmtest.model.kernels import Accelerator, Filesystem, KernelImage, RootImage
from vmtest.model.versions import KernelVersion
from vmtest.vm.folder import VmFolder, make_folder, remove_folder
from vmtest.vm.vng import Hardware, vng_argv

RELEASE = "6.1.9-amd64"
SIGNS = "a b; $(touch {mark}) `touch {mark}` 'q' \"d\", version 9.9 & | x\ny"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder whose path a shell would execute, in which ``mark`` would then be."""
    folder = tmp_path / "odd" / SIGNS.format(mark=tmp_path / "mark")
    folder.mkdir(parents=True)
    return folder


def kernel_in(folder: Path, suffix: str = "") -> KernelImage:
    """A kernel below ``folder`` with one module, packed as ``suffix`` says."""
    modules = folder / "lib" / "modules" / RELEASE
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(f"kernel/fs/9p.ko{suffix}:\n")
    image = folder / "boot" / "vmlinux"
    image.parent.mkdir()
    image.write_bytes(elf(RELEASE))
    version = KernelVersion.parse(RELEASE)
    return KernelImage("6.1", version, RELEASE, image, modules, None, "", "")


def disk_in(
    folder: Path, content: bytes = b"hsqs and more", filesystem: Filesystem = "squashfs"
) -> RootImage:
    """A guest image below ``folder``."""
    (folder / "root.sqfs").write_bytes(content)
    root = folder / "root.sqfs"
    return RootImage("disk", root, "", "/usr/bin/python3", filesystem=filesystem)


@pytest.fixture
def made(odd: Path) -> Iterator[VmFolder]:
    folder = make_folder(find_vng(), kernel_in(odd), disk_in(odd))
    yield folder
    remove_folder(folder.path)


MAKE = """
import pickle, sys, time
from vmtest.vm.folder import make_folder
print(make_folder(*pickle.loads(bytes.fromhex(sys.argv[1]))).path, flush=True)
time.sleep(300)
"""


def test_the_folder_of_a_runner_that_is_killed_before_its_vm_starts_goes(tmp_path: Path) -> None:
    given = pickle.dumps((find_vng(), kernel_in(tmp_path), disk_in(tmp_path))).hex()
    argv = [sys.executable, "-c", MAKE, given]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        folder = Path(runner.stdout.readline().strip())
        assert folder.is_dir()
        runner.kill()
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not folder.exists()


def test_every_path_is_plain_whatever_the_files_are_called(made: VmFolder) -> None:
    for path in (made.path, made.kernel, made.socket, made.root, made.packages):
        assert path is not None and is_plain(path)


def test_the_files_are_those_that_were_meant(made: VmFolder) -> None:
    assert made.root is not None
    assert made.kernel.read_bytes() == elf(RELEASE)
    assert made.root.read_bytes() == b"hsqs and more"
    assert (made.path / "lib/modules" / RELEASE / "modules.dep").is_file()


def test_the_kernels_real_path_is_plain_too_for_virtme_ng_asks_file(made: VmFolder) -> None:
    assert is_plain(made.kernel.resolve())


def test_virtme_ng_is_told_the_release_of_an_unpacked_kernel(made: VmFolder) -> None:
    """By the program that it asks, which would read the kernel from end to end."""
    path = {"PATH": f"{made.programs}:{os.environ['PATH']}"}
    script = (
        "from virtme.commands.run import get_kernel_version; import sys; "
        "print(get_kernel_version(sys.argv[1]))"
    )
    made.kernel.resolve().write_bytes(b"\x7fELF without a version")
    done = subprocess.run(
        [sys.executable, "-c", script, made.kernel],
        env=path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{RELEASE}\n", done.stderr


def test_what_was_compiled_of_virtme_ng_is_used(made: VmFolder) -> None:
    """Not every installer compiles."""
    found = find_spec("virtme")
    assert found is not None and found.origin is not None
    installed = Path(found.origin).with_name("__pycache__")
    compiled = made.packages / "virtme" / "__pycache__"
    assert compiled.exists() == installed.exists()
    assert not compiled.exists() or compiled.samefile(installed)


def test_a_kernel_without_modules_hides_those_of_the_host(tmp_path: Path) -> None:
    image = kernel_in(tmp_path)
    bare = KernelImage("6.1", image.version, RELEASE, image.image, None, None, "", "")
    folder = make_folder(find_vng(), bare, disk_in(tmp_path))
    assert list((folder.path / "lib" / "modules").iterdir()) == []
    shutil.rmtree(folder.path)


def test_virtme_ng_executes_no_part_of_a_name(made: VmFolder, tmp_path: Path) -> None:
    """The real virtme-ng, to the point where it would start QEMU."""
    if find_tool("qemu-system-x86_64") is None or find_tool("modprobe") is None:
        pytest.skip("qemu-system-x86_64 or modprobe is not installed on this host")
    vng = find_vng()
    (made.path / "lib/modules" / RELEASE / "kernel").mkdir()
    argv = vng_argv(vng, made, Hardware(Accelerator.TCG, 512, 1))
    done = subprocess.run(
        [argv[0], "--dry-run", *argv[1:]],
        env=vng_environment({**os.environ, "TMPDIR": str(made.path)}, vng, made.path),
        cwd=made.path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"-kernel {made.kernel}" in done.stdout, done.stderr
    assert not (tmp_path / "mark").exists()


def test_modules_that_virtme_ng_would_unpack_by_a_shell_are_refused_in_an_odd_folder(
    odd: Path,
) -> None:
    with pytest.raises(InfrastructureError, match=r"packed with zstd.*set VMTEST_CACHE"):
        make_folder(find_vng(), kernel_in(odd, ".zst"), disk_in(odd))


def test_such_modules_boot_in_a_plain_folder(tmp_path: Path) -> None:
    folder = make_folder(find_vng(), kernel_in(tmp_path, ".zst"), disk_in(tmp_path))
    listed = folder.path / "lib" / "modules" / RELEASE / "modules.dep"
    assert listed.read_text() == "kernel/fs/9p.ko.zst:\n"
    remove_folder(folder.path)


def test_a_guest_image_in_which_qemu_would_find_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"root\.sqfs is not squashfs"):
        make_folder(find_vng(), kernel_in(tmp_path), disk_in(tmp_path, b"QFI\xfb" + bytes(99)))


@pytest.mark.parametrize(
    ("content", "filesystem"),
    [
        (bytes(0x438) + b"\x53\xef", "ext4"),
        (bytes(0x400) + b"\xe2\xe1\xf5\xe0", "erofs"),
    ],
)
def test_another_file_system_is_taken_where_nothing_stands_in_front_of_it(
    content: bytes, filesystem: Filesystem, tmp_path: Path
) -> None:
    shutil.rmtree(
        make_folder(find_vng(), kernel_in(tmp_path), disk_in(tmp_path, content, filesystem)).path
    )
    hidden = disk_in(tmp_path, b"QFI\xfb" + content[4:], filesystem)
    kernel = KernelImage(
        "6.1", KernelVersion.parse(RELEASE), RELEASE, tmp_path / "boot/vmlinux", None, None, "", ""
    )
    with pytest.raises(InfrastructureError, match=f"root.sqfs is not {filesystem}"):
        make_folder(find_vng(), kernel, hidden)
    squashfs = disk_in(tmp_path, content)
    with pytest.raises(InfrastructureError, match=r"is not squashfs \(it begins with 00"):
        make_folder(find_vng(), kernel, squashfs)


def test_a_refusal_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "t"
    place.mkdir()
    monkeypatch.setattr("vmtest.host.plain.usual_places", lambda: (str(place),))
    monkeypatch.setattr("vmtest.host.plain._SOCKET", 1000)
    with pytest.raises(InfrastructureError):
        make_folder(find_vng(), kernel_in(tmp_path), disk_in(tmp_path, b"no"))
    assert list(place.iterdir()) == []


# --- where such a folder can be ---------------------------------------------------------


@pytest.mark.parametrize("name", ["a b", "a;b", "a$b", "a'b", 'a"b', "a\nb", "a,b", "x" * 100])
def test_an_odd_or_long_tmpdir_is_passed_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    folder = plain_folder("vmtest-")
    folder.rmdir()
    assert is_plain(folder) and name not in str(folder)


def test_where_no_folder_will_do_each_is_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "a b"))
    monkeypatch.setattr("vmtest.host.plain._USUAL", ("/absent", "/" + "long" * 30))
    with pytest.raises(InfrastructureError, match=r"set TMPDIR to a folder") as caught:
        plain_folder("vmtest-")
    for part in ("a b': its path has characters", "/absent': there is no such", "too long"):
        assert part in str(caught.value)
