"""The exceptions of vmtest, by whose fault it is.

``VmtestError`` is the root.  A ``UsageError`` is the user's to mend (exit
status 2), an ``InfrastructureError`` is the machine's (exit status 3): neither
says anything about the programs under test.
"""

import errno
import re
import resource

_PARAMETER = re.compile(r"`([a-z_]+)`")


class VmtestError(Exception):
    """Root of every error that the command line turns into a message.

    A message names a parameter of a call in backquotes, as in "`kernels` 6.99: ...".
    """

    @property
    def field(self) -> str:
        """The first parameter that the message names, "" when it names none."""
        found = _PARAMETER.search(str(self))
        return found[1] if found else ""


class UsageError(VmtestError):
    """Wrong arguments, configuration or objects: exit status 2."""


class ConfigError(UsageError):
    """kernels.toml cannot be used; carries every problem found, not the first.

    ``problems`` holds one line a problem, each with its place and cure.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        return ConfigError, (list(self.problems),)


class BuildCommandFailed(UsageError):
    """The build command for the objects failed."""


class InfrastructureError(VmtestError):
    """The host, the network, a mirror or a disk failed: exit status 3."""


class KernelUnavailable(InfrastructureError):
    """A kernel could not be resolved, fetched or imported."""


class KernelBuildFailed(KernelUnavailable):
    """A kernel's tree does not build at this revision."""


class UnbootableKernel(InfrastructureError):
    """A kernel image cannot boot as a guest, and why: found before booting."""


class ImageError(InfrastructureError):
    """The guest's root image could not be built or read."""


class BootError(InfrastructureError):
    """A VM did not come up to an SSH session."""


class SessionLost(VmtestError):
    """The connection to a running guest ended (panic, dead QEMU, reset)."""


class SessionRefused(SessionLost):
    """One side did not accept the other's key."""


class Interrupted(VmtestError):
    """The user ended the run while something was waited for; nothing is wrong."""


class DeadlineExceeded(VmtestError):
    """A deadline passed; ``kind`` is boot, silence, total, stall, or answer.

    The last is our own patience with something simple: copying, starting, killing.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type["DeadlineExceeded"], tuple[str, str]]:
        return DeadlineExceeded, (str(self), self.kind)


class BadLine(VmtestError):
    """A guest sent a line that is not an event, or is out of order; says which line, and why."""


MORE_MEMORY = "give vmtest or its container more memory, or raise its limit (ulimit -v)"
"""What to do where this process or QEMU has too little memory."""
_MORE_THREADS = (
    "raise its limit of processes (ulimit -u, or its container's), or give it more memory"
)
_NO_THREAD = "can't start new thread"  # CPython's words
_NOT_MAPPED = re.compile(r"failed to map segment|[Cc]annot allocate memory")  # glibc's
_CURES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "it is mounted read-only",
    errno.ENOENT: "is its folder still there?",
    errno.ENOTDIR: "is its folder still there?",
    errno.EISDIR: "name a file and not a folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the host has no more descriptors (fs.file-max)",
}


def os_words(error: OSError) -> str:
    """``FILE: No space left on device; make room there``: thing, place and cure."""
    where = f"{error.filename}: " if error.filename else ""
    if words := starved(error):
        return f"{where}{words}"
    cure = _CURES.get(error.errno or 0, "")
    return f"{where}{error.strerror or error}" + (f"; {cure}" if cure else "")


def starved(error: BaseException) -> str:
    """That this process has too little memory, with the cure, where ``error`` means that; "" else.

    The type decides: the words alone may be a test's or a path's.
    """
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    why = ""
    match error:
        case MemoryError():
            why = "MemoryError"
        case OSError(errno=errno.ENOMEM):
            why = str(error.strerror)
        case RuntimeError() if str(error) == _NO_THREAD:
            if not limited:
                return f"vmtest may start no more threads; {_MORE_THREADS}"
            why = _NO_THREAD
        # A library in a folder that is mounted noexec is not mapped either.
        case ImportError() if limited and (found := _NOT_MAPPED.search(str(error))):
            why = found[0]
    return f"vmtest has too little memory ({why}); {MORE_MEMORY}" if why else ""


def bug_words(error: BaseException) -> str:
    """What to say of an exception that nobody expected."""
    if words := starved(error):
        return words
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"a bug in vmtest: {said}; please report it to its maintainers"
