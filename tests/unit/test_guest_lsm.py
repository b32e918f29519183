"""A BPF LSM that is not active is told from the kernel's own list."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.guest import lsm


def listed(tmp_path: Path, text: str) -> Path:
    (tmp_path / "lsm").write_text(text)
    return tmp_path / "lsm"


def test_a_list_without_bpf_is_the_evidence(tmp_path: Path) -> None:
    found = lsm.inactive(listed(tmp_path, "lockdown,capability,yama"))
    assert found is not None
    assert found.code == "lsm-inactive"
    assert found.evidence.endswith("has no bpf: lockdown,capability,yama")


def test_the_remedy_keeps_the_other_ones_and_their_order(tmp_path: Path) -> None:
    found = lsm.inactive(listed(tmp_path, "lockdown,capability,yama,apparmor\n"))
    assert found is not None
    assert 'cmdline = ["lsm=lockdown,yama,apparmor,bpf"]' in found.remedy


@pytest.mark.parametrize("text", ["bpf", "lockdown,capability,bpf,yama", "capability,bpf\n"])
def test_an_active_one_is_no_reason(tmp_path: Path, text: str) -> None:
    assert lsm.inactive(listed(tmp_path, text)) is None


def test_one_that_is_called_alike_is_not_it(tmp_path: Path) -> None:
    assert lsm.inactive(listed(tmp_path, "capability,bpf_other")) is not None


def test_a_kernel_that_does_not_tell_is_not_blamed(tmp_path: Path) -> None:
    assert lsm.inactive(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("kind", "section", "hooked"),
    [
        ("lsm", "lsm/file_open", True),
        ("lsm", "lsm.s/bprm_check_security", True),
        ("lsm", "lsm_cgroup/socket_bind", True),
        ("tracing", "fentry/bpf_lsm_file_open", True),
        ("tracing", "fexit.s/bpf_lsm_file_open", True),
        ("kprobe", "kprobe/bpf_lsm_file_open+0x4", True),
        ("tracing", "fentry/security_file_open", False),
        ("kprobe", "kprobe/do_nanosleep", False),
        ("xdp", "xdp", False),
    ],
)
def test_the_hooks_functions_are_called_by_the_bpf_lsm_alone(
    kind: str, section: str, hooked: bool
) -> None:
    assert lsm.is_hooked(kind, section) is hooked
