"""What several tests share."""

import socket

IPV4, IPV6, UDP = 20, 40, 8
"""Bytes of a header."""


def send_datagram(payload, address):
    """Send ``payload`` to nobody: it leaves this control group, and that is all that counts."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(payload, (address, 9))
