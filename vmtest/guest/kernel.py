"""What the running kernel has and has not, by asking it. Answers are kept."""

import functools
import gzip
import os
import pathlib
import resource
import subprocess

from vmtest.guest import kinds, libbpf
from vmtest.guest.btf import Btf

_VMLINUX_BTF = pathlib.Path("/sys/kernel/btf/vmlinux")
# Came in 5.11 together with the memory accounting by cgroup: libbpf asks for it for the same end.
_MODERN_HELPER = "BPF_FUNC_ktime_get_coarse_ns"


class RunningKernel:
    """The kernel that this process runs on; a vmtest.guest.reasons.Kernel."""

    def __init__(self, config: pathlib.Path | None = None) -> None:
        """`config`: the text of its kconfig; otherwise where distributions keep it."""
        self._config = config

    @functools.cache  # noqa: B019 - one of these a process
    def has_program_type(self, name: str) -> bool | None:
        """Whether a program of that type can be loaded at all, by libbpf's probe."""
        number = kinds.program_types().get(name, -1)
        return _answer(libbpf.library().libbpf_probe_bpf_prog_type(number, None))

    @functools.cache  # noqa: B019 - one of these a process
    def has_map_type(self, name: str) -> bool | None:
        """Whether a map of that type can be made at all, by libbpf's probe."""
        number = kinds.map_types().get(name, -1)
        return _answer(libbpf.library().libbpf_probe_bpf_map_type(number, None))

    def has_attach_type(self, name: str) -> bool | None:
        """Whether its `enum bpf_attach_type` has that value."""
        known = self._enumerators("bpf_attach_type")
        return f"BPF_{name.upper()}" in known if known else None

    def has_function(self, name: str) -> bool | None:
        """Whether its BTF has a function of that name."""
        return self._btf.has_function(name) if self._btf else None

    def has_tracepoint(self, name: str) -> bool | None:
        """Whether it has the tracepoint `category/event`; None if tracefs is not mounted."""
        events = pathlib.Path("/sys/kernel/tracing/events")
        return (events / name).is_dir() if events.is_dir() else None

    def has_btf(self) -> bool:
        """Whether it shows its BTF."""
        return _VMLINUX_BTF.exists()

    def config(self, symbol: str) -> str | None:
        """The value of a kconfig symbol, "n" where it is not set; None if the config is unknown."""
        return self._symbols.get(symbol, "n") if self._symbols else None

    def helper_name(self, number: int) -> str | None:
        """bpftool's name of a helper, which may be newer than this kernel."""
        names = _helper_names()
        return names[number - 1] if 0 < number <= len(names) else None

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

    def _enumerators(self, enumeration: str) -> dict[str, int]:
        try:
            return self._btf.enumerators(enumeration) if self._btf else {}
        except KeyError:
            return {}

    @functools.cached_property
    def _symbols(self) -> dict[str, str]:
        text = self._config_text()
        lines = (line.partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
        return {name: value for name, _, value in lines}

    def _config_text(self) -> str:
        if self._config is not None:
            return self._config.read_text()
        for path in (boot_config(), pathlib.Path("/proc/config.gz")):
            if path.exists():
                data = path.read_bytes()
                return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        return ""


def boot_config() -> pathlib.Path:
    """Where distributions keep the running kernel's config, and where libbpf looks for it."""
    return pathlib.Path(f"/boot/config-{os.uname().release}")


@functools.cache
def _helper_names() -> list[str]:
    """All helpers that bpftool knows, from number 1 on; none if it cannot tell."""
    try:
        done = subprocess.run(
            ["bpftool", "feature", "list_builtins", "helpers"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.split()


def _answer(result: int) -> bool | None:
    """libbpf's probes say 1, 0, or a negative errno where they cannot tell."""
    return None if result < 0 else bool(result)
