"""The options that commands share, and those of the commands with many."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from vmtest.cli import complete
from vmtest.suites.isolate import Isolation
from vmtest.suites.repeat import UNTIL_FAIL
from vmtest.verify import types

_PARAMETER = re.compile(r"`([a-z_]+)`")
_SPELLED = {
    "kernels": "--kernel",
    "suites": "--suite",
    "objects": "--object",
    "types": "--type",
    "accelerator": "--accel",
    "command": "--exec",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            "against", "any_failure", "archive", "bad", "balance", "config", "copy", "fail_on",
            "find", "good", "kconfig", "libbpf", "loader", "on", "program", "results", "resume",
            "shard", "verify",
        )
    },
}  # fmt: skip


def spelled(message: str) -> str:
    """``message`` of an error, with options in the place of the parameters of a call.

    The calls of vmtest.api name those in backquotes.
    """
    return _PARAMETER.sub(lambda found: _SPELLED.get(found[1], found[0]), message)


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The kernels.toml; default: the nearest one."),
]
KERNELS = "NAME|RANGE|tag:TAG|ARCHIVE/VERSION"
KernelOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar=KERNELS,
        help="Which kernels to boot; default tag:default. Repeatable.",
        autocompletion=complete.kernels,
    ),
]
ObjectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--object",
        metavar="NAME=PATH[@RANGE]",
        help="Use this build of an object (only on the kernels in RANGE). Repeatable: vmtest uses "
        "the first one whose RANGE contains the kernel.",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(min=1, help="How many VMs run at once; default: what CPUs and memory allow."),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="local:N|ssh:HOST[:N],...|tcp://HOST:PORT|tls://HOST:PORT",
        help="Run the kernels on a Dask cluster: N workers on this machine, hosts that ssh "
        "reaches (N VMs on each; default: what it has room for), or the workers of a scheduler. "
        "--jobs limits how many VMs run at once on all of them.",
        autocompletion=complete.places,
    ),
]
AccelOption = Annotated[
    str, typer.Option("--accel", metavar="auto|kvm|tcg", help="QEMU's accelerator.")
]
WarmOption = Annotated[
    bool | None,
    typer.Option(
        "--warm/--cold",
        help="--warm: restore guests from snapshots, and save those that boot. --cold: boot every "
        "guest. Default: --cold with KVM, --warm without.",
        show_default=False,
    ),
]
KeepGoingOption = Annotated[
    bool,
    typer.Option(
        "--keep-going",
        help="When a test panics or hangs its kernel, run the others in a fresh guest.",
    ),
]
IsolateOption = Annotated[
    Isolation | None,
    typer.Option("--isolate", help="Give each suite, file or test a guest of its own."),
]
RetriesOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=10,
        help="Run a failed test again in a fresh guest, up to N times; one that passes only then "
        "is called flaky.",
    ),
]
RepeatOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        metavar="N",
        help="Run all tests N times, each time in a fresh guest, and say how often each fails.",
    ),
]
UntilFailOption = Annotated[
    bool,
    typer.Option(
        "--until-fail",
        help=f"Stop repeating once a test fails; without --repeat after {UNTIL_FAIL} runs.",
    ),
]
LockedOption = Annotated[
    bool, typer.Option("--locked", help="Use exactly the kernels that kernels.lock names.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="PART/PARTS",
        help="Run one part of the kernels: 2/4 is the second of four parts. For several machines.",
    ),
]
BalanceOption = Annotated[
    Path | None,
    typer.Option(
        "--balance",
        metavar="RUN",
        help="With --shard: make the parts take equally long, by the durations in this run's "
        "folder or matrix.json, which must be the same on all machines.",
    ),
]

JunitOption = Annotated[
    Path | None,
    typer.Option("--junit", "--junitxml", metavar="FILE", help="Write the results as JUnit XML."),
]
MarkdownOption = Annotated[
    Path | None,
    typer.Option("--markdown", metavar="FILE", help="Write the table as Markdown."),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write the run as one page for a browser."),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.")
]

ColorOption = Annotated[
    str,
    typer.Option("--color", metavar="auto|always|never", help="Whether the text has colours."),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print the causes and the summary only.")
]
GithubOption = Annotated[
    bool | None,
    typer.Option(
        "--github/--no-github",
        help="Write for GitHub: groups, annotations, the step's summary, a comment. Default: in "
        "GitHub Actions.",
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print every failure and every row in full.")
]

PytestOptions = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- OPTIONS OF PYTEST]", help="Passed on to pytest in each kernel."),
]
SuiteOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Which suites to run; default all. Repeatable.", autocompletion=complete.suites
    ),
]
TestsOption = Annotated[
    str | None,
    typer.Option("-k", metavar="EXPRESSION", help="Only tests that match, as for pytest -k."),
]
ExitFirstOption = Annotated[
    bool, typer.Option("-x", help="Stop in a kernel at its first failure, as pytest -x.")
]
MaxFailOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Stop in a kernel after N failures, as pytest --maxfail."),
]
DurationsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="List the N slowest tests in each kernel's pytest.log."),
]
LastFailedOption = Annotated[
    bool,
    typer.Option(
        "--last-failed", "--lf", help="Run only the tests that did not pass in the last runs."
    ),
]
FailedFirstOption = Annotated[
    bool,
    typer.Option(
        "--failed-first", "--ff", help="Run first the tests that did not pass in the last runs."
    ),
]
CollectOption = Annotated[
    bool, typer.Option("--collect-only", help="List the tests of each kernel; run none.")
]
ShellOnFailureOption = Annotated[
    bool,
    typer.Option(
        "--shell-on-failure",
        help="When a kernel fails, open a shell in it. Runs one VM at a time.",
    ),
]

CopyOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|DIR[:GUESTPATH]",
        help="Copy a file or folder into the guest; without GUESTPATH into the working folder.",
    ),
]
ResultsOption = Annotated[
    str | None,
    typer.Option(
        metavar="gotest|tap|junit:PATH",
        help="Read test results from the command's output, or from a JUnit file that it writes.",
    ),
]

ObjectArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OBJECT|DIR|GLOB...",
        help="The object files to load; default: the objects of kernels.toml.",
    ),
]
ProgramOption = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Load only programs with a matching name. Repeatable."),
]
AttachOption = Annotated[
    bool, typer.Option("--attach", help="Also attach each program, and detach it again.")
]
TypeOption = Annotated[
    list[str] | None, typer.Option("--type", metavar=types.METAVAR, help=f"Set {types.HELP}")
]
ModuleOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Load this kernel module first. Repeatable."),
]
LibbpfOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VERSION|newest|PATH",
        help="Load with this version of libbpf. Repeatable: each version gets a column.",
    ),
]
LoaderOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="libbpf|cilium[@VERSION]",
        help="Load with libbpf (the default) or with cilium/ebpf, of the release that go.mod "
        "requires or VERSION. Repeatable: each loader gets a column.",
    ),
]
SaveOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write verdicts and costs of this run as a baseline."),
]
BaselineOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Compare with the baseline in FILE."),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|REV",
        help="Compare with the builds in DIR, or of the git revision REV, in the same boot.",
    ),
]
FailOnOption = Annotated[
    str | None,
    typer.Option(
        metavar="WORDS",
        help="What makes the run fail, joined by commas: rejected, regressed (was accepted "
        "before), drift (the kernel moved on and the result changed), limit (within a tenth of "
        "the instruction limit), attach, +N% (costs N% more), nothing. Default: rejected, and "
        "regressed if there is a comparison.",
    ),
]
FromRunOption = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Judge the results of an old run; boot nothing.",
        autocompletion=complete.run_names,
    ),
]
CsvOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write a CSV file for each kernel, in veristat's format."),
]
LogLevelOption = Annotated[
    int,
    typer.Option(
        metavar="1|2|4",
        help="The verifier's log level: 1 (instructions), 2 (every state), 4 (only statistics).",
    ),
]
LogLimitOption = Annotated[
    str, typer.Option(metavar="SIZE", help="Cut a verifier log that is longer than this.")
]
LoadTimeoutOption = Annotated[
    float,
    typer.Option(
        min=0.1,
        metavar="SECONDS",
        help="The time limit of one load. Without KVM, vmtest stretches it.",
    ),
]
