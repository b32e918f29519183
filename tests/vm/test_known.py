"""Known failures, needed features, a build for each kernel, options of pytest: two real kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Said, vmtest
from real_kernels import image_of

from vmtest.model.kernels import KernelImage, RootImage
from vmtest.model.project import Config
from vmtest.model.results import Outcome, TestResult
from vmtest.objects.compile import build_all
from vmtest.runs import matrix_json

OLD = "5.10"
"""Has neither SO_NETNS_COOKIE (5.14) nor bpf_snprintf (5.13)."""

KERNEL = """
[[kernel]]
name = "{name}"
path = "{image}"
modules = "{modules}"
config = "{config}"
"""

CONFIG = """
schema = 1
[guest]
root = "{root}"
{kernels}
[[suite]]
name = "own"
tests = "checks/test_own.py"
objects = ["it"]
[[object]]
name = "it"
path = "nowhere.o"
[[known_failure]]
test = "test_own.py::test_fails_as_known"
kernels = "<5.13"
reason = "too old"
[[known_failure]]
test = "checks/test_own.py::test_passes_though_known"
reason = "mended"
[[known_failure]]
test = "test_own.py::test_expired_*"
reason = "postponed"
until = 2020-02-02
[[known_failure]]
test = "test_own.py::test_gone"
reason = "nothing is called so"
"""

SUITE = """
import pytest
from vmtest.guest.payload import object_path

def test_fails_as_known():
    assert False, "as ever"

def test_passes_though_known():
    pass

@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_expired_of(right):
    assert right, "as ever"

@pytest.mark.needs("so_netns_cookie")
def test_needs_the_cookie():
    pass

@pytest.mark.needs("so_netns_cookie")
def test_skips_by_itself():
    pytest.skip("not in the mood")

@pytest.mark.needs("map_type:ringbuf", "program_type:sk_msg", "helper:sk_msg/msg_push_data")
def test_needs_what_both_have():
    pass

@pytest.mark.needs("helper:cgroup_skb/snprintf")
def test_needs_snprintf():
    pass

@pytest.mark.needs("helper:sk_msg/9999")
def test_needs_what_nobody_has():
    pass

def test_build():
    content = object_path("it").read_bytes()
    print("is", *(name for name in ("COMPAT", "PLAIN") if name.encode() in content))
    assert False, "to be printed"

def test_option(request):
    assert request.config.getoption("--colour") == "blue"
"""

INI = "[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n"

CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--colour")
"""


@pytest.fixture(scope="module")
def ran(
    settings: Config,
    cache: Path,
    image: KernelImage,
    root: RootImage,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Said, Path]:
    """One run of SUITE on an old kernel and a new one, and its project's folder."""
    folder = tmp_path_factory.mktemp("known")
    (folder / "checks").mkdir()
    (folder / "checks" / "test_own.py").write_text(SUITE)
    (folder / "checks" / "conftest.py").write_text(CONFTEST)
    (folder / "checks" / "pytest.ini").write_text(INI)
    for name in ("compat", "plain"):
        (folder / f"{name}.bpf.c").write_text(f'char name[] = "{name.upper()}";\n')
    build_all(folder, folder)
    kernels = [
        KERNEL.format(name=i.name, image=i.image, modules=i.modules, config=i.config)
        for i in (image_of(OLD, settings, cache), image)
    ]
    (folder / "kernels.toml").write_text(CONFIG.format(root=root.path, kernels="".join(kernels)))
    said = vmtest(
        *(
            "run",
            "--cold",
            "--jobs=1",
            "--object",
            "it=compat.bpf.o@<5.13",
            "--object",
            "it=plain.bpf.o",
        ),
        *("--object", "it=plain.bpf.o", "--json", "matrix.json", "--", "--colour", "blue"),
        cwd=folder,
    )
    return said, folder


def result(ran: tuple[Said, Path], name: str, kernel: int) -> TestResult:
    """What became of the test ``name`` on the old (0) or the new kernel (1)."""
    said, folder = ran
    file = folder / "matrix.json"
    assert file.exists(), said
    matrix = matrix_json.loads(file.read_text())
    (found,) = (t for t in matrix.kernels[kernel].tests if t.test == f"test_own.py::{name}")
    return found


