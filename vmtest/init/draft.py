"""The files that ``vmtest init`` writes, from what a repository has.  Pure."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import PurePosixPath

from vmtest.init.look import Found

_OWN = ".vmtest/"
_MAKE = "make"
_TARGET = PurePosixPath("build")
SCHEMA = f"{_OWN}kernels.schema.json"
"""Where the schema lies that an editor reads, beside kernels.toml."""
_HEAD = f"""\
#:schema ./{SCHEMA}
# An editor with Taplo completes this file. `vmtest schema kernels.toml > {SCHEMA}`
# writes what it reads, in another clone or for another vmtest.

# Which kernels vmtest boots, and what it runs in them. `vmtest kernels list` shows what these are
# today, `vmtest verify` loads the objects, `vmtest run` runs the suites.
schema = 1

# The kernels are packages of this archive.
[apt.debian]
suites = ["bullseye-security", "bookworm-security", "trixie-security", "trixie-backports"]
"""
_KERNEL = """
[[kernel]]
name = "{name}"
apt = "debian"
version = "{version}"
suites = ["{suite}"]
tags = ["default"]
"""
_KERNELS = (
    ("5.10", "5.10.*", "bullseye-security"),
    ("6.1", "6.1.*", "bookworm-security"),
    ("6.12", "6.12.*", "trixie-security"),
    ("newest", "*", "trixie-backports"),
)


def ignored(found: Found) -> tuple[str, ...]:
    """What ``.gitignore`` needs: vmtest's folder, and that of the objects that it builds."""
    return (_OWN, f"{_TARGET}/") if _vmtest_builds(found) else (_OWN,)


def kernels_toml(found: Found) -> str:
    """The text of a kernels.toml for ``found``."""
    objects = named(built(found))
    parts = [_HEAD, *(_KERNEL.format(name=n, version=v, suite=s) for n, v, s in _KERNELS)]
    command = build_command(found)
    if command:
        parts.append(f"\n# Runs before anything is loaded.\n[build]\ncommand = {_list(command)}\n")
    for name, path in objects.items():
        parts.append(f'\n[[object]]\nname = "{name}"\npath = {_text(str(path))}\n')
    if not objects and not only_tests(found):
        parts.append(
            "\n# Add each BPF object as soon as it can be built:\n"
            '# [[object]]\n# name = "mine"\n# path = "build/mine.bpf.o"\n'
        )
    suites = _suites(found, list(objects))
    if suites:
        parts.append(
            "\n# The guest has Python and pytest. What your tests import beside the project's own\n"
            "# code goes into its image:\n"
            '# [guest]\n# packages = ["python3-yaml"]\n'
        )
    return "".join([*parts, *suites])


def before_the_build(found: Found) -> str:
    """What kernels_toml wrote for ``found`` while no object was built."""
    return kernels_toml(replace(found, objects=()))


def without_schema(text: str) -> str:
    """The text of a kernels.toml without the lines about its schema, which older ones have not."""
    head, _, rest = text.partition("\n\n")
    return rest if head.startswith("#:schema") else text


def only_tests(found: Found) -> bool:
    """Whether ``go test`` and ``cargo test`` are all that there is to run."""
    return (found.go or found.cargo) and not (found.tests or found.sources or found.objects)


def _vmtest_builds(found: Found) -> bool:
    return build_command(found)[:1] == ("vmtest",)


def build_command(found: Found) -> tuple[str, ...]:
    """What makes the objects: the project's Makefile, else vmtest itself; () for nothing to make.

    Go projects keep the objects of bpf2go in git.
    """
    if not found.sources or (found.go and found.objects):
        return ()
    folder = _makefile_for(found)
    if folder is not None:
        return (_MAKE,) if folder == PurePosixPath() else (_MAKE, "-C", str(folder))
    return ("vmtest", "build", "--source", str(_folder(found.sources)), "--target", str(_TARGET))


def _makefile_for(found: Found) -> PurePosixPath | None:
    """The folder whose Makefile builds the sources: the project's, else the nearest above them."""
    if PurePosixPath() in found.makefiles:
        return PurePosixPath()
    folder = _folder(found.sources)
    return next((above for above in (folder, *folder.parents) if above in found.makefiles), None)


def built(found: Found) -> tuple[PurePosixPath, ...]:
    """The objects of the project: those that are there, else those that ``vmtest build`` makes."""
    if not _vmtest_builds(found):
        return found.objects
    folder = _folder(found.sources)
    return tuple(
        _TARGET / path.relative_to(folder).with_suffix(".o") for path in sorted(found.sources)
    )


def named(objects: Sequence[PurePosixPath]) -> Mapping[str, PurePosixPath]:
    """``objects`` by the names that kernels.toml gives them."""
    names: dict[str, PurePosixPath] = {}
    for path in objects:
        own = _name(_SUFFIX.sub("", path.name)) or "object"
        names[_free(names, own, _name(f"{path.parent.name}-{own}"))] = path
    return names


def _free(taken: Container[str], *wanted: str) -> str:
    """The first of ``wanted`` that is not ``taken``, else its first one with a number."""
    numbered = (f"{wanted[0]}-{number}" for number in count(2))
    return next(name for name in chain(wanted, numbered) if name not in taken)


_SUFFIX = re.compile(r"(\.bpf|_(x86_)?bpfel|_(x86_)?bpf)?\.o$")


