"""The tests that may be skipped where every skip is strict (``--strict-skips``, CI), and why.

Everything else that a test needs is installed by its set-up: ``tox -e setup``
(vmtest/host/requirements.py, tests/sshd.py) or an extra of pyproject.toml.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class ExpectedSkip:
    """A test's id and what it says when it skips, as patterns of fnmatch; why that is right."""

    test: str
    says: str
    why: str


EXPECTED = (
    ExpectedSkip(
        "tests/unit/test_report_loads.py::test_veristat_itself_compares_two_of_them",
        "veristat is not in PATH",
        "no release of Debian or Ubuntu that vmtest supports has a package of it",
    ),
    ExpectedSkip(
        "tests/unit/test_write.py::test_a_folder_that_takes_no_new_file_has_its_file_written_in_place",
        "root writes into any folder",
        "root may write anywhere; a run as an ordinary user makes the claim",
    ),
    ExpectedSkip(
        "tests/unit/test_store.py::test_a_folder_nobody_may_write_to_is_named_with_the_cure",
        "root may write everywhere",
        "root may write anywhere; a run as an ordinary user makes the claim",
    ),
    ExpectedSkip(
        "tests/unit/test_objectfile.py::test_a_file_is_not_loaded_nor_needs_root",
        "an ordinary user runs these tests already",
        "the other tests of the file make the same claim there",
    ),
    ExpectedSkip(
        "tests/unit/test_cli_bad_input.py::test_a_full_disk_under_the_cache",
        "*may mount*",
        "an ordinary user, or a container's root, may not mount",
    ),
    ExpectedSkip(
        "tests/unit/test_faults_left.py::*",
        "* needs root",
        "an ordinary user, or a container's root, may not mount",
    ),
    ExpectedSkip(
        "tests/unit/test_host_faults.py::test_a_project_that_nobody_may_write_to_is_named",
        "mounting needs root",
        "an ordinary user, or a container's root, may not mount",
    ),
    ExpectedSkip(
        "tests/unit/test_supervisor.py::"
        "test_files_of_other_user_ids_are_removed_for_an_ordinary_user",
        "*may mount*",
        "an ordinary user may not mount",
    ),
    ExpectedSkip(
        "tests/unit/test_ubuntu_host.py::*",
        "a mount namespace of its own may not be made here",
        "an ordinary user may not on an Ubuntu that confines user namespaces",
    ),
    ExpectedSkip(
        "tests/unit/test_cluster.py::"
        "test_a_worker_without_room_leaves_the_kernel_to_another_and_says_so",
        "mounting a tmpfs needs root",
        "an ordinary user, or a container's root, may not mount",
    ),
    ExpectedSkip(
        "tests/unit/test_tree_source.py::*",
        "mounting a tmpfs needs root",
        "an ordinary user, or a container's root, may not mount",
    ),
    ExpectedSkip(
        "tests/vm/test_machine.py::test_the_accelerator_that_was_chosen_is_the_one_that_boots",
        "there is no /dev/kvm",
        "a runner without nested virtualisation has none",
    ),
    ExpectedSkip(
        "tests/vm/test_cli.py::test_broken_kvm_falls_back_and_says_so",
        "there is no /dev/kvm *",
        "a runner without nested virtualisation has none",
    ),
    ExpectedSkip(
        "tests/vm/test_matrix.py::test_the_hosts_own_root_has_a_private_home",
        "*",
        "set-up installs no SSH server on a developer's machine; a CI user's home may be empty",
    ),
    ExpectedSkip(
        "tests/vm/test_unprivileged.py::test_on_the_hosts_own_root_qemu_stays_root",
        'root = "host" needs sshd on the host',
        "set-up installs no SSH server on a developer's machine",
    ),
    ExpectedSkip(
        "tests/vm/test_cluster.py::test_a_worker_without_kvm_says_so_when_it_is_asked_for",
        "KVM works here",
        "the claim is about a machine on which it does not",
    ),
    ExpectedSkip(
        "tests/vm/test_verify_flavour.py::*",
        "the index has no linux-image-*",
        "Debian removes superseded packages of a flavour from its index",
    ),
)


def expected(test: str, says: str) -> ExpectedSkip | None:
    """The entry for the skip of the test with the id ``test``, None when it has none."""
    for entry in EXPECTED:
        if fnmatchcase(test, entry.test) and fnmatchcase(says, entry.says):
            return entry
    return None
