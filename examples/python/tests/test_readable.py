"""These need no kernel: they run here and in each guest."""

import pytest
from meter import readable


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (1 << 20, "1 MiB")])
def test_readable(count, text):
    assert readable(count) == text


def test_a_payload_is_told_in_bytes(payload):
    assert readable(len(payload)) == f"{len(payload)} B"
