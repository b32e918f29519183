"""What a kernel's modules have, by name, and what is said of a module that is not loaded."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from vmtest.host.cache import let_go
from vmtest.kernels.modules import module_with
from vmtest.model.kernels import KernelImage
from vmtest.model.loads import Verdict
from vmtest.model.versions import KernelVersion
from vmtest.storage.prune import items, remove, superfluous
from vmtest.storage.verify import verify
from vmtest.verify.events import Attachment, Load, WireReason
from vmtest.verify.missing import no_modules, with_module

SOURCE = """
int vmtest_defined(int a) { return a + 1; }
extern int vmtest_used(int);
int vmtest_caller(void) { return vmtest_used(vmtest_defined(1)); }
int __tracepoint_vmtest_event = 1;
int vmtest_variable = 2;
__attribute__((section(".BTF"))) char btf[] = "\\0bpf_struct_ops_vmtest_ops\\0";
"""


@pytest.fixture
def image(tmp_path: Path) -> KernelImage:
    if shutil.which("cc") is None:
        pytest.skip("this host has no C compiler")
    modules = tmp_path / "lib" / "modules" / "6.1.0"
    folder = modules / "kernel" / "net"
    folder.mkdir(parents=True)
    made = tmp_path / "made.o"
    compile_it = ["cc", "-O0", "-c", "-x", "c", "-", "-o", str(made)]
    subprocess.run(compile_it, input=SOURCE.encode(), check=True)
    (folder / "nf-test.ko.xz").write_bytes(lzma.compress(made.read_bytes()))
    (folder / "broken.ko.xz").write_bytes(b"no module")
    (folder / "short.ko").write_bytes(b"\x7fELF")
    version = KernelVersion.parse("6.1.0")
    return KernelImage("6.1", version, "6.1.0", tmp_path, modules, None, "abc", "")


@pytest.mark.parametrize(
    "name", ["vmtest_defined", "__tracepoint_vmtest_event", "bpf_struct_ops_vmtest_ops"]
)
def test_a_module_is_found_by_what_it_defines(
    name: str, image: KernelImage, tmp_path: Path
) -> None:
    assert module_with(image, name, tmp_path / "cache") == "nf_test"


@pytest.mark.parametrize("name", ["vmtest_used", "vmtest_variable", "vmtest_never", "vmtest_def"])
def test_what_a_module_only_uses_is_not_its_own(
    name: str, image: KernelImage, tmp_path: Path
) -> None:
    assert module_with(image, name, tmp_path / "cache") is None


def test_an_index_is_made_once(image: KernelImage, tmp_path: Path) -> None:
    assert module_with(image, "vmtest_defined", tmp_path / "cache") == "nf_test"
    assert image.modules is not None
    shutil.rmtree(image.modules)
    assert module_with(image, "vmtest_caller", tmp_path / "cache") == "nf_test"


def test_a_damaged_index_is_told_and_made_anew(image: KernelImage, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    module_with(image, "vmtest_defined", cache)
    (whole,) = verify(cache)
    assert (whole.kind, whole.damage, whole.size > 0) == ("modules", None, True)
    (file,) = (cache / "modules").iterdir()
    file.write_bytes(file.read_bytes()[:-4])
    (damaged,) = verify(cache)
    assert "is damaged (does not fit its checksum" in str(damaged.damage)
    assert [item.broken for item in items(cache)] == [True]
    assert module_with(image, "vmtest_defined", cache) == "nf_test"
    assert [item.broken for item in items(cache)] == [False]


def test_an_index_in_use_stays_and_goes_when_it_was_not_used_for_long(
    image: KernelImage, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    module_with(image, "vmtest_defined", cache)
    assert remove(cache, items(cache)) == []
    (mark,) = (cache / "used").iterdir()
    let_go(cache, mark.name)
    os.utime(mark, (1, 1))
    (old,) = superfluous(items(cache), time.time(), 86400.0, None)
    assert remove(cache, [old]) == [old]
    assert items(cache) == []


LOAD = Load(
    key="k" * 16,
    event="load",
    object="0",
    program="p",
    verdict=Verdict.UNSUPPORTED,
    translated_size=0,
    jited_size=0,
    log="",
    log_cut=False,
    errno="ESRCH",
    reason=WireReason(
        code="kfunc",
        text="this kernel has no kfunc f",
        remedy="r",
        evidence="log: x",
        missing="f",
        name="f",
    ),
)


def test_what_a_module_has_is_not_said_to_be_missing() -> None:
    load = with_module(LOAD, lambda name: {"f": "nf_test"}.get(name)).result(None)
    assert load.reason is not None
    assert (load.verdict, load.reason.code) == (Verdict.REFUSED, "module-not-loaded")
    assert load.reason.text == "f is in the module nf_test of this kernel, which is not loaded"
    assert 'modules = ["nf_test"]' in load.reason.remedy
    assert load.reason.name == "f"


def test_an_attachment_that_a_module_would_allow_says_so() -> None:
    attachment = Attachment(attached=False, errno="ENOENT", reason=LOAD.reason)
    event = LOAD.model_copy(
        update={"verdict": Verdict.ACCEPTED, "reason": None, "attachment": attachment}
    )
    load = with_module(event, lambda name: {"f": "nf_test"}.get(name)).result(None)
    assert load.verdict is Verdict.ACCEPTED
    assert load.attachment is not None
    assert load.attachment.reason is not None
    assert load.attachment.reason.code == "module-not-loaded"


def test_what_no_module_has_stays_missing() -> None:
    load = with_module(LOAD, no_modules).result(None)
    assert load.reason is not None
    assert (load.verdict, load.reason.code) == (Verdict.UNSUPPORTED, "kfunc")
