"""Runs in a guest that is saved: a Python that has loaded pytest and waits to become a script.

A restored guest would spend seconds of an emulated processor on those imports.  A shell (WORDS)
writes its process id into the FIFO at PLACE.  A child of this process takes the shell's streams,
working folder, umask and arguments, and runs the script that they name.  That happens once.
What would not be the same as in a new Python is refused, and the shell starts one.
"""

import importlib.machinery
import os
import random
import signal
import site
import sys
import types
from pathlib import Path

PLACE = "/run/vmtest/standby"
"""The FIFO in the guest; the agent makes it, and PLACE.pid and PLACE.status beside it."""

WORDS = f"""
exec 3<&0 4>&1 5>&2
if [ -p {PLACE} ] && read -r pid <{PLACE}.pid && kill -0 "$pid" 2>/dev/null &&
    (set -C && : >{PLACE}.taken) 2>/dev/null; then
    echo $$ 1<>{PLACE}
    exec 7<>{PLACE}.status 6<{PLACE}.status 7<&-
    if read -r answer <&6 && [ "$answer" = go ]; then
        read -r status <&6 || status=137
        exit "$status"
    fi
fi
exec "$@" 3<&- 4>&- 5>&- 6<&-
"""
"""A shell's script that runs its arguments: by the standby if it can, else by itself.

The FIFO of the status is opened for both ways first: to read one that nobody writes to, because
the standby has died since it was asked for, would wait for ever.
"""

END = (
    f'[ ! -e {PLACE}.pid ] || {{ read -r pid <{PLACE}.pid; kill "$pid"; rm {PLACE}*; }} 2>/dev/null'
)
"""A shell's words that end the standby, where nothing of ours may run beside a user's command."""

_ITSELF = 4  # sh -c SCRIPT sh: what stands before the arguments on the shell's command line
_STREAMS = ((3, os.O_RDONLY), (4, os.O_WRONLY), (5, os.O_WRONLY))
OWN = (
    "vmtest.guest.bytecode",
    "vmtest.guest.plugin",
    "vmtest.guest.plugins.failed",
    "vmtest.guest.plugins.known_failures",
    "vmtest.guest.plugins.needs",
)
"""What the script of the suites imports of ours, and what it names to pytest."""

_OFF = ("stepwise",)  # with -p no:cacheprovider
_CUSTOMIZERS = {"sitecustomize", "usercustomize"}  # imported when Python starts, and only then
_HARMLESS = (b"PYTHONPATH", b"PYTHONDONTWRITEBYTECODE")


class Refused(Exception):
    """The script would not run as in a new Python."""


def load() -> None:
    """Import what every pytest imports before it looks at a project, and nothing else.

    A project may have modules of any name: one that it would find first must not be here already.
    """
    config = importlib.import_module("_pytest.config")
    for name in config.default_plugins:
        if name not in _OFF:
            importlib.import_module(f"_pytest.{name}")


def load_own(folder: str) -> None:
    """Import what of our own code every pytest imports, from ``folder``, where a payload has it."""
    sys.path.insert(0, folder)
    for name in OWN:
        importlib.import_module(name)
    sys.path.remove(folder)
    # No payload is here yet: what this process compiles is nobody else's work.
    sys.modules[OWN[0]].CLEAN = True  # type: ignore[attr-defined]


