"""What the programs say in their ring, km_log_event, up to a level."""

import contextlib
from collections.abc import Iterator

from layouts import log_event

from vmtest.guest.objects import BpfObject
from vmtest.guest.ringbuf import RingBuffer

LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG = range(4)


@contextlib.contextmanager
def logging_at(loaded: BpfObject, level: int) -> Iterator[RingBuffer]:
    """Has messages up to `level` made; their reader, what was there before left out."""
    with RingBuffer(loaded.maps["km_log_event"]) as log:
        log.drain()
        loaded.set_global("bpf_log_level", level)
        try:
            yield log
        finally:
            loaded.set_global("bpf_log_level", LOG_INFO)


def assert_logged(log: RingBuffer, *texts: str) -> None:
    """These messages were made since the last time, and no others."""
    records = log.drain()
    expected = [log_event(text) for text in texts]
    assert records == expected, f"expected the messages {texts}, seen {records}"
