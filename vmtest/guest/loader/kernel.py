# SPDX-License-Identifier: MIT
"""What the running kernel has and has not, by asking it. Answers are kept."""

import contextlib
import fnmatch
import functools
import gzip
import os
import pathlib
import re
import resource
from collections.abc import Iterator, Sequence

from vmtest.guest import libbpf, probing
from vmtest.guest.btf import Btf
from vmtest.guest.failures import MapShape
from vmtest.guest.loader import kinds

_WILDCARD = re.compile(r"[*?[]")
_VMLINUX_BTF = pathlib.Path("/sys/kernel/btf/vmlinux")
# Came in 5.11 together with the memory accounting by cgroup: libbpf asks for it for the same end.
_MODERN_HELPER = "BPF_FUNC_ktime_get_coarse_ns"


class RunningKernel:
    """The kernel that this process runs on; a vmtest.guest.loader.reasons.Kernel."""

    def __init__(self, config: pathlib.Path | None = None) -> None:
        """`config`: the text of its kconfig; otherwise where distributions keep it."""
        self._config = config

    @functools.cache  # noqa: B019 - one of these a process
    def has_program_type(self, name: str) -> bool | None:
        """Whether a program of that type can be loaded at all, by libbpf's probe."""
        if (number := kinds.program_types().get(name)) is None:
            return None  # a later libbpf knows it
        return _answer(libbpf.library().libbpf_probe_bpf_prog_type(number, None))

    @functools.cache  # noqa: B019 - one of these a process
    def has_map_type(self, name: str) -> bool | None:
        """Whether a map of that type can be made at all, by libbpf's probe."""
        if (number := kinds.map_types().get(name)) is None:
            return None  # a later libbpf knows it
        return _answer(libbpf.library().libbpf_probe_bpf_map_type(number, None))

    def has_attach_type(self, name: str) -> bool | None:
        """Whether its `enum bpf_attach_type` has that value."""
        known = self._enumerators("bpf_attach_type")
        return f"BPF_{name.upper()}" in known if known else None

    def has_function(self, name: str) -> bool | None:
        """Whether its BTF, or that of a loaded module, has a function of that name."""
        return self._in_btf("function", name)

    def has_typedef(self, name: str) -> bool | None:
        """Whether its BTF, or that of a loaded module, has a typedef of that name."""
        return self._in_btf("typedef", name)

    def has_symbol(self, name: str) -> bool | None:
        """Whether /proc/kallsyms has a symbol of that name."""
        return name in probing.symbols() if probing.symbols() else None

    def matching(self, pattern: str) -> Sequence[str] | None:
        """The names in /proc/kallsyms that match `pattern`, with `*` and `?`, sorted."""
        listed = probing.symbols()
        # By its beginning first: fnmatch alone takes an emulated guest seconds.
        beginning = _WILDCARD.split(pattern, maxsplit=1)[0]
        near = [name for name in listed if name.startswith(beginning)]
        return sorted(fnmatch.filter(near, pattern)) if listed else None

    def has_tracepoint(self, name: str) -> bool | None:
        """Whether it has the tracepoint `category/event`; None if tracefs is not mounted."""
        events = pathlib.Path("/sys/kernel/tracing/events")
        return (events / name).is_dir() if events.is_dir() else None

    def has_btf(self) -> bool:
        """Whether it shows its BTF."""
        return _VMLINUX_BTF.exists()

    def mentions(self, name: str) -> bool | None:
        """Whether its BTF has anything of that name."""
        return b"\0%b\0" % name.encode() in self._raw_btf if self._raw_btf else None

    def members(self, structure: str) -> Sequence[str] | None:
        """The members of a structure of its BTF, nested ones as `outer.inner`; empty: no such."""
        if not self._btf:
            return None
        try:
            return tuple(self._btf.members(structure))
        except KeyError:
            return ()

    def has_helper(self, number: int) -> bool | None:
        """Whether its `enum bpf_func_id` has that number."""
        known = self._enumerators("bpf_func_id")
        return number < known["__BPF_FUNC_MAX_ID"] if known else None

    @functools.cache  # noqa: B019 - one of these a process
    def attach_types_with(
        self, number: int, program_type: str, sleepable: bool = False
    ) -> Sequence[str]:
        """The attach types of a program type to whose programs it gives a helper, by trying."""
        return probing.attach_types_with(number, program_type, self._btf, sleepable)

    @functools.cache  # noqa: B019 - one of these a process
    def program_types_with(self, number: int) -> Sequence[str]:
        """The program types to which it gives a helper, by trying."""
        return probing.program_types_with(number, self._btf)

    def refuses_map(self, shape: MapShape) -> str:
        """The name of the errno with which it refuses such a map; "" if it makes it."""
        return probing.refused_map(shape)

    def config(self, symbol: str) -> str | None:
        """The value of a kconfig symbol, "n" where it is not set; None if the config is unknown."""
        return self._symbols.get(symbol, "n") if self._symbols else None

    def switched_off(self, symbol: str) -> bool:
        """Whether its config says `# SYMBOL is not set`; an older kernel's says nothing of it."""
        return f"# {symbol} is not set" in self._config_lines

    def memlock_limit(self) -> int | None:
        """The bytes of RLIMIT_MEMLOCK; None for no limit."""
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        return None if limit == resource.RLIM_INFINITY else limit

    def counts_memlock(self) -> bool | None:
        """Whether maps and programs count against RLIMIT_MEMLOCK."""
        # Not by loading a program that calls it: without memory that fails, and libbpf takes
        # that for a yes.
        helpers = self._enumerators("bpf_func_id")
        return _MODERN_HELPER not in helpers if helpers else None

    @functools.cached_property
    def _btf(self) -> Btf | None:
        try:
            return Btf.of_kernel()
        except libbpf.LibbpfError:
            return None

    @functools.cached_property
    def _raw_btf(self) -> bytes:
        try:
            return _VMLINUX_BTF.read_bytes()
        except OSError:
            return b""

    def _in_btf(self, kind: str, name: str) -> bool | None:
        if self._btf is None:
            return None
        if self._btf.find(kind, name) is not None:
            return True
        return any(module.find(kind, name) is not None for module in self._modules())

    def _modules(self) -> Iterator[Btf]:
        """The BTF of each loaded module that has one."""
        for path in sorted(_VMLINUX_BTF.parent.glob("*")):
            if path != _VMLINUX_BTF and self._btf is not None:
                with contextlib.suppress(libbpf.LibbpfError):
                    yield Btf.of_module(path.name, self._btf)

    def _enumerators(self, enumeration: str) -> dict[str, int]:
        try:
            return self._btf.enumerators(enumeration) if self._btf else {}
        except KeyError:
            return {}

    @functools.cached_property
    def _symbols(self) -> dict[str, str]:
        lines = (line.partition("=") for line in self._config_lines if line.startswith("CONFIG_"))
        return {name: value for name, _, value in lines}

    @functools.cached_property
    def _config_lines(self) -> list[str]:
        return self._config_text().splitlines()

    def _config_text(self) -> str:
        if self._config is not None:
            return self._config.read_text()
        for path in (boot_config(), pathlib.Path("/proc/config.gz")):
            if path.exists():
                data = path.read_bytes()
                return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        return ""


@functools.cache
def running_kernel() -> RunningKernel:
    """The kernel that this process runs on, its config where distributions keep it."""
    return RunningKernel()


def boot_config() -> pathlib.Path:
    """Where distributions keep the running kernel's config, and where libbpf looks for it."""
    return pathlib.Path(f"/boot/config-{os.uname().release}")


def _answer(result: int) -> bool | None:
    """libbpf's probes say 1, 0, or a negative errno where they cannot tell."""
    return None if result < 0 else bool(result)
