"""Git trees as small as a kernel's gets: real git, real make, a build that copies.

Their Makefile knows the targets that a kernel's has: a config that drops what it does not know,
an image that is committed, modules that are no modules.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from fake_kernels import bzimage

RELEASE = "6.1.9-virtme"
MAKEFILE = """
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 9
EXTRAVERSION =
all:
%:
\tsh build.sh $@ "$(O)" "$(INSTALL_MOD_PATH)"
all:
\tsh build.sh all "$(O)"
Makefile: ;
"""
# olddefconfig: of a symbol that stands more than once the last holds, as in a kernel's.
BUILD = """
set -e
case $1 in
*olddefconfig)
    { echo NONE; cat unknown || true; } > "$2/dropped" 2> /dev/null
    grep -o "CONFIG_[A-Z0-9_]*.*" "$2/.config" | sed "s/ is not set/=n/" |
    awk -F= 'NR==FNR { drop[$1]; next } !($1 in drop) { v[$1]=$2 }
        END { for (k in v) if (v[k] != "n") print k "=" v[k] }' "$2/dropped" - > "$2/new"
    mv "$2/new" "$2/.config"
    echo configured >> "$2/steps" ;;
*defconfig)
    mkdir -p "$2"
    { echo CONFIG_X86_64=y; echo CONFIG_MODULE=m; } > "$2/.config" ;;
all)
    [ ! -e broken ] || { echo "$PWD/net/core/sock.c:7:1: error: expected ;"; exit 2; }
    mkdir -p "$2/arch/x86/boot"
    echo "  CC      a.o"
    echo "  CC      b.o"
    mkdir -p "$2/include/config"
    echo RELEASE > "$2/include/config/kernel.release"
    echo kernel/net/built-in.ko > "$2/modules.builtin"
    touch "$2/modules.order"
    cp image "$2/arch/x86/boot/bzImage"
    echo built >> "$2/steps" ;;
modules_install)
    mkdir -p "$3/lib/modules/RELEASE/kernel"
    cp state "$3/lib/modules/RELEASE/kernel/"
    touch "$3/lib/modules/RELEASE/modules.order" "$3/lib/modules/RELEASE/modules.builtin" ;;
esac
""".replace("RELEASE", RELEASE)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, name: str, content: str | bytes = "") -> str:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "-m", name)
    return git(folder, "rev-parse", "HEAD")


def make_tree(folder: Path) -> Path:
    """A tree in ``folder`` that builds; its file ``state`` becomes a module."""
    folder.mkdir()
    git(folder, "init", "--quiet", "-b", "main")
    commit(folder, "Makefile", MAKEFILE)
    commit(folder, "build.sh", BUILD)
    commit(folder, "image", bzimage(RELEASE))
    commit(folder, "state", "first")
    return folder


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder with its time and content, git's own included.

    Not the time of objects: git, when it would write one that is there, notes its use by that.
    """
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            place = str(path.relative_to(folder))
            time = 0 if place.startswith(".git/objects/") else path.stat().st_mtime_ns
            found[place] = (time, path.read_bytes())
    return found
