"""``vmtest run``: the matrix."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from vmtest.api import project
from vmtest.api.cluster import engine_on, vms_here
from vmtest.api.record import Recording, builds_of, carry_out
from vmtest.api.run import noted
from vmtest.api.shards import shard_of
from vmtest.api.suites import SuitesRequest, plan_suites
from vmtest.cli import common, options
from vmtest.cli.again import again
from vmtest.cli.look import Look, show
from vmtest.cli.reports import Reports
from vmtest.cli.terminal import InteractiveHold
from vmtest.errors import UsageError
from vmtest.model.project import Config, ObjectFile
from vmtest.model.results import Matrix
from vmtest.suites.isolate import Isolation
from vmtest.suites.repeat import UNTIL_FAIL, Repeat

EXAMPLE = """Boot kernels and run the suites in each.

Example: [bold]vmtest run --kernel '>=6.1,<6.13' --suite sendmsg -k ipv4 -x[/bold]
"""


def run(
    context: typer.Context,
    pytest_options: options.PytestOptions = None,
    kernel: options.KernelOption = None,
    suite: options.SuiteOption = None,
    expression: options.TestsOption = None,
    exitfirst: options.ExitFirstOption = False,
    maxfail: options.MaxFailOption = None,
    durations: options.DurationsOption = None,
    collect_only: options.CollectOption = False,
    last_failed: options.LastFailedOption = False,
    failed_first: options.FailedFirstOption = False,
    jobs: options.JobsOption = None,
    on: options.OnOption = None,
    shard: options.ShardOption = None,
    balance: options.BalanceOption = None,
    object_: options.ObjectOption = None,
    config: options.ConfigOption = None,
    accel: options.AccelOption = "auto",
    warm: options.WarmOption = None,
    keep_going: options.KeepGoingOption = False,
    isolate: options.IsolateOption = None,
    retries: options.RetriesOption = 0,
    repeat: options.RepeatOption = None,
    until_fail: options.UntilFailOption = False,
    junit_file: options.JunitOption = None,
    markdown_file: options.MarkdownOption = None,
    json_file: options.JsonOption = None,
    html_file: options.HtmlOption = None,
    shell_on_failure: options.ShellOnFailureOption = False,
    locked: options.LockedOption = False,
    color: options.ColorOption = "auto",
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    github: options.GithubOption = None,
) -> None:
    """Run the matrix; the module's EXAMPLE is its help."""
    with common.reported():
        _check_together(last_failed and failed_first, bool(on) and shell_on_failure)
        _check_that_it_may_stop(exitfirst or maxfail is not None, keep_going, isolate, retries)
        look, given = Look.asked(color, quiet, verbose, github), _passed_on(pytest_options or [])
        chosen = (tuple(kernel or ()), tuple(suite or ()), tuple(object_ or ()))
        request = SuitesRequest(
            *chosen,
            options=_pytest_options(expression, exitfirst, maxfail, durations, collect_only, given),
            narrowed=expression is not None or bool(given),
            locked=locked,
            jobs=1 if shell_on_failure else jobs,
            shard=shard_of(shard, balance),
            accelerator=common.check_accelerator(accel),
            warm=warm,
            keep_going=keep_going,
            last_failed=last_failed,
            failed_first=failed_first,
            isolate=isolate,
            retries=retries,
            repeat=_repeated(repeat, until_fail, retries),
        )
        reports = Reports(junit_file, markdown_file, json_file, html_file)
        _carry_out(project.load_config(config), request, look, reports, context)


def _carry_out(
    settings: Config,
    request: SuitesRequest,
    look: Look,
    reports: Reports,
    context: typer.Context,
) -> NoReturn:
    """Run what was asked for, and show it; ``context`` has all the options."""
    on = context.params["on"]
    view = look.view(sys.stdout)
    say = noted(view.handle)
    with engine_on(on, say, settings.kernels) as engine:
        room = reports.make_room
        planned = plan_suites(settings, request, say, room, here=vms_here(on))
        hold = InteractiveHold(view) if context.params["shell_on_failure"] else None
        recording = Recording(
            planned.builds, arguments=sys.argv[1:], write=reports.write, again=again(context)
        )
        with view:
            matrix = carry_out(planned.plan, view.handle, recording, hold, engine=engine)
    if planned.collects:
        show_collected(matrix, settings, planned.builds)
    show(matrix, planned.plan.folder, sys.stdout, look)
    reports.render(matrix, planned.plan.folder)
    reports.end(matrix)


def _repeated(repeat: int | None, until_fail: bool, retries: int) -> Repeat:
    if retries and (repeat or until_fail):
        raise UsageError(
            f"{'--repeat' if repeat else '--until-fail'} and --retries do not go together: "
            "leave one out"
        )
    return Repeat(repeat or (UNTIL_FAIL if until_fail else 1), until_fail)


def _check_together(both_of_the_last: bool, shell_elsewhere: bool) -> None:
    if both_of_the_last:
        raise UsageError("--last-failed and --failed-first: give one of them")
    if shell_elsewhere:
        raise UsageError(
            "--shell-on-failure opens a shell in a guest of this machine: leave --on out"
        )


def _check_that_it_may_stop(
    stops: bool, keep_going: bool, isolate: Isolation | None, retries: int
) -> None:
    """Raise UsageError for what is at odds with a run that ``stops`` at a failure."""
    if not stops:
        return
    if keep_going:
        raise UsageError("--keep-going goes on after a failure: leave -x and --maxfail out")
    if retries:
        raise UsageError(
            "--retries runs what failed again once all have run: leave -x and --maxfail out"
        )
    if isolate is not None:
        raise UsageError(
            "--isolate has a pytest in each guest, which counts its own failures: leave -x and "
            "--maxfail out"
        )


def _passed_on(options: list[str]) -> list[str]:
    """What followed ``--``; raises UsageError for a word that did not."""
    if options and not options[0].startswith("-"):
        raise UsageError(
            f"{options[0]}: vmtest run takes no such argument; name a kernel with --kernel, "
            "a suite with --suite; options of pytest come after --, as in: vmtest run -- --upstream"
        )
    return options


def _pytest_options(
    expression: str | None,
    exitfirst: bool,
    maxfail: int | None,
    durations: int | None,
    collect_only: bool,
    given: Sequence[str],
) -> tuple[str, ...]:
    options = []
    if expression is not None:
        options += ["-k", expression]
    if exitfirst:
        options.append("-x")
    if maxfail is not None:
        options.append(f"--maxfail={maxfail}")
    if durations is not None:
        options.append(f"--durations={durations}")
    if collect_only:
        options.append("--collect-only")
    return (*options, *given)


def show_collected(matrix: Matrix, settings: Config, builds: tuple[ObjectFile, ...]) -> None:
    """Print the tests that would run and the builds they would get, kernels that agree together."""
    lists: dict[tuple[str, ...], list[str]] = {}
    given: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for result in matrix.kernels:
        lists.setdefault(tuple(test.test for test in result.tests), []).append(result.kernel)
        if result.objects:
            chosen = tuple(builds_of(result, settings, builds).items())
            given.setdefault(chosen, []).append(result.kernel)
    for tests, kernels in lists.items():
        common.say("\n".join([*tests, f"{len(tests)} tests on {', '.join(kernels)}", ""]))
    for chosen, kernels in given.items():
        paths = (f"  {name}: {path}" for name, path in chosen)
        common.say("\n".join([f"objects on {', '.join(kernels)}:", *paths, ""]))
