"""Fixtures for the tests that need a kernel to load the program into."""

import os

import pytest


@pytest.fixture
def program():
    """The program of bpf/sent.bpf.c, loaded and attached to a control group that we are in."""
    if "VMTEST_OBJECTS" not in os.environ:
        pytest.skip("needs a guest: vmtest run, or pytest --vmtest-kernel")
    from vmtest.guest.attach import attached_to_cgroup
    from vmtest.guest.cgroup import temporary_cgroup
    from vmtest.guest.objects import BpfObject
    from vmtest.guest.payload import object_path

    with BpfObject(object_path("sent")) as loaded, temporary_cgroup() as group:
        loaded.load()
        with attached_to_cgroup(loaded.programs["count"], group), group.entered():
            yield loaded