def _name(text: str) -> str:
    """``text`` as kernels.toml takes a name, "" where nothing of it is left."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", text).lstrip("._+-")


def _folder(sources: Sequence[PurePosixPath]) -> PurePosixPath:
    """The folder that all ``sources`` lie in."""
    common = sources[0].parent
    while not all(path.is_relative_to(common) for path in sources):
        common = common.parent
    return common


def _suites(found: Found, objects: Sequence[str]) -> list[str]:
    folders: dict[str, PurePosixPath] = {}
    for folder in found.tests:
        folders[_free(folders, _name(folder.name) or "tests")] = folder
    return [
        f'\n[[suite]]\nname = "{name}"\ntests = {_text(str(folder))}\n'
        f'root = "."                # the whole project goes along, and pytest runs here\n'
        f"pythonpath = {_list([found.pythonpath])}\nobjects = {_list(objects)}\n"
        for name, folder in folders.items()
    ]


def _list(words: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, words))}]"


def _text(text: str) -> str:
    # A string of TOML is one of JSON, but for the pairs of escapes that stand for one letter there.
    return json.dumps(text, ensure_ascii=False)


def workflow(found: Found) -> str:
    """A workflow of GitHub Actions that runs what kernels.toml has."""
    return _GITHUB.replace("COMMANDS\n", textwrap.indent(commands(found), " " * 10))


def gitlab(found: Found) -> str:
    """A job of GitLab's CI that runs what kernels.toml has."""
    lines = textwrap.indent(commands(found), " " * 6)
    packages = ["python3-venv", "git"]
    packages += ["make"] if build_command(found)[:1] == (_MAKE,) else []
    if only_tests(found):
        packages += [name for name, there in _TOOLS if there(found)]
    text = _GITLAB.replace("COMMANDS\n", f"    - |\n{lines}")
    text = text.replace("PACKAGES", " ".join(packages))
    return text if only_tests(found) else text + _GITLAB_REPORT


def commands(found: Found) -> str:
    """The lines of a job: the suites where there are some, else what there is."""
    if only_tests(found):
        tests = "".join(f"  {line}\n" for line in tests_in("$kernel", '"$PWD/.venv/bin/', found))
        return f"for kernel in {' '.join(name for name, *_ in _KERNELS)}; do\n{tests}done\n"
    return f".venv/bin/vmtest {'run' if found.tests else 'verify'} --junit junit.xml\n"


_TOOLS: tuple[tuple[str, Callable[[Found], bool]], ...] = (
    ("golang-go", lambda found: found.go),
    ("cargo", lambda found: found.cargo),
)
"""The packages of Debian's for the tests of a project that has nothing else."""


def tests_in(kernel: str, opening: str, found: Found) -> list[str]:
    """The commands that run the tests of Go and Rust in ``kernel``.

    ``opening`` is a quotation mark, and the folder of vmtest.
    """
    runner = f"{opening}vmtest go-exec --kernel {kernel}{opening[0]}"
    lines = [f"CGO_ENABLED=0 go test -exec {runner} ./..."] if found.go else []
    lines += [f"CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER={runner} cargo test"] * found.cargo
    return lines


_GITHUB = """\
# Written by `vmtest init`. VMTEST, a variable of the repository, says where pip gets vmtest from (a
# git URL or a wheel). The other two may name other mirrors of Debian's, whose kernels these are.
name: kernels
on: [push, pull_request]
permissions:
  contents: read
jobs:
  kernels:
    runs-on: ubuntu-24.04
    timeout-minutes: 60
    env:
      VMTEST: ${{ vars.VMTEST }}
      VMTEST_DEBIAN_MIRROR: ${{ vars.VMTEST_DEBIAN_MIRROR }}
      VMTEST_DEBIAN_SECURITY_MIRROR: ${{ vars.VMTEST_DEBIAN_SECURITY_MIRROR }}
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - name: Let this user open /dev/kvm
        run: test ! -e /dev/kvm || sudo chmod a+rw /dev/kvm
      - name: Let this user make the namespace that builds the guest image
        run: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0
      - uses: actions/cache@v4
        with:
          path: ~/.cache/vmtest
          key: vmtest-${{ hashFiles('kernels.toml') }}-${{ github.run_id }}
          restore-keys: vmtest-${{ hashFiles('kernels.toml') }}-
      - run: |
          python3 -m venv .venv
          .venv/bin/pip install "$VMTEST"
          .venv/bin/vmtest setup
COMMANDS
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: run
          path: .vmtest/runs
          include-hidden-files: true
"""
_GITLAB = """\
# Written by `vmtest init`. VMTEST says where pip gets vmtest from (a git URL or a wheel): a
# variable of the project. Debian's mirrors are those of the image.
kernels:
  image: debian:trixie
  timeout: 1h
  variables:
    VMTEST_CACHE: $CI_PROJECT_DIR/.cache/vmtest
  cache:
    key:
      files: [kernels.toml]
    paths: [.cache/vmtest]
  script:
    - apt-get update && apt-get install -y --no-install-recommends PACKAGES
    - python3 -m venv .venv
    - .venv/bin/pip install "$VMTEST"
    - .venv/bin/vmtest setup
COMMANDS
  artifacts:
    when: always
    paths: [.vmtest/runs]
"""
_GITLAB_REPORT = """\
    reports:
      junit: junit.xml
"""
