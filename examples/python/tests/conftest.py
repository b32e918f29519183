"""Fixtures for all tests."""

import pytest


@pytest.fixture(params=[1, 1000])
def payload(request):
    """What is sent: a byte, and many."""
    return b"x" * request.param