def parsed(words: list[bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The environment and the script with its arguments of ``env -i A=B ... PYTHON [-S] ...``."""
    if words[:2] != [b"env", b"-i"]:
        raise Refused
    rest = words[2:]
    environment = {}
    while rest and b"=" in rest[0]:
        name, _, value = rest.pop(0).partition(b"=")
        environment[name] = value
    if not rest or rest.pop(0) != os.fsencode(sys.executable):
        raise Refused
    if rest[:1] == [b"-S"]:
        rest.pop(0)
    if not rest or rest[0].startswith(b"-"):
        raise Refused
    return environment, rest


def check(environment: dict[bytes, bytes]) -> None:
    """Raise Refused where a new Python would read what this one has not, or other modules."""
    special = {name for name in environment if name.startswith((b"PYTHON", b"LD_"))}
    if special.difference(_HARMLESS):
        raise Refused
    if site_files() != SITE_FILES:
        raise Refused  # wheels were laid over the image
    unseen = _CUSTOMIZERS - sys.modules.keys()
    specs = {name: getattr(module, "__spec__", None) for name, module in sys.modules.items()}
    left = {
        name: str(spec.origin)
        for name, spec in specs.items()
        if "." not in name and spec and spec.has_location
    }
    for folder in (*folders(os.fsdecode(environment.get(b"PYTHONPATH", b""))), *sys.path[1:]):
        names = {path.name.partition(".")[0] for path in Path(folder).glob("*")}
        here = left.keys() & names
        if unseen & names or not all(left.pop(name).startswith(f"{folder}/") for name in here):
            raise Refused


def site_files() -> set[str]:
    """What Python looks for when it starts, and never again: site folders and their .pth files."""
    there = {folder for folder in site.getsitepackages() if Path(folder).is_dir()}
    return there.union(*({str(file) for file in Path(folder).glob("*.pth")} for folder in there))


SITE_FILES = site_files()


def folders(pythonpath: str) -> list[str]:
    """The folders that a PYTHONPATH names."""
    return [folder for folder in pythonpath.split(":") if folder]


def become(client: int, streams: list[int], environment: dict[bytes, bytes]) -> None:
    """Take over from the process ``client`` all that a new process would have had of it."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    lines = Path(f"/proc/{client}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    os.umask(int(status["Umask"][0], 8))
    groups = list(map(int, status["Groups"]))
    if groups != os.getgroups():  # which only root may change
        os.setgroups(groups)
    os.chdir(f"/proc/{client}/cwd")
    os.environb.clear()
    os.environb.update(environment)


def run(argv: list[bytes]) -> None:
    """Run the script ``argv[0]`` as Python runs one that it is started with."""
    sys.argv = list(map(os.fsdecode, argv))
    sys.orig_argv = [sys.executable, *sys.argv]
    script = Path(sys.argv[0])
    sys.path[:1] = [str(script.parent), *folders(os.environ.get("PYTHONPATH", ""))]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    random.seed()  # every guest of the snapshot has the same state
    importlib.invalidate_caches()
    code = compile(script.read_bytes(), script, "exec", dont_inherit=True)
    main = types.ModuleType("__main__")
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", str(script))
    vars(main).update(__file__=str(script), __cached__=None, __annotations__={})
    sys.modules["__main__"] = main
    exec(code, vars(main))


def serve(client: int) -> None:
    """Run what ``client`` is to run, in a child, and tell it how that ended."""
    answers = os.open(f"{PLACE}.status", os.O_WRONLY)  # once it listens
    try:
        words = Path(f"/proc/{client}/cmdline").read_bytes().split(b"\0")[:-1]
        environment, argv = parsed(words[_ITSELF:])
        check(environment)
        streams = [os.open(f"/proc/{client}/fd/{number}", how) for number, how in _STREAMS]
    except Exception:  # a new Python says what is wrong, if anything is
        os.write(answers, b"no\n")
        return
    os.write(answers, b"go\n")
    os.setsid()  # as sshd does for a shell: the script's process leads neither session nor group
    child = os.fork()
    if child == 0:
        become(client, streams, environment)
        run(argv)
        return
    for stream in streams:
        os.close(stream)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(answers, b"%d\n" % (code if code >= 0 else 128 - code))


if __name__ == "__main__":
    # A shell that starts it in the background has these ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    load()
    load_own(sys.argv[1])
    # Before it is ready: what is written while nobody has the FIFO open is lost.
    asked = os.open(PLACE, os.O_RDWR)
    os.write(1, b"ready\n")
    serve(int(os.read(asked, 64)))
