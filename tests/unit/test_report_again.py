"""The command that runs a cause again is the same run: the options that decide stay."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from vmtest.api import run as api
from vmtest.api.command import CommandRequest
from vmtest.api.record import Recording
from vmtest.cli.again import again
from vmtest.cli.main import app
from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report import github, terminal
from vmtest.report.again import command_of, command_of_run
from vmtest.report.causes import causes
from vmtest.report.html import page
from vmtest.runs import matrix_json
from vmtest.watch.due import What
from vmtest.watch.session import command_line

FAILED = TestResult("test_s.py::test_x", "s", Outcome.FAILED, message="assert 1 == 2")
REFUSED = LoadResult("x", "p", Verdict.REJECTED, line="R0 !read_ok")


def kernel(**more: Any) -> KernelResult:
    return KernelResult("6.12", **{"status": Status.FAILED, **more})


def matrix(command_line: str, of: KernelResult) -> Matrix:
    """The matrix of a run of ``vmtest COMMAND_LINE`` on the kernel ``of``."""
    name, *arguments = shlex.split(command_line)
    group: Any = typer.main.get_command(app)
    context = group.commands[name].make_context(name, arguments)
    command = tuple(context.params["command"]) if name == "exec" else ()
    ran = Matrix(SCHEMA, "run", "2026-05-09T07:35:25Z", 1.0, ("s",), (of,), command=command)
    return replace(ran, again=again(context))


def told(command_line: str, of: KernelResult) -> str:
    ran = matrix(command_line, of)
    return command_of(causes(ran)[0], ran)


WHOLE = [
    (
        "run --suite s --kernel 6.12 --markdown /private/x.md -- -x",
        "run --kernel 6.12 --suite s -- -x",
    ),
    ("verify ./x.o --json /private/x.json --loader cilium", "verify --kernel 6.12"),
    ("exec --copy f --junit /private/x -- prog --token=secret", "exec --kernel 6.12"),
]


@pytest.mark.parametrize(("typed", "begins"), WHOLE)
def test_the_command_of_a_whole_run_has_what_decides_and_no_report(typed: str, begins: str) -> None:
    ran = matrix(typed, kernel(tests=(FAILED,)))
    whole = command_of_run(ran)
    assert whole.startswith(f"vmtest {begins}")
    assert "/private" not in whole
    assert "secret" not in whole
    shown = page.render(ran, page.Memory({"arguments": shlex.split(typed)}))
    head = unescape(shown[: shown.index("</header>")])
    assert f'<code>{whole}</code> <button type="button" class="copy"' in head
    assert "/private" not in head


@pytest.mark.parametrize("arguments", [["bisect", "--good", "6.1"], ["merge", "a", "b"]])
def test_a_run_of_another_command_shows_what_was_typed(arguments: list[str]) -> None:
    ran = matrix("run --suite s", kernel(tests=(FAILED,)))
    shown = page.render(ran, page.Memory({"arguments": arguments}))
    assert f"<dd>vmtest {' '.join(arguments)}</dd>" in shown


def test_the_command_of_a_whole_run_leaves_out_no_kernel() -> None:
    ran = matrix("run", kernel(tests=(FAILED,)))
    assert command_of_run(replace(ran, kernels=ran.kernels * 13)) == ""
    assert command_of_run(replace(ran, again=())) == ""
    assert command_of_run(replace(ran, kernels=())) == ""


def commented(of: Matrix) -> str:
    return github.comment(of, github.deciding(of))


@pytest.mark.parametrize(
    "options",
    [
        "--attach --fail-on regressed,+20% --baseline base.json",
        "--config 'other dir/k.toml'",
        "--module nf_conntrack --libbpf 1.4 --libbpf newest",
        "--against HEAD~1 --log-level 2 --log-limit 1M --timeout 5.0",
        "--accel tcg --cold",
    ],
)
def test_a_verify_keeps_what_decides_its_verdicts(options: str) -> None:
    words = told(f"verify --kernel 6.12 {options}", kernel(loads=(REFUSED,)))
    ends = ["--program", "p"]
    assert words.startswith("vmtest verify x --kernel 6.12 ")
    assert sorted(shlex.split(words)[5:]) == sorted([*shlex.split(options), *ends])


def test_reports_and_the_choice_of_kernels_are_not_repeated() -> None:
    options = "--kernel '>=6' --shard 1/2 --json j --html h --csv c --save s -q --jobs 2"
    words = told(f"verify {options}", kernel(loads=(REFUSED,)))
    assert words == "vmtest verify x --kernel 6.12 --program p"


def test_a_verify_whose_kernel_did_not_boot_is_no_run() -> None:
    of = kernel(status=Status.BOOT_FAILED, reason="no boot")
    words = told("verify a.o --program 'x*'", of)
    assert words == "vmtest verify --kernel 6.12 a.o --program 'x*'"


def test_a_run_keeps_objects_the_configuration_and_what_goes_to_pytest() -> None:
    line = "run --config k.toml --object bad=other.o --isolate test -- -v --maxfail=5"
    assert told(line, kernel(tests=(FAILED,))) == (
        "vmtest run --kernel 6.12 --object bad=other.o --config k.toml --isolate test "
        "--suite s -k test_x -- -v --maxfail=5"
    )


def test_tests_that_failed_stand_for_the_expression_that_chose_them() -> None:
    words = told("run -k 'x and not y' --suite s --lf", kernel(tests=(FAILED,)))
    assert words == "vmtest run --kernel 6.12 --suite s -k test_x"


def test_an_expression_that_chose_nothing_is_repeated() -> None:
    of = kernel(status=Status.NO_TESTS, reason="no tests")
    assert told("run -k nomatch", of) == "vmtest run --kernel 6.12 -k nomatch"


def test_an_exec_is_told_with_its_command() -> None:
    line = "exec --kernel 6.12 --copy t.sh --results tap -- ./t.sh --fast 'a b'"
    assert told(line, kernel(tests=(FAILED,))) == (
        "vmtest exec --kernel 6.12 --copy t.sh --results tap -- ./t.sh --fast 'a b'"
    )


def test_secrets_are_not_repeated() -> None:
    line = "exec --copy t.sh -- ./t.sh --token s3cret PASSWORD=s3cret"
    assert "s3cret" not in told(line, kernel(tests=(FAILED,)))
    line = "run --on tcp://me:s3cret@host:1 -- --api-key s3cret"
    assert "s3cret" not in matrix_json.dumps(matrix(line, kernel(tests=(FAILED,))))


@pytest.mark.parametrize(
    "options",
    [
        "--object auth=a.o --object token=b.o@5.10",
        "--config /x/token=1/k.toml",
    ],
)
def test_options_of_vmtest_that_are_called_like_a_secret_stay(options: str) -> None:
    words = shlex.split(told(f"run {options}", kernel(tests=(FAILED,))))
    assert [word for word in shlex.split(options) if word not in words] == []


@pytest.mark.parametrize("options", ["--type auth=xdp", "--against token=1", "--program 'token=*'"])
def test_programs_and_builds_called_like_a_secret_stay(options: str) -> None:
    of = kernel(status=Status.BOOT_FAILED, reason="no boot")
    words = shlex.split(told(f"verify {options}", of))
    assert words[-2:] == shlex.split(options)


def test_a_token_of_a_known_shape_goes_from_any_option() -> None:
    token = "ghp_" + "a" * 36
    assert token not in told(f"run --config {token}/k.toml", kernel(tests=(FAILED,)))


@pytest.mark.parametrize("render", [terminal.render, page.render, commented])
def test_a_command_with_something_masked_says_so(render: Callable[[Matrix], str]) -> None:
    masked = render(matrix("run -- --auth-mode mutual", kernel(tests=(FAILED,))))
    assert "(fill in `***`)" in masked
    assert "(fill in" not in render(matrix("run", kernel(tests=(FAILED,))))


@pytest.mark.parametrize(
    "groups",
    [
        (("run",), ()),
        ((),),
        (("rm", "-rf"),),
        (("run; rm",),),
        (("run",), ("--config", "\x1b[2Jk.toml")),
        (("run",), ("--config", "\u202ek.toml")),
        (("exec",),),  # without what it ran
    ],
)
def test_what_is_no_command_line_of_vmtests_is_not_told(
    groups: tuple[tuple[str, ...], ...],
) -> None:
    of = replace(matrix("run", kernel(tests=(FAILED,))), again=groups)
    assert command_of(causes(of)[0], of) == ""
    assert "\x1b" not in terminal.render(of)


def test_a_command_of_several_lines_is_told() -> None:
    line = "exec --copy t.sh -- sh -c 'a\nb'"
    assert told(line, kernel(tests=(FAILED,))).endswith("-- sh -c 'a\nb'")


@pytest.mark.parametrize(
    ("line", "of", "words"),
    [
        ("watch --config k.toml --cold -k x --kernel 5.10", kernel(tests=(FAILED,)),
         "vmtest run --kernel 6.12 --cold --config k.toml --suite s -k test_x"),
        ("watch --loader cilium -k x", kernel(tests=(FAILED,)),
         "vmtest run --kernel 6.12 --suite s -k test_x"),
        ("watch --suite s --config k.toml", kernel(loads=(REFUSED,)),
         "vmtest verify x --kernel 6.12 --config k.toml --program p"),
        ("watch verify a.o --accel tcg --bell", kernel(status=Status.BOOT_FAILED, reason="no boot"),
         "vmtest verify --kernel 6.12 a.o --accel tcg"),
    ],
)  # fmt: skip
def test_what_a_watch_did_is_done_once(line: str, of: KernelResult, words: str) -> None:
    ran = matrix(line, of)
    what = What.RUN if of.tests else What.VERIFY
    ran = replace(ran, again=command_line(what, ran.again[1:]))
    assert command_of(causes(ran)[0], ran) == words


def test_a_call_of_the_api_has_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def carried(plan: object, emit: object, recording: Recording, **more: object) -> Matrix:
        heard.append(recording.again)
        return matrix("run", kernel(tests=(FAILED,)))

    folder = SimpleNamespace(path=tmp_path)
    planned = SimpleNamespace(plan=SimpleNamespace(folder=folder), builds=(), copied={})
    monkeypatch.setattr(api, "carry_out", carried)
    for name in ("plan_suites", "plan_command"):
        monkeypatch.setattr(api, name, lambda *given: planned)
    monkeypatch.setattr(api, "plan_verify", lambda *given: planned.plan)
    settings: Any = None
    for ran in (api.run_suites(settings), api.verify_objects(settings)):
        of = replace(ran.matrix, again=heard.pop())
        assert command_of(causes(of)[0], of) == ""
    assert api.run_command(settings, CommandRequest(("x",))).folder == tmp_path
    assert heard == [(("call",),)]


def test_objects_stay_as_given_where_a_kernel_as_a_whole_went_wrong() -> None:
    loaded = LoadResult("build/other.o", "p", Verdict.ACCEPTED)
    of = kernel(status=Status.BOOT_FAILED, reason="no boot", loads=(loaded,))
    assert told("verify 'build/*.o'", of) == "vmtest verify --kernel 6.12 'build/*.o'"
    assert told("verify", of) == "vmtest verify --kernel 6.12"


def test_an_object_that_begins_with_a_dash_is_no_option() -> None:
    refused = replace(REFUSED, object="-weird.o")
    line = "verify -- -weird.o"
    assert told(line, kernel(loads=(refused,))).startswith("vmtest verify ./-weird.o --kernel")
    of = kernel(status=Status.BOOT_FAILED, reason="no boot")
    assert told(line, of) == "vmtest verify --kernel 6.12 ./-weird.o"


def test_tests_of_all_that_is_one_complaint_are_told() -> None:
    tests = tuple(TestResult(f"t.py::test_{n}", "s", Outcome.PASSED) for n in "ab")
    of = kernel(
        status=Status.SPLAT,
        tests=tests,
        splats=("WARNING: CPU: 0 PID: 7 at f", "WARNING: CPU: 1 PID: 9 at f"),
        fingerprints=("WARNING f", "WARNING f"),
        splat_tests=("t.py::test_a", "t.py::test_b"),
    )
    assert told("run", of) == "vmtest run --kernel 6.12 --suite s -k 'test_a or test_b'"


def test_a_command_has_all_kernels_and_all_tests_of_its_cause() -> None:
    other = replace(FAILED, test="test_s.py::test_y")
    place: dict[str, Any] = {"file": "t.py", "line": 7}
    kernels = tuple(
        replace(kernel(tests=(replace(test, **place),)), kernel=name)
        for name, test in (("6.1", FAILED), ("6.12", other))
    )
    ran = replace(matrix("run", kernel()), kernels=kernels)
    (cause,) = causes(ran)
    words = "vmtest run --kernel 6.1 --kernel 6.12 --suite s -k 'test_x or test_y'"
    assert command_of(cause, ran) == words


def test_a_command_has_the_lost_tests_of_every_kernel_that_died_alike() -> None:
    kernels = tuple(
        KernelResult(
            name,
            Status.PANICKED,
            reason="it panicked",
            tests=(TestResult(f"t.py::test_{name}", "s", Outcome.LOST),),
        )
        for name in ("a", "b")
    )
    ran = replace(matrix("run", kernel()), kernels=kernels)
    (cause,) = causes(ran)
    assert command_of(cause, ran).endswith("--kernel a --kernel b --suite s -k 'test_a or test_b'")


def test_a_result_without_a_place_is_named_in_the_summary() -> None:
    point = TestResult("b", "t.sh", Outcome.FAILED, message="not ok")
    of = matrix("exec --copy t.sh --results tap -- ./t.sh", kernel(tests=(point,)))
    assert "  FAIL 6.12: b: not ok\n" in terminal.render(of)


def test_the_command_line_comes_back_from_a_file() -> None:
    of = matrix("run --config k.toml -- -v", kernel(tests=(FAILED,)))
    assert matrix_json.loads(matrix_json.dumps(of)).again == of.again != ()
