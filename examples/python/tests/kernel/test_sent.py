"""The program in a kernel, through the package."""

import pytest
from meter import total

from tests.helpers import IPV4, IPV6, UDP, send_datagram


def sent(program):
    return total(program.maps["bytes_sent"].lookup(bytes(4)))


def test_nothing_was_sent_yet(program):
    assert sent(program) == 0


def test_a_datagram_counts_with_its_headers(program, payload):
    send_datagram(payload, "127.0.0.1")
    assert sent(program) == IPV4 + UDP + len(payload)


@pytest.mark.ipv6
def test_the_headers_of_ipv6_are_longer(program, payload):
    send_datagram(payload, "::1")
    assert sent(program) == IPV6 + UDP + len(payload)
