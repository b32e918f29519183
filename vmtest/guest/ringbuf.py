# SPDX-License-Identifier: MIT
"""Reading a BPF ring buffer."""

import ctypes
import time

from vmtest.guest import libbpf
from vmtest.guest.closing import Closing
from vmtest.guest.maps import Map

# typedef int (*ring_buffer_sample_fn)(void *ctx, void *data, size_t size)
_SampleFunction = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class RingBuffer(Closing):
    """The reader of a ring buffer map; a context manager that frees it, not the map.

    A record is handed out once, whichever reader asks for it.
    """

    def __init__(self, source: Map) -> None:
        """Maps the ring into memory. Raises LibbpfError."""
        self._name = source.name
        self._records: list[bytes] = []
        self._callback = _SampleFunction(self._take)
        self._handle: int | None = libbpf.check_pointer(
            libbpf.library().ring_buffer__new(source.fd, self._callback, None, None),
            f"{source.name}: reading",
        )

    def close(self) -> None:
        """Frees the reader; a second time it does nothing."""
        if self._handle:
            libbpf.library().ring_buffer__free(self._handle)
            self._handle = None

    def drain(self) -> list[bytes]:
        """The records that are there now, oldest first. Raises LibbpfError."""
        result = libbpf.library().ring_buffer__consume(self._handle)
        libbpf.check(result, f"{self._name}: reading")
        return self._taken()

    def wait(self, count: int = 1, seconds: float = 10.0) -> list[bytes]:
        """Waits for `count` records and hands out all that are there then, oldest first.

        Raises TimeoutError, saying how many had come, after `seconds`; LibbpfError.
        """
        deadline = time.monotonic() + seconds
        while True:
            result = libbpf.library().ring_buffer__consume(self._handle)
            libbpf.check(result, f"{self._name}: reading")
            if len(self._records) >= count:
                return self._taken()
            left = deadline - time.monotonic()
            if left <= 0:
                seen = len(self._records)
                raise TimeoutError(f"{self._name}: {seen} of {count} records after {seconds} s")
            result = libbpf.library().ring_buffer__poll(self._handle, max(1, int(left * 1000)))
            libbpf.check(result, f"{self._name}: waiting")

    def _taken(self) -> list[bytes]:
        records, self._records = self._records, []
        return records

    def _take(self, _context: int, data: int, size: int) -> int:
        self._records.append(ctypes.string_at(data, size))
        return 0