OUTCOMES = {
    "test_fails_as_known": (Outcome.XFAILED, Outcome.FAILED),
    "test_passes_though_known": (Outcome.XPASSED, Outcome.XPASSED),
    "test_expired_of[right]": (Outcome.PASSED, Outcome.PASSED),
    "test_expired_of[wrong]": (Outcome.FAILED, Outcome.FAILED),
    "test_needs_the_cookie": (Outcome.SKIPPED, Outcome.PASSED),
    "test_skips_by_itself": (Outcome.SKIPPED, Outcome.FAILED),
    "test_needs_what_both_have": (Outcome.PASSED, Outcome.PASSED),
    "test_needs_snprintf": (Outcome.SKIPPED, Outcome.PASSED),
    "test_needs_what_nobody_has": (Outcome.SKIPPED, Outcome.SKIPPED),
    "test_option": (Outcome.PASSED, Outcome.PASSED),
}


@pytest.mark.parametrize("kernel", [0, 1], ids=["old", "new"])
@pytest.mark.parametrize("name", OUTCOMES)
def test_a_test_ends_as_its_kernel_and_its_entry_say(
    name: str, kernel: int, ran: tuple[Said, Path]
) -> None:
    found = result(ran, name, kernel)
    assert found.outcome is OUTCOMES[name][kernel], found


@pytest.mark.parametrize(
    ("name", "kernel", "message"),
    [
        ("test_fails_as_known", 0, "too old"),
        (
            "test_passes_though_known",
            1,
            "passed, though known to fail (mended): remove it from kernels.toml",
        ),
        (
            "test_expired_of[wrong]",
            1,
            "known failure, expired 2020-02-02: postponed: AssertionError: as ever",
        ),
        (
            "test_needs_the_cookie",
            0,
            "the kernel has no so_netns_cookie "
            "(probe: getsockopt(SOL_SOCKET, SO_NETNS_COOKIE): ENOPROTOOPT)",
        ),
        (
            "test_needs_snprintf",
            0,
            "the kernel has no helper:cgroup_skb/snprintf "
            "(probe: loading a cgroup_skb program that calls helper 165: refused)",
        ),
        (
            "test_skips_by_itself",
            1,
            "skipped although the kernel has so_netns_cookie "
            "(probe: getsockopt(SOL_SOCKET, SO_NETNS_COOKIE): 8 bytes): not in the mood",
        ),
    ],
)
def test_its_message_says_why(name: str, kernel: int, message: str, ran: tuple[Said, Path]) -> None:
    assert result(ran, name, kernel).message == message


@pytest.mark.parametrize(("kernel", "build"), [(0, "COMPAT"), (1, "PLAIN")], ids=["old", "new"])
def test_each_kernel_gets_the_first_build_whose_range_holds(
    kernel: int, build: str, ran: tuple[Said, Path]
) -> None:
    assert f"is {build}\n" in result(ran, "test_build", kernel).output


def test_run_json_says_which_build_went_to_which_kernel(ran: tuple[Said, Path]) -> None:
    facts = json.loads((ran[1] / ".vmtest" / "latest" / "run.json").read_text())
    assert [kernel["objects"] for kernel in facts["ran"].values()] == [
        {"it": "compat.bpf.o"},
        {"it": "plain.bpf.o"},
    ]


def test_a_test_that_no_kernel_runs_is_reported(ran: tuple[Said, Path]) -> None:
    assert (
        "1 test ran on no kernel of this matrix:\n  test_needs_what_nobody_has\n" in ran[0].out
    ), ran[0]


def test_a_kernel_without_a_build_is_refused_before_anything_boots(
    ran: tuple[Said, Path],
) -> None:
    said = vmtest("run", "--object", "it=plain.bpf.o@>=5.13", cwd=ran[1])
    said.refuses(2, 'object "it": kernel 5.10 (5.10.', "(>=5.13)", "--object NAME=PATH@RANGE")
    assert "booting" not in said.out


def test_the_command_says_that_tests_failed(ran: tuple[Said, Path]) -> None:
    assert ran[0].status == 1, ran[0]


def test_known_lists_each_entry_with_what_the_run_showed(ran: tuple[Said, Path]) -> None:
    said = vmtest("known", "--json", cwd=ran[1])
    assert said.status == 1, "one has expired"
    shown = {entry["test"]: entry for entry in json.loads(said.out)["known_failures"]}
    assert {name: entry["seen"] for name, entry in shown.items()} == {
        "test_own.py::test_fails_as_known": {OLD: {"xfailed": 1}},
        "checks/test_own.py::test_passes_though_known": {
            OLD: {"xpassed": 1},
            "6.12": {"xpassed": 1},
        },
        "test_own.py::test_expired_*": {
            OLD: {"failed": 1, "passed": 1},
            "6.12": {"failed": 1, "passed": 1},
        },
        "test_own.py::test_gone": {OLD: {}, "6.12": {}},
    }
