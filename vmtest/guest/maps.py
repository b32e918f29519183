# SPDX-License-Identifier: MIT
"""BPF maps: keys and values are bytes, of exactly the sizes the map was made with."""

import ctypes
import errno
import os
from collections.abc import Iterator

from vmtest.guest import libbpf
from vmtest.guest.closing import Closing

# From linux/bpf.h, enum bpf_map_type.
TYPE_PROG_ARRAY = 3
TYPE_SOCKHASH = 18
TYPE_STRUCT_OPS = 26

ANY = 0
NOEXIST = 1
EXIST = 2


class Map:
    """A map, by file descriptor.

    An SK_STORAGE map has a socket's file descriptor, a native int, as key. Per-CPU maps, whose
    values have other sizes in user space, are not supported.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        kind: int,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
    ) -> None:
        """Describes an open map; sizes in bytes, `kind` as in `enum bpf_map_type`.

        `flags` as in BPF_MAP_CREATE: 1 is BPF_F_NO_PREALLOC.
        """
        self.fd = fd
        self.name = name
        self.kind = kind
        self.key_size = key_size
        self.value_size = value_size
        self.max_entries = max_entries
        self.flags = flags

    def __repr__(self) -> str:
        return f"<Map {self.name}: {self.key_size} B -> {self.value_size} B>"

    def id(self) -> int:
        """Its number in this kernel. Raises LibbpfError."""
        info = (ctypes.c_uint32 * 2)()  # the beginning of struct bpf_map_info: type, id
        size = ctypes.c_uint32(ctypes.sizeof(info))
        result = libbpf.library().bpf_obj_get_info_by_fd(self.fd, info, ctypes.byref(size))
        libbpf.check(result, f"{self.name}: information")
        return int(info[1])

    def lookup(self, key: bytes) -> bytes | None:
        """The value of `key`, or None. Raises LibbpfError for any reason but absence."""
        value = ctypes.create_string_buffer(self.value_size)
        result = libbpf.library().bpf_map_lookup_elem(self.fd, self._key(key), value)
        if result == -errno.ENOENT:
            return None
        libbpf.check(result, f"{self.name}: lookup of {key.hex()}")
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Sets `key` to `value`. `flags`: ANY, NOEXIST or EXIST. Raises LibbpfError."""
        if len(value) != self.value_size:
            raise ValueError(f"{self.name}: a value has {self.value_size} B, not {len(value)}")
        result = libbpf.library().bpf_map_update_elem(self.fd, self._key(key), value, flags)
        libbpf.check(result, f"{self.name}: update of {key.hex()}")

    def delete(self, key: bytes) -> bool:
        """Deletes `key`; whether it was there. Raises LibbpfError for any other failure."""
        result = libbpf.library().bpf_map_delete_elem(self.fd, self._key(key))
        if result == -errno.ENOENT:
            return False
        libbpf.check(result, f"{self.name}: delete of {key.hex()}")
        return True

    def keys(self) -> list[bytes]:
        """All keys. Complete if nobody else changes the map meanwhile."""
        return list(self._keys())

    def items(self) -> dict[bytes, bytes]:
        """All keys with their values. Complete if nobody else changes the map meanwhile."""
        found = {key: self.lookup(key) for key in self._keys()}
        return {key: value for key, value in found.items() if value is not None}

    def clear(self) -> None:
        """Deletes every key."""
        for key in self.keys():
            self.delete(key)

    def _keys(self) -> Iterator[bytes]:
        following = ctypes.create_string_buffer(self.key_size)
        key: bytes | None = None
        while True:
            result = libbpf.library().bpf_map_get_next_key(self.fd, key, following)
            if result == -errno.ENOENT:
                return
            libbpf.check(result, f"{self.name}: next key")
            key = following.raw
            yield key

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise ValueError(f"{self.name}: a key has {self.key_size} B, not {len(key)}")
        return key


class OwnMap(Map, Closing):
    """A map that no object defines; a context manager that closes it."""

    @classmethod
    def create(
        cls, kind: int, name: str, key_size: int, value_size: int, max_entries: int
    ) -> "OwnMap":
        """Makes a map without flags. Sizes in bytes; `name` is cut at 15 characters.

        Raises LibbpfError.
        """
        libbpf.raise_memlock_limit()
        fd = libbpf.library().bpf_map_create(
            kind, name[:15].encode(), key_size, value_size, max_entries, None
        )
        libbpf.check(fd, f"{name}: create")
        return cls(fd, name, kind, key_size, value_size, max_entries)

    def close(self) -> None:
        """Closes the map; the kernel frees it once no program uses it either."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
